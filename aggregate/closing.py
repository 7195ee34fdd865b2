"""When the windows of one instrument get their candles, first and again. Pure; candles go to `issue`.

A window is closed once, when all its time is known. Later changes are issued again at clock records
only, at most once per window and clock second, shortest frame first.
"""

from collections.abc import Callable, Iterator

from aggregate.candles import Verdict, candle, verdict
from aggregate.frame import Frame
from aggregate.saved import Header
from aggregate.windows import KEPT, NEVER, Windows
from pipeline.records import Candle
from pipeline.timeframes import SECOND

MOST_QUIET = 500
"""So many windows of the shortest quiet frame are closed at one record; the next records go on."""

Issue = Callable[[Candle, bool], None]
"""Takes a candle, and whether it is the newest of its frame."""


class Closing:
    """Decides on the windows of `windows` by `header.known`. Every method returns how many candles it issued."""

    def __init__(self, header: Header, windows: Windows, issue: Issue) -> None:
        self.header = header
        self.windows = windows
        self._issue = issue

    def advance(self, received: int) -> int:
        """Closes the windows that end by `known`."""
        windows = self.windows
        if self.header.known < windows.border:
            return 0
        before = windows.closed
        # No quiet window touches what is unknown: years of it take no longer than a moment.
        proven = windows.unknown.until(before)
        after = self._reach(proven)
        windows.roll(after)
        windows.closed = after
        issued = 0
        for frame in windows.frames:
            if not frame.ends(before, after):
                continue
            due = frame.within(frame.opens, before, min(proven, after) if frame.quiet else after)
            for start in (*due, *frame.every(proven, after)) if frame.quiet else due:
                if _issued(frame, start):
                    windows.look_again(start, start)
                else:
                    issued += self._decide(frame, start, received)
        if windows.recheck is None:
            windows.drop()
        return issued

    def expire(self, elapsed: int, received: int) -> int:
        """Nothing more is heard: windows with trades that ended by `elapsed` are not waited for."""
        windows, known = self.windows, self.header.known
        if any(frame.within(frame.traded, frame.rolled, elapsed) for frame in windows.frames):
            windows.roll(elapsed)
        issued = 0
        for frame in windows.frames:
            for start in frame.within(frame.traded, known, elapsed):
                if not _issued(frame, start):
                    issued += self._decide(frame, start, received)
        return issued

    def look_again(self, received: int) -> int:
        """Decides anew on the windows whose candles may have changed."""
        windows, second = self.windows, received // SECOND
        may_repeat = second != self.header.reissued
        held, issued = False, 0
        windows.roll(windows.closed)
        for frame, start in list(self._doubtful()):
            if not _issued(frame, start):
                issued += self._decide(frame, start, received)
            elif may_repeat:
                if self._decide(frame, start, received):
                    issued, self.header.reissued = issued + 1, second
            else:
                held = held or self._news(frame, start) is not None
        if not held:
            windows.recheck = None
            windows.drop()
        return issued

    def revive(self, start: int) -> None:
        """Takes back quiet windows from `start` on that are no longer kept: what proved them is about to be doubted.
        Of each frame the last ones; older ones are store's from now on. Their revisions are forgotten, so that the
        next ones may leave numbers out."""
        windows = self.windows
        end = windows.closed - KEPT
        for frame in windows.frames:
            if frame.quiet and start < end:
                oldest = end - MOST_QUIET * frame.width
                if start < oldest:
                    frame.ceded = max(frame.ceded, oldest)
                for open_time in frame.every(max(start, oldest), end):
                    said = verdict(windows, frame, open_time, self.header.known)
                    if open_time not in frame.windows and said is not None and said.quality == "quiet":
                        window = windows.window(frame, open_time)
                        window.revision, window.quality, window.price = frame.revised, said.quality, said.price

    def finish(self, received: int) -> int:
        """Writes every window with trades as it is: the stream has ended."""
        windows = self.windows
        issued = 0
        while self.header.known >= windows.border:
            issued += self.advance(received)
        windows.unknown.doubt()
        windows.roll(NEVER)
        for frame in windows.frames:
            for start in list(frame.opens):
                issued += self._decide(frame, start, received)
        windows.recheck = None
        return issued

    def _reach(self, proven: int) -> int:
        """How far to close at this record: after a long silence not everything at once."""
        widths = [frame.width for frame in self.windows.frames if frame.quiet]
        return min([self.header.known, *(proven + MOST_QUIET * width for width in widths[:1])])

    def _doubtful(self) -> Iterator[tuple[Frame, int]]:
        """The windows in the time to look at again that were due: issued, closed, or quiet and still kept."""
        windows = self.windows
        assert windows.recheck is not None
        start, end = windows.recheck
        for frame in windows.frames:
            last = end - end % frame.width + frame.width
            opens = dict.fromkeys(frame.within(frame.opens, start, last))
            if frame.quiet:
                young = max(start, windows.closed - KEPT)
                opens |= dict.fromkeys(frame.every(young, min(last, windows.closed)))
            for open_time in sorted(opens):
                if open_time + frame.width <= windows.closed or _issued(frame, open_time):
                    yield frame, open_time

    def _news(self, frame: Frame, start: int) -> Verdict | None:
        """What is to be said of the window that its last candle, if any, did not say; None if nothing."""
        said, window = verdict(self.windows, frame, start, self.header.known), frame.windows.get(start)
        if window is None or window.revision < 0 or window.stale:
            return said
        return None if said == (window.quality, window.missing, window.price) else said

    def _decide(self, frame: Frame, start: int, received: int) -> bool:
        """Issues the window's candle if there is one and it is new."""
        if (said := self._news(frame, start)) is None:
            return False
        window = self.windows.window(frame, start)
        window.revision += 1
        window.quality, window.missing, window.price, window.stale = *said, False
        newest = start >= frame.newest
        frame.newest = max(frame.newest, start)
        record = candle(self.header, frame, start, window.summary, said, window.revision, received)
        self._issue(record, newest)
        return True


def _issued(frame: Frame, start: int) -> bool:
    window = frame.windows.get(start)
    return window is not None and window.revision >= 0
