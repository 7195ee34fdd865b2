"""`pipeline chaos`: the whole product on simulated exchanges, harmed at random without a pause, and the proof that
every trade is stored once or stands in the ledger."""

import contextlib
import random
import sys
from pathlib import Path

import click
from rich.console import Console

from pipeline import settings as settings_module
from pipeline.commands._chaos import plan as plans
from pipeline.commands._chaos.outages import MINUTES, outages
from pipeline.commands._chaos.outcome import Outcome
from pipeline.commands._chaos.plan import SUPERVISORD, Ground, Planned
from pipeline.commands._chaos.run import Run
from pipeline.commands._demo import instance
from pipeline.commands._demo.instance import Folder
from pipeline.commands._demo.interruption import interruptible
from pipeline.commands._demo.performance import Terms
from pipeline.commands._demo.venue import listed
from pipeline.commands._demo.view import View
from pipeline.commands._options import DURATION
from pipeline.errors import TapelineError
from pipeline.exchanges import EXCHANGES

USUAL = 10.0
"""Minutes."""
WIDTH = 120
"""Columns of the tables in a file or a pipe."""


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(0.5),
    show_default="10, of --outages 15",
    help="How long it is harmed.",
)
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same plan and the same market.")
@click.option(
    "--rate", default=1_000.0, show_default=True, type=click.FloatRange(1, 20_000), help="Fills a second in all."
)
@click.option(
    "--symbols",
    default=20,
    show_default=True,
    type=click.IntRange(1, 500),
    help="Instruments of each exchange, at least.",
)
@click.option(
    "--exchange", "exchanges", multiple=True, type=click.Choice(sorted(EXCHANGES)), help="Default: every one."
)
@click.option("--every", type=DURATION, default="4.5s", show_default=True, help="Time between two faults.")
@click.option(
    "--plan",
    "script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Deal what this file says (see --dry-run), not what the seed draws.",
)
@click.option(
    "--outages",
    "by_outages",
    is_flag=True,
    help="Nothing but servers away for minutes: of 15, Redis 2, Postgres 10, Redis 2 more in the midst of them.",
)
@click.option("--tamper", is_flag=True, help="In the end spoil a trade and a candle by hand: an audit must name both.")
@click.option("--dry-run", is_flag=True, help="Only print the plan, one fault a line, for --plan.")
@click.option("--gaps-stay", is_flag=True, help="Do not wait for repairs: open gaps are no finding.")
@click.option("--json", "as_json", is_flag=True, help="Nothing but the line of JSON on stdout.")
@click.option("--keep", is_flag=True, help="Leave data, logs, plan and truth logs where they are.")
@click.option(
    "--folder",
    "given",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it all lives. Default: var/chaos of the project folder.",
)
def chaos(
    minutes: float | None,
    seed: int,
    rate: float,
    symbols: int,
    exchanges: tuple[str, ...],
    every: float,
    script: Path | None,
    by_outages: bool,
    tamper: bool,
    dry_run: bool,
    gaps_stay: bool,
    as_json: bool,
    keep: bool,
    given: Path | None,
) -> None:
    """Harm the whole product for minutes, wait until it has repaired itself, and compare it with what was printed.

    Processes are killed and stopped, Redis, Postgres and supervisord among them; connections are cut and stalled;
    Redis is filled from outside; the exchanges drop, double, reorder, garble and refuse. Then every trade, candle,
    gap and order book is compared with the truth, and `pipeline audit` is run. The last line of stdout is the result
    as JSON.

    Exit code 0: every trade is stored once and nothing is open; 1: a finding; 3: the product did not come back.
    Ctrl-C stops everything.

    \b
    Examples:
      pipeline chaos --minutes 10 --seed 7 --json
      pipeline chaos --minutes 1 --rate 200 --every 3s
      pipeline chaos --seed 7 --dry-run > plan.jsonl
      pipeline chaos --minutes 10 --seed 7 --plan plan.jsonl --keep
      pipeline chaos --outages --json
    """
    if script and by_outages:
        raise click.UsageError("--plan and --outages contradict each other")
    if tamper and gaps_stay:
        raise click.UsageError("--tamper needs an audit, and with --gaps-stay there is none")
    minutes = minutes or (MINUTES if by_outages else USUAL)
    exchanges = tuple(dict.fromkeys(exchanges)) or tuple(EXCHANGES)
    made = max(0, symbols - min(len(listed(exchange, 0)) for exchange in exchanges))
    terms = Terms(exchanges, rate, made, seed)
    ground = _ground(terms)
    if by_outages:
        planned = outages(minutes)
    else:
        planned = plans.read(script) if script else plans.plan(minutes * 60, every, random.Random(seed), ground)
    plans.check(planned, ground)
    if dry_run:
        click.echo(plans.lines(planned), nl=False)
        return
    folder = instance.take_folder(settings_module.project_folder(), given, "chaos")
    try:
        outcome = _perform(folder, minutes * 60, terms, planned, gaps_stay=gaps_stay, roomy=by_outages, tamper=tamper)
    except KeyboardInterrupt:
        if not keep:
            instance.clear(folder)
        raise
    except TapelineError:
        click.echo(f"data, logs and plan are in {folder.path}", err=True)
        raise
    _print(outcome, as_json)
    if keep or outcome.exit_code:
        click.echo(f"data, logs, plan and truth logs are in {folder.path}", err=True)
    else:
        instance.clear(folder)
    sys.exit(outcome.exit_code)


def _ground(terms: Terms) -> Ground:
    """What there will be, before anything of it is started."""
    instruments = {
        exchange: sorted(found, key=lambda name: (-found[name].weight, name))
        for exchange in terms.exchanges
        if (found := listed(exchange, terms.symbols))
    }
    stages = [f"{stage}-{exchange}" for stage in ("normalize", "ingest") for exchange in terms.exchanges]
    return Ground(instruments, ("redis", "postgres", "store-0", "aggregate-0", *stages, "watchdog", SUPERVISORD))


def _perform(
    folder: Folder,
    duration: float,
    terms: Terms,
    planned: list[Planned],
    *,
    gaps_stay: bool,
    roomy: bool,
    tamper: bool,
) -> Outcome:
    """From the market's opening to the verdict. When it returns or raises, nothing runs any more."""
    with interruptible(), contextlib.ExitStack() as stack:
        view = stack.enter_context(View(duration, "Tapeline chaos"))
        run = Run(folder, view, stack)
        plans.write(folder.path / "plan.jsonl", planned)
        view.say(f"{len(planned)} faults are planned: {folder.path / 'plan.jsonl'}")
        run.open(terms, roomy=roomy)
        run.start()
        run.watch()
        run.harm(planned, duration, gaps_stay=gaps_stay)
        run.settle(gaps_stay=gaps_stay)
        return run.judge(terms.seed, gaps_stay=gaps_stay, tamper=tamper)


def _print(outcome: Outcome, as_json: bool) -> None:
    """The tables, what is wrong, and the line of JSON last."""
    console = Console(stderr=as_json, soft_wrap=True, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(outcome.table())
    console.print(outcome.faults_table())
    console.print(outcome.resources.table())
    console.print(outcome.resources.streams_table())
    for text in outcome.findings():
        console.print(text, markup=False, highlight=False)
    click.echo(outcome.json)
