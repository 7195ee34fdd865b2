"""Clocks that are told the time: never back, bent towards the wall clock, the exchange's kept apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.clock import FAR_BEHIND, LATEST, MOST_JUMP, MOST_SLEW, ExchangeClock, HostClock, Sample
from pipeline.errors import ExchangeError
from pipeline.timeframes import HOUR, SECOND

START = 1_790_000_000 * SECOND
TICK = SECOND // 4


class Time:
    """A monotonic clock and a wall clock, moved by hand."""

    def __init__(self) -> None:
        self.boot = 50 * SECOND
        self.shift = START

    def monotonic(self) -> int:
        return self.boot

    def wall(self) -> int:
        return self.boot + self.shift

    def clock(self) -> HostClock:
        return HostClock(self.monotonic, self.wall)


@given(st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(-HOUR // 4, HOUR // 4)), max_size=40))
def test_the_clock_never_goes_back_and_never_runs_beyond_its_slew(moves: list[tuple[int, int]]) -> None:
    time = Time()
    clock = time.clock()
    last = clock.now()
    for passed, step in moves:
        time.shift += step
        before = time.boot
        for part in range(1, 5):
            time.boot = before + passed * part // 4
            assert last <= clock.now()
            last = clock.now()
        clock.discipline()
        assert clock.now() == last
    elapsed = time.boot - 50 * SECOND
    assert abs(last - (START + 50 * SECOND) - elapsed) <= elapsed * MOST_SLEW // 1_000_000 + len(moves) + 1


def test_a_small_error_is_gone_after_a_second_or_two() -> None:
    time = Time()
    clock = time.clock()
    time.shift -= 5_000_000
    for _ in range(40):
        time.boot += TICK
        clock.discipline()
    assert abs(clock.now() - time.wall()) < 1_000


def test_a_host_that_woke_in_the_past_is_right_once_it_is_told() -> None:
    """A day behind, no trade would be believed; to bend the clock would take weeks."""
    time = Time()
    time.shift -= 48 * HOUR
    clock = time.clock()
    time.boot += TICK
    clock.discipline()
    before = clock.now()
    time.shift += 48 * HOUR
    time.boot += TICK
    clock.discipline()
    assert clock.now() == time.wall() > before + FAR_BEHIND
    time.shift -= 48 * HOUR
    time.boot += TICK
    clock.discipline()
    assert clock.now() > before + FAR_BEHIND, "never back"


def test_a_late_discipline_does_not_overshoot() -> None:
    time = Time()
    clock = time.clock()
    time.shift += 1_000_000
    clock.discipline()
    time.boot += HOUR
    assert abs(clock.now() - time.wall()) <= 1


MILLISECOND = 1_000_000


def sample(time: Time, lead: int, trip: int = 20 * MILLISECOND) -> Sample:
    """What an exchange answers whose clock is `lead` ns before the wall clock; the request takes `trip` ns."""
    time.boot += trip
    return Sample(time.boot - trip, time.boot, time.wall() - trip // 2 + lead)


def test_the_exchange_is_known_within_half_its_shortest_round_trip() -> None:
    time = Time()
    host = time.clock()
    exchange = ExchangeClock(host, step=MILLISECOND)
    assert exchange.reading() == (None, 0)
    # The slow answer was long on its way back.
    slow = sample(time, 7 * SECOND - 100 * MILLISECOND, trip=300 * MILLISECOND)
    exchange.measure([slow, sample(time, 7 * SECOND)])
    assert exchange.reading() == (7 * SECOND, 10_500_000)
    assert exchange.measured == time.boot


@given(st.integers(0, 2), st.sampled_from([-HOUR, -SECOND, SECOND // 10, HOUR]))
def test_answers_that_contradict_each_other_are_not_believed(place: int, error: int) -> None:
    time = Time()
    exchange = ExchangeClock(time.clock(), step=MILLISECOND)
    with pytest.raises(ExchangeError, match="contradict"):
        exchange.measure([sample(time, error if number == place else 0) for number in range(3)])
    assert exchange.reading() == (None, 0)
    exchange.measure([sample(time, 0) for _ in range(3)])
    assert exchange.reading()[0] == 0


@pytest.mark.parametrize("jump", [-HOUR, -2 * MOST_JUMP, 2 * MOST_JUMP, HOUR])
def test_a_jump_is_believed_when_it_is_said_again(jump: int) -> None:
    time = Time()
    exchange = ExchangeClock(time.clock(), step=MILLISECOND)
    exchange.measure([sample(time, 5 * SECOND)])
    before, measured = exchange.reading(), exchange.measured
    for wrong in (jump, -jump):
        with pytest.raises(ExchangeError, match="jumped"):
            exchange.measure([sample(time, 5 * SECOND + wrong)])
    assert (exchange.reading(), exchange.measured) == (before, measured)
    exchange.measure([sample(time, 5 * SECOND - jump)])
    assert exchange.reading() == (5 * SECOND - jump, before[1])


def test_a_doubt_ends_with_a_measurement_that_agrees_with_the_estimate() -> None:
    time = Time()
    exchange = ExchangeClock(time.clock(), step=MILLISECOND)
    exchange.measure([sample(time, 0)])
    for _ in range(2):
        with pytest.raises(ExchangeError, match="jumped"):
            exchange.measure([sample(time, HOUR)])
        exchange.measure([sample(time, SECOND // 2)])
        assert exchange.reading()[0] == SECOND // 2, "a small step is followed at once"


@pytest.mark.parametrize("time", [-1, 0, LATEST, 10**40])
def test_what_is_no_time_is_not_believed_however_often_it_is_said(time: int) -> None:
    exchange = ExchangeClock(Time().clock(), step=MILLISECOND)
    for _ in range(3):
        with pytest.raises(ExchangeError, match="no time"):
            exchange.measure([Sample(1, 2, time)])
    assert exchange.reading() == (None, 0)


def test_bending_the_host_clock_leaves_the_exchange_where_it_is() -> None:
    time = Time()
    host = time.clock()
    exchange = ExchangeClock(host, step=0)
    exchange.measure([sample(time, SECOND, trip=0)])
    truth = time.wall() + SECOND
    time.shift -= HOUR
    for _ in range(100):
        time.boot += TICK
        truth += TICK
        host.discipline()
        offset, _ = exchange.reading()
        assert offset is not None
        assert host.now() + offset == truth
