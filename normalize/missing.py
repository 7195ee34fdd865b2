"""The numbers of one instrument that were jumped over, of this epoch and of earlier ones, until the ledger has heard
how each hole ended. Pure."""

from bisect import bisect_left

import msgspec

from normalize import intervals
from normalize.holes import GIVEN_UP, Hole, Name, hole_with, news

MOST_INTERVALS = 1_000


class Missing(msgspec.Struct):
    """`holes` are those of `epoch`, `old_holes` of earlier ones, both in order; `given_up` are holes that the ledger
    has to close unfilled, `lost_until` the end of those it closed so. `touched` names the holes whose saved state is
    out of date."""

    epoch: int = 0
    holes: list[Hole] = []
    old_holes: list[Hole] = []
    given_up: list[Hole] = []
    lost_until: int = 0
    touched: set[Name] = set()
    unrecoverable: int = 0

    @property
    def open_gaps(self) -> int:
        """Holes that are in the ledger and not filled."""
        return sum(hole.told for hole in (*self.holes, *self.old_holes))

    @property
    def missing(self) -> int:
        """Numbers known to be missing."""
        return sum(hole.missing for hole in (*self.holes, *self.old_holes))

    def hole(self, name: Name) -> Hole | None:
        """The open hole of that name."""
        holes = self._holes_of(name[0])
        place = bisect_left(holes, name[1], key=lambda hole: hole.first)
        return holes[place] if place < len(holes) and holes[place].first == name[1] else None

    def close(self, hole: Hole, reason: str) -> None:
        """What remains of the hole will never come."""
        self._end(hole, reason)
        self.unrecoverable += hole.missing
        self.lost_until = max(self.lost_until, hole.to_time)

    def fill_up(self, hole: Hole, reason: str) -> None:
        """What remains of the hole are numbers that no trade ever had."""
        hole.absent, hole.remaining = hole.missing, []
        self._end(hole, reason)

    def changed_holes(self, now: int) -> list[Hole]:
        """Holes whose news the ledger lacks, in order; afterwards they count as told, and filled ones are gone.

        A hole is told once it is PROVISIONAL old; one filled before that never is: it was reordering.
        """
        told = news((*self.old_holes, *self.holes), now)
        self.touched.update(hole.name for hole in told)
        found, self.given_up = [*self.given_up, *told], []
        if any(not hole.remaining for hole in told):
            self.holes = [hole for hole in self.holes if hole.remaining]
            self.old_holes = [hole for hole in self.old_holes if hole.remaining]
        return found

    def jump(self, first: int, last: int, times: tuple[int, int], now: int) -> None:
        """The numbers were jumped over, between two trades of these times."""
        while self._intervals() >= MOST_INTERVALS:
            # Nobody fills the holes: the ledger names the oldest as lost, so that the trades of today can pass.
            self.close((self.old_holes or self.holes)[0], GIVEN_UP)
        hole = Hole(self.epoch, first, last, *times, now, [(first, last)])
        self.holes.append(hole)
        self.touched.add(hole.name)

    def within(self, epoch: int, first: int, last: int) -> Hole | None:
        """The hole of the epoch in which all of first…last is missing."""
        return hole_with(self._holes_of(epoch), first, last)

    def fill(self, hole: Hole, first: int, last: int, *, fetched: bool) -> bool:
        """Some of the hole came. False where that would leave too many ranges to remember."""
        rest = intervals.subtract(hole.remaining, first, last)
        # Pages come in order and split a hole once: one that is refused would be fetched again and again.
        most = 2 * MOST_INTERVALS if fetched else MOST_INTERVALS
        if len(rest) > len(hole.remaining) and self._intervals() >= most:
            return False
        hole.remaining, hole.changed = rest, True
        hole.fetched = hole.fetched or fetched
        self.touched.add(hole.name)
        if not rest and not hole.told:
            self._remove(hole)
        return True

    def _end(self, hole: Hole, reason: str) -> None:
        self._remove(hole)
        hole.closed = reason
        self.given_up.append(hole)
        self.touched.add(hole.name)

    def _remove(self, hole: Hole) -> None:
        self.holes = [other for other in self.holes if other is not hole]
        self.old_holes = [other for other in self.old_holes if other is not hole]

    def _holes_of(self, epoch: int) -> list[Hole]:
        return self.holes if epoch == self.epoch else [hole for hole in self.old_holes if hole.epoch == epoch]

    def _intervals(self) -> int:
        return sum(len(hole.remaining) for hole in (*self.holes, *self.old_holes))
