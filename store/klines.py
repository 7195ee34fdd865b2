"""The read API over the exchange's own bars."""

import contextlib
from collections.abc import Iterator
from typing import LiteralString

from psycopg.rows import TupleRow

from pipeline.records import Kline
from store.ranges import CHUNK, filled, known_timeframe, nanoseconds, span
from store.repository import Header, Repository, Time

_COLUMNS: LiteralString = f"""
    SELECT {nanoseconds('"time"')}, {nanoseconds("received")}, {nanoseconds("open_time")}, {nanoseconds("close_time")},
           open::text, high::text, low::text, close::text, volume::text, quote_volume::text, buy_volume::text,
           buy_quote_volume::text, contracts::text, trades_count, first_id, last_id
"""
_NAMES = (
    "time", "received", "open_time", "close_time", "open", "high", "low", "close", "volume", "quote_volume",
    "buy_volume", "buy_quote_volume", "contracts", "trades_count", "first_id", "last_id",
)  # fmt: skip
_BETWEEN: LiteralString = _COLUMNS + "FROM klines(%s, %s, %s, %s, %s)"


class KlineRepository(Repository):
    """Bars as the exchange closed them; what it does not tell is None."""

    def between(self, exchange: str, symbol: str, timeframe: str, start: Time, end: Time) -> list[Kline]:
        """The bars whose windows open in [start, end), oldest first."""
        header = self.header(exchange, symbol)
        rows = self.all(_BETWEEN, _values(header, timeframe, start, end))
        return [_kline(header, timeframe, row) for row in rows]

    def stream(
        self, exchange: str, symbol: str, timeframe: str, start: Time, end: Time, *, chunk: int = CHUNK
    ) -> Iterator[Kline]:
        """As `between`, one by one. The connection is busy until the iterator is used up or closed."""
        header = self.header(exchange, symbol)
        with contextlib.closing(self.each(_BETWEEN, _values(header, timeframe, start, end), chunk)) as rows:
            for row in rows:
                yield _kline(header, timeframe, row)

    def last(self, exchange: str, symbol: str, timeframe: str, n: int = 1) -> list[Kline]:
        """The n newest bars, newest first."""
        header = self.header(exchange, symbol)
        rows = self.all(
            _COLUMNS
            + "FROM klines WHERE instrument_id = %s AND timeframe = %s ORDER BY klines.open_time DESC LIMIT %s",
            (header.number, known_timeframe(timeframe), n),
        )
        return [_kline(header, timeframe, row) for row in rows]


def _kline(header: Header, timeframe: str, row: TupleRow) -> Kline:
    return filled(Kline, header, ("timeframe", *_NAMES), (timeframe, *row))


def _values(header: Header, timeframe: str, start: Time, end: Time) -> tuple[object, ...]:
    exchange, instrument, *ends = span(header, start, end)
    return exchange, instrument, known_timeframe(timeframe), *ends
