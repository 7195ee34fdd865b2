"""The short way of a frame with one trade: wherever it is taken it gives the bytes of the long way."""

import copy
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normalize.continuity import Continuity
from normalize.exchanges import binance, okx
from normalize.mapper import Reading
from normalize.outcome import Outcome
from pipeline.frames import Frame, RawEntry
from tests.normalize.playing import SECOND, SPOT, A, B, Played, clock, closed, data, entries, fill, opened, play
from tests.normalize.test_continuity import trade
from tests.normalize.test_mappers import VENUES, Venue, mutated
from tests.normalize.test_okx import OPTION, SWAP
from tests.normalize.test_okx import SPOT as SPOT_LISTING
from tests.normalize.test_stage import listing, storm


def check(frame: Frame, venue: Venue) -> bool:
    """What the short way says is what the long one says; whether it says anything."""
    short = venue.mapper.trade(frame, venue.known)
    if short is not None:
        assert venue.mapper.read(frame, venue.known) == Reading(trades=(short,))
    return short is not None


@pytest.mark.parametrize("name", sorted(VENUES))
def test_live_frames_of_one_trade_take_the_short_way(name: str) -> None:
    venue = VENUES[name]
    live = [frame for frame in venue.frames if frame.kind == "ws" and frame.dir == "in"]
    assert sum(check(frame, venue) for frame in live) >= 2


@settings(max_examples=1_500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_a_frame_that_is_not_quite_so_is_left_to_the_long_way(case: tuple[str, Frame]) -> None:
    name, frame = case
    if frame.kind == "ws" and frame.dir == "in":
        check(frame, VENUES[name])


TRADE = '{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[%s]%s}'
FILL = '"instId":"BTC-USDT","tradeId":"%s","px":"%s","sz":"%s","side":"%s","ts":"%s","count":"%s"'
TEXTS = (
    "1",
    "0",
    "007",
    "1.50",
    "0.0",
    ".5",
    "5.",
    "1 2",
    " 1",
    "1\\n",
    "1e3",
    "-1",
    "٣",
    "",
    "9" * 18,
    "9" * 19,
    "1_0",
)
FITTING = ("12", "100.5", "0.25", "buy", "1789999999000", "1")


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(TEXTS)), max_size=3),
    st.sampled_from(("", ',"event":"x"', ',"event":1', ',"code":0', ',"data":[]', ',"arg":{"channel":"books"}')),
)
def test_reasons_of_dead_letters_are_those_of_the_single_checks(bad: list[tuple[int, str]], more: str) -> None:
    texts = list(FITTING)
    for place, text in bad:
        texts[place] = text
    frame = Frame(1_790_000_000 * SECOND, A, "in", "ws", TRADE % ("{" + FILL % tuple(texts) + "}", more))
    venue = VENUES["okx"]
    taken = check(frame, venue)
    if not more:
        faults = venue.mapper.read(frame, venue.known).faults
        assert [fault.reason for fault in faults] == reasons(texts)
        assert taken == (not faults)


def reasons(texts: Sequence[str]) -> list[str]:
    """In the order in which they are looked for, by plain code."""

    def digits(text: str) -> bool:
        return text != "" and set(text) <= set("0123456789")

    def positive(text: str) -> bool:
        left, dot, right = text.partition(".")
        return digits(left) and (digits(right) or not dot) and text.strip("0.") != ""

    number, price, size, side, time, count = texts
    for text, what in ((number, "tradeId"), (count, "count")):
        if not digits(text) or len(text) > 18:
            return [f"{what} is not a whole number"]
    if not 1 <= int(count) <= int(number) + 1:
        return ["count does not fit tradeId"]
    if side not in ("buy", "sell"):
        return ["side is neither buy nor sell"]
    for text, what in ((price, "px"), (size, "sz")):
        if not positive(text):
            return [f"{what} is not a decimal above zero"]
    if not digits(time) or len(time) > 18:
        return ["ts is not a whole number"]
    if int(time) >= 9_223_372_036_854:
        return ["ts is beyond 64 bits of nanoseconds"]
    return [] if time == FITTING[4] else ["time is out of range"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 2), st.integers(0, 9), st.booleans()), max_size=80),
    st.integers(0, 20),
)
def test_what_follows_is_what_take_would_have_passed(
    arrivals: list[tuple[int, int, int, bool]], opened_at: int
) -> None:
    """Any order, duplicates, holes, trades held, numbers that begin again: the same trade and the same state, or
    nothing done."""
    seen = Continuity()
    for place, (number, fills, later, listed) in enumerate(arrivals):
        found = trade(number, number / 10 + later * later, min(fills, number))
        now, opened_ns = place * SECOND // 4, trade(1, opened_at / 10).received
        list_time = trade(1, 3).received if listed else None
        short = copy.deepcopy(seen)
        passed = short.follow(found, list_time)
        if passed is None:
            assert short == seen
        outcome = seen.take(found, now, opened_ns, list_time)
        if passed is not None:
            assert (outcome, short) == (Outcome((passed,)), seen)
        seen.changed_holes(now)


def singles(seed: int, most: int = 9) -> list[RawEntry]:
    """One trade a frame, up to `most` frames an entry, mostly in order: over two connections, with losses, repeats,
    rubbish, numbers that begin again, clocks that are not known, and connections that end and go on."""
    chance = random.Random(seed)
    frames = [clock(0, chance.choice([0, None])), listing(SWAP, SPOT_LISTING, OPTION), opened(0), opened(0.1, B)]
    numbers, at = {SPOT: 100, "BTC-USDT-SWAP": 5000, "ETH-USDT": 7}, 1.0
    for _ in range(chance.randrange(50, 250)):
        at += chance.random() * chance.choice([0.01, 0.01, 1])
        name, conn = chance.choice(list(numbers)), chance.choice([A, A, A, B])
        match chance.randrange(24):
            case 0:
                frames.append(closed(at, conn))
            case 1:
                frames.append(opened(at, conn))
            case 2:
                numbers[name] = chance.choice([1, numbers[name] + 5_000_000, numbers[name] + 3])
            case 3:
                frames.append(clock(at, chance.choice([0, SECOND, None]), a=at - 0.1, b=at - 0.2))
            case 4:
                late = fill(max(1, numbers[name] - chance.randrange(1, 9)), at - chance.choice([0.1, 3]), name)
                frames.append(data(late, at=at, conn=conn))
            case 5:
                frames.append(
                    data(fill(numbers[name], at, name, px=chance.choice(["x", "0", "1.5"])), at=at, conn=conn)
                )
            case _:
                fills = {"count": "2"} if chance.random() < 0.1 else {}
                frames.append(data(fill(numbers[name], at - 0.05, name, **fills), at=at, conn=conn))
                numbers[name] += 1
    return entries(frames, size=chance.randrange(1, most))


def without_short_way(raw: Sequence[RawEntry], *, end: bool = False, exchange: str = "okx") -> Played:
    with pytest.MonkeyPatch.context() as patch:
        for mapper in (okx.Mapper, binance.Mapper):
            patch.setattr(mapper, "trade", lambda self, frame, instruments: None)
            patch.setattr(mapper, "short", lambda self, frames: [False] * len(frames))
        return play(raw, end=end, exchange=exchange)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([singles, storm]), st.integers(1, 9), st.booleans())
def test_the_same_bytes_by_the_short_way_and_by_the_long_one(
    seed: int, make: object, batch: int, restore: bool
) -> None:
    assert callable(make)
    raw = make(seed)
    played, expected = play(raw, batch=batch, restore=restore), without_short_way(raw)
    # A want that is taken back in the step that made it wakes nobody.
    assert {key: rows for key, rows in played.streams.items() if ":request:" not in key} == {
        key: rows for key, rows in expected.streams.items() if ":request:" not in key
    }
    assert played.state == expected.state
    assert msgspec.json.encode(played.stage.report()) == msgspec.json.encode(expected.stage.report())
