"""An exchange's own bar against our candle of the same window. Pure."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from pipeline.commands._audit.statements import BAR_VALUES

GRAIN = Decimal("0.00000001")
"""Exchanges write with eight decimals at most what they multiply (turnover, base units of contracts), and may round it
at each trade."""
TURNOVERS = ("quote_volume", "buy_quote_volume")
INVERSE = ("volume", "quote_volume", "buy_volume", "buy_quote_volume")
"""Of inverse contracts the base size is rounded, by us at the twelfth decimal, by the exchange as it likes: their
exact amount is `contracts`."""


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One closed bar of an exchange; what it does not tell is None. `open_time` in UTC."""

    open_time: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None = None
    buy_volume: Decimal | None = None
    buy_quote_volume: Decimal | None = None
    contracts: Decimal | None = None
    trades_count: int | None = None


def bar_of(row: Mapping[str, Any]) -> Bar:
    """The stored bar of a row of `statements.stored_bars`."""
    return Bar(open_time=row["open_time"], **{name: row[f"bar_{name}"] for name in BAR_VALUES})


def differences(candle: Mapping[str, Any], bar: Bar, *, inverse: bool) -> dict[str, tuple[Any, Any]]:
    """Field to (ours, theirs), of the fields that the exchange tells and that are not equal. Of a quiet candle only
    whether the exchange saw trades: the price before them need not be one that we saw."""
    if candle["quality"] == "quiet":
        told = ("volume", "contracts", "trades_count")
        return {name: (0, value) for name in told if (value := getattr(bar, name))}
    found = {}
    for name in BAR_VALUES:
        ours, theirs = candle[name], getattr(bar, name)
        if theirs is None or (inverse and name in INVERSE):
            continue
        derived = name in TURNOVERS or (name == "volume" and candle["contracts"] is not None)
        grain = GRAIN * candle["trades_count"] if derived else 0
        if ours is None or abs(ours - theirs) > grain:
            found[name] = (ours, theirs)
    return found
