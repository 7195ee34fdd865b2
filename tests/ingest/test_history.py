"""Paging trades back on every exchange, page by page against the simulator over real sockets: one suite over all."""

import random
from collections.abc import AsyncIterator

import pytest

from ingest.clock import HostClock
from ingest.feed import Feed, History
from ingest.history import TIMES
from ingest.rest import Rest
from pipeline.errors import ExchangeError
from pipeline.exchanges import EXCHANGES
from pipeline.timeframes import DAY, HOUR, SECOND
from pipeline.wants import Want
from simulator.faults import Fault
from simulator.server import Simulator, serve
from tests.ingest.conftest import QUICK
from tests.ingest.test_feeds import feed_of
from tests.simulator.clients import Clock

SYMBOL = "BTC-USDT"
GARBAGE = ("", "{", "[1]", "null", "7", '{"data":[{}]}', '[{"id":1}]', '{"code":"0","data":[{"tradeId":"x"}]}', "[" * 9)


@pytest.fixture(params=sorted(EXCHANGES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def feed(name: str) -> Feed:
    return feed_of(name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(name: str, clock: Clock) -> AsyncIterator[Simulator]:
    async with serve(exchange=name, rate=0, clock=clock, limits=100) as running:
        yield running


class Past:
    """What the simulator printed of one instrument, and how to want a part of it."""

    def __init__(self, simulator: Simulator, clock: Clock) -> None:
        self.simulator = simulator
        self.clock = clock
        self.instrument = simulator.dialect.instrument(SYMBOL)
        self.numbers: list[int] = []
        self.times: dict[int, int] = {}

    def print(self, count: int, spread: float = 1.0) -> None:
        """So many trades, over so many seconds."""
        steps = -(-count // 50)
        for step in range(steps):
            self.clock.pass_(spread / steps)
            for order in self.simulator.print(self.instrument, min(50, count - 50 * step), 1):
                for fill in order:
                    self.numbers.append(fill.sequence)
                    self.times[fill.sequence] = fill.time

    def want(self, first: int, last: int) -> Want:
        """Numbers, printed between the trades on both sides."""
        before = max(number for number in self.numbers if number < first)
        after = min(number for number in self.numbers if number > last)
        return Want(
            what="trades",
            instrument=self.instrument,
            number=1,
            since=self.clock.now,
            reason="gap",
            first=first,
            last=last,
            from_time=self.times[before],
            to_time=self.times[after],
        )

    def gap(self, size: int, behind: int) -> Want:
        """A gap of so many, with so many trades behind it."""
        return self.want(self.numbers[-behind - size], self.numbers[-behind - 1])


@pytest.fixture
def past(simulator: Simulator, clock: Clock) -> Past:
    return Past(simulator, clock)


class Walk:
    """Asks until there is nothing more to ask. `got` are the numbers wanted that came, `asked` the paths."""

    def __init__(self, past: Past, feed: Feed, want: Want) -> None:
        self.past = past
        self.feed = feed
        self.want = want
        self.history: History = feed.history(want, past.clock.now)
        self.asked: list[str] = []
        self.got: set[int] = set()
        self.pauses = 0

    async def run(self, most: int = 200) -> "Walk":
        async with self.rest() as rest:
            while (request := self.history.next()) is not None and len(self.asked) < most:
                assert request.allowance in self.feed.allowances
                assert self.history.next() == request, "the same until it is answered"
                await self.step(rest)
        return self

    def rest(self) -> Rest:
        return Rest(self.past.simulator.rest_url, self.feed, HostClock(), QUICK, random.Random(1).random)

    async def step(self, rest: Rest) -> None:
        request = self.history.next()
        assert request is not None
        answer = await rest.get(request)
        self.asked.append(request.path)
        before = self.history.spans
        page = self.history.take(answer.body)
        self.pauses += self.history.behind > 0
        assert self.want.first is not None
        assert self.want.last is not None
        if page.reaches(self.want.first, self.want.last):
            assert page.lowest is not None
            assert page.highest is not None
            wanted = range(self.want.first, self.want.last + 1)
            there = set(self.past.numbers) & set(range(page.lowest, page.highest + 1))
            self.got |= there & set(wanted)
        after = self.history.spans
        assert after is None or self.want.first <= after[0] <= after[1] <= self.want.last
        assert before is None or (after is not None and after[0] <= before[0] and before[1] <= after[1])

    @property
    def whole(self) -> bool:
        return self.history.next() is None and self.history.spans == (self.want.first, self.want.last)


PAGE = {"okx": 100, "binance": 1000}


@pytest.mark.parametrize("behind", [1, 50])
@pytest.mark.parametrize("size", [1, 2, 98, 99, 100, 101, 999, 1000, 5000])
async def test_a_gap_of_any_size_is_spanned_and_had(name: str, feed: Feed, past: Past, size: int, behind: int) -> None:
    past.print(size + behind + 5)
    want = past.gap(size, behind)
    walk = await Walk(past, feed, want).run()
    assert walk.whole
    assert walk.got == {number for number in past.numbers if want.first <= number <= want.last}  # type: ignore[operator]
    # Each with a trade known to be there; the newest page may be one for nothing, or save pages.
    assert len(walk.asked) <= -(-size // (PAGE[name] - 1)) + 1
    assert walk.pauses == 0


async def test_a_gap_of_a_page_or_less_takes_one_request(name: str, feed: Feed, past: Past) -> None:
    past.print(3000)
    walk = await Walk(past, feed, past.gap(PAGE[name] - 1, 1000)).run()
    assert walk.whole
    assert len(walk.asked) == 1


async def test_what_was_jumped_over_is_proven_at_once(feed: Feed, past: Past) -> None:
    past.print(20)
    past.simulator.inject(Fault(fault="jump", instrument=past.instrument, count=100_000))
    past.print(20)
    walk = await Walk(past, feed, past.want(past.numbers[19] + 1, past.numbers[20] - 1)).run()
    assert walk.whole
    assert (walk.got, len(walk.asked)) == (set(), 1)


async def test_pages_that_lag_are_asked_again_until_they_reach(feed: Feed, past: Past) -> None:
    past.print(300, spread=20)
    past.simulator.inject(Fault(fault="rest_lag", seconds=10))
    want = past.gap(250, 10)
    walk = Walk(past, feed, want)
    async with walk.rest() as rest:
        while not walk.pauses and walk.history.next() is not None:
            await walk.step(rest)
    assert walk.history.behind == 1
    assert walk.history.spans != (want.first, want.last)
    past.clock.pass_(30)
    await walk.run()
    assert walk.whole
    assert len(walk.got) == 250


async def test_what_never_comes_in_reach_is_not_said_to_be_spanned(feed: Feed, past: Past) -> None:
    past.print(300, spread=20)
    past.simulator.inject(Fault(fault="rest_lag", seconds=10))
    want = past.gap(290, 5)
    walk = await Walk(past, feed, want).run()
    assert walk.history.next() is None
    spans = walk.history.spans
    assert spans is not None
    shown = {number for number in past.numbers if past.times[number] <= past.clock.now - 10 * SECOND}
    assert spans == (want.first, max(shown))
    assert walk.got == {number for number in shown if number >= spans[0]}
    past.simulator.inject(Fault(fault="rest_lag", seconds=1000))
    nothing = await Walk(past, feed, want).run()
    assert (nothing.history.next(), nothing.history.spans) == (None, None)
    assert TIMES < len(nothing.asked) <= TIMES + 3


@pytest.mark.parametrize("empty", [1, TIMES])
async def test_empty_pages_are_not_believed(feed: Feed, past: Past, empty: int) -> None:
    past.print(700)
    want = past.gap(600, 50)
    past.simulator.inject(Fault(fault="rest_empty", count=empty))
    walk = await Walk(past, feed, want).run()
    assert walk.whole
    assert len(walk.got) == 600


async def test_empty_pages_in_the_middle_are_not_the_end(feed: Feed, past: Past) -> None:
    past.print(2500)
    walk = Walk(past, feed, past.gap(2300, 50))
    async with walk.rest() as rest:
        await walk.step(rest)
        await walk.step(rest)
    past.simulator.inject(Fault(fault="rest_empty", count=2))
    await walk.run()
    assert walk.whole
    assert len(walk.got) == 2300


async def test_what_the_exchange_forgot_is_spanned_as_not_there(feed: Feed, past: Past) -> None:
    past.print(1500, spread=30)
    want = past.gap(1400, 50)
    past.simulator.inject(Fault(fault="forget", instrument=past.instrument, seconds=15))
    walk = await Walk(past, feed, want).run()
    assert walk.whole, "again and again nothing older: that is the answer"


async def test_what_was_forgotten_with_all_around_it_is_spanned_as_not_there(feed: Feed, past: Past) -> None:
    past.print(300, spread=5)
    want = past.gap(100, 100)
    past.simulator.inject(Fault(fault="forget", instrument=past.instrument))
    past.print(20, spread=60)
    walk = await Walk(past, feed, want).run()
    assert walk.whole
    assert not walk.got - set(past.numbers)


async def test_after_a_relisting_the_old_numbers_are_not_there(feed: Feed, past: Past) -> None:
    past.print(300, spread=5)
    want = past.gap(100, 100)
    past.simulator.inject(Fault(fault="relisting", instrument=past.instrument))
    past.simulator.print(past.instrument, 1, 1)
    unsure = await Walk(past, feed, want).run()
    assert (unsure.history.next(), unsure.history.spans) == (None, None), "the exchange may still be behind"
    past.clock.pass_(60)
    past.simulator.print(past.instrument, 50, 1)
    assert (await Walk(past, feed, want).run()).whole


async def test_numbers_given_anew_are_not_taken_for_the_old_ones(feed: Feed, past: Past) -> None:
    past.simulator.inject(Fault(fault="relisting", instrument=past.instrument))
    past.print(300, spread=5)
    want = past.gap(100, 100)
    past.simulator.inject(Fault(fault="relisting", instrument=past.instrument))
    past.clock.pass_(HOUR / SECOND)
    past.simulator.print(past.instrument, 400, 1)
    walk = Walk(past, feed, want)
    async with walk.rest() as rest:
        request = walk.history.next()
        assert request is not None
        page = walk.history.take((await rest.get(request)).body)
    assert page.lowest is page.highest is None, "nothing of it may be written"
    assert walk.whole


@pytest.mark.parametrize("text", GARBAGE)
async def test_what_is_no_page_is_the_exchange_s_fault_and_changes_nothing(feed: Feed, past: Past, text: str) -> None:
    past.print(300)
    walk = Walk(past, feed, past.gap(200, 50))
    request = walk.history.next()
    with pytest.raises(ExchangeError):
        walk.history.take(text)
    assert walk.history.next() == request
    await walk.run()
    assert walk.whole


async def test_an_unknown_instrument_is_told_apart(feed: Feed, past: Past) -> None:
    past.print(10)
    want = past.gap(1, 1)
    want = Want(**{**{f: getattr(want, f) for f in want.__struct_fields__}, "instrument": "NOSUCHTHING"})
    request = feed.history(want, past.clock.now).next()
    assert request is not None
    async with Walk(past, feed, want).rest() as rest:
        with pytest.raises(ExchangeError) as refusal:
            await rest.get(request)
    assert getattr(refusal.value, "unknown", False)
    assert getattr(refusal.value, "permanent", False)


async def test_old_gaps_do_not_begin_with_the_newest_page(feed: Feed, past: Past) -> None:
    past.print(1000)
    want = past.gap(500, 50)
    newest = feed.history(want, past.clock.now).next()
    old = feed.history(want, past.clock.now + HOUR).next()
    assert old is not None
    assert newest is not None
    assert ("fromId" in old.path) or ("after=" in old.path and "after=" not in newest.path)


def test_its_facts_of_history_are_whole(feed: Feed) -> None:
    assert feed.horizon is None or feed.horizon > DAY
    assert feed.fetches.count > 0
    assert feed.fetches.period > 0
