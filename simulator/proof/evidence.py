"""What a proof is made from: true fills, stored rows and the exchange's own log of connections. Pure.

Sizes of true fills are turned into base units here, by the proof's own arithmetic.
"""

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, Rounded

import msgspec

from simulator.listings import Listing
from simulator.truth import ConnectionChange, TrueFill

EXACT = Context(prec=60, traps=[Inexact, Rounded])
_DIVISION = Context(prec=60, rounding=ROUND_HALF_EVEN)
_TWELFTH = Decimal("0.000000000001")


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """A trade as printed or as stored: `time` and `received` in ns (a printed one was never received), `size` in
    base units, `contracts` only where the venue counts them."""

    epoch: int
    sequence: int
    time: int
    price: Decimal
    size: Decimal
    side: str
    contracts: Decimal | None
    id: str
    fills: int = 1
    received: int = 0

    @property
    def number(self) -> tuple[int, int]:
        """Its place in the order in which the instrument's trades were printed."""
        return self.epoch, self.sequence

    def same(self, other: "Trade") -> bool:
        """Whether both tell of the same trade, whenever it was received."""
        return msgspec.structs.replace(self, received=other.received) == other


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """What a candle says of the trades of its window."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    buy_quote_volume: Decimal
    trades_count: int
    contracts: Decimal | None
    first_id: str | None
    last_id: str | None


class Candle(Values, frozen=True, kw_only=True):
    """A stored candle; times in ns."""

    timeframe: str
    open_time: int
    close_time: int
    quality: str
    missing: int = 0


class Border(msgspec.Struct, frozen=True):
    """A time (ns) without a connection that carried the instrument: from one's end to the next one's beginning."""

    ended: int
    begun: int


class Link(msgspec.Struct, frozen=True):
    """When an instrument's trades could reach the collector: since `since` (ns), except in the borders."""

    since: int
    borders: tuple[Border, ...] = ()


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument: what was printed (in order), what is stored, and when it was connected (None: never)."""

    instrument: str
    printed: Sequence[Trade]
    trades: Sequence[Trade]
    candles: Sequence[Candle]
    link: Link | None


def true_trade(fill: TrueFill, listing: Listing) -> Trade:
    """The fill in the units of the product. Raises decimal.Inexact where a linear size would have to be rounded."""
    price, native = Decimal(fill.price), Decimal(fill.size)
    spot = listing.market == "spot"
    return Trade(
        epoch=fill.epoch,
        sequence=fill.sequence,
        time=fill.time,
        price=price,
        size=native if spot else _base(native, price, listing),
        side=fill.side,
        contracts=None if spot else native,
        id=fill.id,
    )


def _base(native: Decimal, price: Decimal, listing: Listing) -> Decimal:
    assert listing.face is not None, f"{listing.symbol} has no face value"
    face = EXACT.multiply(EXACT.multiply(native, listing.face), listing.multiplier)
    if listing.contract != "inverse":
        return face
    return _DIVISION.divide(face, price).quantize(_TWELFTH, context=_DIVISION)


def link(changes: Iterable[ConnectionChange], instrument: str) -> Link | None:
    """When the instrument could be received, by the exchange's log; None when no connection ever carried it."""
    carried: dict[str, int] = {}
    spans: list[tuple[int, int | None]] = []
    for change in changes:
        if instrument not in change.instruments:
            continue
        if change.event == "subscribed":
            carried[change.connection] = change.time
        else:
            spans.append((carried.pop(change.connection), change.time))
    spans += [(since, None) for since in carried.values()]
    return _between(sorted(spans)) if spans else None


def _between(spans: list[tuple[int, int | None]]) -> Link:
    borders: list[Border] = []
    until = spans[0][1]
    for since, ended in spans[1:]:
        if until is None:
            break
        if since > until:
            borders.append(Border(until, since))
            until = ended
        else:
            until = None if ended is None else max(until, ended)
    return Link(spans[0][0], tuple(borders))
