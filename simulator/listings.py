"""What the synthetic market lists: real-looking instruments of every contract type, and made symbols for load.

Neutral data: an exchange's dialect gives each listing its own instrument id. Nothing here is real market data.
"""

from decimal import Decimal
from typing import Literal

import msgspec

LISTED = 1_600_000_000_000_000_000
EXPIRY = 1_924_588_800_000_000_000
"""2030-12-27 08:00 UTC, a Friday: far enough that settings files can name the future and the option."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument of the synthetic market.

    `tick` and `lot` are the steps of price and size; `lot` and `minimum` are in base units (spot) or contracts.
    `face` x `multiplier` is the value of one contract in `face_currency`. `weight` is the share of the market's
    orders it gets; `levels` is about how deep its book is on each side; `listed` and `expiry` are ns UTC.
    """

    symbol: str
    market: Literal["spot", "perpetual", "future", "option"]
    base: str
    quote: str
    tick: Decimal
    lot: Decimal
    minimum: Decimal
    price: Decimal
    weight: float
    contract: Literal["linear", "inverse"] | None = None
    settle: str | None = None
    face: Decimal | None = None
    multiplier: Decimal = Decimal(1)
    face_currency: str | None = None
    expiry: int | None = None
    strike: str | None = None
    option: Literal["call", "put"] | None = None
    listed: int = LISTED
    levels: int = 450


def _spot(base: str, quote: str, steps: tuple[str, str, str], price: str, weight: float, levels: int = 450) -> Listing:
    tick, lot, minimum = map(Decimal, steps)
    return Listing(
        symbol=f"{base}-{quote}",
        market="spot",
        base=base,
        quote=quote,
        tick=tick,
        lot=lot,
        minimum=minimum,
        price=Decimal(price),
        weight=weight,
        levels=levels,
    )


def _linear(base: str, quote: str, steps: tuple[str, str], face: str, price: str, weight: float) -> Listing:
    tick, lot = map(Decimal, steps)
    return Listing(
        symbol=f"{base}-{quote}-PERP",
        market="perpetual",
        base=base,
        quote=quote,
        tick=tick,
        lot=lot,
        minimum=lot,
        price=Decimal(price),
        weight=weight,
        contract="linear",
        settle=quote.removesuffix("_UM"),
        face=Decimal(face),
        face_currency=base,
    )


def _inverse(base: str, market: Literal["perpetual", "future"], face: str, price: str, weight: float) -> Listing:
    return Listing(
        symbol=f"{base}-USD-PERP" if market == "perpetual" else f"{base}-USD-301227",
        market=market,
        base=base,
        quote="USD",
        tick=Decimal("0.1"),
        lot=Decimal("0.1"),
        minimum=Decimal("0.1"),
        price=Decimal(price),
        weight=weight,
        contract="inverse",
        settle=base,
        face=Decimal(face),
        face_currency="USD",
        expiry=EXPIRY if market == "future" else None,
    )


def _option(base: str, strike: str, price: str, weight: float) -> Listing:
    return Listing(
        symbol=f"{base}-USD-301227-{strike}-C",
        market="option",
        base=base,
        quote="USD",
        tick=Decimal("0.0005"),
        lot=Decimal(1),
        minimum=Decimal(1),
        price=Decimal(price),
        weight=weight,
        settle=base,
        face=Decimal(1),
        multiplier=Decimal("0.01"),
        face_currency=base,
        expiry=EXPIRY,
        strike=strike,
        option="call",
        levels=40,
    )


NAMED: tuple[Listing, ...] = (
    # Deeper than any snapshot short of the largest: what lies below one is unknown to who asked for it.
    _spot("BTC", "USDT", ("0.1", "0.00000001", "0.00001"), "84000", 10, 1500),
    _spot("ETH", "USDT", ("0.01", "0.000001", "0.001"), "3200", 6),
    _spot("SOL", "USDT", ("0.01", "0.000001", "0.01"), "160", 4),
    _spot("DOGE", "USDT", ("0.00001", "0.000001", "10"), "0.21", 2),
    # About one order in 20 minutes at the default rate: coverage without data, and an old trade replayed.
    _spot("QUIET", "USDT", ("0.0001", "0.01", "1"), "1.5", 0.001),
    _linear("BTC", "USDT", ("0.1", "0.01"), "0.01", "84010", 10),
    _linear("ETH", "USDT", ("0.01", "0.01"), "0.1", "3201", 5),
    # Shares base, quote currency and market with the inverse swap: only the quote's own tag tells them apart.
    _linear("BTC", "USD_UM", ("0.1", "0.01"), "0.01", "84005", 0.5),
    _inverse("BTC", "perpetual", "100", "84008", 3),
    _inverse("BTC", "future", "100", "88000", 1),
    _option("BTC", "90000", "0.05", 0.3),
)


def listings(symbols: int = 0) -> tuple[Listing, ...]:
    """The named instruments and `symbols` made spot pairs SIM001-USDT, SIM002-USDT …."""
    made = (
        _spot(f"SIM{number:03d}", "USDT", ("0.0001", "0.01", "0.1"), str(1 + number % 97), 1, 120)
        for number in range(1, symbols + 1)
    )
    return (*NAMED, *made)
