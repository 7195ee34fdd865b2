"""The proof's own candles: from trades to the values a window must have. Pure, exact, and no code of aggregate's."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from simulator.proof.evidence import EXACT, Candle, Trade, Values

SECOND = 1_000_000_000
WIDTHS: Mapping[str, int] = {
    "1s": SECOND,
    "5s": 5 * SECOND,
    "10s": 10 * SECOND,
    "15s": 15 * SECOND,
    "30s": 30 * SECOND,
    "1m": 60 * SECOND,
    "5m": 300 * SECOND,
    "15m": 900 * SECOND,
    "1h": 3_600 * SECOND,
    "4h": 14_400 * SECOND,
    "1d": 86_400 * SECOND,
}
"""Width of each time frame in ns, written down again: the product's own table could be wrong."""


def window(time: int, width: int) -> int:
    """The start (ns) of the window that holds `time`."""
    return time // width * width


def by_window(trades: Iterable[Trade], width: int) -> dict[int, list[Trade]]:
    """Start of window to its trades."""
    windows: dict[int, list[Trade]] = {}
    for trade in trades:
        windows.setdefault(window(trade.time, width), []).append(trade)
    return windows


def values(trades: Sequence[Trade]) -> Values:
    """The values of at least one trade, in the order of (time, number)."""
    ordered = sorted(trades, key=lambda trade: (trade.time, trade.number))
    volume = quote_volume = buy_volume = buy_quote_volume = contracts = Decimal(0)
    for trade in ordered:
        quote = EXACT.multiply(trade.price, trade.size)
        volume = EXACT.add(volume, trade.size)
        quote_volume = EXACT.add(quote_volume, quote)
        if trade.side == "buy":
            buy_volume = EXACT.add(buy_volume, trade.size)
            buy_quote_volume = EXACT.add(buy_quote_volume, quote)
        contracts = EXACT.add(contracts, trade.contracts or Decimal(0))
    prices = [trade.price for trade in ordered]
    return Values(
        open=prices[0],
        high=max(prices),
        low=min(prices),
        close=prices[-1],
        volume=volume,
        quote_volume=quote_volume,
        buy_volume=buy_volume,
        buy_quote_volume=buy_quote_volume,
        trades_count=len(ordered),
        contracts=contracts if ordered[0].contracts is not None else None,
        first_id=ordered[0].id,
        last_id=ordered[-1].id,
    )


def differences(candle: Candle, expected: Values) -> list[str]:
    """Names of the fields in which the candle differs."""
    return [name for name in Values.__struct_fields__ if getattr(candle, name) != getattr(expected, name)]


def is_empty_at(candle: Candle, closes: Iterable[Decimal]) -> bool:
    """Whether the candle tells of no trade, all its prices being one of the given closes."""
    prices = {candle.open, candle.high, candle.low, candle.close}
    quantities = (candle.volume, candle.quote_volume, candle.buy_volume, candle.buy_quote_volume)
    nothing = not any(quantities) and not candle.trades_count and not candle.contracts
    return nothing and len(prices) == 1 and prices <= set(closes) and candle.first_id is None and candle.last_id is None
