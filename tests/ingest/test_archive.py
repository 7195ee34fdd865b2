"""When a daily file is cheaper than pages: by how long those take, by what is published, by the days it is about."""

from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.archive import Day, days, worth
from ingest.feed import Archive, Row
from pipeline.timeframes import DAY, HOUR, MINUTE, SECOND
from pipeline.wants import Want

MIDNIGHT = 20_000 * DAY
DELAY = 6 * HOUR
RATE = 2400.0
OVER = 5 * MINUTE
MANY = int(RATE * OVER / SECOND)
"""What pages bring in just that time."""
ARCHIVE = Archive(
    path=lambda instrument, day: f"/{instrument}-{day}.zip",
    checksum=lambda instrument, day: f"/{instrument}-{day}.zip.CHECKSUM",
    read=lambda line: Row(int(line), 0),
    delay=DELAY,
)


def want(begin: int | None, end: int | None) -> Want:
    return Want(
        what="trades",
        instrument="X",
        number=1,
        since=0,
        reason="gap",
        first=1,
        last=10**8,
        from_time=begin,
        to_time=end,
    )


def chosen(begin: int | None, end: int | None, left: int, now: int) -> list[str]:
    return [str(day.date) for day in worth(ARCHIVE, want(begin, end), left, RATE, now, OVER)]


def test_days_begin_at_midnight_of_utc() -> None:
    assert list(days(MIDNIGHT - 1, MIDNIGHT)) == [
        Day(date(2024, 10, 3), MIDNIGHT - DAY, MIDNIGHT),
        Day(date(2024, 10, 4), MIDNIGHT, MIDNIGHT + DAY),
    ]
    assert [day.date for day in days(MIDNIGHT, MIDNIGHT + DAY - 1)] == [date(2024, 10, 4)]


def test_pages_have_what_they_bring_soon_enough() -> None:
    begin, now = MIDNIGHT + HOUR, MIDNIGHT + 10 * DAY
    assert chosen(begin, begin + HOUR, MANY, now) == []
    assert chosen(begin, begin + HOUR, MANY + 1, now) == ["2024-10-04"]


def test_a_file_is_asked_for_once_it_is_worth_asking() -> None:
    begin = MIDNIGHT + HOUR
    published = MIDNIGHT + DAY + DELAY
    assert chosen(begin, begin + HOUR, 10 * MANY, published - 1) == []
    assert chosen(begin, begin + HOUR, 10 * MANY, published) == ["2024-10-04"]


def test_of_several_days_those_are_files_of_which_much_is_missed() -> None:
    begin, end = MIDNIGHT - HOUR, MIDNIGHT + 3 * DAY + HOUR
    left, now = 20 * MANY, MIDNIGHT + 3 * DAY + DELAY
    assert chosen(begin, end, left, now) == ["2024-10-04", "2024-10-05", "2024-10-06"], "oldest first"
    assert chosen(begin, end, left, now - 1) == ["2024-10-04", "2024-10-05"], "the newest is not there yet"
    assert chosen(begin, end, 100 * MANY, now + DAY) == [
        "2024-10-03",
        "2024-10-04",
        "2024-10-05",
        "2024-10-06",
        "2024-10-07",
    ]


@pytest.mark.parametrize(("begin", "end"), [(None, None), (None, MIDNIGHT), (MIDNIGHT, None)])
def test_without_times_no_file_can_be_named(begin: int | None, end: int | None) -> None:
    assert chosen(begin, end, 10**9, MIDNIGHT + 10 * DAY) == []


def test_times_that_are_the_same_or_contradict_each_other_are_of_one_day() -> None:
    now = MIDNIGHT + 10 * DAY
    assert chosen(MIDNIGHT, MIDNIGHT, 2 * MANY, now) == ["2024-10-04"]
    assert chosen(MIDNIGHT, MIDNIGHT - HOUR, 2 * MANY, now) == ["2024-10-04"]


@given(
    begin=st.integers(0, 5 * DAY),
    length=st.integers(0, 5 * DAY),
    left=st.integers(1, 10**8),
    now=st.integers(0, 12 * DAY),
)
def test_never_a_file_of_a_day_without_the_gap_nor_one_that_is_not_there(
    begin: int, length: int, left: int, now: int
) -> None:
    found = worth(ARCHIVE, want(MIDNIGHT + begin, MIDNIGHT + begin + length), left, RATE, MIDNIGHT + now, OVER)
    assert found == sorted(found)
    for day in found:
        assert day.end - day.begin == DAY
        assert day.begin <= MIDNIGHT + begin + length
        assert day.end > MIDNIGHT + begin
        assert day.end + DELAY <= MIDNIGHT + now
    if found:
        more = msgspec.structs.replace(want(MIDNIGHT + begin, MIDNIGHT + begin + length), number=2)
        assert set(found) <= set(worth(ARCHIVE, more, 2 * left, RATE, MIDNIGHT + now, OVER))
