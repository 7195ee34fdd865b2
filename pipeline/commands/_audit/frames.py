"""Which time frames of an instrument were made, from when to when, by what coverage said. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from pipeline.timeframes import DEFAULT_TIMEFRAMES


class Made(NamedTuple):
    """From `start` on, until `end` (None: it goes on). `first`: since the collection of the instrument began."""

    start: datetime
    end: datetime | None
    first: bool


def made(rows: Iterable[tuple[datetime, list[str] | None]]) -> dict[str, list[Made]]:
    """Time frame to its spans. Rows are (time, time frames) in the order of the stream; where none are named they are
    as before."""
    spans: dict[str, list[Made]] = {}
    current: tuple[str, ...] = ()
    begun = False
    for time, named in rows:
        wanted = tuple(named) if named is not None else current or DEFAULT_TIMEFRAMES
        for name in current:
            if name not in wanted:
                spans[name][-1] = spans[name][-1]._replace(end=time)
        for name in wanted:
            if name not in current:
                spans.setdefault(name, []).append(Made(time, None, not begun))
        current, begun = wanted, True
    return spans
