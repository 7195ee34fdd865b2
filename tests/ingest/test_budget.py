"""Allowances and backoff, on a clock of numbers."""

import random

from hypothesis import given
from hypothesis import strategies as st

from ingest.budget import Backoff, Budget
from ingest.feed import Rate
from pipeline.timeframes import SECOND


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 5), st.integers(1, 100))
def test_no_window_ever_holds_more_than_the_allowance(pauses: list[int], count: int, period: int) -> None:
    budget = Budget(Rate(count, period), slack=0)
    now, places = 1_000, []
    for pause in pauses:
        now += pause
        place = budget.reserve(now)
        assert place >= now
        places.append(place)
    assert places == sorted(places)
    assert all(later - earlier >= period for earlier, later in zip(places, places[count:], strict=False))


def test_places_are_free_at_once_while_the_allowance_lasts() -> None:
    budget = Budget(Rate(3, 90), slack=10)
    assert [budget.reserve(10) for _ in range(4)] == [10, 10, 10, 110]


def test_a_held_budget_gives_nothing_before_its_time() -> None:
    budget = Budget(Rate(2, 100), slack=0)
    budget.hold(500)
    assert [budget.reserve(450) for _ in range(3)] == [500, 500, 600]


def test_backoff_tries_at_once_then_grows_to_its_cap_and_starts_over() -> None:
    backoff = Backoff(first=100, cap=1_000, random=lambda: 1.0)
    delays = []
    for _ in range(7):
        delays.append(backoff.delay())
        backoff.failed()
    assert delays == [0, 100, 200, 400, 800, 1_000, 1_000]
    backoff.succeeded()
    assert backoff.delay() == 0


def test_jitter_is_full_and_a_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff(first=100, cap=1_000, random=random.Random(1).random)
    for _ in range(1_000):
        backoff.failed()
    delays = [backoff.delay() for _ in range(500)]
    assert min(delays) < 50
    assert 950 < max(delays) <= 1_000


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4), st.booleans()), min_size=1, max_size=50),
    st.integers(5, 10),
    st.integers(1, 100),
)
def test_costs_and_shares_never_exceed_the_allowance(
    steps: list[tuple[int, int, bool]], count: int, period: int
) -> None:
    budget = Budget(Rate(count, period), slack=0)
    now, places = 1_000, []
    for pause, cost, modest in steps:
        now += pause
        share = 0.8 if modest else 1.0
        place = budget.reserve(now, cost, share)
        assert place >= now
        places.append((place, cost, modest))
    for start, _, _ in places:
        window = [(cost, modest) for place, cost, modest in places if start <= place < start + period]
        assert sum(cost for cost, _ in window) <= count
        if all(modest for _, modest in window):
            assert sum(cost for cost, _ in window) <= max(4, int(0.8 * count))


def test_the_reserve_is_free_at_once_for_those_who_may_have_it() -> None:
    budget = Budget(Rate(100, 60), slack=0)
    assert [budget.reserve(0, 20, 0.8) for _ in range(5)] == [0, 0, 0, 0, 60]
    assert budget.reserve(0, 10) == 0, "although others wait already"
    assert budget.used(0) == 110, "what waits counts"


def test_what_others_use_of_our_address_counts() -> None:
    budget = Budget(Rate(100, 60), slack=0)
    budget.reserve(0, 30)
    budget.told(90, 10)
    assert budget.used(10) == 90
    budget.told(50, 10)
    assert budget.used(10) == 90, "the exchange counts by the minute, we count any minute"
    assert budget.reserve(10, 20) == 60, "when our own first 30 are forgotten"


def test_what_waits_is_not_taken_for_what_the_exchange_counts() -> None:
    budget = Budget(Rate(100, 60), slack=0)
    assert [budget.reserve(0, 50) for _ in range(4)] == [0, 0, 60, 60]
    budget.told(180, 10)
    assert budget.used(10) == 280, "80 of others"
    assert not budget.fits(60, 50, 60), "those who wait have to wait longer"
    budget.release(60, 50)
    budget.release(60, 50)
    assert budget.reserve(60, 50) == 70


def test_a_place_that_came_too_late_or_is_held_is_none() -> None:
    budget = Budget(Rate(2, 10 * SECOND), slack=0)
    place = budget.reserve(SECOND)
    assert budget.fits(place, 1, place + SECOND // 10)
    assert not budget.fits(place, 1, place + SECOND)
    budget.hold(2 * SECOND)
    assert not budget.fits(place, 1, place)


def test_more_than_the_whole_allowance_goes_alone() -> None:
    budget = Budget(Rate(2, 100), slack=0)
    assert budget.reserve(0) == 0
    assert budget.reserve(0, 5) == 100
    assert budget.fits(100, 5, 100)


def test_to_look_takes_nothing() -> None:
    budget = Budget(Rate(1, 60), slack=0)
    assert [budget.next(5) for _ in range(3)] == [5, 5, 5]
    assert [budget.reserve(5), budget.next(5)] == [5, 65]


def test_what_is_in_flight_counts_until_it_has_landed_and_from_then_on() -> None:
    budget, now = Budget(Rate(2, 100), slack=0), 0
    with budget.flight(budget.reserve(now), lambda: now), budget.flight(budget.reserve(now), lambda: now):
        now = 500
        assert budget.used(now) == 2, "the exchange may have counted it just now"
        assert budget.next(now) == 600
        place = budget.reserve(now)
        now = 590
    assert not budget.fits(place, 1, place), "they landed later than was hoped"
    budget.release(place)
    assert budget.reserve(600) == 690
