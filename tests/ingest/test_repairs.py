"""Trades fetched again, on every exchange: one suite against the simulator over real sockets, with what goes wrong."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
import pytest

from ingest.clock import HostClock
from ingest.context import Context
from ingest.feed import Feed, Rate
from ingest.repairs import LANES, SHARE, Repairs
from ingest.requests import SNAPSHOT_SHARE
from ingest.rest import Rest
from ingest.timing import MILLISECOND, Timing
from pipeline.exchanges import EXCHANGES
from pipeline.frames import Frame, RequestData, SubscriptionData
from pipeline.settings import RepairSettings
from pipeline.timeframes import DAY, HOUR, MINUTE, SECOND
from pipeline.wants import Want, trades_key
from simulator.dialect import Response
from simulator.faults import Fault
from simulator.server import Simulator, serve
from tests.ingest.conftest import QUICK, MuteServer, eventually
from tests.ingest.test_feeds import feed_of

TIMING = msgspec.structs.replace(QUICK, rest_lag=20 * MILLISECOND)
PAGE = {"okx": 100, "binance": 1000}
MARKETS = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "DOGE-USDT")


def roomy(feed: Feed, times: int = 100) -> Feed:
    """With allowances that are never reached: so is the simulator's."""
    feed.allowances = {name: Rate(rate.count * times, rate.period) for name, rate in feed.allowances.items()}
    return feed


class Asked(msgspec.Struct):
    """A request as the simulator had it; `at` is monotonic ns."""

    path: str
    query: Mapping[str, str]
    at: int
    status: int


class Desk:
    """One partition's repairs, with the frames they gave, and all that the simulator was asked for trades."""

    def __init__(
        self,
        simulator: Simulator,
        feed: Feed,
        timing: Timing = TIMING,
        settings: RepairSettings | None = None,
    ) -> None:
        self.simulator = simulator
        self.feed = feed
        self.frames: list[Frame] = []
        self.reports: list[str] = []
        self.asked: list[Asked] = []
        self.room = True
        self.paged: Callable[[], object] = lambda: None
        """Called when a page was written."""
        self.clock = HostClock()
        self.context = Context(
            feed,
            self.clock,
            timing,
            self._sink,
            lambda each: SubscriptionData(*each, "requested"),
            self.reports.append,
            lambda: self.room,
        )
        self.rest = Rest(simulator.rest_url, feed, self.clock, timing, random.Random(1).random)
        self.repairs = Repairs(
            self.rest, feed, self.clock, timing, settings or RepairSettings(), random.Random(1).random
        )
        self.wanted: dict[str, Want] = {}
        self._answer = simulator.dialect.respond
        simulator.dialect.respond = self._respond  # type: ignore[method-assign]

    def _respond(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        response = self._answer(path, query, address, now)
        if "rades" in path:
            self.asked.append(Asked(path, dict(query), time.monotonic_ns(), response.status))
        return response

    def _sink(self, frame: Frame) -> None:
        self.frames.append(frame)
        if frame.kind == "rest":
            self.paged()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Desk"]:
        async with self.rest:
            task = asyncio.create_task(self.repairs.run())
            try:
                yield self
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def gap(self, size: int, symbol: str = MARKETS[0], behind: int = 1) -> Want:
        """Prints trades, and wants so many of them, with `behind` printed after them."""
        instrument = self.simulator.dialect.instrument(symbol)
        pit = self.simulator.market.pits[symbol]
        before = self.simulator.print(instrument, 1, 1)[0][0]
        self.simulator.print(instrument, 1, size)
        after = self.simulator.print(instrument, 1, behind)[0][0]
        assert pit.sequence == before.sequence + size + behind + 1
        return Want(
            what="trades",
            instrument=instrument,
            number=1,
            since=self.clock.now(),
            reason="gap",
            first=before.sequence + 1,
            last=after.sequence - 1,
            from_time=before.time,
            to_time=after.time,
        )

    def want(self, *wants: Want, forget: bool = False) -> None:
        """Adds these to what is wanted, or wants nothing else."""
        if forget:
            self.wanted.clear()
        self.wanted |= {key_of(want): want for want in wants}
        self.repairs.take(self.context, dict(self.wanted))

    def told(self, want: Want) -> list[RequestData]:
        data = [msgspec.json.decode(frame.data, type=RequestData) for frame in self.frames if frame.kind == "request"]
        return [each for each in data if each.key == key_of(want)]

    def states(self, want: Want) -> list[tuple[int, str]]:
        return [(each.number, each.state) for each in self.told(want)]

    def ended(self, *wants: Want) -> bool:
        return all(
            any(each.number == want.number and each.state != "asked" for each in self.told(want)) for want in wants
        )

    def pages(self, want: Want) -> list[Frame]:
        return [frame for frame in self.frames if frame.kind == "rest" and frame.key == key_of(want)]

    def got(self, want: Want) -> set[int]:
        """The numbers wanted on the pages."""
        return {number for page in self.pages(want) for number in numbers(page)} & wanted(want)

    def row(self, want: Want) -> dict[str, Any]:
        return self.repairs.rows(self.context)[key_of(want)]

    async def until(self, condition: Callable[[], object]) -> None:
        async def holds() -> bool:
            return bool(condition())

        await eventually(holds)


def key_of(want: Want) -> str:
    return trades_key(want.instrument, want.epoch, want.first or 0)


def wanted(want: Want) -> set[int]:
    assert want.first is not None
    assert want.last is not None
    return set(range(want.first, want.last + 1))


def numbers(page: Frame) -> list[int]:
    decoded = json.loads(page.data)
    if isinstance(decoded, dict):
        return [int(row["tradeId"]) for row in decoded["data"]]
    return [row["id"] for row in decoded]


@pytest.fixture(params=sorted(EXCHANGES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def feed(name: str) -> Feed:
    return roomy(feed_of(name))


@pytest.fixture
async def simulator(name: str) -> AsyncIterator[Simulator]:
    async with serve(exchange=name, rate=0, limits=200) as running:
        yield running


@pytest.fixture
async def desk(simulator: Simulator, feed: Feed) -> AsyncIterator[Desk]:
    async with Desk(simulator, feed).running() as desk:
        yield desk


@pytest.mark.parametrize("size", [1, 99, 100, 101, 5000])
async def test_a_gap_is_answered_with_all_its_numbers(name: str, desk: Desk, size: int) -> None:
    want = desk.gap(size)
    desk.want(want)
    await desk.until(lambda: desk.ended(want))
    assert desk.got(want) == wanted(want)
    assert desk.told(want)[-1] == RequestData(key_of(want), 1, "answered", first=want.first, last=want.last)
    assert desk.states(want) == [(1, "asked"), (1, "answered")]
    assert [frame.kind for frame in desk.frames] == ["request", *["rest"] * len(desk.pages(want)), "request"]
    page = desk.pages(want)[0]
    assert (page.conn, page.dir) == (desk.rest.url, "in")
    assert str(page.url).startswith(f"{desk.rest.url}/api/v")
    assert {frame.conn for frame in desk.frames} == {desk.rest.url}
    assert len(desk.asked) <= -(-size // (PAGE[name] - 1)) + 1
    row = desk.row(want)
    assert (row["state"], row["done"], row["wanted"], row["left"], row["late"]) == ("answered", size, size, None, False)
    assert row["pages"] == len(desk.asked)


async def test_a_gap_at_the_newest_end_waits_for_rest_to_catch_up(desk: Desk) -> None:
    desk.simulator.inject(Fault(fault="rest_lag", seconds=0.3))
    want = desk.gap(250)
    desk.want(want)
    await desk.until(lambda: desk.ended(want))
    assert desk.states(want)[-1] == (1, "answered")
    assert desk.got(want) == wanted(want)


async def test_rest_that_never_catches_up_is_a_refusal_for_now(desk: Desk) -> None:
    desk.simulator.inject(Fault(fault="rest_lag", seconds=HOUR / SECOND))
    want = desk.gap(3)
    desk.want(want)
    await desk.until(lambda: desk.ended(want))
    refusal = desk.told(want)[-1]
    assert (refusal.state, refusal.permanent, refusal.first) == ("refused", False, None)
    assert not desk.pages(want), "nothing wanted was on them"
    desk.simulator.inject(Fault(fault="clear"))
    again = msgspec.structs.replace(want, number=2)
    desk.want(again)
    await desk.until(lambda: desk.ended(again))
    assert desk.states(want)[-2:] == [(2, "asked"), (2, "answered")]


async def test_what_the_exchange_forgot_is_answered_as_spanned(desk: Desk) -> None:
    want = desk.gap(500, behind=5)
    desk.simulator.inject(Fault(fault="forget", instrument=want.instrument))
    desk.gap(1)
    desk.want(want)
    await desk.until(lambda: desk.ended(want))
    answer = desk.told(want)[-1]
    assert (answer.state, answer.first, answer.last) == ("answered", want.first, want.last)
    assert not desk.got(want)


async def test_each_number_is_done_once_and_what_shrinks_goes_on(desk: Desk) -> None:
    want = desk.gap(300)
    desk.want(want)
    assert want.last is not None
    desk.want(msgspec.structs.replace(want, last=want.last - 100))
    await desk.until(lambda: desk.ended(want))
    desk.want(want)
    desk.want(want)
    assert desk.told(want)[-1].last == want.last, "what was begun is done whole"
    asked = len(desk.asked)
    again = msgspec.structs.replace(want, number=2, last=want.last - 100)
    desk.want(again)
    await desk.until(lambda: desk.ended(again))
    assert len(desk.asked) > asked
    assert desk.told(want)[-1] == RequestData(key_of(want), 2, "answered", first=want.first, last=again.last)


async def test_what_is_taken_back_is_not_fetched_and_not_told(desk: Desk) -> None:
    desk.room = False
    want, other = desk.gap(10), desk.gap(10, MARKETS[1])
    desk.want(want, other)
    desk.want(other, forget=True)
    desk.room = True
    await desk.until(lambda: desk.ended(other))
    assert desk.told(want) == []
    assert {next(iter(asked.query.values())) for asked in desk.asked} == {other.instrument}
    desk.want(forget=True)
    assert desk.repairs.rows(desk.context) == {}


async def test_partitions_share_the_lanes_and_each_gets_its_own(desk: Desk) -> None:
    mine, theirs = desk.gap(150), desk.gap(150, MARKETS[1])
    frames: list[Frame] = []
    other = msgspec.structs.replace(desk.context, sink=frames.append)
    desk.want(mine)
    desk.repairs.take(other, {key_of(theirs): theirs})
    await desk.until(lambda: desk.ended(mine) and frames and frames[-1].kind == "request" and len(frames) > 2)
    assert not desk.pages(theirs)
    assert {frame.key for frame in frames if frame.kind == "rest"} == {key_of(theirs)}
    assert list(desk.repairs.rows(other)) == [key_of(theirs)]
    desk.want(forget=True)
    assert desk.repairs.rows(desk.context) == {}
    assert list(desk.repairs.rows(other)) == [key_of(theirs)]


async def test_pages_wait_while_there_is_no_room(desk: Desk) -> None:
    want = desk.gap(5000)
    desk.paged = lambda: setattr(desk, "room", False)
    desk.want(want)
    await desk.until(lambda: desk.pages(want))
    # Time for more than one look.
    await asyncio.sleep(1.2)
    assert len(desk.pages(want)) == 1
    desk.room = True
    await desk.until(lambda: len(desk.pages(want)) == 2)


async def test_a_refusal_is_obeyed_to_the_second_and_the_same_page_asked_again(desk: Desk) -> None:
    want = desk.gap(350)
    desk.simulator.inject(Fault(fault="rest_error", status=429, seconds=0.9))
    desk.want(want)
    await desk.until(lambda: desk.ended(want))
    assert [asked.status for asked in desk.asked].count(429) == 1
    refused, again = desk.asked[:2]
    assert again.at - refused.at >= SECOND, "Retry-After said 1"
    assert (again.path, again.query) == (refused.path, refused.query)
    assert desk.states(want) == [(1, "asked"), (1, "answered")]
    assert desk.got(want) == wanted(want)


async def test_a_ban_is_not_hammered_and_told_after_a_while(simulator: Simulator, feed: Feed) -> None:
    timing = msgspec.structs.replace(TIMING, repair_patience=SECOND // 2)
    async with Desk(simulator, feed, timing).running() as desk:
        wants = [desk.gap(200, symbol) for symbol in MARKETS]
        simulator.inject(Fault(fault="rest_error", status=418, seconds=HOUR / SECOND))
        desk.want(*wants)
        await desk.until(lambda: desk.ended(*wants))
        # What was on its way together, and nothing since.
        assert len(desk.asked) <= LANES
        again = [msgspec.structs.replace(want, number=2) for want in wants]
        desk.want(*again)
        await desk.until(lambda: desk.ended(*again))
        assert len(desk.asked) <= LANES
        for want in wants:
            assert [(each.state, each.permanent) for each in desk.told(want)][-1] == ("refused", False)
        reasons = {str(desk.told(want)[-1].reason) for want in wants}
        assert all("as the exchange demands" in reason for reason in reasons)


async def test_an_outage_in_the_middle_does_not_begin_it_anew(name: str, desk: Desk) -> None:
    want = desk.gap(9 * PAGE[name])

    def strike() -> None:
        if len(desk.pages(want)) == 2:
            desk.simulator.inject(Fault(fault="rest_error", status=503))

    desk.paged = strike
    desk.want(want)
    await desk.until(lambda: sum(asked.status == 503 for asked in desk.asked) >= 2)
    assert len(desk.pages(want)) == 2
    assert "503" in desk.row(want)["reason"]
    desk.simulator.inject(Fault(fault="clear"))
    await desk.until(lambda: desk.ended(want))
    assert desk.got(want) == wanted(want)
    good = [tuple(asked.query.items()) for asked in desk.asked if asked.status == 200]
    assert max(Counter(good).values()) == 1, "no page was asked for again that had come"
    assert 2 < len(desk.pages(want)) <= 11


async def test_answers_that_never_come_or_are_no_pages_are_asked_for_again(simulator: Simulator, feed: Feed) -> None:
    timing = msgspec.structs.replace(TIMING, rest_timeout=SECOND // 5)
    async with Desk(simulator, feed, timing).running() as desk, MuteServer().running() as mute:
        want = desk.gap(30)
        there, desk.rest.url = desk.rest.url, f"http://127.0.0.1:{mute.port}"
        desk.want(want)
        await desk.until(lambda: desk.row(want)["reason"])
        desk.rest.url = f"{simulator.control_url}/state?"
        said = ("not readable", "not an answer of the API")
        await desk.until(lambda: any(text in str(desk.row(want)["reason"]) for text in said))
        desk.rest.url = there
        await desk.until(lambda: desk.ended(want))
        assert desk.states(want) == [(1, "asked"), (1, "answered")]
        assert desk.got(want) == wanted(want)


async def test_long_trouble_is_told_and_the_next_number_goes_on(simulator: Simulator, feed: Feed) -> None:
    timing = msgspec.structs.replace(TIMING, repair_patience=SECOND // 2)
    async with Desk(simulator, feed, timing).running() as desk:
        want = desk.gap(20)
        simulator.inject(Fault(fault="rest_error", status=500))
        desk.want(want)
        await desk.until(lambda: desk.ended(want))
        refusal = desk.told(want)[-1]
        assert (refusal.state, refusal.permanent) == ("refused", False)
        assert "500" in str(refusal.reason)
        simulator.inject(Fault(fault="clear"))
        again = msgspec.structs.replace(want, number=2)
        desk.want(again)
        await desk.until(lambda: desk.ended(again))
        assert desk.got(want) == wanted(want)


async def test_an_unknown_instrument_is_believed_when_it_is_said_for_long(simulator: Simulator, feed: Feed) -> None:
    timing = msgspec.structs.replace(TIMING, repair_patience=300 * MILLISECOND)
    async with Desk(simulator, feed, timing).running() as desk:
        want = msgspec.structs.replace(desk.gap(5), instrument="NOSUCH-USDT" if feed.strict else "NOSUCHUSDT")
        begun = time.monotonic_ns()
        desk.want(want)
        await desk.until(lambda: desk.ended(want))
        refusal = desk.told(want)[-1]
        assert (refusal.state, refusal.permanent) == ("refused", True)
        assert time.monotonic_ns() - begun >= timing.repair_patience
        assert len(desk.asked) > 2


async def test_what_is_unknown_for_a_moment_is_not_given_up(desk: Desk) -> None:
    """Exchanges that come back from maintenance may know an instrument later than others."""
    want = desk.gap(5)
    answer, left = desk.simulator.dialect.respond, iter(range(5))

    def respond(path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        if "rades" in path and next(left, None) is not None:
            unknown = {"instId": "NOSUCH-USDT", "symbol": "NOSUCHUSDT"}
            query = {name: unknown.get(name, value) for name, value in query.items()}
        return answer(path, query, address, now)

    desk.simulator.dialect.respond = respond  # type: ignore[method-assign]
    desk.want(want)
    await desk.until(lambda: desk.ended(want))
    assert (desk.told(want)[-1].state, desk.told(want)[-1].reason) == ("answered", None)
    assert desk.got(want) == wanted(want)


async def test_another_refusal_for_good_does_not_give_the_trades_up(desk: Desk) -> None:
    want = desk.gap(5)
    desk.simulator.inject(Fault(fault="rest_error", status=451, code=7))
    desk.want(want)
    await desk.until(lambda: desk.ended(want))
    assert [(each.state, each.permanent) for each in desk.told(want)][-1] == ("refused", False)


async def test_what_is_beyond_the_horizon_is_refused_unasked(simulator: Simulator, feed: Feed) -> None:
    feed.horizon = 30 * DAY
    async with Desk(simulator, feed).running() as desk:
        now = desk.clock.now()
        want = msgspec.structs.replace(desk.gap(5), from_time=now - 41 * DAY, to_time=now - 40 * DAY)
        desk.want(want)
        assert [(each.state, each.permanent) for each in desk.told(want)] == [("refused", True)]
        assert desk.asked == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (RepairSettings(enabled=False), "repair is off"),
        (RepairSettings(days=1), "older than the 1 days of repair.days"),
    ],
)
async def test_what_the_settings_exclude_stays_an_open_gap(
    simulator: Simulator, feed: Feed, settings: RepairSettings, reason: str
) -> None:
    async with Desk(simulator, feed, settings=settings).running() as desk:
        now = desk.clock.now()
        want = msgspec.structs.replace(desk.gap(5), from_time=now - 3 * DAY, to_time=now - 2 * DAY)
        desk.want(want)
        assert [(each.state, each.permanent, each.reason) for each in desk.told(want)] == [("refused", False, reason)]
        again = msgspec.structs.replace(want, number=2)
        desk.want(again)
        assert desk.states(want)[-1] == (2, "refused")
        assert desk.asked == []


async def test_what_is_small_never_waits_for_what_is_huge_and_what_is_old_comes_first(
    name: str, simulator: Simulator, feed: Feed
) -> None:
    """With an allowance for a page each 20 ms."""
    rate = Rate(25, SECOND // 50) if name == "binance" else Rate(1, SECOND // 50)
    feed.allowances = dict.fromkeys(feed.allowances, rate)
    async with Desk(simulator, feed).running() as desk:
        for budget in desk.rest.budgets.values():
            # No slack: it is meant for networks.
            budget.period = rate.period
        size = 20 * PAGE[name]
        wants = [desk.gap(size, symbol) for symbol in MARKETS[:2]]
        small = desk.gap(50, MARKETS[2])
        times = (want.from_time for want in wants)
        assert len({*times, small.from_time}) <= 3
        new, old = wants
        old = msgspec.structs.replace(old, from_time=(new.from_time or 0) - SECOND)
        desk.want(new, old, small)
        await desk.until(lambda: desk.ended(small))
        assert len(desk.asked) <= 8
        assert not desk.ended(new)
        assert not desk.ended(old)
        await desk.until(lambda: desk.ended(old))
        assert not desk.ended(new)
        later = desk.gap(10, MARKETS[3])
        desk.want(later)
        asked = len(desk.asked)
        await desk.until(lambda: desk.ended(later))
        assert len(desk.asked) - asked <= 8


async def test_no_allowance_is_passed_and_no_request_refused(name: str) -> None:
    """The documented ones, of both sides; more than is allowed at once."""
    async with serve(exchange=name, rate=0) as simulator, Desk(simulator, feed_of(name)).running() as desk:
        wants = [desk.gap(600, symbol) for symbol in MARKETS]
        old = [msgspec.structs.replace(want, to_time=(want.to_time or 0) - 5 * MINUTE) for want in wants]
        desk.want(*[msgspec.structs.replace(want, from_time=None, to_time=None) for want in old])
        await desk.until(lambda: desk.ended(*wants))
        assert {asked.status for asked in desk.asked} == {200}
        assert all(desk.got(want) == wanted(want) for want in wants)


async def test_snapshots_and_the_clock_come_through_while_trades_are_fetched(simulator: Simulator, feed: Feed) -> None:
    feed.allowances = dict.fromkeys(feed.allowances, Rate(500, MINUTE))
    async with Desk(simulator, feed).running() as desk:
        wants = [desk.gap(5_000, symbol) for symbol in MARKETS]
        desk.want(*wants)
        snapshot = feed.snapshot(wants[0].instrument)
        budget = desk.rest.budgets[snapshot.allowance]
        before = feed.history(wants[0], HOUR).next()
        assert before is not None
        if before.allowance == snapshot.allowance:
            await desk.until(lambda: budget.used(desk.clock.monotonic()) > 500 * SHARE - before.weight)
        else:
            await desk.until(lambda: len(desk.asked) > 20)
        await desk.rest.get(snapshot, tries=1, share=SNAPSHOT_SHARE)
        await desk.rest.get(feed.time(), tries=1)
        assert not desk.ended(*wants)


async def test_progress_and_what_will_be_too_late_are_told(name: str, simulator: Simulator, feed: Feed) -> None:
    feed.horizon = DAY
    feed.fetches = Rate(100, SECOND)
    async with Desk(simulator, feed).running() as desk:
        now = desk.clock.now()
        early = msgspec.structs.replace(desk.gap(9 * PAGE[name]), from_time=now - DAY + 2 * SECOND, to_time=now)
        late = msgspec.structs.replace(desk.gap(20_000, MARKETS[1]), from_time=now - DAY + MINUTE, to_time=now)
        soon = msgspec.structs.replace(desk.gap(5, MARKETS[2]), from_time=now - DAY // 2, to_time=now)
        desk.room = False
        desk.want(late, soon, early)
        rows = {each.instrument: desk.row(each) for each in (early, late, soon)}
        assert rows[late.instrument]["late"]
        assert not rows[soon.instrument]["late"]
        assert rows[late.instrument]["deadline"] == (late.from_time or 0) + DAY
        assert rows[late.instrument]["left"] > 60
        assert (rows[late.instrument]["rate"], rows[late.instrument]["done"]) == (None, 0)
        assert [text for text in desk.reports if "forgets them before" in text and key_of(late) in text]
        said = len(desk.reports)
        desk.want(msgspec.structs.replace(late, number=2))
        assert len(desk.reports) == said, "once"
        desk.paged = lambda: setattr(desk, "room", not desk.pages(late))
        desk.room = True
        await desk.until(lambda: desk.row(late)["done"] > 0)
        row = desk.row(late)
        assert 0 < row["done"] < row["wanted"] == 20_000
        assert row["rate"] > 0
        assert row["left"] > 0
        assert row["pages"] >= 1
        assert row["state"] == "asked"
