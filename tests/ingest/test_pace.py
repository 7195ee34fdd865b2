"""How long silence means nothing: by what was seen of a subscription, within bounds."""

import random

from hypothesis import given
from hypothesis import strategies as st

from ingest.pace import ENOUGH, Pace
from pipeline.timeframes import HOUR, MINUTE, SECOND

USUAL, LEAST, MOST = 300 * SECOND, 15 * SECOND, HOUR


def limit(pace: Pace) -> int:
    return pace.limit(USUAL, LEAST, MOST)


def fed(*times: int) -> Pace:
    pace = Pace()
    for at in times:
        pace.data(at)
    return pace


def test_nothing_is_known_at_first_nor_after_a_moment() -> None:
    assert limit(Pace()) == USUAL
    assert limit(fed(0)) == USUAL
    assert limit(fed(*range(0, SECOND, SECOND // 1000))) == USUAL, "a thousand in a second prove little"


def test_a_busy_stream_is_missed_soon() -> None:
    assert limit(fed(*range(0, 2 * MINUTE, SECOND // 10))) == LEAST
    assert limit(fed(*range(0, 5 * MINUTE, 3 * SECOND))) == 30 * SECOND


def test_a_quiet_one_is_not() -> None:
    assert limit(fed(0, 200 * SECOND)) == 600 * SECOND
    assert limit(fed(*range(0, 100 * HOUR, HOUR))) == MOST


def test_one_long_pause_is_remembered_for_about_an_hour() -> None:
    busy = list(range(0, 10 * MINUTE, SECOND))
    pause = busy[-1] + 20 * SECOND
    pace = fed(*busy, pause)
    assert limit(pace) == 200 * SECOND
    for at in range(pause, pause + HOUR, SECOND):
        pace.data(at)
    assert 60 * SECOND < limit(pace) < 80 * SECOND
    for at in range(pause + HOUR, pause + 5 * HOUR, SECOND):
        pace.data(at)
    assert limit(pace) == LEAST


@given(st.integers(0, 2**32), st.floats(0.001, 0.2))
def test_random_arrivals_at_a_steady_rate_do_not_trip_it(seed: int, rate: float) -> None:
    """As trades come: independent of each other, so many a second."""
    chance, pace, now = random.Random(seed), Pace(), 0
    for _ in range(ENOUGH * 4):
        pause = int(chance.expovariate(rate) * SECOND)
        if pace.count >= ENOUGH:
            assert pause < limit(pace) or limit(pace) == MOST
        now += pause
        pace.data(now)
    assert LEAST <= limit(pace) <= MOST


def test_a_clock_that_stands_still_or_goes_back_changes_nothing() -> None:
    pace = fed(*range(0, 2 * MINUTE, SECOND))
    before = limit(pace)
    pace.data(MINUTE)
    assert limit(pace) == before


@given(st.lists(st.tuples(st.integers(0, 2 * SECOND), st.integers(1, 9)), max_size=30))
def test_much_at_once_is_the_same_as_one_after_another(reads: list[tuple[int, int]]) -> None:
    together, each, now = Pace(), Pace(), 0
    for pause, count in reads:
        now += pause
        together.data(now, count)
        for _ in range(count):
            each.data(now)
    assert [getattr(together, name) for name in Pace.__slots__] == [getattr(each, name) for name in Pace.__slots__]
