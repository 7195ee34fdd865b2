"""The clocks: the host's, which never goes back, and the estimate of the exchange's."""

import time
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

from pipeline.errors import ExchangeError
from pipeline.timeframes import HOUR, SECOND

MOST_SLEW = 50_000
"""Parts per million by which the clock may run fast or slow to meet the wall clock."""

FAR_BEHIND = 12 * HOUR
"""A host without a battery wakes in the past. A day behind it would take every trade for one of the future, and to
catch up a day takes twenty: so far behind it jumps."""

MOST_JUMP = SECOND
"""By how much, beyond what is uncertain, the exchange may be off our estimate of it before we want to hear it twice."""
LATEST = 2**63
"""Times are signed 64-bit ns everywhere behind us."""

# CLOCK_BOOTTIME goes on while the machine sleeps; where there is none (macOS), monotonic has to do.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic_ns() -> int:
    """Nanoseconds since boot, sleep included where the system can tell."""
    return time.clock_gettime_ns(_BOOT)


class HostClock:
    """Wall time in ns UTC, taken at the start and carried on by the monotonic clock.

    `discipline`, called every tick, bends it towards the wall clock; no step of the wall clock makes it go back, and
    only one forwards by more than FAR_BEHIND makes it jump.
    """

    def __init__(self, monotonic: Callable[[], int] = monotonic_ns, wall: Callable[[], int] = time.time_ns) -> None:
        self.monotonic = monotonic
        self._wall = wall
        self._since = monotonic()
        self._started_at = wall()
        self._rate = 0

    def now(self) -> int:
        """ns UTC, never less than the last answer."""
        # Asked for every frame: the same as `at`, a call cheaper.
        elapsed = self.monotonic() - self._since
        return self._started_at + elapsed + (elapsed if elapsed < SECOND else SECOND) * self._rate // 1_000_000

    def at(self, monotonic: int) -> int:
        """ns UTC at a reading of the monotonic clock since the last `discipline`."""
        elapsed = monotonic - self._since
        # What was to be corrected is corrected after a second: a late `discipline` must not overshoot.
        return self._started_at + elapsed + (elapsed if elapsed < SECOND else SECOND) * self._rate // 1_000_000

    def discipline(self) -> None:
        """Sets the pace so that the distance to the wall clock closes within a second, if the slew allows."""
        monotonic = self.monotonic()
        now = self.at(monotonic)
        error = self._wall() - now
        if error > FAR_BEHIND:
            now, error = now + error, 0
        self._since, self._started_at = monotonic, now
        self._rate = max(-MOST_SLEW, min(MOST_SLEW, error * 1_000_000 // SECOND))


class Sample(NamedTuple):
    """One request for the exchange's time: when it was sent and answered (monotonic ns), and the answer (ns UTC)."""

    sent: int
    received: int
    exchange: int


class _Estimate(NamedTuple):
    """The exchange's clock minus the monotonic one, known to within `uncertainty` (ns)."""

    lead: int
    uncertainty: int

    def agrees(self, other: "_Estimate", leeway: int) -> bool:
        return abs(self.lead - other.lead) <= self.uncertainty + other.uncertainty + leeway


class ExchangeClock:
    """The exchange's clock, known from its REST answers to within half their round trip and half its step (ns).

    Kept against the monotonic clock, so that bending the host's clock does not falsify it. One wrong answer is not
    believed: samples must agree, and what is far off the estimate must be heard twice.
    """

    def __init__(self, host: HostClock, step: int) -> None:
        self._host = host
        self._step = step
        self._estimate: _Estimate | None = None
        self._doubted: _Estimate | None = None
        self.measured: int | None = None
        """Monotonic time of the last measurement that was believed."""

    def measure(self, samples: list[Sample]) -> None:
        """Takes the sample with the shortest round trip. Raises ExchangeError for what is not believed (yet)."""
        found = [self._read(sample) for sample in samples]
        for one, other in combinations(found, 2):
            # Half their round trips would do for a perfect clock; an exchange answers from several machines.
            if not one.agrees(other, one.uncertainty + other.uncertainty):
                raise ExchangeError(f"answers contradict each other by {abs(one.lead - other.lead) / SECOND:.3f} s")
        best = min(found, key=lambda estimate: estimate.uncertainty)
        if self._estimate is not None and not best.agrees(self._estimate, MOST_JUMP):
            doubted, self._doubted = self._doubted, best
            if doubted is None or not best.agrees(doubted, MOST_JUMP):
                jump = (best.lead - self._estimate.lead) / SECOND
                raise ExchangeError(f"jumped by {jump:+.3f} s: not believed before it is said again")
        self._estimate, self._doubted = best, None
        self.measured = max(sample.received for sample in samples)

    def reading(self) -> tuple[int | None, int]:
        """(exchange clock minus host clock, or None while unknown; uncertainty), both ns."""
        if self._estimate is None:
            return None, 0
        monotonic = self._host.monotonic()
        return self._estimate.lead + monotonic - self._host.at(monotonic), self._estimate.uncertainty

    def _read(self, sample: Sample) -> _Estimate:
        if not 0 < sample.exchange < LATEST:
            raise ExchangeError(f"{sample.exchange} ns is no time")
        trip = sample.received - sample.sent
        return _Estimate(sample.exchange - (sample.sent + sample.received) // 2, (trip + self._step) // 2)
