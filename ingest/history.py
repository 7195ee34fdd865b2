"""Paging trades back: which page to ask next, and what the pages so far cover of the numbers wanted. Pure.

A page that does not reach the newest number wanted, or is empty, proves nothing yet: exchanges answer REST from
caches that lag behind their sockets, each by itself. It is asked for again, `TIMES` times, before it is believed.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Self

import msgspec

from ingest.covered import Covered
from ingest.feed import Numbers, Request, Row
from pipeline.timeframes import MINUTE, SECOND
from pipeline.wants import Want

TIMES = 4
FRESH = MINUTE
"""How old the trades may be for the page of the newest ones to be worth a try."""
SLACK = 10 * SECOND
"""How far the times of trades may contradict their numbers; beyond, the exchange has numbered them anew."""


class Source(msgspec.Struct, frozen=True):
    """How an exchange pages the trades of one instrument: `page(edge, count)` asks for the trades older than number
    `edge` (for Backward) or from `edge` on (for Forward), at most `most`; `newest(count)` for the newest ones, at most
    `most_newest` (0: no cheaper than a page). `read` gives the rows of either, in any order; raises ExchangeError."""

    page: Callable[[int, int], Request]
    newest: Callable[[int], Request]
    read: Callable[[str], Sequence[Row]]
    most: int
    most_newest: int = 0


class Wanted(msgspec.Struct, frozen=True):
    """Numbers `first` … `last`, printed between two times (ns), which may be unknown."""

    first: int
    last: int
    from_time: int | None
    to_time: int | None

    @classmethod
    def of(cls, want: Want) -> Self:
        assert want.first is not None
        assert want.last is not None
        return cls(want.first, want.last, want.from_time, want.to_time)

    def reached(self, rows: Sequence[Row], number: int) -> bool:
        """Whether who lists these rows has come to the number, or beyond all that is wanted."""
        return any(row.number >= number or self._after(row) for row in rows)

    def renumbered(self, rows: Sequence[Row]) -> bool:
        """Whether a row has a number wanted, and was printed at another time: the instrument was listed anew."""
        return any(self.first <= row.number <= self.last and (self._after(row) or self._before(row)) for row in rows)

    def _after(self, row: Row) -> bool:
        return self.to_time is not None and row.time > self.to_time + SLACK

    def _before(self, row: Row) -> bool:
        return self.from_time is not None and row.time < self.from_time - SLACK


Step = Literal["newest", "page", "probe", "done"]
"""The page of the newest trades, for it may have them all; pages one after the other; one newest trade, to see how
far the exchange has come."""


class Backward:
    """From the last number wanted down. Each page is to begin with a trade known to be there, first of all the one
    behind the gap: who lists that lists all before it, and a page without it comes from a cache that is behind."""

    def __init__(self, want: Want, source: Source, now: int) -> None:
        self.behind = 0
        self._wanted = wanted = Wanted.of(want)
        self._source = source
        self._edge = wanted.last + 1
        self._top: int | None = None
        self._seen: Sequence[Row] = ()
        self._covered = Covered()
        fresh = wanted.to_time is not None and now - wanted.to_time <= FRESH
        several = wanted.last - wanted.first + 2 > source.most
        self._step: Step = "newest" if source.most_newest and fresh and several else "page"

    @property
    def spans(self) -> tuple[int, int] | None:
        bottom = max(self._edge, self._wanted.first)
        return None if self._top is None or bottom > self._top else (bottom, self._top)

    def cover(self, first: int, last: int) -> None:
        self._covered.add(first, last)
        self._skip()

    def next(self) -> Request | None:
        match self._step:
            case "newest":
                return self._source.newest(self._source.most_newest)
            case "page":
                return self._source.page(self._edge + 1, min(self._source.most, self._edge - self._wanted.first + 1))
            case "probe":
                return self._source.newest(1)
        return None

    def take(self, body: str) -> Numbers:
        rows = self._source.read(body)
        if self._wanted.renumbered(rows):
            self._top, self._edge, self._step = self._wanted.last, self._wanted.first, "done"
            return Numbers(None, None, len(rows))
        match self._step:
            case "newest":
                self._take_newest(rows)
            case "page":
                self._take_page(rows)
            case "probe":
                self._take_probe(rows)
        return numbers(rows)

    def _take_newest(self, rows: Sequence[Row]) -> None:
        """Of use if it begins behind the last number wanted, or there."""
        self._step = "page"
        if self._wanted.reached(rows, self._edge) and min(row.number for row in rows) <= self._wanted.last:
            self._descend(rows)

    def _take_page(self, rows: Sequence[Row]) -> None:
        if self._wanted.reached(rows, self._edge):
            self._descend(rows)
        elif self.behind < TIMES:
            self.behind += 1
        else:
            self._seen, self._step = rows, "probe"

    def _take_probe(self, rows: Sequence[Row]) -> None:
        """The page was asked for often enough. What it lacks is not there, or, where the exchange itself has not come
        so far, is not covered."""
        newest = max((row.number for row in self._seen), default=None)
        self.behind, self._step = TIMES, "page"
        if self._wanted.reached(rows, self._wanted.last):
            self._descend(self._seen)
        elif self._top is None and newest is not None and newest >= self._wanted.first:
            self._top = newest
            self._descend(self._seen)
        else:
            self.behind, self._step = 0, "done"

    def _descend(self, rows: Sequence[Row]) -> None:
        """Goes on below the lowest number; where again and again there is none, the exchange has no older ones."""
        self._top = self._wanted.last if self._top is None else self._top
        lowest = min((row.number for row in rows if row.number < self._edge), default=None)
        if lowest is not None:
            self._edge, self.behind = lowest, 0
        elif self.behind < TIMES:
            self.behind += 1
        else:
            self._edge, self.behind = self._wanted.first, 0
        self._skip()

    def _skip(self) -> None:
        """Goes on below what came in another way."""
        while (below := self._covered.around(self._edge - 1)) is not None:
            self._top = self._wanted.last if self._top is None else self._top
            self._edge, self.behind, self._step = below[0], 0, "page"
        if self._edge <= self._wanted.first:
            self._step = "done"


class Forward:
    """From the first number wanted up, to the trade behind the last one: who lists that lists all before it."""

    def __init__(self, want: Want, source: Source) -> None:
        self.behind = 0
        self._wanted = Wanted.of(want)
        self._source = source
        self._edge = self._wanted.first
        self._step: Step = "page"
        self._covered = Covered()

    @property
    def spans(self) -> tuple[int, int] | None:
        return (self._wanted.first, self._edge - 1) if self._edge > self._wanted.first else None

    def cover(self, first: int, last: int) -> None:
        self._covered.add(first, last)
        self._skip()

    def next(self) -> Request | None:
        if self._step == "done":
            return None
        return self._source.page(self._edge, self._size) if self._step == "page" else self._source.newest(1)

    def take(self, body: str) -> Numbers:
        rows = self._source.read(body)
        if self._wanted.renumbered(rows):
            self._finish()
            return Numbers(None, None, len(rows))
        if self._step == "page":
            self._take_page(rows)
        elif self._wanted.reached(rows, self._wanted.last):
            self._finish()
        else:
            self._step = "done"
        return numbers(rows)

    @property
    def _size(self) -> int:
        """With the trade behind what lacks here: its last number, or the next that came in another way."""
        behind = self._covered.after(self._edge)
        last = self._wanted.last if behind is None else min(behind - 1, self._wanted.last)
        return min(self._source.most, last + 2 - self._edge)

    def _take_page(self, rows: Sequence[Row]) -> None:
        highest = max((row.number for row in rows if row.number >= self._edge), default=None)
        if highest is not None and highest >= self._wanted.last:
            self._finish()
        elif highest is not None:
            # Not full: all that this cache has yet.
            self.behind = 0 if len(rows) >= self._size else 1
            self._edge = highest + 1
            self._skip()
        elif self.behind < TIMES:
            self.behind += 1
        else:
            self._step = "probe"

    def _skip(self) -> None:
        """Goes on above what came in another way."""
        while (above := self._covered.around(self._edge)) is not None:
            self._edge, self.behind, self._step = above[1] + 1, 0, "page"
        if self._edge > self._wanted.last:
            self._finish()

    def _finish(self) -> None:
        self._edge, self.behind, self._step = self._wanted.last + 1, 0, "done"


def numbers(rows: Sequence[Row]) -> Numbers:
    """What a page has."""
    found = [row.number for row in rows]
    return Numbers(min(found, default=None), max(found, default=None), len(found))
