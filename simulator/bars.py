"""The venue's own bars, summed from the true fills in whole ticks and lots. Pure, exact, no product code.

Kept per instrument: seconds (2 hours) and minutes (8 days); longer bars are put together from minutes.
"""

import itertools
from collections.abc import Iterable, Iterator
from decimal import Context, Decimal

from simulator.market import MILLISECOND, Fill

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
KEPT_SECONDS = 2 * 3600
KEPT_MINUTES = 8 * 24 * 60
_WIDE = Context(prec=40)


class Bar:
    """One bar: prices in ticks, `lots`, `turnover` (ticks x lots), `reciprocal` (sum of lots / ticks: what the
    base volume of an inverse contract is built from). `opened` is ms UTC. `fills` are counted from number `first`
    to `last` (None without any), `bought` and `bought_turnover` are the takers' buys."""

    __slots__ = (
        "bought",
        "bought_turnover",
        "close",
        "fills",
        "first",
        "high",
        "last",
        "lots",
        "low",
        "open",
        "opened",
        "reciprocal",
        "turnover",
    )

    def __init__(self, opened: int, ticks: int) -> None:
        self.opened = opened
        self.open = self.high = self.low = self.close = ticks
        self.lots = 0
        self.turnover = 0
        self.reciprocal = Decimal(0)
        self.fills = self.bought = self.bought_turnover = 0
        self.first: int | None = None
        self.last: int | None = None

    def add(self, fill: Fill, inverse: bool) -> None:
        ticks, lots = fill.ticks, fill.lots
        self.high = max(self.high, ticks)
        self.low = min(self.low, ticks)
        self.close = ticks
        self.lots += lots
        self.turnover += ticks * lots
        self.fills += 1
        self.first = fill.sequence if self.first is None else self.first
        self.last = fill.sequence
        if fill.side == "buy":
            self.bought += lots
            self.bought_turnover += ticks * lots
        if inverse:
            self.reciprocal = _WIDE.add(self.reciprocal, _WIDE.divide(Decimal(lots), Decimal(ticks)))

    def merge(self, later: "Bar") -> None:
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close
        self.lots += later.lots
        self.turnover += later.turnover
        self.fills += later.fills
        self.bought += later.bought
        self.bought_turnover += later.bought_turnover
        self.first = later.first if self.first is None else self.first
        self.last = self.last if later.last is None else later.last
        if later.reciprocal:
            self.reciprocal = _WIDE.add(self.reciprocal, later.reciprocal)


class Series:
    """The bars of one instrument."""

    def __init__(self, inverse: bool) -> None:
        self._inverse = inverse
        self._seconds: dict[int, Bar] = {}
        self._minutes: dict[int, Bar] = {}

    def add(self, fill: Fill) -> None:
        """Count one fill; fills come in order of time."""
        time = fill.time // MILLISECOND
        for bars, width, kept in (
            (self._seconds, SECOND_MS, KEPT_SECONDS),
            (self._minutes, MINUTE_MS, KEPT_MINUTES),
        ):
            opened = time - time % width
            bar = bars.get(opened)
            if bar is None:
                bar = bars[opened] = Bar(opened, fill.ticks)
                if len(bars) > kept:
                    del bars[next(iter(bars))]
            bar.add(fill, self._inverse)

    def bars(self, width: int, shift: int, first: int, until: int) -> list[Bar]:
        """Bars of `width` ms whose opening t (with (t + `shift`) % `width` == 0) lies in [`first`, `until`].

        Oldest first and without holes: a window without a trade repeats the close before it. Before the first
        trade there is nothing.
        """
        opened: dict[int, Bar] = {}
        close: int | None = None
        for part in self._parts(width, first - width):
            start = part.opened - (part.opened + shift) % width
            if start > until:
                break
            if start < first:
                close = part.close
            elif start in opened:
                opened[start].merge(part)
            else:
                opened[start] = _copy(part, start)
        return _dense(opened, close, range(first + -(first + shift) % width, until + 1, width))

    def total(self, first: int, until: int) -> Bar | None:
        """One bar of all minutes that open in [`first`, `until`) ms; None when nothing traded in them."""
        parts = [minute for minute in self._newest_minutes(first) if minute.opened < until]
        if not parts:
            return None
        total = _copy(parts[-1], parts[-1].opened)
        for minute in parts[-2::-1]:
            total.merge(minute)
        return total

    def open_since(self, time: int) -> int | None:
        """The first price (ticks) of the minutes that open at or after `time` (ms)."""
        opened = None
        for minute in self._newest_minutes(time):
            opened = minute.open
        return opened

    def close_before(self, time: int) -> int | None:
        """The last price (ticks) of the minutes that open before `time` (ms)."""
        return next((bar.close for bar in reversed(self._minutes.values()) if bar.opened < time), None)

    def _newest_minutes(self, first: int) -> Iterator[Bar]:
        """The minutes that open at or after `first` (ms), newest first."""
        return itertools.takewhile(lambda minute: minute.opened >= first, reversed(self._minutes.values()))

    def _parts(self, width: int, since: int) -> Iterable[Bar]:
        """The kept bars from the last one that opened before `since` (ms) on: those asked for are the newest."""
        parts: list[Bar] = []
        for part in reversed((self._seconds if width < MINUTE_MS else self._minutes).values()):
            parts.append(part)
            if part.opened < since:
                break
        return reversed(parts)


def _copy(bar: Bar, opened: int) -> Bar:
    copied = Bar(opened, bar.open)
    copied.merge(bar)
    return copied


def _dense(opened: dict[int, Bar], close: int | None, windows: range) -> list[Bar]:
    dense: list[Bar] = []
    for start in windows:
        bar = opened.get(start)
        if bar is None and close is not None:
            bar = Bar(start, close)
        if bar is not None:
            dense.append(bar)
            close = bar.close
    return dense
