"""The read API over quotes and tickers. Their ranges are by `received`: not every venue gives a time."""

from typing import LiteralString

from pipeline.records import Quote, Ticker
from store.ranges import RangeRepository, nanoseconds

_TIMES: LiteralString = f"""SELECT {nanoseconds('"time"')}, {nanoseconds("received")}, """


class QuoteRepository(RangeRepository[Quote]):
    """Best bid and ask of the venue's own channel."""

    columns = _TIMES + "bid::text, bid_size::text, ask::text, ask_size::text, sequence"
    function = "quotes"
    kind = Quote
    names = ("time", "received", "bid", "bid_size", "ask", "ask_size", "sequence")

    def last(self, exchange: str, symbol: str, n: int = 1) -> list[Quote]:
        """The n newest quotes, newest first."""
        header = self.header(exchange, symbol)
        rows = self.all(f"{self.columns} FROM last_quotes(%s, %s, %s)", (header.exchange, header.instrument, n))
        return [self.record(header, row) for row in rows]


class TickerRepository(RangeRepository[Ticker]):
    """The venue's rolling 24 hours."""

    columns = (
        _TIMES
        + """
        last::text, bid::text, bid_size::text, ask::text, ask_size::text, open_24h::text, high_24h::text,
        low_24h::text, volume_24h::text, quote_volume_24h::text
        """
    )
    function = "tickers"
    kind = Ticker
    names = (
        "time", "received", "last", "bid", "bid_size", "ask", "ask_size", "open_24h", "high_24h", "low_24h",
        "volume_24h", "quote_volume_24h",
    )  # fmt: skip

    def last(self, exchange: str, symbol: str) -> Ticker | None:
        """The newest ticker; None before the first."""
        header = self.header(exchange, symbol)
        rows = self.all(f"{self.columns} FROM last_ticker(%s, %s)", (header.exchange, header.instrument))
        return self.record(header, rows[0]) if rows else None
