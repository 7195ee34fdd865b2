"""Fetches the trades that normalize wants of an exchange, page by page within its allowances; tells the end of each.

At most `LANES` pages are on their way at a time, one of each want. Whenever the allowance has a place, the turn goes
alternately to the want whose trades the exchange forgets first (the oldest, where it forgets none) and to the one with
the fewest numbers left: what is urgent has half of all pages, what is small never waits for what is huge. Never judges
a page.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from ingest.archive import Day
from ingest.budget import Backoff
from ingest.bulk import Bulk
from ingest.clock import HostClock
from ingest.context import Context
from ingest.cutting import Piece
from ingest.declined import Declined
from ingest.events import until, within
from ingest.feed import Feed, Request
from ingest.outlook import Outlook
from ingest.repair import Repair
from ingest.rest import Answer, Rest
from ingest.timing import Timing
from pipeline.errors import ExchangeError
from pipeline.frames import Frame, RequestData
from pipeline.settings import RepairSettings
from pipeline.timeframes import DAY, SECOND
from pipeline.wants import Want

LANES = 4
SHARE = 0.6
"""Of an allowance that snapshots, lists or the clock draw on too: those always come through."""
NEWEST_SHARE = 0.3
"""Of any allowance, for the newest trades of instruments that are silent: after a cut all of them are asked for."""
DOUBT = 4 * DAY
"""How much longer than it surely remembers the exchange may remember: three months are 89 to 92 days."""
BUSY = SECOND // 50
"""How often is looked whether a page that was on its way is here."""
LOOK = SECOND
"""How often what waits for room looks again, and what is late is looked for."""

log = logging.getLogger(__name__)


class Repairs:
    """What `settings` exclude is refused for now: it stays an open gap."""

    def __init__(
        self,
        rest: Rest,
        feed: Feed,
        clock: HostClock,
        timing: Timing,
        settings: RepairSettings,
        random: Callable[[], float],
        bulk: Bulk | None = None,
    ) -> None:
        self._rest = rest
        self._bulk = bulk
        self._feed = feed
        self._clock = clock
        self._timing = timing
        self._settings = settings
        self._random = random
        self._repairs: dict[str, Repair] = {}
        self._outlook = Outlook()
        self._allowances: set[str] = set()
        self._live = {feed.time().allowance, feed.snapshot("").allowance}
        self._small = False
        self._looked = 0
        self._stirred = asyncio.Event()
        self._wished = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(LANES):
                group.create_task(self._lane())
            if self._bulk is not None:
                group.create_task(self._files(self._bulk))

    def take(self, context: Context, wanted: Mapping[str, Want]) -> None:
        """All trades that are wanted now of the partition of `context`. What shrank under the same number goes on; a
        page on its way is written all the same."""
        for key, repair in list(self._repairs.items()):
            if repair.context is context and key not in wanted:
                del self._repairs[key]
        for key, want in wanted.items():
            before = self._repairs.get(key)
            if before is None or before.want.number != want.number:
                # What was said is not said again.
                self._begin(context, key, want, late=before is not None and before.late)
        self._look(self._clock.monotonic())
        self._stirred.set()
        self._wished.set()

    def rows(self, context: Context) -> dict[str, dict[str, Any]]:
        """What `pipeline status` is told of a partition: key to number, state, reason and how far it has come."""
        now = self._clock.monotonic()
        left = self._seconds(now)
        return {
            key: repair.row(now, left.get(key)) for key, repair in self._repairs.items() if repair.context is context
        }

    def _begin(self, context: Context, key: str, want: Want, late: bool) -> None:
        if want.first is None or (want.last is not None and want.first > want.last):
            context.report(f"{key}: a want of trades that names none")
            return
        horizon = self._feed.horizon
        deadline = None if horizon is None or want.from_time is None else want.from_time + horizon
        now = self._clock.now()
        backoff = Backoff(self._timing.rest_retry, self._timing.most_delay, self._random)
        repair = Repair(key, want, context, self._feed.history(want, now), deadline, backoff)
        repair.late = late
        self._repairs[key] = repair
        age = 0 if want.to_time is None else now - want.to_time
        days = self._settings.days
        if horizon is not None and age > horizon + DOUBT:
            self._refuse(repair, f"older than the {horizon // DAY} days that {self._feed.name} keeps", permanent=True)
        elif not self._settings.enabled:
            self._refuse(repair, "repair is off")
        elif days is not None and age > days * DAY:
            self._refuse(repair, f"older than the {days} days of repair.days")

    async def _lane(self) -> None:
        while True:
            repair = await self._next()
            repair.busy = True
            try:
                await self._page(repair)
            finally:
                repair.busy = False
                self._stirred.set()

    async def _next(self) -> Repair:
        """The one whose turn it is; waits for one."""
        while True:
            now = self._clock.monotonic()
            if now - self._looked >= LOOK:
                self._look(now)
            places: dict[tuple[str, int, float], int] = {}
            waits = {each: self._wait(each, places, now) for each in self._open() if each.idle}
            if ready := [each for each, wait in waits.items() if wait <= 0]:
                self._small = not self._small
                return min(ready, key=lambda each: (each.newest, each.left if self._small else 0, each.urgency))
            self._stirred.clear()
            await within(min(waits.values(), default=LOOK), self._stirred)

    def _wait(self, repair: Repair, places: dict[tuple[str, int, float], int], now: int) -> int:
        """How long (ns) its next page has to wait, at least; places are looked up once for all of a kind. The turn is
        decided when there is a place, not before: else whoever came first would have it."""
        if repair.due > now:
            return min(repair.due - now, LOOK)
        if not repair.context.room():
            return LOOK
        assert repair.history is not None
        if (request := repair.history.next()) is None:
            return 0
        share = self._share(repair, request)
        kind = request.allowance, request.weight, share
        if kind not in places:
            budget = self._rest.budgets[request.allowance]
            # Where the exchange wants nothing for long, asking ends at once, and that is told.
            long = budget.held - now > self._timing.rest_patience
            places[kind] = 0 if long else budget.next(now, request.weight, share) - now
        return min(places[kind], LOOK)

    async def _page(self, repair: Repair) -> None:
        """Asks for the next page once; whatever comes of it, the next time goes on from there."""
        assert repair.history is not None
        request = repair.history.next()
        if request is None:
            self._end(repair)
            return
        self._allowances.add(request.allowance)
        share = self._share(repair, request)
        try:
            answer = await self._rest.get(request, tries=1, share=share, sending=lambda: self._asked(repair))
            self._write(repair, answer)
        except ExchangeError as error:
            self._bear(repair, request, error)

    async def _files(self, bulk: Bulk) -> None:
        """Beside the pages of all others, one daily file after the other where that is cheaper."""
        while True:
            chosen = bulk.choose((each for each in self._open() if not each.newest), self._allowed())
            if chosen is None:
                self._wished.clear()
                await within(LOOK, self._wished)
            else:
                await self._file(bulk, *chosen)

    async def _file(self, bulk: Bulk, repair: Repair, day: Day) -> None:
        """Pages go on until the file is there, and after it with what it lacks."""
        try:
            async with aclosing(bulk.pieces(repair, day)) as pieces:
                async for piece in pieces:
                    repair.filed = True
                    await until(lambda: not repair.busy, BUSY)
                    if repair.history is None or self._repairs.get(repair.key) is not repair:
                        return
                    self._put(repair, piece, bulk.root, bulk.url(repair, day))
        except ExchangeError as error:
            repair.reason = f"by pages: {error}"
            log.info("%s: %s", repair.key, error)
        finally:
            repair.filed = False
            self._stirred.set()

    def _put(self, repair: Repair, piece: Piece, root: str, url: str) -> None:
        """A piece of a daily file is as good as a page."""
        assert repair.history is not None
        self._asked(repair)
        repair.context.sink(Frame(self._clock.now(), root, "in", "rest", piece.text, url, repair.key))
        for first, last in piece.ranges:
            repair.history.cover(first, last)
        now = self._clock.monotonic()
        self._outlook.add(repair.progressed(now), now)
        if repair.history.next() is None:
            self._end(repair)

    def _write(self, repair: Repair, answer: Answer) -> None:
        """Raises ExchangeError for what is no page. A page without a number wanted is not written: that the pages
        span what they lack is told at the end."""
        assert repair.history is not None
        assert repair.want.first is not None
        page = repair.history.take(answer.body)
        if page.reaches(repair.want.first, math.inf if repair.want.last is None else repair.want.last):
            now = self._clock.now()
            repair.context.sink(Frame(now, self._rest.url, "in", "rest", answer.body, answer.url, repair.key))
        behind, now = repair.history.behind, self._clock.monotonic()
        repair.due = now + (self._timing.rest_lag << (behind - 1) if behind else 0)
        self._outlook.add(repair.progressed(now), now)
        if repair.history.next() is None:
            self._end(repair)

    def _bear(self, repair: Repair, request: Request, error: ExchangeError) -> None:
        """The same page is asked for again once the exchange lets us, unless it said no, or gave none for long."""
        now = self._clock.monotonic()
        since, delay = repair.troubled(str(error), now)
        if isinstance(error, Declined) and error.unknown:
            # What is given up for it is given up for good: it must be more than a moment's confusion.
            since = repair.unknown = repair.unknown or now
            if now >= since + self._timing.repair_patience:
                self._refuse(repair, str(error), permanent=True)
                return
        else:
            repair.unknown = None
        if isinstance(error, Declined) and error.permanent and not error.unknown:
            self._refuse(repair, str(error))
            return
        until = since + self._timing.repair_patience
        if now >= until:
            self._refuse(repair, str(error))
        else:
            held = self._rest.budgets[request.allowance].held
            repair.due = min(max(now + max(delay, self._timing.rest_lag), held), until)

    def _end(self, repair: Repair) -> None:
        assert repair.history is not None
        spans = repair.history.spans
        if spans is None:
            self._refuse(repair, f"{self._feed.name} lists nothing yet that reaches them")
        else:
            repair.ended("answered")
            self._tell(repair, RequestData(repair.key, repair.want.number, "answered", first=spans[0], last=spans[1]))

    def _refuse(self, repair: Repair, reason: str, permanent: bool = False) -> None:
        repair.ended("refused", reason)
        self._tell(repair, RequestData(repair.key, repair.want.number, "refused", reason, permanent))

    def _asked(self, repair: Repair) -> None:
        if repair.state == "queued":
            repair.state = "asked"
            self._tell(repair, RequestData(repair.key, repair.want.number, "asked"))

    def _tell(self, repair: Repair, data: RequestData) -> None:
        """Nothing of what is not wanted any more, or under another number."""
        if self._repairs.get(repair.key) is repair:
            text = msgspec.json.encode(data).decode()
            repair.context.sink(Frame(self._clock.now(), self._rest.url, "in", "request", text))

    def _look(self, now: int) -> None:
        """Says at once what cannot be fetched before the exchange forgets it."""
        self._looked = now
        host = self._clock.now()
        for key, seconds in self._seconds(now).items():
            repair = self._repairs[key]
            late = repair.deadline is not None and host + seconds * SECOND > repair.deadline
            if late and not repair.late:
                text = f"{key}: {self._feed.name} forgets them before all {repair.left} can be fetched"
                repair.context.report(text)
            repair.late = late

    def _open(self) -> Iterator[Repair]:
        return (repair for repair in self._repairs.values() if repair.history is not None)

    def _share(self, repair: Repair, request: Request) -> float:
        if repair.newest:
            return NEWEST_SHARE
        return SHARE if request.allowance in self._live else 1.0

    def _seconds(self, now: int) -> dict[str, float]:
        """Until each is done."""
        held = max((self._rest.budgets[name].held for name in self._allowances), default=0)
        return self._outlook.seconds(self._open(), self._allowed(), held, now)

    def _allowed(self) -> float:
        """Numbers a second by pages, at best."""
        rate = self._feed.fetches
        shared = not self._live.isdisjoint(self._allowances)
        return rate.count * SECOND / rate.period * (SHARE if shared else 1.0)
