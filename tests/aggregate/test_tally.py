"""The short way of a trade writes what the long way writes, wherever a step ends and whenever it starts again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aggregate.saved import Header, SavedTally
from aggregate.summary import Summary
from aggregate.tally import Tally
from pipeline.errors import DecodeError
from pipeline.records import Clock, Trade
from pipeline.steps import Entry
from pipeline.timeframes import TIMEFRAMES
from tests.aggregate.made import MS, Player, Record, at, clock, covered, entries, gap, played, trade, uncovered
from tests.aggregate.market import Market

FRAMES = st.sampled_from([TIMEFRAMES, ("1s",), ("1m", "5m"), ("10s", "15s", "1m"), ()])
ODD = ("1E-12", "-3", "0", "0.000", "NaN", "sNaN", "-Infinity", "", "1e20", "99999999999999999999", "1_0")
FINE = ("0." + "0" * 36 + "1", "0." + "0" * 37 + "1", "12345678.123456789012", "0.00000001")
NUMBERS = st.sampled_from(["1", "2.50", "0.10", "68123.4"] * 20 + [*ODD, *FINE])
STEPS = st.sampled_from([0, 1, 1, 2, 5] * 8 + [40, 250, -1, -40, -1_200, 1_100, 5_000])
"""ms from one trade's time to the next one's."""


@contextmanager
def the_long_way() -> Iterator[None]:
    with patch.object(Tally, "take", lambda *_: False):
        yield


def straight(found: Sequence[Entry]) -> Player:
    player = Player()
    with the_long_way():
        player.play(found)
        player.finish()
    return player


def split(found: Sequence[Entry], sizes: Sequence[int], restores: Sequence[bool]) -> Player:
    player = Player()
    for size, restore in zip(sizes, restores, strict=False):
        player.play(found[:size], restore=restore)
        found = found[size:]
    player.play(found, restore=True)
    player.finish()
    return player


def same(one: Player, other: Player) -> None:
    assert one.lines == other.lines
    assert one.newest == other.newest
    assert one.dead == other.dead
    assert one.saved == other.saved
    assert one.stage.report() == other.stage.report()
    assert one.stage.last_data == other.stage.last_data


SIZES = st.lists(st.integers(1, 60), max_size=30)
RESTORES = st.lists(st.booleans(), min_size=30, max_size=30)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**9), FRAMES, st.floats(0.002, 3), SIZES, RESTORES)
@example(776, ("10s", "15s", "1m"), 1.28125, [1, 1, 40, 60], [False] * 30)
def test_a_made_market(seed: int, frames: tuple[str, ...], pace: float, sizes: list[int], restores: list[bool]) -> None:
    found = entries(Market(seed, frames, quiet_from="1s", pace=pace).run(20).records)
    same(split(found, sizes, restores), straight(found))


def mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 30 + [*others])


@st.composite
def odd(draw: st.DrawFn) -> list[Trade | Clock]:
    """Trades of which some cannot be used, or are not the next, or are of other times, or of several numbers."""
    number, time, found = 0, at(10), list[Trade | Clock]()
    for _ in range(draw(st.integers(1, 80))):
        time += draw(STEPS) * MS
        fills = draw(mostly(1, 2, 3))
        number += draw(mostly(1, 2, 0, -1)) + fills - 1
        first = number - fills + 1
        made = trade(
            number,
            0,
            draw(NUMBERS),
            draw(NUMBERS),
            side=draw(st.sampled_from(["buy", "sell"])),
            contracts=draw(st.one_of(st.none(), NUMBERS)),
            fills=fills,
            first_sequence=draw(mostly(first, None, number + 1)),
            epoch=draw(mostly(0, 1)),
            repaired=draw(mostly(False, True)),
        )
        received = time + draw(mostly(5, 0, -900, -1_500)) * MS
        found.append(msgspec.structs.replace(made, time=draw(mostly(time, None)), received=received))
        if draw(mostly(False, True)):
            now = max(time, at(1)) + draw(st.integers(0, 1_500)) * MS
            heard = dict.fromkeys(clock(0).connections, now)
            found.append(Clock(exchange="okx", time=draw(mostly(now, None)), received=now, connections=heard))
    return found


@settings(deadline=None, max_examples=200)
@given(odd(), FRAMES, SIZES, RESTORES)
def test_odd_trades(
    stream: list[Trade | Clock], frames: tuple[str, ...], sizes: list[int], restores: list[bool]
) -> None:
    found = entries([covered(0, frames, quiet_from="1s"), *stream])
    same(split(found, sizes, restores), straight(found))


DECIMALS = st.builds(
    lambda digits, exponent: f"{digits}E{exponent}", st.integers(-(10**28), 10**28), st.integers(-45, 22)
)
TEXTS = st.one_of(DECIMALS, DECIMALS.map(lambda text: format(Decimal(text), "f")), NUMBERS)


@settings(max_examples=500)
@given(TEXTS, TEXTS, st.one_of(st.none(), TEXTS))
def test_it_takes_what_a_summary_takes(price: str, size: str, contracts: str | None) -> None:
    made = trade(1, 0, price, size, contracts=contracts)
    tally = Tally()
    tally.open(at(0), at(1), 0, 1)
    try:
        expected = Summary.of(made)
    except DecodeError:
        assert not tally.take(made, 0)
        return
    assert tally.take(made, 0)
    assert tally.summary() == expected


BUSY = (covered(0), *(trade(n, 10 + n / 100) for n in range(1, 50)))
"""One trade that opens windows, and 48 that only add to them."""


def test_a_step_saves_little_of_trades_that_only_add_to_windows() -> None:
    player = Player()
    found = entries([*BUSY, trade(50, 10.6)])
    player.play(found[:2])
    before = dict(player.saved)
    player.play(found[2:-1])
    assert {field for field, value in player.saved.items() if before.get(field) != value} == {b"t|BTC-USDT"}
    assert msgspec.msgpack.decode(player.saved[b"t|BTC-USDT"], type=SavedTally).trades == 48
    player.play(found[-1:], restore=True)
    assert msgspec.msgpack.decode(player.saved[b"t|BTC-USDT"], type=SavedTally).trades == 49


@pytest.mark.parametrize(
    "record",
    [
        trade(50, 11),
        trade(51, 10.6),
        trade(50, 10.6, repaired=True),
        trade(7, 10.6),
        trade(1, 10.6, epoch=1),
        clock(30),
        gap("opened", 50, 52, 10.5, 10.6, 11),
        covered(10.8, ("1m",)),
        uncovered(10.7),
    ],
)
def test_what_else_happens_finds_all_trades_in_their_windows(record: Record) -> None:
    player = played(*BUSY, record)
    with the_long_way():
        other = played(*BUSY, record)
    assert b"t|BTC-USDT" not in player.saved
    assert player.saved == other.saved
    assert player.lines == other.lines


def test_state_without_tallies_is_read() -> None:
    """As it was saved before there were any: with every field of a header."""
    found = entries(Market(5, TIMEFRAMES).run(60).records)
    player = Player()
    with the_long_way():
        player.play(found[:150])
    for field, value in player.saved.items():
        if field.startswith(b"i|"):
            header = msgspec.msgpack.decode(value, type=Header)
            every = {name: getattr(header, name) for name in header.__struct_fields__}
            player.saved[field] = msgspec.msgpack.encode(every)
    player.play(found[150:], restore=True)
    player.finish()
    same(player, straight(found))


def test_a_tally_left_behind_by_a_version_without_them_is_dropped() -> None:
    player, found = Player(), entries([*BUSY, trade(50, 11.1), trade(51, 11.2), trade(52, 12.3)])
    player.play(found[:-3])
    left = player.saved[b"t|BTC-USDT"]
    player.play(found[-3:-2])
    player.saved[b"t|BTC-USDT"] = left
    player.play(found[-2:-1], restore=True)
    player.play(found[-1:], restore=True)
    player.finish()
    same(player, straight(found))
