"""One want of trades on its way: what its pages brought so far, how fast, and what troubles it. Pure; asks nothing."""

from collections import deque
from typing import Any, Literal

from ingest.budget import Backoff
from ingest.context import Context
from ingest.feed import History
from pipeline.timeframes import SECOND
from pipeline.wants import Want

WINDOW = 30 * SECOND
"""Rates are over the last of these."""


class Pace:
    """Numbers a second over the last 30 s; times are monotonic ns."""

    def __init__(self) -> None:
        self._begun: int | None = None
        self._pages: deque[tuple[int, int]] = deque()
        self._numbers = 0

    def add(self, numbers: int, now: int) -> None:
        """A page covered so many numbers more."""
        self._begun = now if self._begun is None else self._begun
        self._pages.append((now, numbers))
        self._numbers += numbers
        self._forget(now)

    def rate(self, now: int) -> float | None:
        """None before the first page."""
        self._forget(now)
        return None if self._begun is None else self._numbers * SECOND / max(SECOND, min(WINDOW, now - self._begun))

    def _forget(self, now: int) -> None:
        while self._pages and self._pages[0][0] <= now - WINDOW:
            self._numbers -= self._pages.popleft()[1]


class Repair:
    """`due` (monotonic ns): when its next page may be asked for; `deadline` (ns UTC): when the exchange forgets the
    first of its trades, None where it does not; `history` is None once it has ended."""

    def __init__(
        self, key: str, want: Want, context: Context, history: History, deadline: int | None, backoff: Backoff
    ) -> None:
        self.key = key
        self.want = want
        self.context = context
        self.history: History | None = history
        self.deadline = deadline
        self.state: Literal["queued", "asked", "answered", "refused"] = "queued"
        self.reason: str | None = None
        self.busy = False
        self.filed = False
        """Its trades come from a daily file just now: no page is asked for."""
        self.due = 0
        self.pages = 0
        self.done = 0
        """How many of the numbers wanted the pages cover."""
        self.late = False
        self.unknown: int | None = None
        """Since when (monotonic ns) the exchange has said nothing but that it has no such instrument."""
        self._pace = Pace()
        self._backoff = backoff
        self._troubled: int | None = None

    @property
    def wanted(self) -> int:
        """How many numbers are wanted in all; 0 where only the exchange knows that."""
        assert self.want.first is not None
        if self.want.last is None:
            return 0
        return self.want.last - self.want.first + 1

    @property
    def newest(self) -> bool:
        """Whether it asks for the newest trades, of which there may be none: what is known to lack goes before."""
        return self.want.last is None

    @property
    def idle(self) -> bool:
        """Whether a page may be asked for, as far as that depends on what is on its way."""
        return not self.busy and not self.filed

    @property
    def left(self) -> int:
        return max(0, self.wanted - self.done)

    @property
    def urgency(self) -> tuple[int, str]:
        """What the exchange forgets first comes first, and it forgets the oldest."""
        return (self.want.since if self.want.from_time is None else self.want.from_time, self.key)

    def progressed(self, now: int) -> int:
        """A page came; how many numbers more are covered."""
        assert self.history is not None
        spans = self.history.spans
        more = (0 if spans is None else spans[1] - spans[0] + 1) - self.done
        self._pace.add(more, now)
        self.pages, self.done = self.pages + 1, self.done + more
        self._backoff.succeeded()
        self._troubled, self.unknown, self.reason = None, None, None
        return more

    def troubled(self, reason: str, now: int) -> tuple[int, int]:
        """A page did not come: since when that is so, and how long to leave it."""
        self._backoff.failed()
        self.reason = reason
        self._troubled = now if self._troubled is None else self._troubled
        return self._troubled, self._backoff.delay()

    def ended(self, state: Literal["answered", "refused"], reason: str | None = None) -> None:
        self.state, self.reason, self.history = state, reason, None

    def row(self, now: int, left: float | None) -> dict[str, Any]:
        """What `pipeline status` is told. `rate` in numbers a second over the last 30 s; `left`: seconds it will take
        yet, by its own pace, else as given; `deadline` in ns UTC; `late`: it cannot be met."""
        rate = self._pace.rate(now) if self.history is not None else None
        if self.history is not None and rate:
            left = self.left / rate
        return {
            "number": self.want.number,
            "state": self.state,
            "reason": self.reason,
            "done": self.done,
            "wanted": self.wanted,
            "pages": self.pages,
            "rate": None if rate is None else round(rate, 1),
            "left": None if left is None else round(left, 1),
            "deadline": self.deadline,
            "late": self.late and self.history is not None,
        }
