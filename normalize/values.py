"""Checks of the texts venues send as numbers and times. A value that fails is refused, never replaced."""

import re

from pipeline.errors import DecodeError

MILLISECOND = 1_000_000
DAY = 86_400_000_000_000
OLDEST, NEWEST = 400 * DAY, DAY
"""How far an event may lie before and after its arrival."""

_PLAIN = re.compile(r"[0-9]{1,40}(?:\.[0-9]{1,40})?")
_WHOLE = re.compile(r"[0-9]{1,18}")


def positive(text: str, what: str) -> str:
    """The text, if it is a finite decimal above zero in plain notation. Raises DecodeError."""
    if not _PLAIN.fullmatch(text) or not text.strip("0."):
        raise DecodeError(f"{what} is not a decimal above zero", repr(text[:80]))
    return text


def whole(text: str, what: str) -> int:
    """The text as an integer from 0 that fits 64 bits. Raises DecodeError."""
    if not _WHOLE.fullmatch(text):
        raise DecodeError(f"{what} is not a whole number", repr(text[:80]))
    return int(text)


def milliseconds(text: str, what: str) -> int:
    """Unix milliseconds as text to ns. Raises DecodeError."""
    time = whole(text, what)
    if time >= 9_223_372_036_854:
        raise DecodeError(f"{what} is beyond 64 bits of nanoseconds", repr(text[:80]))
    return time * MILLISECOND


def near(time: int, received: int | None) -> int:
    """The event time, if it lies from 400 days before to a day after its arrival. Raises DecodeError."""
    if received is not None and not received - OLDEST <= time <= received + NEWEST:
        raise DecodeError("time is out of range", f"{time} in a frame received at {received}")
    return time
