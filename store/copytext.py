"""Values in the text format of COPY: tab between columns, `\\N` for null. Pure.

https://www.postgresql.org/docs/current/sql-copy.html, "Text Format".
"""

import re
from datetime import UTC, datetime
from functools import lru_cache

NULL = "\\N"
LAST_SECOND = 253_402_300_799
"""9999-12-31 23:59:59: what a datetime can say."""

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ITEM = re.compile(r'(["\\])')


def text(value: str | None) -> str:
    """Text, escaped; None is null."""
    if value is None:
        return NULL
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], value) if _SPECIAL.search(value) else value


def timestamp(nanoseconds: int) -> str:
    """Whole microseconds, floored. Raises ValueError outside the years 1970 to 9999."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}+00"


def maybe_timestamp(nanoseconds: int | None) -> str:
    return NULL if nanoseconds is None else timestamp(nanoseconds)


def array(items: tuple[str, ...]) -> str:
    """An array of text."""
    if not items:
        return "{}"
    quoted = ",".join('"' + _ITEM.sub(r"\\\1", item) + '"' for item in items)
    return text("{" + quoted + "}")


def plain_array(items: tuple[str, ...]) -> str:
    """The same, of text without quotes, backslashes and control characters."""
    return '{"' + '","'.join(items) + '"}' if items else "{}"


def ranges(items: tuple[tuple[int, int], ...]) -> str:
    """An int8multirange of inclusive ranges."""
    return "{" + ",".join(f"[{first},{last}]" for first, last in items) + "}"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    if not 0 <= seconds <= LAST_SECOND:
        raise ValueError(f"{seconds} s is no time of ours")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
