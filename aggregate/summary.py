"""The mergeable summary of a set of trades: what a candle says of them. Pure and exact.

Merging is associative and commutative, and the texts depend on the values alone, so trades give the
same candle in whatever order they come. Nothing is ever rounded: what would be is refused.
"""

from decimal import Decimal, DecimalException
from typing import NamedTuple, Self

import msgspec

from pipeline.errors import DecodeError
from pipeline.instruments import EXACT, decimal_text
from pipeline.records import Trade

NOTHING = Decimal(0)
GREATEST = 20
"""Sizes, and sizes times prices, stay below 10^20 …"""
FINEST = Decimal("1E+22")
"""… and are no finer than 10^-37, so that sums up to 10^22 are exact in 60 digits."""


class Point(NamedTuple):
    """A trade's place in its instrument's order, with its price and id. `epoch` parts equal numbers."""

    time: int
    sequence: int
    epoch: int
    price: Decimal
    id: str


class Summary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """At least one trade. Volumes in base units, `quote_*` in quote units; `contracts` None where the
    venue counts none. Order is (time, sequence). `repaired`: one of them at least was fetched later."""

    first: Point
    last: Point
    high: Decimal
    low: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    buy_quote_volume: Decimal
    contracts: Decimal | None
    trades: int
    repaired: bool = False

    @classmethod
    def of(cls, trade: Trade) -> Self:
        """The summary of one trade. Raises DecodeError when it has no time or a number cannot be used."""
        if trade.time is None:
            raise DecodeError("trade without a time", trade.id)
        try:
            price, size = Decimal(trade.price), Decimal(trade.size)
            quote = EXACT.multiply(price, size)
            contracts = None if trade.contracts is None else Decimal(trade.contracts)
            # What makes price or size no number makes their product none.
            known = usable(quote) and usable(size) and (contracts is None or usable(contracts))
        except DecimalException as error:
            raise DecodeError("trade with an unusable number", f"{trade.price} x {trade.size}") from error
        if not known:
            raise DecodeError("trade with an unusable number", f"{trade.price} x {trade.size}")
        point = Point(trade.time, trade.sequence, trade.epoch, price, trade.id)
        bought, paid = (size, quote) if trade.side == "buy" else (NOTHING, NOTHING)
        return cls(point, point, price, price, size, quote, bought, paid, contracts, trade.fills, trade.repaired)

    def merge(self, other: Self) -> Self:
        """The summary of both sets of trades, which must not overlap."""
        add = EXACT.add
        contracts = self.contracts
        if other.contracts is not None:
            contracts = other.contracts if contracts is None else add(contracts, other.contracts)
        return type(self)(
            other.first if other.first < self.first else self.first,
            other.last if other.last > self.last else self.last,
            other.high if other.high > self.high else self.high,
            other.low if other.low < self.low else self.low,
            add(self.volume, other.volume),
            add(self.quote_volume, other.quote_volume),
            add(self.buy_volume, other.buy_volume),
            add(self.buy_quote_volume, other.buy_quote_volume),
            contracts,
            self.trades + other.trades,
            self.repaired or other.repaired,
        )


def usable(value: Decimal) -> bool:
    """Whether sums of such values are exact. Raises DecimalException where the value is too fine."""
    return value.is_finite() and value.adjusted() < GREATEST and bool(EXACT.add(value, FINEST))


def text(value: Decimal) -> str:
    """The one spelling of a value: plain notation without trailing zeros, `1.5` for 1.50."""
    return decimal_text(value.normalize(EXACT))
