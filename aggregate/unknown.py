"""What is not known of one instrument: runs of numbers that were jumped over, and the times they span.

A range is pending until trades fill it or the ledger (a `gap` record) confirms it; confirmed, it makes
the windows it touches partial until it is filled. What will never come is kept as lost time. Pure.
"""

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import msgspec

Span = tuple[int, int]
"""Times, ns, both inclusive."""


class Range(msgspec.Struct, array_like=True):
    """Numbers `first`…`last` of `epoch` are missing, of times `start` to `end`. `pending`: the jump was seen at
    that `received` and is not explained yet; None when the ledger has it. `shown`: when it was seen, candles of windows
    that end by then had been issued and let go. `before`, `after`: times of the trades beside it, where these lie
    outside of `start` to `end`."""

    epoch: int
    first: int
    last: int
    start: int
    end: int
    pending: int | None
    shown: int = 0
    before: int | None = None
    after: int | None = None

    def strays(self) -> list[Span]:
        """Times outside of it that whoever goes by the trades beside it takes for unknown too."""
        beside = ((self.before, self.start), (self.after, self.end))
        return [(min(time, edge), max(time, edge)) for time, edge in beside if time is not None]


class Filled(NamedTuple):
    """What a trade did to the ranges: the time they spanned before, what of it (or its own) is known now, and `strays`
    of theirs, which may be known now."""

    before: Span
    known: Span
    strays: list[Span]


class Unknown:
    """All ranges of one instrument, ordered, and the lost times. Windows are [start, end) in ns."""

    def __init__(self, ranges: list[Range] | None = None, lost: list[Span] | None = None) -> None:
        self.ranges: list[Range] = ranges or []
        self.lost: list[Span] = lost or []
        self._stale = True
        self._shown: list[Span] = []

    def add(self, missing: Range) -> Span:
        """Numbers were jumped over. Returns the time they span."""
        missing.start, missing.end = min(missing.start, missing.end), max(missing.start, missing.end)
        self.ranges.insert(self._place(missing.epoch, missing.first), missing)
        self._stale = True
        return missing.start, missing.end

    def fill(self, epoch: int, first: int, last: int, time: int) -> Filled | None:
        """The numbers came with a trade of `time`; None if none was missing. What is missing on both sides of them
        stays as unknown as it was: pages of any size, from any end, cost no more than the time they make known."""
        hit = self._overlapping(epoch, first, last)
        low, high = [], []
        for found in hit:
            at = min(max(time, found.start), found.end)
            stray = None if time == at else time
            seen = found.pending, found.shown
            left = Range(epoch, found.first, first - 1, found.start, at, *seen, found.before, stray)
            right = Range(epoch, last + 1, found.last, at, found.end, *seen, stray, found.after)
            place = self.ranges.index(found)
            self.ranges[place : place + 1] = [part for part in (left, right) if part.first <= part.last]
            low.append(at if left.first <= left.last else found.start)
            high.append(at if right.first <= right.last else found.end)
        before = self._touched(hit)
        strays = [span for found in hit for span in found.strays()]
        return None if before is None else Filled(before, (min(low), max(high)), strays)

    def confirm(self, epoch: int, first: int, last: int) -> Span | None:
        """The ledger has the gap. Returns the time of the ranges that were pending."""
        return self._settled([found for found in self._overlapping(epoch, first, last) if found.pending is not None])

    def has(self, epoch: int, first: int, last: int) -> bool:
        """Whether any of the numbers is known to be missing."""
        return bool(self._overlapping(epoch, first, last))

    def overdue(self, received: int) -> Span | None:
        """Takes the ranges that are pending since before `received` as confirmed. Returns their time."""
        return self._settled([found for found in self.ranges if found.pending is not None and found.pending < received])

    def take_shown(self) -> list[Span]:
        """Times of what was confirmed just now, of which candles that are let go said that nothing is missing."""
        shown, self._shown = self._shown, []
        return shown

    def lose(self, epoch: int, first: int, last: int) -> Span | None:
        """What is still missing will never come. Returns the time touched."""
        hit = self._overlapping(epoch, first, last)
        for found in hit:
            self.ranges.remove(found)
            self.lost.append((found.start, found.end))
        self.lost = _merged(self.lost)
        return self._touched(hit)

    def lose_time(self, start: int, end: int) -> Span:
        """Nobody can tell whether there were trades in this time. Returns it."""
        span = min(start, end), max(start, end)
        self.lost = _merged([*self.lost, span])
        self._stale = True
        return span

    @property
    def pending(self) -> bool:
        """Whether any jump is neither filled nor confirmed."""
        self._settle()
        return bool(self._pending)

    def waits(self, start: int, end: int) -> bool:
        """Whether a pending range touches the window."""
        self._settle()
        return any(low < end and high >= start for low, high in self._pending)

    def missing(self, start: int, end: int) -> int:
        """ns of the window that confirmed ranges and lost times cover."""
        self._settle()
        total = 0
        for low, high in self._known[max(0, bisect_left(self._known, (start, start)) - 1) :]:
            if low >= end:
                break
            total += max(0, min(end, high + 1) - max(start, low))
        return total

    def until(self, time: int) -> int:
        """The end of what is unknown at `time`, or `time` where it is known."""
        self._settle()
        place = bisect_right(self._spans, time, key=lambda span: span[0]) - 1
        return max(time, self._spans[place][1]) if place >= 0 else time

    def touched(self, start: int, end: int) -> bool:
        """Whether any of the window is of a time that a range spans: trades of it are still to come."""
        self._settle()
        place = bisect_left(self._open, end, key=lambda span: span[0]) - 1
        return place >= 0 and self._open[place][1] >= start

    def forget(self, time: int) -> None:
        """Drops lost times that end before `time`."""
        if self.lost and self.lost[0][1] < time:
            self.lost = [span for span in self.lost if span[1] >= time]
            self._stale = True

    def doubt(self) -> None:
        """Takes all pending ranges as confirmed: the stream has ended."""
        self._settled(self.ranges)

    def _place(self, epoch: int, number: int) -> int:
        return bisect_right(self.ranges, (epoch, number), key=lambda found: (found.epoch, found.first))

    def _overlapping(self, epoch: int, first: int, last: int) -> list[Range]:
        if not self.ranges:
            return []
        start = bisect_left(self.ranges, (epoch, first), key=lambda found: (found.epoch, found.last))
        return self.ranges[start : self._place(epoch, last)]

    def _settled(self, hit: list[Range]) -> Span | None:
        for found in hit:
            found.pending = None
        self._shown += [(found.start, min(found.end, found.shown)) for found in hit if found.shown > found.start]
        return self._touched(hit)

    def _touched(self, hit: list[Range]) -> Span | None:
        if not hit:
            return None
        self._stale = True
        return min(found.start for found in hit), max(found.end for found in hit)

    def _settle(self) -> None:
        """Derives what the questions need from the ranges, once after they changed."""
        if not self._stale:
            return
        self._stale = False
        self._pending = [(found.start, found.end) for found in self.ranges if found.pending is not None]
        confirmed = [(found.start, found.end) for found in self.ranges if found.pending is None]
        self._open = _merged([*confirmed, *self._pending])
        self._known = _merged([*confirmed, *self.lost])
        self._spans = _merged([*self._known, *self._pending])


def _merged(spans: list[Span]) -> list[Span]:
    """The same times as sorted, disjoint spans."""
    merged: list[Span] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged
