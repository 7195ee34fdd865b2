"""The read API over what is stored, for other programs: records in, no SQL. Never writes.

    with RawTradeRepository("postgresql://…/tapeline") as trades:
        for trade in trades.stream("okx", "BTC-USDT", start, end): …

Times are aware datetimes or ns since 1970 UTC; ranges hold their start and not their end; symbols are
canonical or the venue's own, in either case. Every error is a SettingsError (an unknown symbol, a schema
that is not ready, a time without a zone) or ServerAway (the server cannot be reached or broke off).
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import LiteralString, NamedTuple

from psycopg.rows import TupleRow

from pipeline.records import Candle, Gap, Instrument, Trade
from store.klines import KlineRepository
from store.orderbooks import OrderBookRepository
from store.quotes import QuoteRepository, TickerRepository
from store.ranges import CHUNK, filled, known_timeframe, span
from store.repository import Header, Repository, Time, moment

__all__ = [
    "Interval",
    "KlineRepository",
    "MarketDataRepository",
    "OrderBookRepository",
    "QuoteRepository",
    "RawTradeRepository",
    "TickerRepository",
]


class Interval(NamedTuple):
    """From `start` to `end` (ns UTC, exclusive) every trade was seen, or is in the ledger of gaps."""

    start: int
    end: int


_TRADE: LiteralString = """
    SELECT id, sequence, price::text, size::text, side, first_sequence, epoch, fills, contracts::text, conditions,
           repaired, (extract(epoch FROM "time") * 1000000)::bigint * 1000,
           (extract(epoch FROM received) * 1000000)::bigint * 1000
"""


class RawTradeRepository(Repository):
    """Trades as the venue printed them, and what is known to be missing."""

    def between(self, exchange: str, symbol: str, start: Time, end: Time) -> list[Trade]:
        """The trades of [start, end), ordered by time and sequence."""
        header = self.header(exchange, symbol)
        rows = self.all(_TRADE + "FROM trades(%s, %s, %s, %s)", span(header, start, end))
        return [_trade(header, row) for row in rows]

    def stream(self, exchange: str, symbol: str, start: Time, end: Time, *, chunk: int = CHUNK) -> Iterator[Trade]:
        """As `between`, one by one. The connection is busy until the iterator is used up or closed."""
        header = self.header(exchange, symbol)
        rows = self.each(_TRADE + "FROM trades(%s, %s, %s, %s)", span(header, start, end), chunk)
        with contextlib.closing(rows):
            for row in rows:
                yield _trade(header, row)

    def last(self, exchange: str, symbol: str, n: int = 1) -> list[Trade]:
        """The n newest trades, newest first."""
        header = self.header(exchange, symbol)
        rows = self.all(_TRADE + "FROM last_trades(%s, %s, %s)", (header.exchange, header.instrument, n))
        return [_trade(header, row) for row in rows]

    def gaps(self, exchange: str, symbol: str, *, open_only: bool = False) -> list[Gap]:
        """The ledger's entries, oldest first. `open_only`: those with numbers that are still missing."""
        header = self.header(exchange, symbol)
        rows = self.all(
            """
            SELECT epoch, from_sequence, to_sequence, (extract(epoch FROM from_time) * 1000000)::bigint * 1000,
                   (extract(epoch FROM to_time) * 1000000)::bigint * 1000, cause, state, reason, repaired,
                   (extract(epoch FROM "time") * 1000000)::bigint * 1000,
                   (extract(epoch FROM received) * 1000000)::bigint * 1000,
                   ARRAY(SELECT ARRAY[lower(r), upper(r) - 1] FROM unnest(remaining) AS r)
            FROM trade_gaps WHERE instrument_id = %s AND (state <> 'closed' OR NOT %s)
            ORDER BY epoch, from_sequence
            """,
            (header.number, open_only),
        )
        return [_gap(header, row) for row in rows]

    def coverage(self, exchange: str, symbol: str) -> list[Interval]:
        """When the instrument's trades were seen, oldest first."""
        header = self.header(exchange, symbol)
        rows = self.all(
            """
            SELECT (extract(epoch FROM from_time) * 1000000)::bigint * 1000,
                   (extract(epoch FROM to_time) * 1000000)::bigint * 1000
            FROM coverage_intervals WHERE instrument_id = %s ORDER BY from_time
            """,
            (header.number,),
        )
        return [Interval(*row) for row in rows]


_CANDLE: LiteralString = """
    SELECT (extract(epoch FROM open_time) * 1000000)::bigint * 1000,
           (extract(epoch FROM close_time) * 1000000)::bigint * 1000,
           (extract(epoch FROM coalesce(received, close_time)) * 1000000)::bigint * 1000,
           open::text, high::text, low::text, close::text, volume::text, quote_volume::text, buy_volume::text,
           buy_quote_volume::text, contracts::text, trades_count, first_id, last_id, quality, revision, missing
"""


class MarketDataRepository(Repository):
    """Candles and instruments."""

    def between(
        self, exchange: str, symbol: str, timeframe: str, start: Time, end: Time, *, fill: bool = False
    ) -> list[Candle]:
        """The candles whose windows open in [start, end), oldest first.

        `fill` adds the windows that have no candle and provably no trade; such a candle was never received:
        its `received` is its `close_time`. Windows of which nothing is known stay left out."""
        header = self.header(exchange, symbol)
        values = _candle_range(header, timeframe, start, end, fill)
        rows = self.all(_CANDLE + "FROM candles(%s, %s, %s, %s, %s, %s)", values)
        return [_candle(header, timeframe, row) for row in rows]

    def stream(
        self,
        exchange: str,
        symbol: str,
        timeframe: str,
        start: Time,
        end: Time,
        *,
        fill: bool = False,
        chunk: int = CHUNK,
    ) -> Iterator[Candle]:
        """As `between`, one by one. The connection is busy until the iterator is used up or closed."""
        header = self.header(exchange, symbol)
        values = _candle_range(header, timeframe, start, end, fill)
        rows = self.each(_CANDLE + "FROM candles(%s, %s, %s, %s, %s, %s)", values, chunk)
        with contextlib.closing(rows):
            for row in rows:
                yield _candle(header, timeframe, row)

    def last(self, exchange: str, symbol: str, timeframe: str, n: int = 1) -> list[Candle]:
        """The n newest candles, newest first."""
        header = self.header(exchange, symbol)
        rows = self.all(
            _CANDLE
            + "FROM candles WHERE instrument_id = %s AND timeframe = %s ORDER BY candles.open_time DESC LIMIT %s",
            (header.number, known_timeframe(timeframe), n),
        )
        return [_candle(header, timeframe, row) for row in rows]

    def instruments(self, exchange: str) -> list[Instrument]:
        """The exchange's instruments as its list has them now; those it does not list are left out."""
        rows = self.all(
            """
            SELECT market, symbol, instrument, (extract(epoch FROM valid_from) * 1000000)::bigint * 1000, base, quote,
                   status, settle, contract, contract_value::text, contract_currency, tick_size::text, lot_size::text,
                   min_size::text, (extract(epoch FROM expiry) * 1000000)::bigint * 1000, strike::text, option,
                   (extract(epoch FROM listed) * 1000000)::bigint * 1000
            FROM instruments WHERE exchange = lower(%s) AND valid_from IS NOT NULL ORDER BY symbol
            """,
            (exchange,),
        )
        names = (
            "market", "symbol", "instrument", "received", "base", "quote", "status", "settle", "contract",
            "contract_value", "contract_currency", "tick_size", "lot_size", "min_size", "expiry", "strike", "option",
            "listed",
        )  # fmt: skip
        return [Instrument(exchange=exchange.lower(), time=None, **dict(zip(names, row, strict=True))) for row in rows]


def _trade(header: Header, row: TupleRow) -> Trade:
    number, sequence, price, size, side, first, epoch, fills, contracts, conditions, repaired, time, received = row
    return Trade(
        **header.fields(),
        time=time,
        received=received,
        id=number,
        sequence=sequence,
        price=price,
        size=size,
        side=side,
        first_sequence=first,
        epoch=epoch,
        fills=fills,
        contracts=contracts,
        conditions=tuple(conditions),
        repaired=repaired,
    )


def _candle(header: Header, timeframe: str, row: TupleRow) -> Candle:
    names = (
        "open_time", "close_time", "received", "open", "high", "low", "close", "volume", "quote_volume", "buy_volume",
        "buy_quote_volume", "contracts", "trades_count", "first_id", "last_id", "quality", "revision", "missing",
    )  # fmt: skip
    return filled(Candle, header, (*names, "time", "timeframe"), (*row, row[1], timeframe))


def _gap(header: Header, row: TupleRow) -> Gap:
    names = (
        "epoch", "from_sequence", "to_sequence", "from_time", "to_time", "cause", "state", "reason", "repaired", "time",
        "received",
    )  # fmt: skip
    remaining = tuple((first, last) for first, last in row[-1])
    return Gap(**header.fields(), remaining=remaining, **dict(zip(names, row[:-1], strict=True)))


def _candle_range(
    header: Header, timeframe: str, start: Time, end: Time, fill: bool
) -> tuple[str, str, str, datetime, datetime, bool]:
    return header.exchange, header.instrument, known_timeframe(timeframe), moment(start), moment(end), fill
