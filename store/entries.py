"""One stream entry to a record that can be stored, or a DecodeError that says why not. Pure."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from pipeline.errors import DecodeError
from pipeline.records import (
    Candle,
    Clock,
    Coverage,
    Gap,
    Instrument,
    Kline,
    OrderBook,
    Quote,
    Rebuild,
    Ticker,
    Trade,
)
from pipeline.steps import Entry
from pipeline.timeframes import DAY, SECOND, WIDTHS
from store.copytext import LAST_SECOND

OLDEST = 400 * DAY
"""A time further before its arrival is an error of somebody's: it would make partitions without end."""
NEWEST = DAY
_END = LAST_SECOND * SECOND

S = TypeVar("S", bound=msgspec.Struct)


class BookHead(msgspec.Struct, frozen=True, gc=False):
    """What of an order book's record decides whether it is stored: a fifth of the time that all of it takes."""

    exchange: str
    instrument: str
    snapshot_time: int | None = None
    valid: bool = True
    reason: str | None = None


def _decoded(record: type[S], check: Callable[[S], None] | None = None) -> Callable[[Entry], S]:
    decoder = msgspec.json.Decoder(record)

    def decode(entry: Entry) -> S:
        data = entry.fields.get(b"data")
        if data is None:
            raise DecodeError("entry has no data")
        if b"\\" in data and b"\\u0000" in data:
            raise DecodeError("text holds a NUL, which Postgres cannot keep")
        try:
            found = decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DecodeError("not a record", str(error)) from error
        if check is not None:
            check(found)
        return found

    return decode


def at(book: OrderBook) -> int:
    """From when on (ns) the record holds. Between two points of the grid that is the later of its two times: the time
    of a book that was closed or broken may be that of its last update, long ago."""
    if book.snapshot_time is not None:
        return book.snapshot_time
    return book.received if book.time is None else max(book.time, book.received)


def _sound_trade(trade: Trade) -> None:
    if trade.time is None:
        raise DecodeError("trade has no time")
    _check(trade.time, trade.received)


def _sound_bar(bar: Candle | Kline) -> None:
    if bar.timeframe not in WIDTHS:
        raise DecodeError("bar of an unknown time frame", bar.timeframe)
    _check(bar.open_time, bar.received)


def _sound_book(book: OrderBook) -> None:
    _check(at(book), book.received)


def _sound_arrival(record: Quote | Ticker) -> None:
    # A ticker that nothing moves may carry a time of long ago.
    _check(record.received, record.received)


def _sound_rebuild(rebuild: Rebuild) -> None:
    if rebuild.time is None or rebuild.from_time > rebuild.to_time:
        raise DecodeError("rebuild of no time")
    for timeframe in (*rebuild.timeframes, rebuild.quiet_from):
        if timeframe not in WIDTHS:
            raise DecodeError("rebuild of an unknown time frame", timeframe)
    _check(rebuild.from_time, rebuild.received)


def _check(time: int, received: int) -> None:
    if not (0 <= time <= _END and received - OLDEST <= time <= received + NEWEST):
        raise DecodeError("time out of range", f"time {time}, received {received}")


def are_near(times: Sequence[int], arrivals: Sequence[int]) -> bool:
    """Whether all of these times, and those of their arrivals, are in range. By the outermost alone: where it is False
    each may be in range all the same."""
    low, high, first, last = min(times), max(times), min(arrivals), max(arrivals)
    return min(low, first) >= 0 and max(high, last) <= _END and last - OLDEST <= low and high <= first + NEWEST


trade = _decoded(Trade, _sound_trade)
candle = _decoded(Candle, _sound_bar)
kline = _decoded(Kline, _sound_bar)
orderbook = _decoded(OrderBook, _sound_book)
book_head = _decoded(BookHead)
quote = _decoded(Quote, _sound_arrival)
ticker = _decoded(Ticker, _sound_arrival)
instrument = _decoded(Instrument)
gap = _decoded(Gap)
coverage = _decoded(Coverage)
rebuild = _decoded(Rebuild, _sound_rebuild)
clock = _decoded(Clock)
