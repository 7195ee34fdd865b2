"""Entries to batches and lines: pure."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Candle, Kline, Trade, encode
from pipeline.steps import Entry
from pipeline.timeframes import DAY
from store.batch import Batch, Moved, Partition, latest, rounds
from store.copytext import array, plain_array, ranges, text, timestamp
from store.found import Found
from store.rows import candle_line, gap_line, orderbook_line, render, trade_line
from tests.store.made import (
    KEYS,
    NOON,
    SECOND,
    book,
    candle,
    clock,
    coverage,
    entry,
    fields,
    gap,
    instrument,
    kline,
    quote,
    stream,
    ticker,
    trade,
)


def taken(*records: msgspec.Struct) -> Batch:
    batch = Batch("okx")
    for number, record in enumerate(records):
        key = stream(record)
        batch.take(key.removeprefix("test:").removesuffix(":{okx}"), key, "0-0", [entry(number, record)])
    return batch


def test_each_kind_goes_to_its_own_table() -> None:
    known = (trade(1), candle(0), candle(0, "1s"), instrument(), gap(), coverage("covered", NOON), clock(NOON))
    batch = taken(*known, quote(1), ticker(1), kline(0), kline(0, "1s"), book(10))
    tables = (batch.trades, batch.candles, batch.instruments, batch.gaps, batch.coverage)
    assert [len(table) for table in tables] == [1, 2, 1, 1, 1]
    assert [len(table) for table in (batch.quotes, batch.tickers, batch.klines, batch.books)] == [1, 1, 2, 1]
    assert batch.clock is not None
    assert batch.letters == []
    assert set(batch.headers()) == {("okx", "BTC-USDT")}


@pytest.mark.parametrize("record", [quote(1), ticker(1), kline(0), book(10), trade(1), candle(0)])
def test_one_record_of_any_kind_is_worth_a_batch(record: msgspec.Struct) -> None:
    assert taken(record).holds_rows


@pytest.mark.parametrize("record", [clock(NOON), book(10, grid=False)])
def test_a_clock_or_a_book_between_two_points_can_wait(record: msgspec.Struct) -> None:
    assert not taken(record).holds_rows


def test_cursors_move_from_where_the_batch_began_to_its_last_entry() -> None:
    batch = Batch("okx")
    batch.take("trade", "test:trade:{okx}", "5-1", [entry(1, trade(1)), entry(2, trade(2))])
    batch.take("trade", "test:trade:{okx}", "1700000000000-2", [entry(3, trade(3))])
    assert batch.moves == {"test:trade:{okx}": Moved("5-1", "1700000000000-3", 3)}


def test_gaps_among_trades_and_controls_of_later_versions_are_passed_over() -> None:
    batch = Batch("okx")
    entries = [
        Entry(b"1-1", {b"control": b"gap", b"data": encode(gap())}),
        Entry(b"1-2", {b"control": b"weather", b"data": b"{}"}),
    ]
    batch.take("trade", "test:trade:{okx}", "0-0", entries)
    assert (batch.ignored, batch.gaps, batch.letters) == (2, [], [])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "not a record"),
        (b'{"exchange":"okx"}', "not a record"),
        (encode(trade(1)).replace(b'"buy"', b'"maybe"'), "not a record"),
        (encode(trade(1)).replace(b'"id":"1"', rb'"id":"1\u0000"'), "text holds a NUL, which Postgres cannot keep"),
        (encode(trade(1, time=None)), "trade has no time"),
        (encode(trade(1, time=NOON - 401 * DAY)), "time out of range"),
        (encode(trade(1, time=NOON + 2 * DAY)), "time out of range"),
    ],
)
def test_what_cannot_be_stored_becomes_a_dead_letter(data: bytes, reason: str) -> None:
    batch = Batch("okx")
    batch.take(
        "trade", "test:trade:{okx}", "0-0", [Entry(b"1-1", {b"symbol": b"X", b"data": data}), entry(2, trade(2))]
    )
    (letter,) = batch.letters
    assert (letter.reason, letter.entry, letter.stage, letter.exchange) == (reason, "1-1", "store", "okx")
    assert letter.frame.encode() == data
    assert [found.record.sequence for found in batch.trades] == [2]
    assert batch.moves["test:trade:{okx}"].new == "1700000000000-2"


def test_an_entry_without_data_is_a_dead_letter() -> None:
    batch = Batch("okx")
    batch.take("trade", "test:trade:{okx}", "0-0", [Entry(b"1-1", {b"symbol": b"X"})])
    assert [letter.reason for letter in batch.letters] == ["entry has no data"]


def test_a_control_that_is_no_text_is_passed_over() -> None:
    batch = Batch("okx")
    batch.take("trade", "test:trade:{okx}", "0-0", [Entry(b"1-1", {b"control": b"\xff", b"data": b"{}"})])
    assert (batch.ignored, batch.letters, batch.entries) == (1, [], 1)


@pytest.mark.parametrize(("kind", "record"), [("candle:1m", candle(0)), ("kline:1m", kline(0))])
def test_a_bar_of_an_unknown_frame_is_a_dead_letter(kind: str, record: Candle | Kline) -> None:
    batch = Batch("okx")
    odd = Entry(b"1-1", fields(msgspec.structs.replace(record, timeframe="7m")))
    batch.take(kind, KEYS.stream(kind), "0-0", [odd])
    assert [letter.reason for letter in batch.letters] == ["bar of an unknown time frame"]


def test_partitions_are_those_of_the_rows() -> None:
    day, late = NOON - NOON % DAY, NOON + DAY - NOON % DAY
    batch = taken(trade(1), trade(1, time=NOON + DAY // 2, received=NOON + DAY // 2), candle(0), candle(0, "1s"))
    bars = {Partition(f"candles_{width}", day) for width in ("minutes", "seconds")}
    assert batch.partitions() == {Partition("trades", day), *bars}
    # The day of a quote is that of its arrival, of a book that of the moment from which on it holds.
    times: dict[str, Any] = {"time": late - SECOND, "received": late}
    batch = taken(quote(1, **times), ticker(1, **times), book(1, **times, snapshot_time=late - SECOND), kline(0))
    assert batch.partitions() == {
        Partition("quotes", late),
        Partition("tickers", late),
        Partition("orderbooks", day),
        Partition("klines_minutes", day),
    }
    assert taken(book(1, **times, grid=False)).partitions() == {Partition("orderbooks", late)}


def test_the_last_candle_of_a_window_is_kept_and_instruments_are_taken_in_turns() -> None:
    batch = taken(candle(0), candle(1), candle(0, close="64000.9"), instrument(), instrument(tick_size="0.5"))
    assert [found.record.close for found in latest(batch.candles, lambda c: (c.timeframe, c.open_time))] == [
        "64000.9",
        "64000.5",
    ]
    assert [[found.record.tick_size for found in turn] for turn in rounds(batch.instruments)] == [["0.1"], ["0.5"]]


def test_lines_hold_whole_microseconds_floored() -> None:
    line = trade_line(Found(trade(1), entry(1, trade(1))), 7)
    assert line.split("\t") == [
        "7", "2025-10-09 09:00:00.100000+00", "2025-10-09 09:00:00.105000+00", "1", "\\N", "0", "1", "f", "buy",
        "64000.10", "0.5", "\\N", "1", "{}",
    ]  # fmt: skip
    assert timestamp(1_999) == "1970-01-01 00:00:00.000001+00"


def test_lines_of_the_other_kinds() -> None:
    odd = trade(1, id='a\tb\\c"\n', conditions=("block", 'a"b'), contracts="5", first_sequence=1, repaired=True)
    line = trade_line(Found(odd, entry(1, odd)), 7)
    assert line.split("\t")[7:] == ["t", "buy", "64000.10", "0.5", "5", 'a\\tb\\\\c"\\n', '{"block","a\\\\"b"}']
    assert candle_line(Found(candle(0), entry(3, candle(0))), 7).split("\t")[5:10] == [
        "0",
        "5",
        "1700000000000",
        "3",
        "0",
    ]
    assert gap_line(Found(gap(), entry(3, gap())), 7).split("\t")[9:12] == [
        "0", "{[10,19]}", "2025-10-09 09:00:20.000000+00",
    ]  # fmt: skip


def test_a_book_is_a_line_of_its_best_levels_and_of_arrays() -> None:
    made = book(10, asks=[])
    assert orderbook_line(Found(made, entry(3, made)), 7).split("\t") == [
        "7", "2025-10-09 09:00:01.000000+00", "2025-10-09 09:00:01.005000+00", "2025-10-09 09:00:00.993000+00",
        "2025-10-09 09:00:01.000000+00", "10", "1700000000000", "3", "20", "t", "base", "\\N", "64000.10", "0.5",
        "\\N", "\\N", '{"64000.10","63999.9"}', '{"0.5","2"}', "{}", "{}",
    ]  # fmt: skip
    odd = book(11, bids=[['1"', "a\tb"]], valid=False, reason="x\ty")
    line = orderbook_line(Found(odd, entry(3, odd)), 7)
    assert line.count("\t") == 19
    assert line.split("\t")[9:12] == ["f", "base", "x\\ty"]
    assert line.split("\t")[16:18] == ['{"1\\\\""}', '{"a\\tb"}']


def test_a_time_no_calendar_holds_is_the_rows_fault() -> None:
    far = gap(to_time=400_000_000_000 * SECOND // 10**3 * 10**3)
    rows, bad = render([Found(far, entry(1, far)), Found(gap(), entry(2, gap()))], {("okx", "BTC-USDT"): 7}, gap_line)
    assert ([row.found.entry.id for row in rows], [error.reason for _, error in bad]) == (
        [b"1700000000000-2"],
        ["time out of range"],
    )


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")))
def test_text_survives_the_format_of_copy(value: str) -> None:
    line = text(value)
    assert not re.search(r"[\t\n\r]", line)
    unescaped = re.sub(r"\\(.)", lambda m: {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}[m[1]], line)
    assert unescaped == value


@given(
    st.integers(0, 2**40), st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=9)
)
def test_a_trade_is_always_one_line_of_fourteen_columns(sequence: int, words: str) -> None:
    made = trade(sequence % 1000, id=words, price=words or "1", conditions=(words,) if sequence % 2 else ())
    record = msgspec.json.decode(encode(made), type=Trade)
    line = trade_line(Found(record, entry(1, record)), 7)
    assert "\n" not in line
    assert line.count("\t") == 13


def test_arrays_and_ranges() -> None:
    for items in ((), ("1",), ("64000.10", "NULL", "1,2", "{")):
        assert plain_array(items) == array(items)
    assert array(()) == "{}"
    assert ranges(((1, 5), (8, 8))) == "{[1,5],[8,8]}"
