"""Allowances that exchanges grant, as sliding windows, and the full-jitter backoff. Pure: times in ns are arguments."""

from collections import deque
from collections.abc import Callable

from ingest.feed import Rate
from pipeline.timeframes import SECOND

SLACK = SECOND // 4


class Budget:
    """At most `rate.count` in any `rate.period` and `slack` ns more: the exchange counts what arrives, and no two
    requests take equally long to get there."""

    def __init__(self, rate: Rate, slack: int = SLACK) -> None:
        self._rate = Rate(rate.count, rate.period + slack)
        self._taken: deque[int] = deque()

    def reserve(self, now: int) -> int:
        """Takes the next free place; the answer says when it is (ns, `now` or later)."""
        place = now
        if len(self._taken) >= self._rate.count:
            place = max(now, self._taken.popleft() + self._rate.period)
        self._taken.append(place)
        return place

    def hold(self, until: int) -> None:
        """Nothing more before `until`: the exchange said that it is too much."""
        self._taken = deque([until - self._rate.period] * self._rate.count)


class Backoff:
    """Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

    The first try after a success comes at once; then anywhere in 0 … first, 0 … 2 x first, up to `cap` (ns).
    """

    def __init__(self, first: int, cap: int, random: Callable[[], float]) -> None:
        self._first = first
        self._cap = cap
        self._random = random
        self.failures = 0

    def delay(self) -> int:
        """How long to wait before the next try (ns)."""
        if self.failures == 0:
            return 0
        # Beyond 2**32 times the first step the cap rules anyway.
        step = self._first << min(self.failures - 1, 32)
        return int(self._random() * min(self._cap, step))

    def failed(self) -> None:
        self.failures += 1

    def succeeded(self) -> None:
        self.failures = 0
