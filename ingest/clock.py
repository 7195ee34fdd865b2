"""The clocks: the host's, which never goes back, and the estimate of the exchange's."""

import time
from collections.abc import Callable

from pipeline.timeframes import SECOND

MOST_SLEW = 50_000
"""Parts per million by which the clock may run fast or slow to meet the wall clock."""

# CLOCK_BOOTTIME goes on while the machine sleeps; where there is none (macOS), monotonic has to do.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic_ns() -> int:
    """Nanoseconds since boot, sleep included where the system can tell."""
    return time.clock_gettime_ns(_BOOT)


class HostClock:
    """Wall time in ns UTC, taken at the start and carried on by the monotonic clock.

    `discipline`, called every tick, bends it towards the wall clock; a step of the wall clock never
    makes it jump or go back.
    """

    def __init__(self, monotonic: Callable[[], int] = monotonic_ns, wall: Callable[[], int] = time.time_ns) -> None:
        self.monotonic = monotonic
        self._wall = wall
        self._since = monotonic()
        self._started_at = wall()
        self._rate = 0

    def now(self) -> int:
        """ns UTC, never less than the last answer."""
        return self.at(self.monotonic())

    def at(self, monotonic: int) -> int:
        """ns UTC at a reading of the monotonic clock since the last `discipline`."""
        elapsed = monotonic - self._since
        # What was to be corrected is corrected after a second: a late `discipline` must not overshoot.
        return self._started_at + elapsed + min(elapsed, SECOND) * self._rate // 1_000_000

    def discipline(self) -> None:
        """Sets the pace so that the distance to the wall clock closes within a second, if the slew allows."""
        monotonic = self.monotonic()
        now = self.at(monotonic)
        error = self._wall() - now
        self._since, self._started_at = monotonic, now
        self._rate = max(-MOST_SLEW, min(MOST_SLEW, error * 1_000_000 // SECOND))


class ExchangeClock:
    """The exchange's clock, known from its REST answers to within half their round trip and half its step (ns).

    Kept against the monotonic clock, so that bending the host's clock does not falsify it.
    """

    def __init__(self, host: HostClock, step: int) -> None:
        self._host = host
        self._step = step
        self._lead: int | None = None
        self._uncertainty = 0
        self.measured: int | None = None
        """Monotonic time of the last measurement."""

    def measure(self, samples: list[tuple[int, int, int]]) -> None:
        """Takes the sample with the shortest round trip: (sent, received, both monotonic, exchange's time)."""
        sent, received, exchange = min(samples, key=lambda sample: sample[1] - sample[0])
        self._lead = exchange - (sent + received) // 2
        self._uncertainty = (received - sent + self._step) // 2
        self.measured = received

    def reading(self) -> tuple[int | None, int]:
        """(exchange clock minus host clock, or None while unknown; uncertainty), both ns."""
        if self._lead is None:
            return None, 0
        monotonic = self._host.monotonic()
        return self._lead + monotonic - self._host.at(monotonic), self._uncertainty
