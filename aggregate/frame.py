"""One time frame of one instrument: its windows in order, and what is remembered of those that are gone."""

from bisect import bisect_left, bisect_right

from aggregate.summary import Point, Summary
from pipeline.records import Quality
from pipeline.timeframes import WIDTHS


class Window:
    """One window of one frame: its trades (None: none known) and the candle last issued for it."""

    __slots__ = ("dropped", "frame", "missing", "open", "price", "quality", "revision", "stale", "summary")

    def __init__(self, frame: "Frame", open_time: int) -> None:
        self.frame = frame
        self.open = open_time
        self.summary: Summary | None = None
        self.revision = -1
        self.quality: Quality | None = None
        self.missing = 0
        self.price: str | None = None
        self.stale = False
        self.dropped = False

    @property
    def end(self) -> int:
        return self.open + self.frame.width


class Frame:
    """The windows of one time frame.

    `since`: all is known from then on; windows that end by then are not ours, the one that it parts is
    partial. `rolled`: windows that end by then have been passed on. `newest`: open time of the newest window issued.
    `anchor`: the last trade among those whose windows are gone, `revised` the highest revision of the quiet ones
    among them.
    `ceded`: of windows that end by then and are gone, only store knows whether they had a candle.
    """

    __slots__ = (
        "anchor", "ceded", "name", "newest", "opens", "quiet", "revised",
        "rolled", "since", "traded", "users", "width", "windows",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        since: int,
        rolled: int,
        newest: int = -1,
        anchor: Point | None = None,
        revised: int = 0,
        ceded: int = 0,
    ) -> None:
        self.name = name
        self.width = WIDTHS[name]
        self.since = since
        self.rolled = rolled
        self.newest = newest
        self.anchor = anchor
        self.revised = revised
        self.ceded = ceded
        self.quiet = False
        self.users: list[Frame] = []
        self.windows: dict[int, Window] = {}
        self.opens: list[int] = []
        self.traded: list[int] = []

    def before(self, time: int) -> Point | None:
        """The last trade known before the window that opens at `time`; None where it is unknown."""
        place = bisect_left(self.traded, time)
        anchor = self.anchor if self.anchor is not None and self.anchor.time < time else None
        if not place:
            return anchor
        summary = self.windows[self.traded[place - 1]].summary
        assert summary is not None
        return summary.last if anchor is None or summary.last > anchor else anchor

    def ends(self, start: int, end: int) -> bool:
        """Whether any window may end in (start, end]."""
        return end // self.width > start // self.width

    def within(self, opens: list[int], start: int, end: int) -> list[int]:
        """Those of the sorted `opens` whose windows end in (start, end]."""
        return opens[bisect_right(opens, start - self.width) : bisect_right(opens, end - self.width)]

    def every(self, start: int, end: int) -> range:
        """All opens of windows that end in (start, end]."""
        return range(start - start % self.width, end - end % self.width, self.width)

    def remember(self, point: Point) -> None:
        """Keeps the trade as the close before later windows: its own window is not here."""
        if self.anchor is None or point > self.anchor:
            self.anchor = point
