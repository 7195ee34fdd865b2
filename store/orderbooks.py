"""The read API over order books: the regular grid, and each change of their validity."""

from psycopg.rows import TupleRow

from pipeline.records import OrderBook
from store.ranges import RangeRepository, nanoseconds
from store.repository import Header, Time, moment


class OrderBookRepository(RangeRepository[OrderBook]):
    """Books as they stood at the points of the grid (`snapshot_time` is set) and where they became valid or invalid.

    Ranges are by `snapshot_time`, between two points of the grid by the later of `time` and `received`.
    """

    columns = f"""
        SELECT {nanoseconds('"time"')}, {nanoseconds("received")}, {nanoseconds("snapshot_time")}, valid, reason,
               unit, depth, sequence, bid_prices::text[], bid_sizes::text[], ask_prices::text[], ask_sizes::text[]
    """
    function = "orderbooks"
    kind = OrderBook
    names = ("time", "received", "snapshot_time", "valid", "reason", "unit", "depth", "sequence", "bids", "asks")

    def at(self, exchange: str, symbol: str, time: Time) -> OrderBook | None:
        """The newest book stored of `time` or before; None before the first. One that is older than a minute is what
        was last known: nothing proved it since."""
        header = self.header(exchange, symbol)
        values = (header.exchange, header.instrument, moment(time))
        rows = self.all(f"{self.columns} FROM orderbook_at(%s, %s, %s)", values)
        return self.record(header, rows[0]) if rows else None

    def record(self, header: Header, row: TupleRow) -> OrderBook:
        *scalars, bid_prices, bid_sizes, ask_prices, ask_sizes = row
        sides = (tuple(zip(bid_prices, bid_sizes, strict=True)), tuple(zip(ask_prices, ask_sizes, strict=True)))
        return super().record(header, (*scalars, *sides))
