"""Windows start at UTC midnight; longer frames are built from the longest that divides them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.timeframes import DAY, TIMEFRAMES, WIDTHS, close_time, open_time, sources

TIMES = st.integers(min_value=0, max_value=2**62)


@given(TIMES, st.sampled_from(TIMEFRAMES))
def test_a_time_lies_in_its_window(time: int, timeframe: str) -> None:
    start, end = open_time(time, timeframe), close_time(time, timeframe)
    assert start <= time < end
    assert end - start == WIDTHS[timeframe]


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_midnight_opens_a_window_of_every_frame(timeframe: str) -> None:
    midnight = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp()) * 1_000_000_000
    assert open_time(midnight, timeframe) == midnight
    assert DAY % WIDTHS[timeframe] == 0


def test_fifteen_seconds_are_not_built_from_ten() -> None:
    assert sources(("15s", "10s")) == {"10s": None, "15s": None}


def test_the_eleven_frames_roll_up_from_one_second() -> None:
    tree = sources(TIMEFRAMES)
    assert [name for name, source in tree.items() if source is None] == ["1s"]
    for name, source in tree.items():
        assert source is None or WIDTHS[name] % WIDTHS[source] == 0
