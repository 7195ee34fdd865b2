"""OKX's bars by REST. https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-candlesticks-history"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException

import msgspec

from pipeline.commands._audit.bars import Bar
from pipeline.commands._audit.pages import Listing, Page, milliseconds
from pipeline.errors import ExchangeError
from pipeline.timeframes import SECOND, WIDTHS

MOST = 300
RECENT = 1_400
"""`candles` has the newest 1440; `history-candles` has all, but may lag behind them."""
_BARS = {"1s": "1s", "1m": "1m", "5m": "5m", "15m": "15m", "1h": "1H", "4h": "4H", "1d": "1Dutc"}


class _Reply(msgspec.Struct, frozen=True):
    data: tuple[tuple[str, ...], ...]


_REPLY = msgspec.json.Decoder(_Reply)


class Klines:
    """Pages go backwards: newest first, `after` is older than. Weights: requests in 2 s and address."""

    timeframes = frozenset(_BARS)
    newest_first = True
    allowances: Mapping[str, tuple[int, int]] = {"candles": (40, 2 * SECOND), "history-candles": (20, 2 * SECOND)}

    def page(self, listing: Listing, timeframe: str, start: datetime, end: datetime, now: datetime) -> Page:
        width = timedelta(microseconds=WIDTHS[timeframe] // 1_000)
        path = "candles" if end > now - RECENT * width else "history-candles"
        query = f"instId={listing.instrument}&bar={_BARS[timeframe]}&after={milliseconds(end)}&limit={MOST}"
        return Page(f"/api/v5/market/{path}?{query}", path, 1)

    def read(self, body: str, listing: Listing) -> Sequence[Bar]:
        """[ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm]: `vol` is base of spot, else contracts; `volCcy` quote
        of spot, else base."""
        try:
            return [_bar(row, listing.market == "spot") for row in _REPLY.decode(body).data if row[8] == "1"]
        except (msgspec.DecodeError, IndexError, ValueError, DecimalException) as error:
            raise ExchangeError(f"OKX's bars are not readable: {body[:200]!r}") from error


def _bar(row: tuple[str, ...], spot: bool) -> Bar:
    return Bar(
        open_time=datetime.fromtimestamp(int(row[0]) // 1000, UTC),
        open=Decimal(row[1]),
        high=Decimal(row[2]),
        low=Decimal(row[3]),
        close=Decimal(row[4]),
        volume=Decimal(row[5] if spot else row[6]),
        quote_volume=Decimal(row[7]) if row[7] else None,
        contracts=None if spot else Decimal(row[5]),
    )
