"""Timing a process that works through something: two looks at how far it is, and the CPU of everything between them.

The first look is taken once a tenth is done, so that no start is in it; the second at the end.
"""

import time
from collections.abc import Callable, Mapping

import msgspec

from bench.instance import Instance

FROM = 0.1
EVERY = 0.02
LONG = 300.0


class Observation(msgspec.Struct, frozen=True):
    """`items` done in `seconds`; `cpu`: seconds of it by process."""

    items: float
    seconds: float
    cpu: Mapping[str, float]

    @property
    def per_second(self) -> float:
        return self.items / self.seconds

    def microseconds(self, process: str) -> float:
        """CPU of the process per item."""
        return 1e6 * self.cpu[process] / self.items


def observe(instance: Instance, what: str, done: Callable[[], float], total: float) -> Observation:
    """Waits until `done()` reaches `total`. Raises ServerAway when a process ends before that."""
    instance.until(lambda: done() >= FROM * total, f"{what} to get under way", LONG, EVERY)
    first, begun, before = done(), time.perf_counter(), instance.cpu()
    instance.until(lambda: done() >= total, f"{what} to end", LONG, EVERY)
    ended, after = time.perf_counter(), instance.cpu()
    cpu = {name: after[name] - before[name] for name in before if name in after}
    return Observation(total - first, ended - begun, cpu)
