"""Canonical symbols and the conversion of native quantities to base units. Pure, exact."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, Rounded
from functools import lru_cache

from pipeline.records import Instrument

EXACT = Context(prec=60, traps=[Inexact, Rounded])
"""Arithmetic that refuses to round. Candle sums and linear sizes use it."""

_WIDE = Context(prec=60, rounding=ROUND_HALF_EVEN)
_TWELVE_PLACES = Decimal("1e-12")


def decimal_text(value: Decimal) -> str:
    """The decimal in plain notation, never with an exponent: `0.00000001`, not `1E-8`."""
    return format(value, "f")


def canonical_symbol(
    base: str,
    quote: str,
    market: str,
    expiry: int | None = None,
    strike: str | None = None,
    option: str | None = None,
) -> str:
    """BTC-USDT, BTC-USDT-PERP, BTC-USD-261225 or BTC-USD-261225-90000-C.

    `expiry` is in ns UTC; `option` is `call` or `put`. `quote` keeps the venue's own tag
    (`USD_UM`) where two instruments would otherwise share a symbol.
    """
    if market == "spot":
        return f"{base}-{quote}"
    if market == "perpetual":
        return f"{base}-{quote}-PERP"
    if expiry is None:
        raise ValueError(f"a {market} on {base}-{quote} has no expiry")
    day = datetime.fromtimestamp(expiry // 1_000_000_000, UTC).strftime("%y%m%d")
    if market == "future":
        return f"{base}-{quote}-{day}"
    if strike is None or option not in ("call", "put"):
        raise ValueError(f"an option on {base}-{quote} has no strike or no kind")
    return f"{base}-{quote}-{day}-{strike}-{option[0].upper()}"


def base_size(instrument: Instrument, quantity: str, price: str) -> str:
    """Native quantity to base units, as text.

    Spot is returned as it came. Linear contracts and options: contracts x face (exact).
    Inverse contracts: contracts x face / price, to 12 decimals half-even: the only rounding in the
    product. Raises ValueError when the instrument lacks its contract value.
    """
    if instrument.market == "spot":
        return quantity
    if instrument.contract_value is None:
        raise ValueError(f"{instrument.instrument} has no contract value")
    if instrument.contract != "inverse":
        return _linear_size(quantity, instrument.contract_value)
    face = EXACT.multiply(Decimal(quantity), Decimal(instrument.contract_value))
    return decimal_text(_WIDE.divide(face, Decimal(price)).quantize(_TWELVE_PLACES, context=_WIDE))


@lru_cache(maxsize=10_000)
def _linear_size(contracts: str, face: str) -> str:
    """Most trades are of few contracts: the same sizes come again and again."""
    return decimal_text(EXACT.multiply(Decimal(contracts), Decimal(face)))
