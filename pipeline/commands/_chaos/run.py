"""One run of `pipeline chaos`: the markets open, the product starts, is harmed, comes to rest and is judged."""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
import psycopg

from pipeline.commands._chaos import auditing
from pipeline.commands._chaos.auditing import Audit, Audited
from pipeline.commands._chaos.campaign import Campaign
from pipeline.commands._chaos.outcome import FORGETS, Outcome
from pipeline.commands._chaos.plan import Planned
from pipeline.commands._chaos.proxy import Proxy
from pipeline.commands._chaos.sampling import Sampler
from pipeline.commands._chaos.scene import Line, Scene
from pipeline.commands._chaos.slowdisk import SlowDisk
from pipeline.commands._chaos.tampering import spoil
from pipeline.commands._demo import rows
from pipeline.commands._demo.instance import Offer
from pipeline.commands._demo.performance import Performance, Terms
from pipeline.commands._demo.settling import NotSettled
from pipeline.commands._demo.venue import Venue
from pipeline.errors import ServerAway
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
MAXMEMORY = 256 * 1024 * 1024
ROOM = 64 * 1024 * 1024
"""Bytes of Redis, and of what may wait on disk: little enough to be filled."""
EARLIER = timedelta(hours=1)
"""Before the run, from when on an audit looks: exchanges replay what they printed before it."""
RESTARTS = 100
"""Quick restarts in a row: with fewer the watchdog slows down, as it should, and there is less left to harm."""


class Run(Performance):
    """One run, from its market to its outcome."""

    def open(self, terms: Terms, *, roomy: bool) -> None:
        """Opens the exchanges, and puts proxies between them and the product. `roomy`: Redis and the
        disk have as much room as by default."""
        self.audited: Audited | None = None
        self.unseen: Sequence[str] | None = None
        self.opened = datetime.now(UTC)
        self.lines: dict[str, Line] = {}
        self.not_back: str | None = None
        self.unsettled: list[str] = []
        self.disk = SlowDisk(self.folder.path / "slowdisk")
        if not self.disk.build(self.environ):
            self.view.say("no C compiler here, or not Linux: slow_sync is left out")
        self.environ |= self.disk.environment
        self.open_markets(terms, self._offer, _roomy if roomy else _chaotic)

    def _offer(self, venue: Venue) -> Offer:
        line = Line(*(Proxy(urlsplit(url).port or 0).start() for url in (venue.ws_url, venue.rest_url)))
        for proxy in line.proxies:
            self.stack.callback(proxy.close)
        self.lines[venue.exchange] = line
        return Offer(venue.symbols, _via(line.ws, venue.ws_url), _via(line.rest, venue.rest_url))

    def watch(self) -> None:
        """From now on what every process takes is sampled."""
        supervisor = Supervisor(socket_of(self.settings), ANSWER)
        self.sampler = Sampler(self.settings, supervisor, self.folder.path / "resources.jsonl")
        self.stack.callback(self.sampler.stop)
        self.sampler.start()

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
        self.sampler.trading = True
        # A server that is away on purpose is no reason to give up.
        latest = max([duration, *(one.at + one.seconds for one in planned)]) + OVERTIME
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < duration or (not self.campaign.done and elapsed < latest):
            self.campaign.turn(elapsed)
            if not self.campaign.blind:
                self.turn()
            time.sleep(TICK)
        self.campaign.drop_rest()
        self.campaign.finish()
        self.sampler.trading = False

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

    def judge(self, seed: int, *, gaps_stay: bool, tamper: bool) -> Outcome:
        """Reads Postgres, compares, audits, stops everything. Raises ServerAway when there is nothing to read."""
        self.view.say("comparing Postgres with what was printed")
        try:
            judged, books = self._judged(), self.book_faults()
        except (psycopg.Error, ServerAway) as error:
            raise ServerAway(f"{self.not_back or 'nothing can be compared'}; {error}") from error
        if not self.not_back and not gaps_stay:
            self._audit(tamper=tamper)
        self.sampler.stop()
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
            audited=self.audited,
            unseen=self.unseen,
            resources=self.sampler.resources,
        )

    def _audit(self, *, tamper: bool) -> None:
        """As a user would, on what the run left; then, if it shall be, once more on what was spoilt by hand."""
        options = ("--accept-unrecoverable",) if FORGETS in self.campaign.dealt else ()
        audit = Audit(self.folder.settings, self.opened - EARLIER, self.environ, self.turn)
        self.view.say("pipeline audit")
        self.audited = audit.run(auditing.ITSELF, *options)
        self.view.say(f"pipeline audit: exit code {self.audited.code} after {self.audited.seconds:.0f} s")
        if not tamper:
            return
        spoilt = spoil(self.settings)
        self.view.say(spoilt.told)
        audited = audit.run(auditing.SPOILT, *options)
        self.unseen = list(audited.names(spoilt))
        self.view.say(f"pipeline audit: exit code {audited.code} after {audited.seconds:.0f} s")
        for line in audited.text.strip().splitlines():
            self.view.say(f"  {line}")

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


def _roomy(file: SettingsFile) -> SettingsFile:
    """Redis and the disk as by default; quick restarts without end."""
    collection = msgspec.structs.replace(file.collection_settings, max_restart_attempts=RESTARTS)
    return msgspec.structs.replace(file, collection_settings=collection)


def _chaotic(file: SettingsFile) -> SettingsFile:
    """As `_roomy`, with no more room than can be filled in a short time."""
    return msgspec.structs.replace(
        _roomy(file),
        redis=msgspec.structs.replace(file.redis, maxmemory=MAXMEMORY),
        disk=DiskSettings(spool_bytes=ROOM, spill_bytes=ROOM),
    )
