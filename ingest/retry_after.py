"""How long an exchange asks us to stay away: https://www.rfc-editor.org/rfc/rfc9110#name-retry-after. Pure."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from pipeline.timeframes import MINUTE, SECOND


def retry_after(status: int, headers: Mapping[str, str], now: int) -> int | None:
    """The pause in ns, at host time `now` (ns UTC); None where none is asked for, a minute where it cannot be read.

    A refusal (4xx) is obeyed to the second. An outage (5xx) may end sooner than somebody guessed, and what is traded
    meanwhile is lost: at most a minute. Keys are in either case.
    """
    pause = _pause(headers, now)
    return min(pause, MINUTE) if pause is not None and status >= 500 else pause


def _pause(headers: Mapping[str, str], now: int) -> int | None:
    told = {key.lower(): value.strip() for key, value in headers.items()}
    if not (text := told.get("retry-after")):
        return None
    if text.isascii() and text.isdigit():
        return int(text) * SECOND
    if (until := _time(text)) is None:
        return MINUTE
    # A date is meant on the exchange's clock, which the same answer mostly tells.
    return max(0, until - (_time(told.get("date", "")) or now))


def _time(text: str) -> int | None:
    """ns UTC of an HTTP date."""
    try:
        return int(parsedate_to_datetime(text).timestamp()) * SECOND
    except (ValueError, OverflowError):
        return None
