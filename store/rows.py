"""Records as lines of COPY, one function a table; the columns stand in tables.py. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from pipeline.errors import DecodeError
from pipeline.records import Candle, Coverage, Gap, Instrument, Kline, OrderBook, Quote, Rebuild, Record, Ticker, Trade
from pipeline.steps import Entry
from store.copytext import NULL, SECONDS, array, maybe_timestamp, plain_array, ranges, text, timestamp
from store.entries import at
from store.found import Found, InstrumentKey
from store.tables import METADATA

T = TypeVar("T", bound=Record)

_EMPTY: tuple[tuple[str, ...], ...] = ((), ())


class Row(msgspec.Struct, frozen=True, gc=False):
    """One line of COPY, without its newline, and the record it was made of."""

    line: str
    found: Found[Record]


def render(
    found: Sequence[Found[T]], ids: Mapping[InstrumentKey, int], line: Callable[[Found[T], int], str]
) -> tuple[list[Row], list[tuple[Found[T], DecodeError]]]:
    """The rows, and the records that no line can be made of, with the reason."""
    rows: list[Row] = []
    bad: list[tuple[Found[T], DecodeError]] = []
    for item in found:
        record = item.record
        try:
            rows.append(Row(line(item, ids[record.exchange, record.instrument]), item))
        except ValueError as error:
            bad.append((item, DecodeError("time out of range", str(error))))
    return rows, bad


def joined(rows: Sequence[Row]) -> str:
    """What COPY is given."""
    return "\n".join([row.line for row in rows]) + "\n"


def trade_line(found: Found[Trade], number: int) -> str:
    trade = found.record
    assert trade.time is not None, "a trade without a time never gets this far"
    first, contracts = trade.first_sequence, trade.contracts
    # Only JSON with a backslash can hold a character that COPY would take for its own.
    if b"\\" in found.entry.fields[b"data"] or trade.conditions:
        words = "\t".join(
            (text(trade.price), text(trade.size), text(contracts), text(trade.id), array(trade.conditions))
        )
    else:
        words = f"{trade.price}\t{trade.size}\t{NULL if contracts is None else contracts}\t{trade.id}\t{{}}"
    # `timestamp`, written out: calling it takes a sixth of the line's time.
    time, received = str(trade.time).zfill(10), str(trade.received).zfill(10)
    return (
        f"{number}\t{SECONDS[time[:-9]]}.{time[-9:-3]}+00\t{SECONDS[received[:-9]]}.{received[-9:-3]}+00"
        f"\t{trade.sequence}\t{NULL if first is None else first}\t{trade.epoch}\t{trade.fills}"
        f"\t{'t' if trade.repaired else 'f'}\t{trade.side}\t{words}"
    )


def candle_line(found: Found[Candle], number: int) -> str:
    candle = found.record
    entry_ms, entry_seq = entry_id(found.entry)
    numbers = (candle.missing, candle.trades_count, entry_ms, entry_seq, candle.revision)
    words = (
        candle.quality, candle.open, candle.high, candle.low, candle.close, candle.volume, candle.quote_volume,
        candle.buy_volume, candle.buy_quote_volume, candle.contracts, candle.first_id, candle.last_id,
    )  # fmt: skip
    times = (timestamp(candle.open_time), timestamp(candle.close_time), timestamp(candle.received))
    return "\t".join((str(number), candle.timeframe, *times, *map(str, numbers), *map(text, words)))


def kline_line(found: Found[Kline], number: int) -> str:
    kline = found.record
    times = (timestamp(kline.open_time), timestamp(kline.close_time), timestamp(kline.received))
    count = NULL if kline.trades_count is None else str(kline.trades_count)
    words = (
        kline.open, kline.high, kline.low, kline.close, kline.volume, kline.quote_volume, kline.buy_volume,
        kline.buy_quote_volume, kline.contracts, kline.first_id, kline.last_id,
    )  # fmt: skip
    numbers = (maybe_timestamp(kline.time), count, *entry_id(found.entry))
    return "\t".join((str(number), kline.timeframe, *times, *numbers, *map(text, words)))


def quote_line(found: Found[Quote], number: int) -> str:
    quote = found.record
    sequence = NULL if quote.sequence is None else str(quote.sequence)
    times = (timestamp(quote.received), maybe_timestamp(quote.time))
    words = (quote.bid, quote.bid_size, quote.ask, quote.ask_size)
    return "\t".join((str(number), *times, sequence, *entry_id(found.entry), *map(text, words)))


def ticker_line(found: Found[Ticker], number: int) -> str:
    ticker = found.record
    times = (timestamp(ticker.received), maybe_timestamp(ticker.time))
    words = (
        ticker.last, ticker.bid, ticker.bid_size, ticker.ask, ticker.ask_size, ticker.open_24h, ticker.high_24h,
        ticker.low_24h, ticker.volume_24h, ticker.quote_volume_24h,
    )  # fmt: skip
    return "\t".join((str(number), *times, *entry_id(found.entry), *map(text, words)))


def orderbook_line(found: Found[OrderBook], number: int) -> str:
    book = found.record
    times = (timestamp(at(book)), timestamp(book.received), maybe_timestamp(book.time))
    sequence = NULL if book.sequence is None else str(book.sequence)
    numbers = (maybe_timestamp(book.snapshot_time), sequence, *entry_id(found.entry), str(book.depth))
    best = (*(book.bids[0] if book.bids else (None, None)), *(book.asks[0] if book.asks else (None, None)))
    words = ("t" if book.valid else "f", book.unit, text(book.reason), *map(text, best))
    # Only JSON with a backslash can hold a character that COPY or an array would take for its own.
    listed = array if b"\\" in found.entry.fields[b"data"] else plain_array
    levels = [
        listed(column) for side in (book.bids, book.asks) for column in (zip(*side, strict=True) if side else _EMPTY)
    ]
    return "\t".join((str(number), *times, *numbers, *words, *levels))


def gap_line(found: Found[Gap], number: int) -> str:
    gap = found.record
    received = timestamp(gap.received)
    changed = maybe_timestamp(gap.time)
    entry_ms, entry_seq = entry_id(found.entry)
    return "\t".join(
        (
            f"{number}\t{gap.epoch}\t{gap.from_sequence}\t{gap.to_sequence}",
            f"{timestamp(gap.from_time)}\t{timestamp(gap.to_time)}",
            f"{text(gap.cause)}\t{gap.state}\t{text(gap.reason)}\t{gap.repaired}\t{ranges(gap.remaining)}",
            f"{received if gap.time is None else changed}\t{changed}\t{received}\t{entry_ms}\t{entry_seq}",
        )
    )


def coverage_line(partition: str) -> Callable[[Found[Coverage], int], str]:
    """Lines of coverage records of one partition."""

    def line(found: Found[Coverage], number: int) -> str:
        coverage = found.record
        entry_ms, entry_seq = entry_id(found.entry)
        received = timestamp(coverage.received)
        time = received if coverage.time is None else timestamp(coverage.time)
        words = (partition, coverage.state, coverage.cause, coverage.connection)
        frames = NULL if coverage.candles is None else array(coverage.candles.timeframes)
        return "\t".join((f"{number}\t{entry_ms}\t{entry_seq}\t{time}\t{received}", *map(text, words), frames))

    return line


def rebuild_line(partition: str) -> Callable[[Found[Rebuild], int], str]:
    """Lines of rebuild records of one partition."""

    def line(found: Found[Rebuild], number: int) -> str:
        rebuild = found.record
        span = (timestamp(rebuild.from_time), timestamp(rebuild.to_time), timestamp(rebuild.time or 0))
        words = (timestamp(rebuild.received), text(partition), rebuild.quiet_from, array(rebuild.timeframes))
        return "\t".join((str(number), *entry_id(found.entry), *span, *words))

    return line


def instrument_line(found: Found[Instrument], number: int) -> str:
    record = found.record
    times = ("expiry", "listed")
    values = [
        maybe_timestamp(getattr(record, name)) if name in times else text(getattr(record, name)) for name in METADATA
    ]
    return "\t".join((str(number), timestamp(record.received), *values))


def entry_id(entry: Entry) -> tuple[str, str]:
    """The two numbers of an entry's id, as text."""
    milliseconds, _, number = entry.id.decode().partition("-")
    return milliseconds, number or "0"
