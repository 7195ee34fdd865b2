"""The last 24 hours of one instrument, whole minutes at a time. Pure."""

from collections import deque

from simulator.bars import MINUTE_MS, Bar
from simulator.market import MILLISECOND, Fill

DAY_MS = 24 * 60 * MINUTE_MS


class Rolling:
    """The minutes of the last 24 hours; a minute leaves as a whole once its beginning is older."""

    def __init__(self) -> None:
        self._minutes: deque[Bar] = deque()
        self._epoch: int | None = None
        self._before: int | None = None

    def add(self, fill: Fill) -> None:
        """Count one fill; fills come in order of time. A new listing begins anew."""
        if fill.epoch != self._epoch:
            self._epoch, self._before = fill.epoch, None
            self._minutes.clear()
        time = fill.time // MILLISECOND
        opened = time - time % MINUTE_MS
        if not self._minutes or self._minutes[-1].opened != opened:
            self._minutes.append(Bar(opened, fill.ticks))
            self._forget(opened)
        self._minutes[-1].add(fill, False)

    def day(self, now: int) -> Bar | None:
        """The 24 hours up to `now` (ms) as one bar; None without a trade in them."""
        self._forget(now)
        if not self._minutes:
            return None
        day = Bar(self._minutes[0].opened, self._minutes[0].open)
        for minute in self._minutes:
            day.merge(minute)
        return day

    @property
    def before(self) -> int | None:
        """The last price (ticks) before the 24 hours; None where none is known."""
        return self._before

    def _forget(self, now: int) -> None:
        while self._minutes and self._minutes[0].opened < now - DAY_MS:
            self._before = self._minutes.popleft().close
