"""Binance's spot bars by REST.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#klinecandlestick-data
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Any

import msgspec

from pipeline.commands._audit.bars import Bar
from pipeline.commands._audit.pages import Listing, Page, milliseconds
from pipeline.errors import ExchangeError

MOST = 1_000
_ROWS = msgspec.json.Decoder(tuple[tuple[Any, ...], ...])


class Klines:
    """Pages go forwards. Each weighs 2 of the address's allowance."""

    timeframes = frozenset({"1s", "1m", "5m", "15m", "1h", "4h", "1d"})
    newest_first = False
    allowances: Mapping[str, tuple[int, int]] = {}

    def page(self, listing: Listing, timeframe: str, start: datetime, end: datetime, now: datetime) -> Page:
        times = f"startTime={milliseconds(start)}&endTime={milliseconds(end) - 1}"
        query = f"symbol={listing.instrument}&interval={timeframe}&{times}&limit={MOST}"
        return Page(f"/api/v3/klines?{query}", "weight", 2)

    def read(self, body: str, listing: Listing) -> Sequence[Bar]:
        """[open, o, h, l, c, base volume, close, quote volume, trades, taker-buy base, taker-buy quote, ignore]. The
        last one may not have ended."""
        try:
            return [_bar(row) for row in _ROWS.decode(body)]
        except (msgspec.DecodeError, IndexError, TypeError, ValueError, DecimalException) as error:
            raise ExchangeError(f"Binance's bars are not readable: {body[:200]!r}") from error


def _bar(row: tuple[Any, ...]) -> Bar:
    return Bar(
        open_time=datetime.fromtimestamp(row[0] // 1000, UTC),
        open=Decimal(row[1]),
        high=Decimal(row[2]),
        low=Decimal(row[3]),
        close=Decimal(row[4]),
        volume=Decimal(row[5]),
        quote_volume=Decimal(row[7]),
        trades_count=int(row[8]),
        buy_volume=Decimal(row[9]),
        buy_quote_volume=Decimal(row[10]),
    )
