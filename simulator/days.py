"""The last 24 hours of an instrument, minute by minute, as tickers tell them. Pure, exact."""

import msgspec

from simulator.bars import HOUR_MS, MINUTE_MS, Bar, Series

DAY_MS = 24 * HOUR_MS
UTC_8 = 8 * HOUR_MS
LIVE = 2 * MINUTE_MS


class Day(msgspec.Struct, frozen=True):
    """`bar` sums the fills of the last 24 hours; `previous` is the close before them (None: there is none).
    `utc0` and `utc8` are the prices (ticks) with which the day opened in UTC and in UTC+8."""

    bar: Bar
    previous: int | None
    utc0: int
    utc8: int


class Days:
    """The rolling day of one instrument. All but the newest two minutes is summed once a minute."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._minute = -1
        self._closed: Bar | None = None
        self._previous: int | None = None
        self._opens: tuple[int | None, int | None] = (None, None)

    def at(self, now: int) -> Day | None:
        """The day that ends at `now` (ms); None before the first fill."""
        minute = now - now % MINUTE_MS
        live = minute - LIVE + MINUTE_MS
        if minute != self._minute:
            self._sum(minute, live)
        recent = self._series.total(live, now + 1)
        bar = _joined(minute - DAY_MS + MINUTE_MS, self._closed, recent)
        if bar is None and self._previous is not None:
            bar = Bar(minute - DAY_MS + MINUTE_MS, self._previous)
        if bar is None:
            return None
        utc0, utc8 = (
            self._open(opened, shift, now, bar.close) for opened, shift in zip(self._opens, (0, UTC_8), strict=True)
        )
        return Day(bar, self._previous, utc0, utc8)

    def _sum(self, minute: int, live: int) -> None:
        first = minute - DAY_MS + MINUTE_MS
        self._minute = minute
        self._closed = self._series.total(first, live)
        self._previous = self._series.close_before(first)
        starts = (_midnight(minute, shift) for shift in (0, UTC_8))
        utc0, utc8 = (self._series.total(start, live) for start in starts)
        self._opens = (None if utc0 is None else utc0.open, None if utc8 is None else utc8.open)

    def _open(self, opened: int | None, shift: int, now: int, close: int) -> int:
        """The day's first price; before its first fill the close of the day before."""
        if opened is not None:
            return opened
        start = _midnight(now, shift)
        today = self._series.total(max(start, self._minute - LIVE + MINUTE_MS), now + 1)
        if today is not None:
            return today.open
        before = self._series.close_before(start)
        return close if before is None else before


def _midnight(now: int, shift: int) -> int:
    return now - (now + shift) % DAY_MS


def _joined(opened: int, *parts: Bar | None) -> Bar | None:
    bars = [part for part in parts if part is not None]
    if not bars:
        return None
    joined = Bar(opened, bars[0].open)
    for bar in bars:
        joined.merge(bar)
    return joined
