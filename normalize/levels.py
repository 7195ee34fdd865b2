"""Prices with quantities as venues spell them: the levels of order books, best bids and offers, base sizes.

What cannot be parsed is refused; a side that is empty is null, never zero.
"""

import re
from collections.abc import Sequence
from itertools import chain

from normalize.mapper import Level
from normalize.values import absent, decimal, positive
from pipeline.errors import DecodeError
from pipeline.instruments import base_size
from pipeline.records import Instrument

_NUMBER = r"[0-9]{1,40}(?:\.[0-9]{1,40})? "
_LEVELS = re.compile(rf"(?:(?=[0.]*[1-9]){_NUMBER}{_NUMBER})*")


def levels(rows: Sequence[Sequence[str]], what: str) -> tuple[Level, ...]:
    """(price, quantity) of each row, both as spelt; what follows them in a row is left out. Raises DecodeError when
    one is wrong: a book without one of its levels is another book."""
    try:
        pairs = tuple([(row[0], row[1]) for row in rows])
    except IndexError:
        raise DecodeError(f"a level of the {what} has no quantity") from None
    # One match over all of them: books are most of what a venue sends.
    text = " ".join(chain.from_iterable(pairs)) + " "
    if pairs and not (text.count(" ") == 2 * len(pairs) and _LEVELS.fullmatch(text)):
        for price, quantity in pairs:
            positive(price, f"a price of the {what}")
            decimal(quantity, f"a quantity of the {what}")
    return pairs


def in_base(instrument: Instrument, quantity: str, price: str) -> str:
    """The native quantity (checked) in base units. Raises DecodeError."""
    try:
        return base_size(instrument, quantity, price)
    except (ValueError, ArithmeticError) as error:
        raise DecodeError("size cannot be converted", str(error)) from error


def offer(instrument: Instrument, price: str, quantity: str, what: str) -> tuple[str | None, str | None]:
    """Price and size (base units) of a best bid or ask. Both null where the side is empty, the size alone where the
    venue tells none. Raises DecodeError, also for a quantity without a price."""
    if absent(price):
        if not absent(quantity):
            raise DecodeError(f"{what} has a quantity but no price", f"{quantity[:80]!r} at {price[:80]!r}")
        return None, None
    positive(price, what)
    if not quantity:
        return price, None
    return price, in_base(instrument, decimal(quantity, f"quantity of the {what}"), price)
