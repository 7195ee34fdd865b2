"""Values in the text format of COPY: tab between columns, `\\N` for null. Pure.

https://www.postgresql.org/docs/current/sql-copy.html, "Text Format".
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

NULL = "\\N"
LAST_SECOND = 253_402_300_799
"""9999-12-31 23:59:59: what a datetime can say."""

_FIRST_OF_19_DIGITS, _LAST_OF_19_DIGITS = 10**18, 10**19 - 1
_SECONDS_KEPT = 4096
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ITEM = re.compile(r'(["\\])')


class _Seconds(dict[str, str]):
    """The date and time of each second since 1970, both as text; the last few thousand are kept."""

    def __missing__(self, digits: str) -> str:
        seconds = int(digits)
        if not 0 <= seconds <= LAST_SECOND:
            raise ValueError(f"{seconds} s is no time of ours")
        if len(self) >= _SECONDS_KEPT:
            self.clear()
        made = self[digits] = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return made


SECONDS = _Seconds()


def text(value: str | None) -> str:
    """Text, escaped; None is null."""
    if value is None:
        return NULL
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], value) if _SPECIAL.search(value) else value


def timestamp(nanoseconds: int) -> str:
    """Whole microseconds, floored. Raises ValueError outside the years 1970 to 9999."""
    # Cut out of the digits: to divide and to format takes half as long again.
    digits = str(nanoseconds).zfill(10)
    return f"{SECONDS[digits[:-9]]}.{digits[-9:-3]}+00"


def timestamps(column: Sequence[int]) -> list[str]:
    """`timestamp` of each; a third of the time it takes one by one."""
    if not column or min(column) < _FIRST_OF_19_DIGITS or max(column) > _LAST_OF_19_DIGITS:
        return [timestamp(nanoseconds) for nanoseconds in column]
    digits = msgspec.json.encode(column)[1:-1].decode().split(",")
    return [f"{SECONDS[each[:10]]}.{each[10:16]}+00" for each in digits]


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
