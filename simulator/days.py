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
        self._opens: dict[int, int] = {}

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
        return Day(bar, self._previous, self._open(0, now, bar.close), self._open(UTC_8, now, bar.close))

    def _sum(self, minute: int, live: int) -> None:
        first = minute - DAY_MS + MINUTE_MS
        self._minute = minute
        self._closed = self._series.total(first, live)
        self._previous = self._series.close_before(first)
        self._opens = {}

    def _open(self, shift: int, now: int, close: int) -> int:
        """The day's first price; before its first fill the close of the day before."""
        start = _midnight(now, shift)
        opened = self._opens.get(start)
        if opened is None:
            opened = self._series.open_since(start)
            if opened is None:
                before = self._series.close_before(start)
                return close if before is None else before
            self._opens[start] = opened
        return opened


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
