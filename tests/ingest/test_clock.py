"""Clocks that are told the time: never back, bent towards the wall clock, the exchange's kept apart."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.clock import MOST_SLEW, ExchangeClock, HostClock
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


@given(st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(-HOUR, HOUR)), max_size=40))
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


def test_a_late_discipline_does_not_overshoot() -> None:
    time = Time()
    clock = time.clock()
    time.shift += 1_000_000
    clock.discipline()
    time.boot += HOUR
    assert abs(clock.now() - time.wall()) <= 1


def test_the_exchange_is_known_within_half_a_round_trip() -> None:
    time = Time()
    host = time.clock()
    exchange = ExchangeClock(host, step=1_000_000)
    assert exchange.reading() == (None, 0)
    slow = (time.boot, time.boot + 300_000_000, 0)
    fast = (time.boot + SECOND, time.boot + SECOND + 20_000_000, time.wall() + SECOND + 10_000_000 + 7 * SECOND)
    exchange.measure([slow, fast])
    assert exchange.reading() == (7 * SECOND, 10_500_000)


def test_bending_the_host_clock_leaves_the_exchange_where_it_is() -> None:
    time = Time()
    host = time.clock()
    exchange = ExchangeClock(host, step=0)
    exchange.measure([(time.boot, time.boot, time.wall() + SECOND)])
    truth = time.wall() + SECOND
    time.shift -= HOUR
    for _ in range(100):
        time.boot += TICK
        truth += TICK
        host.discipline()
        offset, _ = exchange.reading()
        assert offset is not None
        assert host.now() + offset == truth
