"""`pipeline chaos`: the whole product on simulated exchanges, harmed at random without a pause, and the proof that
every trade is stored once or stands in the ledger."""

import contextlib
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
import msgspec
import psycopg
from rich.console import Console

from pipeline import settings as settings_module
from pipeline.commands._chaos import plan as plans
from pipeline.commands._chaos.campaign import Campaign
from pipeline.commands._chaos.outcome import Outcome
from pipeline.commands._chaos.plan import SUPERVISORD, Ground, Planned
from pipeline.commands._chaos.proxy import Proxy
from pipeline.commands._chaos.scene import Line, Scene
from pipeline.commands._chaos.slowdisk import SlowDisk
from pipeline.commands._demo import instance, rows
from pipeline.commands._demo.instance import Folder, Offer
from pipeline.commands._demo.interruption import interruptible
from pipeline.commands._demo.performance import Performance, Terms
from pipeline.commands._demo.settling import NotSettled
from pipeline.commands._demo.venue import Venue, listed
from pipeline.commands._demo.view import View
from pipeline.commands._options import DURATION
from pipeline.errors import ServerAway, TapelineError
from pipeline.exchanges import EXCHANGES
from pipeline.settings import DiskSettings, SettingsFile
from pipeline.stanzas import socket_of
from pipeline.supervisor import Supervisor
from pipeline.timeframes import SECOND, TIMEFRAMES

if TYPE_CHECKING:
    from simulator.proof.ledger import Judged

TICK = 0.05
OVERTIME = 120.0
COMES_BACK = 240.0
"""Seconds in which everything must run and be subscribed once nothing harms it any more."""
DRAINS = 600.0
"""Seconds for each stage to work off what has piled up before it."""
REPAIRS = 120.0
"""Seconds without any progress of the repairs until they are given up."""
ANSWER = 1.0
NOTICED = SECOND
"""Ns after a cut from which on nobody reports the connection before as standing."""
WIDTH = 120
"""Columns of the tables in a file or a pipe."""
MAXMEMORY = 256 * 1024 * 1024
ROOM = 64 * 1024 * 1024
"""Bytes of Redis, and of what may wait on disk: little enough to be filled."""
RESTARTS = 100
"""Quick restarts in a row: with fewer the watchdog slows down, as it should, and there is less left to harm."""


@click.command()
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0.5), help="How long it is harmed.")
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
    minutes: float,
    seed: int,
    rate: float,
    symbols: int,
    exchanges: tuple[str, ...],
    every: float,
    script: Path | None,
    dry_run: bool,
    gaps_stay: bool,
    as_json: bool,
    keep: bool,
    given: Path | None,
) -> None:
    """Harm the whole product for minutes, wait until it has repaired itself, and compare it with what was printed.

      Processes are killed and stopped, Redis, Postgres and supervisord among them; connections are cut and stalled;
      Redis is filled from outside; the exchanges drop, double, reorder, garble and refuse. Then every trade, candle,
      gap and order book is compared with the truth. The last line of stdout is the result as JSON.

    Exit code 0: every trade is stored once and nothing is open; 1: a finding; 3: the product did not come back.
    Ctrl-C stops everything.

    \b
    Examples:
      pipeline chaos --minutes 10 --seed 7 --json
      pipeline chaos --minutes 1 --rate 200 --every 3s
      pipeline chaos --seed 7 --dry-run > plan.jsonl
      pipeline chaos --minutes 10 --seed 7 --plan plan.jsonl --keep
    """
    exchanges = tuple(dict.fromkeys(exchanges)) or tuple(EXCHANGES)
    made = max(0, symbols - min(len(listed(exchange, 0)) for exchange in exchanges))
    terms = Terms(exchanges, rate, made, seed)
    ground = _ground(terms)
    planned = plans.read(script) if script else plans.plan(minutes * 60, every, random.Random(seed), ground)
    plans.check(planned, ground)
    if dry_run:
        click.echo(plans.lines(planned), nl=False)
        return
    folder = instance.take_folder(settings_module.project_folder(), given, "chaos")
    try:
        outcome = _perform(folder, minutes * 60, terms, planned, gaps_stay=gaps_stay)
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


def _perform(folder: Folder, duration: float, terms: Terms, planned: list[Planned], *, gaps_stay: bool) -> Outcome:
    """From the market's opening to the verdict. When it returns or raises, nothing runs any more."""
    with interruptible(), contextlib.ExitStack() as stack:
        view = stack.enter_context(View(duration, "Tapeline chaos"))
        run = Run(folder, view, stack)
        plans.write(folder.path / "plan.jsonl", planned)
        view.say(f"{len(planned)} faults are planned: {folder.path / 'plan.jsonl'}")
        run.open(terms)
        run.start()
        run.harm(planned, duration, gaps_stay=gaps_stay)
        run.settle(gaps_stay=gaps_stay)
        return run.judge(terms.seed, gaps_stay=gaps_stay)


class Run(Performance):
    """One run, from its market to its outcome."""

    def open(self, terms: Terms) -> None:
        """Opens the exchanges, and puts proxies between them and the product."""
        self.lines: dict[str, Line] = {}
        self.not_back: str | None = None
        self.unsettled: list[str] = []
        self.disk = SlowDisk(self.folder.path / "slowdisk")
        if not self.disk.build(self.environ):
            self.view.say("no C compiler here, or not Linux: slow_sync is left out")
        self.environ |= self.disk.environment
        self.open_markets(terms, self._offer, _chaotic)

    def _offer(self, venue: Venue) -> Offer:
        line = Line(*(Proxy(urlsplit(url).port or 0).start() for url in (venue.ws_url, venue.rest_url)))
        for proxy in line.proxies:
            self.stack.callback(proxy.close)
        self.lines[venue.exchange] = line
        return Offer(venue.symbols, _via(line.ws, venue.ws_url), _via(line.rest, venue.rest_url))

    def harm(self, planned: list[Planned], duration: float, *, gaps_stay: bool) -> None:
        """The time of the run: faults begin and end, the view shows it."""
        venues = {venue.exchange: venue for venue in self.venues}
        # Short of patience: while supervisord is harmed, other faults must end in time.
        supervisor = Supervisor(socket_of(self.settings), ANSWER)
        scene = Scene(self.settings, supervisor, venues, self.lines, self.disk, gaps_stay=gaps_stay)
        self.campaign = Campaign(planned, scene, self.folder.path / "dealt.jsonl", self.view.say)
        self.scene = scene
        self.stack.callback(self.campaign.abandon)
        self.view.counts_down()
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < duration or (
            not self.campaign.done and elapsed < duration + OVERTIME
        ):
            self.campaign.turn(elapsed)
            if not self.campaign.blind:
                self.turn()
            time.sleep(TICK)
        self.campaign.drop_rest()
        self.campaign.finish()

    def settle(self, *, gaps_stay: bool) -> None:
        """Ends every fault and waits until all is stored and repaired, or remembers what did not come."""
        for venue in self.venues:
            venue.market.fault("clear")
            # What was refused or acknowledged in silence is asked for again with the next connection.
            venue.market.fault("disconnect")
            venue.market.pause()
        cut = time.time_ns()
        self.view.say("the faults are over and the markets pause; waiting until everything is stored and repaired")
        try:
            self.settling.everything_runs(self.supervisor, COMES_BACK)
            self.settling.everything_subscribed(self.supervisor, COMES_BACK, since=cut + NOTICED)
            # After this trade no hole in the numbers can hide at the end.
            self.print_one_of_each()
            self.settling.drained(DRAINS)
        except NotSettled as error:
            self._note(str(error))
            self.not_back = str(error)
            return
        try:
            self.settling.books_valid({venue.exchange: venue.listings for venue in self.venues})
            if not gaps_stay:
                self._repaired()
            self.settling.drained(DRAINS)
            self.settling.rebuilt(DRAINS)
        except NotSettled as error:
            self._note(str(error))
            self.unsettled.append(str(error))

    def _note(self, text: str) -> None:
        self.view.say(text)

    def _repaired(self) -> None:
        """Waits until no gap is open, as long as they become fewer or smaller. Raises NotSettled."""
        query = (
            "SELECT count(*), coalesce(sum((SELECT sum(upper(r) - lower(r)) FROM unnest(remaining) AS r)), 0)"
            " FROM trade_gaps WHERE state <> 'closed'"
        )
        best, since = (sys.maxsize, sys.maxsize), time.monotonic()

        def closed() -> bool:
            nonlocal best, since
            with self.scene.postgres() as connection:
                found = connection.execute(query).fetchone() or (0, 0)
            left = (int(str(found[1])), int(str(found[0])))
            if left < best:
                best, since = left, time.monotonic()
            if left[1] and time.monotonic() - since > REPAIRS:
                raise NotSettled(f"{left[1]} gaps are open with {left[0]} trades missing, and it goes no further")
            return not left[1]

        self.settling.until(closed, "every gap to be closed", 3_600.0)

    def judge(self, seed: int, *, gaps_stay: bool) -> Outcome:
        """Reads Postgres, compares, stops everything. Raises ServerAway when there is nothing to read."""
        self.view.say("comparing Postgres with what was printed")
        try:
            judged, books = self._judged(), self.book_faults()
        except (psycopg.Error, ServerAway) as error:
            raise ServerAway(f"{self.not_back or 'nothing can be compared'}; {error}") from error
        self.view.say("stopping everything")
        self.campaign.abandon()
        self.product.stop()
        return Outcome(
            judged=judged,
            books=books,
            dealt=self.campaign.dealt,
            dropped=self.campaign.dropped,
            seed=seed,
            not_back=self.not_back,
            unsettled=self.unsettled,
            gaps_stay=gaps_stay,
        )

    def _judged(self) -> "list[Judged]":
        from simulator.proof.candles import Terms as ProofTerms
        from simulator.proof.ledger import judge
        from simulator.truth import read_truth

        last: dict[tuple[str, str], int] = {}
        for venue in self.venues:
            last |= {(venue.exchange, fill.instrument): fill.time for fill in read_truth(venue.truth)}
        judged: list[Judged] = []
        for venue in self.venues:
            for evidence, gaps in rows.one_by_one(self.settings, venue.exchange, venue.truth, venue.listings):
                terms = ProofTerms(
                    timeframes=TIMEFRAMES,
                    quiet_from=self.settings.file.collection_settings.quiet_from,
                    horizon=min(last.values()),
                    # Windows go on being closed while we read.
                    read=time.time_ns(),
                )
                judged.append(judge(evidence, gaps, terms))
        return judged


def _via(proxy: Proxy, url: str) -> str:
    """The same address behind the proxy."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.hostname}:{proxy.port}").geturl()


def _chaotic(file: SettingsFile) -> SettingsFile:
    """Room that can be filled in a short time, and quick restarts without end."""
    return msgspec.structs.replace(
        file,
        redis=msgspec.structs.replace(file.redis, maxmemory=MAXMEMORY),
        disk=DiskSettings(spool_bytes=ROOM, spill_bytes=ROOM),
        collection_settings=msgspec.structs.replace(file.collection_settings, max_restart_attempts=RESTARTS),
    )


def _print(outcome: Outcome, as_json: bool) -> None:
    """The tables, what is wrong, and the line of JSON last."""
    console = Console(stderr=as_json, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(outcome.table())
    console.print(outcome.faults_table())
    for text in outcome.findings():
        console.print(text, markup=False, highlight=False)
    click.echo(outcome.json)
