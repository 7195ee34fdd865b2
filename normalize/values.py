"""Checks of the texts venues send as numbers and times. A value that fails is refused, never replaced."""

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec

from pipeline.errors import DecodeError

MICROSECOND = 1_000
MILLISECOND = 1_000_000
DAY = 86_400_000_000_000
OLDEST, NEWEST = 400 * DAY, DAY
"""How far an event may lie before and after its arrival."""

POSITIVE = r"(?=[0.]*[1-9])[0-9]{1,40}(?:\.[0-9]{1,40})?"
"""What `positive` lets pass, for those who match several texts at once."""
_PLAIN = re.compile(r"[0-9]{1,40}(?:\.[0-9]{1,40})?")
_MICROSECONDS_FROM = 10**14
_MOST_DIGITS = 18
_WHOLE = re.compile(rf"[0-9]{{1,{_MOST_DIGITS}}}")
_NUMBERS = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(lt=10**_MOST_DIGITS)]])
_POSITIVES = re.compile(rf"(?:{POSITIVE} )*")
_LATEST = 1 << 62
"""A time (in 2116) that is 64 bits of nanoseconds however it is read."""


def positive(text: str, what: str) -> str:
    """The text, if it is a finite decimal above zero in plain notation. Raises DecodeError."""
    if not _PLAIN.fullmatch(text) or not text.strip("0."):
        raise DecodeError(f"{what} is not a decimal above zero", repr(text[:80]))
    return text


def decimal(text: str, what: str) -> str:
    """The text, if it is a finite decimal, zero or above, in plain notation. Raises DecodeError."""
    if not _PLAIN.fullmatch(text):
        raise DecodeError(f"{what} is not a decimal", repr(text[:80]))
    return text


def absent(text: str) -> bool:
    """Whether a price is not there: venues spell that "" or zero, and nothing is ever traded at zero."""
    return not text or (not text.strip("0.") and _PLAIN.fullmatch(text) is not None)


def price(text: str, what: str) -> str | None:
    """The price, or None where the venue has none. Raises DecodeError."""
    return None if absent(text) else positive(text, what)


def named(text: str, what: str) -> str:
    """The text, if it can be the name of something: printable, without a space. Raises DecodeError."""
    if not 0 < len(text) <= 80 or not text.isprintable() or " " in text:
        raise DecodeError(f"{what} is not a name", repr(text[:80]))
    return text


def whole(text: str, what: str) -> int:
    """The text as an integer from 0 that fits 64 bits. Raises DecodeError."""
    if not _WHOLE.fullmatch(text):
        raise DecodeError(f"{what} is not a whole number", repr(text[:80]))
    return int(text)


def wholes(texts: Sequence[str], what: str) -> list[int]:
    """All texts as `whole`, looked at together. Raises DecodeError, also for zeros in front."""
    digits = "".join(texts)
    try:
        if digits.isascii() and digits.isdigit():
            return _NUMBERS.decode(f"[{','.join(texts)}]")
    except msgspec.DecodeError:
        pass
    raise DecodeError(f"a {what} is not a whole number")


def all_positive(texts: Sequence[str]) -> bool:
    """Whether each of them is `positive`."""
    joined = " ".join(texts) + " "
    return _POSITIVES.fullmatch(joined) is not None and joined.count(" ") == len(texts)


def all_near(times: Sequence[int], received: Sequence[int]) -> bool:
    """Whether each event time is `near` its arrival, and a millisecond more of it would be."""
    first, last = min(received) - OLDEST, min(min(received) + NEWEST, _LATEST)
    return max(received) - OLDEST <= min(times) and first >= 0 and max(times) + MILLISECOND <= last


def milliseconds(text: str, what: str) -> int:
    """Unix milliseconds as text to ns. Raises DecodeError."""
    time = whole(text, what)
    if time >= 9_223_372_036_854:
        raise DecodeError(f"{what} is beyond 64 bits of nanoseconds", repr(text[:80]))
    return time * MILLISECOND


def unix(number: int, what: str) -> int:
    """Unix milliseconds to ns, or microseconds where the number is too large to be milliseconds (they would lie
    beyond the year 5000). Raises DecodeError."""
    time = number * (MILLISECOND if number < _MICROSECONDS_FROM else MICROSECOND)
    if not 0 <= time < 1 << 63:
        raise DecodeError(f"{what} is beyond 64 bits of nanoseconds", str(number))
    return time


def near(time: int, received: int | None) -> int:
    """The event time, if it lies from 400 days before to a day after its arrival. Raises DecodeError."""
    if received is not None and not received - OLDEST <= time <= received + NEWEST:
        raise DecodeError("time is out of range", f"{time} in a frame received at {received}")
    return time
