"""The disk forecast: plain arithmetic, bounded by what retention drops, and nothing where nothing was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.facts import Size
from pipeline.forecast import added, days_until_full, growth
from pipeline.timeframes import DAY

NOW = 1_000 * DAY


def sizes(whole: float | None, **kinds: tuple[int, int, float | None]) -> dict[str, Size]:
    """Kinds as (bytes, days stored, bytes a day)."""
    found = {
        kind: Size(bytes=count, since=NOW - stored * DAY, growth=rate) for kind, (count, stored, rate) in kinds.items()
    }
    return found | {"database": Size(bytes=sum(one[0] for one in kinds.values()), growth=whole)}


def test_without_retention_it_is_a_division() -> None:
    assert days_until_full(1_000, sizes(100), {}, NOW) == pytest.approx(10)
    assert days_until_full(1_050, sizes(100, trade=(500, 5, 60)), {}, NOW) == pytest.approx(10.5)


@pytest.mark.parametrize(
    ("free", "whole"),
    [(None, sizes(100)), (1_000, sizes(None)), (1_000, {}), (1_000, sizes(0)), (1_000, sizes(-5))],
    ids=["elsewhere", "not a day yet", "never measured", "does not grow", "shrinks"],
)
def test_what_is_not_known_or_never_comes_is_not_said(free: int | None, whole: dict[str, Size]) -> None:
    assert days_until_full(free, whole, {}, NOW) is None


def test_what_lasts_more_than_ten_years_is_not_said() -> None:
    assert days_until_full(100 * 3_650, sizes(100), {}, NOW) == pytest.approx(3_650)
    assert days_until_full(100 * 3_650 + 1, sizes(100), {}, NOW) is None


def test_a_kind_that_is_dropped_grows_only_until_its_days_are_full() -> None:
    """Five days are stored; of thirty, and the one that is not over yet, 26 are still to come."""
    found = sizes(100, trade=(500, 5, 100))
    assert added(found, {"trade": 30}, NOW, 26) == 2_600
    assert added(found, {"trade": 30}, NOW, 27) == added(found, {"trade": 30}, NOW, 400) == 2_600
    assert days_until_full(2_000, found, {"trade": 30}, NOW) == pytest.approx(20)
    assert days_until_full(2_700, found, {"trade": 30}, NOW) is None
    assert days_until_full(2_700, found, {}, NOW) == pytest.approx(27)


def test_days_that_were_larger_than_those_to_come_make_room() -> None:
    found = sizes(10, quote=(3_100, 31, 10))
    assert added(found, {"quote": 30}, NOW, 31) == 31 * 10 - 3_100
    assert days_until_full(100, found, {"quote": 30}, NOW) is None
    smaller = sizes(100, quote=(310, 31, 100))
    assert added(smaller, {"quote": 30}, NOW, 31) == added(smaller, {"quote": 30}, NOW, 99) == 3_100 - 310


def test_months_stay_a_month_longer() -> None:
    found = sizes(10, candle=(100, 10, 10))
    assert added(found, {"candle": 30}, NOW, 51) == added(found, {"candle": 30}, NOW, 500) == 510


def test_what_is_of_no_kind_grows_for_ever() -> None:
    found = sizes(130, trade=(500, 5, 100))
    assert growth(found) == 130
    assert added(found, {"trade": 1}, NOW, 100) == pytest.approx(3_000), "the ledger and its indexes, say"


@given(st.integers(1, 60), st.integers(0, 100), st.integers(0, 1_000), st.floats(0, 50), st.integers(1, 500))
def test_after_long_a_kind_holds_just_its_days(days: int, stored: int, count: int, rate: float, later: int) -> None:
    """Never more than were it kept for ever; and in the end as much as so many days hold."""
    found = sizes(rate, trade=(count if stored else 0, stored, rate))
    assert added(found, {"trade": days}, NOW, later) <= added(found, {}, NOW, later) + 1e-6
    held = found["trade"].bytes + added(found, {"trade": days}, NOW, days + 1 + stored)
    overdue = found["trade"].bytes * (1 - min(1.0, (days + 1) / stored)) if stored else 0
    assert held == pytest.approx(rate * (days + 1) + overdue, abs=1e-3)
