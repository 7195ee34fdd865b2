"""Trades decoded and written as lines all at once: the same as one by one. Pure."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import encode
from pipeline.timeframes import DAY
from store.arrived import Arrived, Pair
from store.batch import Batch
from store.copytext import timestamp, timestamps
from store.rows import joined, render, trade_line
from tests.store.made import KEYS, NOON, SECOND, clock, coverage, entry, gap, trade

IDS = {(exchange, name): number for number, (exchange, name) in enumerate(
    (exchange, name) for exchange in ("okx", "other") for name in ("BTC-USDT", "ETH-USDT")
)}  # fmt: skip


def flat(data: bytes) -> list[bytes]:
    return [b"symbol", b"BTC-USDT", b"data", data]


def batch(pairs: Sequence[Pair]) -> Batch:
    """Read at once."""
    made = Batch("okx")
    made.take("trade", KEYS.trade, "0-0", Arrived(pairs))
    return made


def one_by_one(pairs: Sequence[Pair]) -> Batch:
    made = Batch("okx")
    made.take("trade", KEYS.trade, "0-0", list(Arrived(pairs)))
    return made


def numbered(flats: Sequence[list[bytes]]) -> list[Pair]:
    return [(b"1700000000000-%d" % number, fields) for number, fields in enumerate(flats)]


PLAIN = [
    trade(1),
    trade(2, instrument="ETH-USDT", symbol="ETH-USDT", side="sell"),
    trade(3, first_sequence=1, epoch=2, fills=3, repaired=True, contracts="7"),
    trade(4, conditions=("block", "a,b")),
    trade(5, id="ключ", time=NOON - 399 * DAY, received=NOON + 3),
    trade(6, time=NOON, received=NOON + DAY),
]
ODD = [
    trade(10, id='a"b'),
    trade(11, id="a\\b\t"),
    trade(12, id="a\0b"),
    trade(13, conditions=('a"b',)),
    trade(14, exchange="other"),
    trade(15, time=None),
    trade(16, time=NOON - 401 * DAY),
    trade(17, time=NOON + 2 * DAY),
    trade(18, time=1, received=2),
    trade(19, time=NOON, received=300_000_000_000 * SECOND),
    trade(20, time=1_999, received=-5),
]
HALF = encode(trade(21))
BROKEN = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"null",
    encode(trade(22)) + b" ",
    b" " + encode(trade(23)),
    encode(trade(24)) + encode(trade(25)),
    encode(trade(24)) + b"," + encode(trade(25)),
    encode(trade(24)) + b"\n" + encode(trade(25)),
    HALF[:-1],
    HALF[1:],
    HALF[:-1] + b',"of":[{}',
    HALF[:-1] + b',"of":{',
    b"{}]}",
    b'}\n{"exchange":"',
    b'"exchange":1}',
    encode(trade(26)).replace(b'"buy"', b'"maybe"'),
    encode(trade(27)).replace(b'"spot"', b'"moon"'),
    encode(trade(28)).replace(b'"price":"', b'"price":"\xff'),
    encode(trade(29)).replace(b'"price":"', b'"price":"\n'),
    encode(trade(30)).replace(b",", b",\n"),
    b'{"market":"spot",' + HALF[1:],
    HALF[:-1] + b',"exchange":"other"}',
]
BESIDES = [
    [b"control", b"clock", b"data", encode(clock(NOON))],
    [b"control", b"coverage", b"data", encode(coverage("covered", NOON))],
    [b"control", b"coverage", b"data", b"{"],
    [b"control", b"gap", b"data", encode(gap())],
    [b"control", b"weather", b"data", b"{}"],
    [b"control", b"\xff"],
    [b"control", b"", b"data", HALF],
    [b"symbol", b"BTC-USDT"],
    [b"symbol", b"BTC-USDT", b"control", b"clock"],
    [b"symbol", b"BTC-USDT", b"data", HALF, b"control", b"clock"],
    [b"symbol", b"BTC-USDT", b"data", HALF, b"more", b"1"],
    [b"data", HALF, b"symbol", b"BTC-USDT"],
    [b"data", HALF],
]
USUAL = [*(flat(encode(made)) for made in PLAIN), *BESIDES[:6]]
UNUSUAL = [*(flat(encode(made)) for made in ODD), *map(flat, BROKEN), *BESIDES[6:]]


def content(made: Batch) -> tuple[Any, ...]:
    return (
        list(made.trades), made.coverage, made.clock, made.letters, made.moves, made.ignored, made.headers(),
        made.partitions(), made.holds_rows, made.entries,
    )  # fmt: skip


def copied(made: Batch) -> str | None:
    """What COPY is given, made one by one; None where no line can be made of one of them."""
    rows, bad = render(made.trades, IDS, trade_line)
    if bad:
        return None
    return joined(rows) if rows else ""


@given(st.lists(st.sampled_from(USUAL), min_size=1, max_size=30))
def test_what_is_usual_is_taken_at_once(flats: list[list[bytes]]) -> None:
    made, expected = batch(numbered(flats)), one_by_one(numbered(flats))
    assert content(made) == content(expected)
    assert made.trades.text(IDS) == copied(expected)


@given(st.lists(st.sampled_from([*USUAL, *UNUSUAL]), min_size=1, max_size=30))
def test_what_is_not_comes_to_the_same(flats: list[list[bytes]]) -> None:
    made, expected = batch(numbered(flats)), one_by_one(numbered(flats))
    assert content(made) == content(expected)
    text = made.trades.text(IDS)
    assert text is None or text == copied(expected)


@pytest.mark.parametrize("odd", UNUSUAL)
def test_one_that_is_not_usual_among_others_is_judged_by_itself(odd: list[bytes]) -> None:
    usual = flat(encode(trade(1)))
    for flats in ([odd], [odd, usual], [usual, odd], [usual, odd, usual, odd, usual]):
        made, expected = batch(numbered(flats)), one_by_one(numbered(flats))
        assert content(made) == content(expected)
        assert [found.entry.id for found in made.trades] == [found.entry.id for found in expected.trades]
        text = made.trades.text(IDS)
        assert text is None or text == copied(expected)


def test_texts_that_are_trades_only_together_are_none() -> None:
    parts = [HALF[:-1] + b',"of":[{}', HALF + b"]}", encode(trade(1)) + encode(trade(2))]
    made = batch(numbered([flat(part) for part in parts]))
    assert len(made.letters) == 3
    assert not made.trades


def test_reads_of_all_sorts_add_up() -> None:
    made = batch(numbered([flat(encode(trade(1))), flat(encode(trade(2)))]))
    made.take("trade", KEYS.trade, "0-0", Arrived(numbered([flat(encode(trade(3)))])))
    assert made.trades.text(IDS) is not None
    odd = batch(numbered([flat(encode(trade(1)))]))
    odd.take("trade", KEYS.trade, "0-0", [entry(2, trade(2))])
    odd.take("trade", KEYS.trade, "0-0", Arrived(numbered([flat(encode(trade(3)))])))
    assert odd.trades.text(IDS) is None
    assert [found.record.sequence for found in odd.trades] == [1, 2, 3]
    assert odd.trades[1].entry.id == b"1700000000000-2"


def test_trades_of_two_exchanges_are_written_one_by_one() -> None:
    made = batch(numbered([flat(encode(trade(1))), flat(encode(trade(2, exchange="other")))]))
    assert set(made.headers()) == {("okx", "BTC-USDT"), ("other", "BTC-USDT")}
    assert made.trades.text(IDS) is None


def test_entries_are_as_they_were_read() -> None:
    pairs = numbered([*USUAL, *UNUSUAL])
    arrived = Arrived(pairs)
    assert len(arrived) == len(pairs)
    assert [arrived[place] for place in range(len(pairs))] == list(arrived)
    assert [tuple(pair) for pair in Arrived.of(arrived).pairs] == pairs
    assert list(arrived[1:3]) == list(arrived)[1:3]
    assert arrived[-1].fields == {b"data": HALF}


@given(st.lists(st.one_of(st.integers(10**18, 10**19 - 1), st.integers(0, 253_402_300_799 * SECOND)), max_size=5))
def test_times_of_a_column_are_those_of_each(column: list[int]) -> None:
    assert timestamps(column) == [timestamp(time) for time in column]


@pytest.mark.parametrize("time", [-1, 253_402_300_800 * SECOND])
def test_a_column_with_a_time_no_calendar_holds_has_no_texts(time: int) -> None:
    with pytest.raises(ValueError, match=r"no time of ours|invalid literal"):
        timestamps([NOON, time])
