"""Daily files of trades against pages: which days of what is wanted are cheaper as a file. Pure.

A file is worth it where pages would take long and the file is there; else, and for all a file lacks, there are pages.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

from ingest.feed import Archive
from pipeline.timeframes import DAY, SECOND
from pipeline.wants import Want

_EPOCH = date(1970, 1, 1)


class Day(NamedTuple):
    """A day of an instrument: its date, and ns UTC from midnight to midnight."""

    date: date
    begin: int
    end: int


def days(begin: int, end: int) -> Iterator[Day]:
    """The days of UTC that these times (ns, inclusive) touch."""
    for number in range(begin // DAY, end // DAY + 1):
        yield Day(_EPOCH + timedelta(days=number), number * DAY, (number + 1) * DAY)


def worth(archive: Archive, want: Want, left: int, rate: float, now: int, over: int) -> list[Day]:
    """The days whose trades pages would fetch in more than `over` ns, oldest first, of those whose file is there by
    `now` (ns UTC).

    `left` numbers are still to be fetched, `rate` a second by pages at best. How many of them are of a day only its
    file tells: taken is what its share of the time between the trades on both sides is. Nothing where those times are
    not known: no file could be named."""
    if want.from_time is None or want.to_time is None or left * SECOND <= over * rate:
        return []
    begin, end = want.from_time, max(want.from_time, want.to_time)
    found = []
    for day in days(begin, end):
        shared = min(end, day.end) - max(begin, day.begin)
        share = shared / (end - begin) if end > begin else 1.0
        if left * share * SECOND > over * rate and day.end + archive.delay <= now:
            found.append(day)
    return found
