"""Entries taken together give step by step the very commands that they give one by one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import getcontext
from itertools import chain
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregate import stage as stages
from aggregate.columns import columns
from aggregate.stage import Aggregate
from pipeline import steps
from pipeline.records import Trade
from pipeline.steps import Command, Entry, Found, Step, entries_of
from pipeline.timeframes import TIMEFRAMES
from tests.aggregate.made import KEYS, Record, clock, covered, entries, trade, uncovered
from tests.aggregate.market import Market
from tests.aggregate.test_tally import FRAMES, SIZES, odd

NAMES = ("BTC-USDT", "ETH-USDT", "SOL-USDT")
BAD = (
    [b"symbol", b"X", b"data", b"{"],
    [b"symbol", b"X", b"data", b'{"exchange":"okx"}'],
    [b"symbol", b"X", b"data", b'"\xff"'],
    [b"symbol", b"X", b"data", b"{},{}"],
    [b"symbol", b"X", b"data", b""],
    [b"symbol", b"X", b"text", b"{}"],
    [b"symbol", b"X", b"data", b"{}", b"more", b"1"],
    [b"symbol", b"X"],
    [],
    [b"control", b"clock", b"data", b"{"],
    [b"control", b"unheard of", b"data", b"{}"],
)
"""Fields of entries that are no trade, and of which none says so."""


def found_in(read: Sequence[Entry]) -> Found:
    return [(entry.id, list(chain.from_iterable(entry.fields.items()))) for entry in read]


@contextmanager
def bounds(records: int, shortest: int = 1, fewest: int = 0) -> Iterator[None]:
    """Of a step, and of what is taken together."""
    with (
        patch.object(steps, "MOST_RECORDS", records),
        patch.object(stages, "SHORTEST", shortest),
        patch.object(stages, "FEWEST", fewest),
    ):
        yield


def one_by_one(stage: Aggregate, found: Found, step: Step) -> int:
    for taken, entry in enumerate(entries_of(found), start=1):
        stage.process(entry, step)
        if step.full:
            return taken
    return len(found)


def together(stage: Aggregate, found: Found, step: Step) -> int:
    return stage.process_many(found, step)


Take = Callable[[Aggregate, Found, Step], int]
Taken = tuple[int, list[Command], int]


def played(take: Take, found: Found, sizes: Sequence[int]) -> tuple[list[Taken], dict[str, object]]:
    """What each step took and writes, and the newest `received` after it; what the stage reports in the end."""
    stage, told, sizes = Aggregate(KEYS, "okx"), list[Taken](), list(sizes)
    while found:
        step = Step(KEYS, "aggregate")
        taken = take(stage, found[: sizes.pop(0)] if sizes else found, step)
        stage.save(step)
        told.append((taken, step.commands(), stage.last_data))
        found = found[taken:]
    return told, stage.report()


def same(found: Found, sizes: Sequence[int], records: int) -> None:
    with bounds(records):
        assert played(together, found, sizes) == played(one_by_one, found, sizes)


@st.composite
def interleaved(draw: st.DrawFn) -> list[Record]:
    """Odd trades of some instruments, those of each in their order, and clocks."""
    streams = [draw(odd()) for _ in draw(st.sampled_from([NAMES, NAMES[:1]]))]
    mixed: list[Record] = []
    while any(streams):
        number = draw(st.sampled_from([n for n, stream in enumerate(streams) if stream]))
        record = streams[number].pop(0)
        if isinstance(record, Trade):
            record = msgspec.structs.replace(record, symbol=NAMES[number], instrument=NAMES[number])
        mixed.append(record)
    return mixed


ROOM = st.sampled_from([1, 2, 5, 2_000])


@settings(deadline=None, max_examples=200)
@given(interleaved(), FRAMES, SIZES, ROOM)
def test_odd_trades(stream: list[Record], frames: tuple[str, ...], sizes: list[int], records: int) -> None:
    known = [covered(0, frames, name, quiet_from="1s") for name in NAMES[:2]]
    same(found_in(entries([*known, *stream])), sizes, records)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**9), FRAMES, st.floats(0.002, 3), SIZES, ROOM)
def test_a_made_market(seed: int, frames: tuple[str, ...], pace: float, sizes: list[int], records: int) -> None:
    made = Market(seed, frames, quiet_from="1s", pace=pace).run(20).records
    same(found_in(entries(made)), sizes, records)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(BAD)), min_size=1, max_size=6), SIZES, ROOM)
def test_bad_entries_among_good_ones(bad: list[tuple[int, list[bytes]]], sizes: list[int], records: int) -> None:
    found = list(found_in(entries(Market(3, ("1s", "1m"), pace=0.05).run(20).records)))
    for place, flat in bad:
        found.insert(place, (b"0-%d" % place, flat))
    same(found, sizes, records)


def busy(count: int, **more: str) -> list[Trade]:
    return [trade(n, 10 + n / 1_000, **more) for n in range(1, count)]


def test_trades_that_only_add_are_taken_together() -> None:
    stage, step = Aggregate(KEYS, "okx"), Step(KEYS, "aggregate")
    found = found_in(entries([covered(0), *busy(200)]))
    alone: list[bytes] = []
    process = stage.process
    with patch.object(stage, "process", lambda entry, step: alone.append(entry.id) or process(entry, step)):  # type: ignore[func-returns-value]
        assert stage.process_many(found[:2], step) == 2
        assert stage.process_many(found[2:], step) == len(found) - 2
    assert alone == [found[0][0], found[1][0]]


@pytest.mark.parametrize("numbers", [{"size": "1E-12"}, {"size": "-1"}, {"price": "1.2.3"}, {"price": "1" * 70}])
def test_a_number_not_as_usual_makes_no_columns(numbers: dict[str, str]) -> None:
    assert columns(busy(5), 0) is not None
    assert columns([*busy(5), trade(5, 11, **numbers)], 0) is None


def test_sums_are_exact_whatever_the_context_of_the_thread() -> None:
    found = found_in(entries([covered(0), *busy(200, size="123456789.123456789012", price="98765432.12345678")]))
    precision = getcontext().prec
    try:
        getcontext().prec = 5
        same(found, [2], 2_000)
    finally:
        getcontext().prec = precision


@pytest.mark.parametrize("break_at", [2, 60, 150])
def test_a_step_that_is_full_takes_nothing_beyond(break_at: int) -> None:
    """The trade that fills it is in the middle of those of other instruments."""
    found = [covered(0, TIMEFRAMES, name) for name in NAMES]
    for number in range(1, 200):
        found += [trade(number, 10 + number / 200, instrument=name) for name in NAMES]  # type: ignore[misc]
    found.insert(3 + 3 * break_at, trade(break_at, 700, instrument="XRP-USDT"))  # type: ignore[arg-type]
    for records in (1, 3, 10):
        same(found_in(entries([*found, clock(20), uncovered(21)])), [3, 400], records)
