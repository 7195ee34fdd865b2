"""The order in which a run of trades is taken: what most do together, what does more in its place. Pure.

Instruments have nothing to do with each other but for the order of what is written. So the trades of each that only
add to its tally wait until one of its own does more, or the run is over.
"""

from bisect import bisect_left
from collections.abc import Callable
from heapq import heappop, heappush

from aggregate.columns import Columns
from aggregate.tally import Tally


class Segment:
    """The trades of one instrument: those before `start` are taken, those up to `reach` wait for nothing but the
    tally."""

    __slots__ = ("reach", "start", "stop", "tally")

    def __init__(self, tally: Tally, start: int, stop: int) -> None:
        self.tally = tally
        self.start = self.reach = start
        self.stop = stop


class Run:
    """`segments` are in the order of the columns."""

    def __init__(self, columns: Columns, tallies: list[Tally]) -> None:
        self._columns = columns
        extents = columns.instruments.values()
        self._segments = [Segment(tally, *extent) for tally, extent in zip(tallies, extents, strict=True)]
        self._due: list[tuple[int, int]] = []
        """Of each segment the place in the stream of the next trade that does more than add, and the segment."""
        for number in range(len(self._segments)):
            self._look(number)

    def take(self, more: Callable[[int], bool]) -> int:
        """Takes the trades in their order up to the one after which there is no room; returns how many. `more` takes
        the trade of a place by itself, and says whether there is room."""
        taken = len(self._columns.places)
        while self._due:
            place, number = heappop(self._due)
            segment = self._segments[number]
            self._add(segment, segment.reach)
            segment.start += 1
            if not more(place):
                taken = place + 1
                break
            self._look(number)
        for segment in self._segments:
            self._add(segment, bisect_left(self._columns.places, taken, segment.start, segment.stop))
        return taken

    def _look(self, number: int) -> None:
        segment = self._segments[number]
        segment.reach = segment.tally.reach(self._columns, segment.start, segment.stop)
        if segment.reach < segment.stop:
            heappush(self._due, (self._columns.places[segment.reach], number))

    def _add(self, segment: Segment, stop: int) -> None:
        if stop > segment.start:
            segment.tally.add(self._columns, segment.start, stop)
            segment.start = stop
