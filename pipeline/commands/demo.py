"""`pipeline demo`: a simulated market, the whole pipeline, harm done to it, and the proof that nothing was lost."""

import contextlib
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.commands._demo import instance, rows
from pipeline.commands._demo.blows import ROUND, Blows, known, plan, rounds
from pipeline.commands._demo.instance import Folder
from pipeline.commands._demo.interruption import interruptible
from pipeline.commands._demo.performance import Performance, Terms
from pipeline.commands._demo.settling import NotSettled
from pipeline.commands._demo.story import Story
from pipeline.commands._demo.view import View
from pipeline.commands._options import DURATION
from pipeline.errors import ServerAway, TapelineError
from pipeline.exchanges import EXCHANGES
from pipeline.reports import read_all
from pipeline.timeframes import TIMEFRAMES

if TYPE_CHECKING:
    from simulator.proof.evidence import Evidence
    from simulator.proof.verdict import Verdict

SHORTEST = 20.0
TICK = 0.1
OVERTIME = 60.0
FAULTS_SHOWN = 20


@click.command()
@click.option("--for", "duration", type=DURATION, default="60s", show_default=True, help="How long the market runs.")
@click.option("--json", "as_json", is_flag=True, help="Nothing but the line of JSON on stdout.")
@click.option(
    "--exchange", "exchanges", multiple=True, type=click.Choice(sorted(EXCHANGES)), help="Default: every one."
)
@click.option(
    "--rate", default=100.0, show_default=True, type=click.FloatRange(1, 20_000), help="Fills a second in all."
)
@click.option("--symbols", default=0, type=click.IntRange(0, 500), help="Made pairs to add to the named ones.")
@click.option("--seed", default=1, show_default=True, help="The same seed prints the same market.")
@click.option("--blows", help="What to do to it, in turn: cut and names of processes. Default: one of each.")
@click.option("--keep", is_flag=True, help="Leave data, logs and the truth log where they are.")
@click.option(
    "--folder",
    "given",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo lives. Default: var/demo of the project folder.",
)
def demo(
    duration: float,
    as_json: bool,
    exchanges: tuple[str, ...],
    rate: float,
    symbols: int,
    seed: int,
    blows: str | None,
    keep: bool,
    given: Path | None,
) -> None:
    """Run the whole pipeline on simulated exchanges, harm it, and prove that nothing was lost.

      Connections are cut and processes killed while you watch. In the end every trade and every candle in Postgres is
      compared with what the exchanges printed, and every order book with theirs, level by level; the last line of
      stdout is the result as JSON. Exit code 0: nothing lost, doubled or wrong. Ctrl-C stops everything.

      \b
      Examples:
        pipeline demo
        pipeline demo --for 10m --rate 500 --symbols 50
        pipeline demo --for 60s --json | jq .lost
        pipeline demo --exchange binance
    pipeline demo --for 90s --blows redis,redis,postgres,supervisord,ingest-okx
    """
    if duration < SHORTEST:
        raise click.UsageError(f"--for must be at least {SHORTEST:g}s: so long take the kills and the recoveries")
    exchanges = tuple(dict.fromkeys(exchanges)) or tuple(EXCHANGES)
    turns = _turns(blows, exchanges)
    folder = instance.take_folder(settings_module.project_folder(), given)
    try:
        show, verdict = _perform(folder, duration, Terms(exchanges, rate, symbols, seed), turns)
    except KeyboardInterrupt:
        if not keep:
            instance.clear(folder)
        raise
    except TapelineError:
        click.echo(f"data and logs are in {folder.path}", err=True)
        raise
    _print(verdict, show, as_json)
    if keep or not verdict.good:
        click.echo(f"data, logs and truth log are in {folder.path}", err=True)
    else:
        instance.clear(folder)
    sys.exit(0 if verdict.good else 1)


class Turns(NamedTuple):
    """The blows in their order, and how many of them fall in any case."""

    names: tuple[str, ...]
    least: int


def _turns(blows: str | None, exchanges: tuple[str, ...]) -> Turns:
    """The blows asked for. Refuses what cannot be dealt."""
    if not blows:
        return Turns(rounds(exchanges), ROUND)
    names, dealt = tuple(blows.split(",")), known(exchanges)
    for name in names:
        if name not in dealt:
            raise click.BadParameter(f"{name!r} is none of {', '.join(dealt)}", param_hint="--blows")
    return Turns(names, len(names))


def _perform(folder: Folder, duration: float, terms: Terms, turns: Turns) -> "tuple[Show, Verdict]":
    """From the market's opening to the verdict. When it returns or raises, nothing runs any more."""
    with interruptible(), contextlib.ExitStack() as stack:
        show = Show(folder, stack.enter_context(View(duration)), duration, stack)
        show.open_markets(terms)
        show.start()
        show.run(random.Random(terms.seed), turns)
        show.settle()
        return show, show.judge()


class Show(Performance):
    """One demo from its market to its verdict."""

    def __init__(self, folder: Folder, view: View, duration: float, stack: contextlib.ExitStack) -> None:
        from simulator.proof.verdict import Latency

        super().__init__(folder, view, stack)
        self._duration = duration
        self.latency = Latency()
        self.unsettled: str | None = None
        self._story: Story | None = None

    def run(self, rng: random.Random, turns: Turns) -> None:
        """The time of the demo: blows fall, the view shows it."""
        planned = plan(self._duration, rng, turns.names, turns.least)
        markets = [venue.market for venue in self.venues]
        self.blows = Blows(planned, markets, self.supervisor, self.settings, self.view.say)
        self._story = Story(self.settings, self.view.say)
        self.view.counts_down()
        begun = time.monotonic()
        # On a slow machine the last blows fall late, and recovery takes its time.
        while (elapsed := time.monotonic() - begun) < self._duration or (
            not self.blows.done and elapsed < self._duration + OVERTIME
        ):
            # While supervisord is being killed and started, the next blow waits.
            with contextlib.suppress(ServerAway):
                self.blows.turn(elapsed)
            self.turn()
            time.sleep(TICK)

    def settle(self) -> None:
        """Brings everything to rest, or remembers what did not come."""
        try:
            self.rest()
            self.settling.repaired()
        except NotSettled as error:
            self.unsettled = str(error)
            self.view.say(self.unsettled)
        self._gather_latency()

    def judge(self) -> "Verdict":
        """Reads Postgres, stops everything, compares."""
        from simulator.proof.candles import Terms as ProofTerms
        from simulator.proof.verdict import verdict

        stored, read_at = rows.read(self.settings), time.time_ns()
        books = self.book_faults()
        self.view.say("stopping everything")
        self.product.stop()
        found: list[Evidence] = []
        for venue in self.venues:
            venue.stop()
            found += rows.evidence(stored, venue.exchange, venue.truth, venue.listings)
        self.view.say("comparing Postgres with what was printed")
        last = [one.printed[-1].time for one in found if one.printed]
        terms = ProofTerms(
            timeframes=TIMEFRAMES,
            quiet_from=self.settings.file.collection_settings.quiet_from,
            horizon=min(last),
            read=read_at,
        )
        return verdict(found, terms, books)

    def turn(self) -> None:
        """Also asks how long frames take to become rows, and what becomes of gaps."""
        self._gather_latency()
        if self._story is not None:
            self._story.turn()
        super().turn()

    def _gather_latency(self) -> None:
        report = read_all(self.settings.heartbeat_dir).get("store-0")
        if report is not None:
            self.latency.add(report.started, report.details.get("latency_buckets") or ())


def _print(verdict: "Verdict", show: Show, as_json: bool) -> None:
    """The table, what is wrong, and the line of JSON last."""
    console = Console(stderr=as_json, soft_wrap=True, emoji=False)
    console.print(_table(verdict))
    for text in _findings(verdict, show):
        console.print(text, markup=False, highlight=False)
    click.echo(verdict.json(kills=show.blows.kills, disconnects=show.blows.cuts, latency=show.latency))


def _table(verdict: "Verdict") -> Table:
    table = Table(title="Postgres against the truth log (fills)", title_justify="left", box=None, padding=(0, 1, 0, 0))
    names = ("instrument", "before", "printed", "stored", "missed", "lost", "doubled", "candles", "wrong")
    for name in names:
        table.add_column(name, justify="left" if name == "instrument" else "right", no_wrap=True)
    total = [0] * (len(names) - 1)
    for line in verdict.lines:
        one = line.account
        counts = [
            *(len(one.before), one.printed, line.stored, len(one.missed), len(one.lost)),
            *(sum(row.fills for row in one.surplus), line.candles_checked, len(line.faults)),
        ]
        total = [sum(pair) for pair in zip(total, counts, strict=True)]
        table.add_row(line.instrument, *map(str, counts))
    table.add_row("all", *map(str, total))
    table.caption = (
        "before: printed before collection began. missed: printed while no connection was\n"
        "up, and not fetched again; known by number, and their candles are marked partial."
    )
    table.caption_justify = "left"
    return table


def _findings(verdict: "Verdict", show: Show) -> Iterator[str]:
    """The first things that are wrong, one a line."""
    if show.unsettled:
        yield f"not settled: {show.unsettled}"
    found: list[str] = []
    for line in verdict.lines:
        found += [f"{line.instrument}: fill {fill.id} of {fill.time} is lost" for fill in line.account.lost]
        found += [f"{line.instrument}: row {row.id} of {row.time} is surplus" for row in line.account.surplus]
        found += [f"{line.instrument} {fault.timeframe} {fault.open_time}: {fault.reason}" for fault in line.faults]
    found += [f"{fault.instrument}: {fault.reason}" for fault in verdict.books if fault is not None]
    yield from found[:FAULTS_SHOWN]
    if len(found) > FAULTS_SHOWN:
        yield f"… and {len(found) - FAULTS_SHOWN} more"
