"""Order books in the end: what the pipeline shows against what the exchange has. Pure, by arithmetic of its own."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from simulator.listings import Listing
from simulator.proof.evidence import EXACT

Levels = Sequence[Sequence[str]]
"""[price, size] as text, best first."""


class BookFault(msgspec.Struct, frozen=True):
    """What is wrong with one instrument's book."""

    instrument: str
    reason: str


def book_fault(
    instrument: str, listing: Listing, true: Mapping[str, Levels], shown: Mapping[str, Any] | None
) -> BookFault | None:
    """None where the book shown (an `orderbook` record) is the exchange's own, level by level.

    `true`: `bids` and `asks` in the exchange's native units, at least as deep as the record shows."""
    if shown is None:
        return BookFault(instrument, "no book")
    if not shown.get("valid", True):
        return BookFault(instrument, f"invalid: {shown.get('reason')}")
    unit = "contracts" if listing.contract == "inverse" else "base"
    if shown.get("unit", "base") != unit:
        return BookFault(instrument, f"sizes are in {shown.get('unit')}, not in {unit}")
    for side in ("bids", "asks"):
        expected = [(Decimal(price), _size(Decimal(size), listing)) for price, size in true[side][: shown["depth"]]]
        found = [(Decimal(price), Decimal(size)) for price, size in shown[side]]
        if found != expected:
            place = next(
                (number for number, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]),
                min(len(found), len(expected)),
            )
            return BookFault(
                instrument, f"{side} level {place}: {_at(found, place)} shown, {_at(expected, place)} at the exchange"
            )
    return None


def _size(native: Decimal, listing: Listing) -> Decimal:
    """In the unit of the record: base, but contracts of an inverse instrument."""
    if listing.face is None or listing.contract == "inverse":
        return native
    return EXACT.multiply(EXACT.multiply(native, listing.face), listing.multiplier)


def _at(levels: Sequence[tuple[Decimal, Decimal]], place: int) -> str:
    return " x ".join(map(str, levels[place])) if place < len(levels) else "nothing"
