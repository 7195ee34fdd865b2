"""The candle windows of one instrument: what is kept, and how shorter ones roll up into longer ones.

A trade goes into the shortest frames only; a window passes what it holds on to the longer ones once,
when it is rolled. What comes into a rolled window goes on at once, so each trade is in each frame once.
"""

from bisect import bisect_right, insort
from math import gcd

from aggregate.frame import Frame, Window
from aggregate.rebuilds import Rebuilds
from aggregate.summary import Point, Summary
from aggregate.unknown import Span, Unknown
from pipeline.timeframes import MINUTE, sources

KEPT = 10 * MINUTE
"""Closed windows stay so long, by the instrument's own time."""
NEVER = 1 << 63
"""Later than any time in ns."""


class Windows:
    """All frames of one instrument. `closed`: all windows that end by then were looked at.

    `recheck` is the time whose windows may need another candle; `rebuilds` what only store can compute; `changed` are
    the windows to save; `newest` is the time of the trade with the newest number.
    """

    def __init__(self, closed: int, frames: list[Frame], unknown: Unknown, rebuilds: Rebuilds) -> None:
        self.closed = closed
        self.unknown = unknown
        self.rebuilds = rebuilds
        self.newest = -1
        self.recheck: tuple[int, int] | None = None
        self.changed: dict[Window, None] = {}
        self.link(frames)

    def link(self, frames: list[Frame]) -> None:
        """Orders the frames, shortest first, and says which is built from which."""
        self.frames = sorted(frames, key=lambda frame: frame.width)
        # Every window ends on it; 10s and 15s have no shorter one of theirs.
        self.grid = gcd(*(frame.width for frame in self.frames))
        by_name = {frame.name: frame for frame in self.frames}
        self.roots: list[Frame] = []
        for frame in self.frames:
            frame.users = []
        for name, source in sources(tuple(by_name)).items():
            (self.roots if source is None else by_name[source].users).append(by_name[name])

    @property
    def border(self) -> int:
        """The first end of a window after `closed`."""
        if not self.frames:
            return NEVER
        return self.closed - self.closed % self.grid + self.grid

    def add(self, summary: Summary, filled: Span | None = None) -> bool:
        """Takes one trade; `filled` is the time that the missing numbers spanned of which it was one. False when a
        window it belongs to is no longer kept: that is for store to compute."""
        kept = True
        for frame in self.roots:
            kept &= self._absorb(frame, summary, filled)
        return kept

    def window(self, frame: Frame, open_time: int) -> Window:
        """The window, made where it is not there yet; it will be saved."""
        window = frame.windows.get(open_time)
        if window is None:
            window = frame.windows[open_time] = Window(frame, open_time)
            _insert(frame.opens, open_time)
        self.changed[window] = None
        return window

    def sort(self) -> None:
        """Orders what was put into the frames' windows from the saved state."""
        for frame in self.frames:
            frame.opens = sorted(frame.windows)
            frame.traded = [start for start in frame.opens if frame.windows[start].summary is not None]

    def look_again(self, start: int, end: int) -> None:
        """Windows in the time start…end (inclusive) may need another candle."""
        if self.recheck is not None:
            start, end = min(start, self.recheck[0]), max(end, self.recheck[1])
        self.recheck = (start, end)

    def roll(self, time: int) -> None:
        """Passes on every window that ends by `time`."""
        for frame in self.frames:
            if time > frame.rolled:
                due = frame.within(frame.traded, frame.rolled, time) if frame.ends(frame.rolled, time) else []
                frame.rolled = time
                for start in due:
                    self._pass_on(frame, frame.windows[start].summary)

    def kept(self, frame: Frame, open_time: int) -> bool:
        """Whether the window belongs to the state: it may get a trade, or has the last one. A jump may be seen long
        after the last trade, and numbers need not be in the order of times; so whatever has trades and may get more
        stays, and a window that may get one and is not there has none."""
        last = bool(frame.traded) and open_time == frame.traded[-1]
        return last or open_time <= self.newest < open_time + frame.width or self._may_get(frame, open_time, None)

    def drop(self) -> None:
        """Lets go of the windows that no longer belong to the state."""
        limit = self.closed - KEPT
        for frame in self.frames:
            if frame.opens and frame.opens[0] + frame.width <= limit:
                old = frame.within(frame.opens, frame.opens[0], limit)
                for start in [start for start in old if not self.kept(frame, start)]:
                    self._forget(frame, frame.windows[start])
        if self.unknown.lost:
            oldest = [min([limit - limit % frame.width, *frame.opens[:1]]) for frame in self.frames]
            self.unknown.forget(min(oldest, default=limit))

    def reshape(self, names: list[str], since: int) -> None:
        """Other frames from `since` on: new ones begin there, dropped ones are forgotten, the others go on."""
        for frame in self.frames:
            # Once everything is passed on under the old order, no new order can pass it on twice.
            last = max([frame.rolled, *(start + frame.width for start in frame.traded[-1:])])
            for start in frame.within(frame.traded, frame.rolled, last):
                self._pass_on(frame, frame.windows[start].summary)
            frame.rolled = last
        for frame in self.frames:
            if frame.name not in names:
                for window in list(frame.windows.values()):
                    self._forget(frame, window)
        staying = {frame.name: frame for frame in self.frames if frame.name in names}
        self.link([staying.get(name) or Frame(name, since, self.closed) for name in names])

    def _pass_on(self, frame: Frame, summary: Summary | None) -> None:
        if summary is not None:
            for user in frame.users:
                self._absorb(user, summary)

    def _may_get(self, frame: Frame, open_time: int, filled: Span | None) -> bool:
        """Whether trades of the window may be on their way (it is young), or are missing, or were until now; and it is
        not store's to compute."""
        end = open_time + frame.width
        if end > self.closed - KEPT:
            return True
        return end > frame.ceded and (_touches(filled, open_time, end) or self.unknown.touched(open_time, end))

    def _absorb(self, frame: Frame, summary: Summary, filled: Span | None = None) -> bool:
        time = summary.first.time
        start = time - time % frame.width
        end = start + frame.width
        kept = True
        if end <= frame.since:
            frame.remember(summary.last)
        elif start in frame.windows or self._may_get(frame, start, filled):
            self._put(frame, start, summary)
        else:
            frame.remember(summary.last)
            self.rebuilds.add((time, summary.last.time), [frame.name])
            kept = False
        if end <= self.closed:
            self._reprice(frame, start, summary.last, filled)
        if end <= frame.rolled:
            for user in frame.users:
                kept &= self._absorb(user, summary, filled)
        return kept

    def _put(self, frame: Frame, start: int, summary: Summary) -> None:
        window = self.window(frame, start)
        if window.summary is None:
            window.summary = summary
            _insert(frame.traded, start)
        else:
            window.summary = window.summary.merge(summary)
        if window.revision >= 0:
            window.stale = True
            self.look_again(start, start)

    def _reprice(self, frame: Frame, start: int, point: Point, filled: Span | None) -> None:
        """A closed window got a trade: the quiet ones after it may have another previous close. In the time that was
        missing they had none."""
        place = bisect_right(frame.traded, start)
        after = frame.traded[place] if place < len(frame.traded) else self.closed
        self.look_again(start, after)
        window = frame.windows.get(start)
        closes = window is None or window.summary is None or window.summary.last == point
        end = start + frame.width
        known = max(end, filled[1] + 1) if filled is not None and _touches(filled, start, end) else end
        if frame.quiet and closes and known < min(after, self.closed - KEPT):
            self.rebuilds.add((known, after - 1), [frame.name])

    def _forget(self, frame: Frame, window: Window) -> None:
        del frame.windows[window.open]
        frame.opens.remove(window.open)
        if window.summary is not None:
            frame.traded.remove(window.open)
            frame.remember(window.summary.last)
        else:
            frame.revised = max(frame.revised, window.revision)
        window.dropped = True
        self.changed[window] = None


def _touches(span: Span | None, start: int, end: int) -> bool:
    """Whether a time of the span is in [start, end)."""
    return span is not None and span[0] < end and span[1] >= start


def _insert(values: list[int], value: int) -> None:
    if not values or value > values[-1]:
        values.append(value)
    else:
        insort(values, value)
