"""The newest trades of instruments that stay silent, on every exchange: asked of the simulator over real sockets."""

import msgspec

from ingest.feed import Rate
from ingest.newest import Newest
from ingest.repairs import NEWEST_SHARE
from pipeline.frames import RequestData
from pipeline.timeframes import HOUR, MINUTE, SECOND
from pipeline.wants import Want, newest_key
from simulator.faults import Fault
from tests.ingest.test_repairs import MARKETS, PAGE, Desk, desk, feed, key_of, name, numbers, simulator

__all__ = ["desk", "feed", "name", "simulator"]


def newest(desk: Desk, missed: int, symbol: str = MARKETS[0]) -> Want:
    """Prints a trade, and wants what is behind it; so many are."""
    instrument = desk.simulator.dialect.instrument(symbol)
    known = desk.simulator.print(instrument, 1, 1)[0][0]
    if missed:
        desk.simulator.print(instrument, 1, missed)
    now = desk.clock.now()
    return Want(what="trades", instrument=instrument, number=1, since=now, reason="silence", first=known.sequence + 1)


def ask(desk: Desk, *wants: Want) -> None:
    desk.wanted |= {key(want): want for want in wants}
    desk.repairs.take(desk.context, dict(desk.wanted))


def key(want: Want) -> str:
    return newest_key(want.instrument, want.epoch, want.first or 0)


def told(desk: Desk, want: Want) -> list[RequestData]:
    data = [msgspec.json.decode(frame.data, type=RequestData) for frame in desk.frames if frame.kind == "request"]
    return [each for each in data if each.key == key(want)]


def brought(desk: Desk, want: Want) -> set[int]:
    pages = [frame for frame in desk.frames if frame.kind == "rest" and frame.key == key(want)]
    return {number for page in pages for number in numbers(page)}


async def end(desk: Desk, want: Want) -> RequestData:
    await desk.until(lambda: any(each.state != "asked" for each in told(desk, want)))
    assert [each.state for each in told(desk, want)][:-1] == ["asked"]
    return told(desk, want)[-1]


async def test_what_is_new_is_on_one_page(desk: Desk) -> None:
    want = newest(desk, 7)
    ask(desk, want)
    assert want.first is not None
    last = want.first + 6
    assert await end(desk, want) == RequestData(key(want), 1, "answered", first=want.first, last=last)
    assert brought(desk, want) >= set(range(want.first, last + 1))
    assert max(brought(desk, want)) == last
    assert len(desk.asked) == 1
    row = desk.repairs.rows(desk.context)[key(want)]
    assert (row["state"], row["wanted"], row["deadline"], row["late"]) == ("answered", 0, None, False)


async def test_nothing_new_is_an_answer_and_no_page(desk: Desk) -> None:
    want = newest(desk, 0)
    ask(desk, want)
    assert want.first is not None
    assert await end(desk, want) == RequestData(key(want), 1, "answered", first=want.first, last=want.first - 1)
    assert not brought(desk, want)
    assert len(desk.asked) == 1


async def test_of_more_than_a_page_the_newest_come(desk: Desk) -> None:
    """What is below them is a gap like any other."""
    want = newest(desk, 3_000)
    ask(desk, want)
    assert want.first is not None
    answer = await end(desk, want)
    assert (answer.first, answer.last) == (want.first, want.first + 2_999)
    assert brought(desk, want) == set(range(want.first + 2_900, want.first + 3_000))


async def test_a_cache_that_is_behind_what_we_have_is_asked_again(desk: Desk) -> None:
    desk.simulator.inject(Fault(fault="rest_lag", seconds=0.3))
    want = newest(desk, 3)
    ask(desk, want)
    assert want.first is not None
    answer = await end(desk, want)
    assert (answer.state, answer.first) == ("answered", want.first)
    assert len(desk.asked) > 1


async def test_one_that_stays_behind_is_a_refusal_for_now(desk: Desk) -> None:
    desk.simulator.inject(Fault(fault="rest_lag", seconds=HOUR / SECOND))
    want = newest(desk, 3)
    ask(desk, want)
    refusal = await end(desk, want)
    assert (refusal.state, refusal.permanent, refusal.last) == ("refused", False, None)


async def test_gaps_come_first(desk: Desk) -> None:
    """While there is as much of one as there is room for, nobody is asked for what may not be."""
    wants = [newest(desk, 2, symbol) for symbol in MARKETS[1:]]
    gap = desk.gap(3 * PAGE["okx"])
    desk.want(gap)
    ask(desk, *wants)
    await desk.until(lambda: desk.ended(gap) and all(told(desk, want) for want in wants))
    first = next(asked.query for asked in desk.asked)
    assert gap.instrument in first.values()


async def test_of_an_allowance_they_take_a_part(desk: Desk, name: str) -> None:
    allowance = desk.feed.history(newest(desk, 0), desk.clock.now()).next()
    assert allowance is not None
    count = 10 * allowance.weight
    desk.rest.budgets[allowance.allowance].rate = Rate(count, MINUTE)
    desk.rest.budgets[allowance.allowance].period = MINUTE
    wants = [newest(desk, 0, symbol) for symbol in MARKETS]
    ask(desk, *wants)
    room = int(10 * NEWEST_SHARE)
    await desk.until(lambda: len(desk.asked) >= room)
    await desk.until(lambda: sum(told(desk, want)[-1:] != [] for want in wants) >= room)
    assert len(desk.asked) == room


def test_it_ends_whatever_caches_do(feed: object) -> None:
    want = Want(what="trades", instrument="BTC-USDT", number=1, since=0, reason="silence", first=5)
    history = feed.history(want, 0)  # type: ignore[attr-defined]
    assert isinstance(history, Newest)
    pages = 0
    while history.next() is not None:
        history.take('{"code":"0","msg":"","data":[]}' if "instId" in history.next().path else "[]")
        pages += 1
    assert (pages, history.spans) == (5, None)


def test_their_keys_are_none_of_gaps() -> None:
    want = Want(what="trades", instrument="BTC-USDT", number=1, since=0, reason="silence", first=5)
    assert key(want) != key_of(want)
