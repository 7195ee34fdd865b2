"""How long an exchange asks us to stay away: https://www.rfc-editor.org/rfc/rfc9110#name-retry-after. Pure."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from pipeline.timeframes import MINUTE, SECOND


def retry_after(headers: Mapping[str, str], now: int) -> int | None:
    """The pause in ns, at host time `now` (ns UTC); None where none is asked for, a minute where it cannot be read.

    A date is meant on the exchange's clock, which the same answer mostly tells. Keys are in either case.
    """
    told = {key.lower(): value.strip() for key, value in headers.items()}
    if not (text := told.get("retry-after")):
        return None
    if text.isascii() and text.isdigit():
        return int(text) * SECOND
    if (until := _time(text)) is None:
        return MINUTE
    return max(0, until - (_time(told.get("date", "")) or now))


def _time(text: str) -> int | None:
    """ns UTC of an HTTP date."""
    try:
        return int(parsedate_to_datetime(text).timestamp()) * SECOND
    except (ValueError, OverflowError):
        return None
