"""Allowances that exchanges grant, as sliding windows, and the full-jitter backoff. Pure: times in ns are arguments."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

from ingest.feed import Rate
from pipeline.timeframes import SECOND

SLACK = SECOND // 4


class Note(Protocol):
    """Is told of what goes out before it does: see tally.py. `at` in ns: until when, where it is held."""

    def __call__(self, what: Literal["took", "begun", "ended", "held"], at: int, cost: int) -> None: ...


def _nobody(what: str, at: int, cost: int) -> None:
    """What is counted by connection dies with it: nobody need know afterwards."""


class Budget:
    """At most `rate.count` in any `rate.period` and `slack` ns more: the exchange counts what arrives, and no two
    requests take equally long to get there. What is on a `flight` counts until it has ended, however long it takes."""

    def __init__(self, rate: Rate, slack: int = SLACK) -> None:
        self.rate = rate
        self.period = rate.period + slack
        self.held = 0
        """Nothing goes out before this time."""
        self.note: Note = _nobody
        self._taken: deque[tuple[int, int]] = deque()
        self._flying: list[int] = []

    def reserve(self, now: int, cost: int = 1, share: float = 1.0) -> int:
        """Takes the next free place; the answer says when it is (ns, `now` or later).

        `share`: how much of the allowance this caller may use together with all others; the rest is kept for those
        that come with more.
        """
        place = self.next(now, cost, share)
        self._take(place, cost)
        return place

    def next(self, now: int, cost: int = 1, share: float = 1.0) -> int:
        """When the next free place is; takes nothing."""
        self._forget(now)
        limit = max(cost, int(self.rate.count * share))
        place = max(now, self.held)
        taken = self._counted(now)
        ends = iter([at + self.period for at, _ in taken])
        while self._peak(place, taken) + cost > limit:
            place = max(place, next(ends))
        return place

    def goes(self, now: int, cost: int = 1) -> None:
        """Whoever got a place says that it goes out now."""
        self.note("took", now, cost)

    @contextlib.contextmanager
    def flight(self, place: int, now: Callable[[], int], cost: int = 1) -> Iterator[None]:
        """Around what goes out on a place: the exchange counts it at some moment between beginning and end."""
        self.note("begun", now(), cost)
        self.release(place, cost)
        self._flying.append(cost)
        try:
            yield
        finally:
            self._flying.remove(cost)
            self.restore(now(), cost)
            self.note("ended", now(), cost)

    def restore(self, at: int, cost: int) -> None:
        """Counts what went out at a time: this process's or an earlier one's."""
        self._take(at, cost)

    def release(self, place: int, cost: int = 1) -> None:
        """Gives a reserved place back: nothing went out."""
        with contextlib.suppress(ValueError):
            self._taken.remove((place, cost))

    def fits(self, place: int, cost: int, now: int) -> bool:
        """Whether a reserved place is good `now` that it has come: not if we are late, for then the next ones come
        right behind, nor if the exchange has told of more since, or wants nothing."""
        late = now - place >= SLACK
        peak = self._peak(place, self._counted(place))
        return not late and self.held <= place and peak <= max(cost, self.rate.count)

    def used(self, now: int) -> int:
        """How much of the allowance is taken now, and for later."""
        self._forget(now)
        return sum(cost for _, cost in self._taken) + sum(self._flying)

    def row(self, now: int) -> dict[str, int]:
        """What `pipeline status` is told; `period` and `held` (how long nothing goes yet) in ns."""
        rate = self.rate
        return {
            "used": self.used(now),
            "limit": rate.count,
            "period": rate.period,
            "held": max(0, self.held - now),
        }

    def told(self, used: int, now: int) -> None:
        """The exchange counts `used`: more than we do when others share our address. What waits it cannot know."""
        self._forget(now)
        if (unknown := used - sum(cost for at, cost in self._counted(now) if at <= now)) > 0:
            self._take(now, unknown)

    def hold(self, until: int) -> None:
        """Nothing more before `until`: the exchange said that it is too much."""
        if until > self.held:
            self.held = until
            self.note("held", until, 0)

    def _take(self, place: int, cost: int) -> None:
        late = bool(self._taken) and self._taken[-1][0] > place
        self._taken.append((place, cost))
        if late:
            self._taken = deque(sorted(self._taken))

    def _counted(self, now: int) -> list[tuple[int, int]]:
        """What is taken; what is in flight as if it arrived at `now`, for that is the soonest it can be over."""
        flying = [(now, cost) for cost in self._flying]
        return sorted([*self._taken, *flying]) if flying else list(self._taken)

    def _peak(self, place: int, taken: list[tuple[int, int]]) -> int:
        """The most of it that is taken in any window that holds the place."""
        ends = {place, *(at for at, _ in taken if place <= at < place + self.period)}
        return max(sum(cost for at, cost in taken if end - self.period < at <= end) for end in ends)

    def _forget(self, now: int) -> None:
        while self._taken and self._taken[0][0] <= now - self.period:
            self._taken.popleft()


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
