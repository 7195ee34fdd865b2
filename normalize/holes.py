"""Runs of trade numbers that were jumped over, and what has come of them since. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import msgspec

from normalize import intervals
from normalize.intervals import Ranges
from pipeline.timeframes import SECOND

PROVISIONAL = 2 * SECOND
"""A hole younger than this in stream time is reordering or a joining connection, not yet a gap."""
SHRUNK = SECOND
"""The ledger hears at most so often that a hole shrank."""
GIVEN_UP = "given up"
BEGIN_AT_ONE = "filled: the numbers begin at 1"
NEVER = 1 << 63

Name = tuple[int, int]
"""What names a hole of an instrument for its whole life: epoch and first number."""


class Repair(msgspec.Struct, omit_defaults=True):
    """How a hole is being fetched. Ages are the stream's (ns).

    `number` is that of its last want, `since` the host's time at which it was first wanted. `wanted`: it stands in
    `md:want` as `first` … `last`, written at age `written`, when `missing` numbers had not come; else it is wanted
    (anew) at age `due`. `failures` sets the pause, `answer` is what came of the last want. `once`, `twice`, `lost`:
    numbers that one, two, three answers spanned and lacked; `lacked` is the age at which `once` grew last. `unread`:
    numbers of which pages of this want showed rows that cannot be read, `unreadable` how many answers in a row did;
    those of `illegible` were shown so too often, and are `lost`.
    """

    number: int = 0
    since: int = 0
    wanted: bool = False
    first: int = 0
    last: int = 0
    written: int = 0
    missing: int = 0
    due: int = 0
    failures: int = 0
    answer: str | None = None
    lacked: int = 0
    once: Ranges = []
    twice: Ranges = []
    lost: Ranges = []
    unread: Ranges = []
    unreadable: int = 0
    illegible: Ranges = []


class Hole(msgspec.Struct, omit_defaults=True):
    """Numbers `first`…`last` of `epoch` were jumped over at stream time `since`. `remaining` is what has not come
    since; `told`: it is in the ledger; `changed`: the ledger does not know yet what came; `shrunk`: the age at which
    it last heard of that; `closed`: why what remains will never come; `fetched`: a page brought some of it; `repair`:
    null while it was never wanted; `absent`: how many of the numbers the exchange never gave out."""

    epoch: int
    first: int
    last: int
    from_time: int
    to_time: int
    since: int
    remaining: Ranges
    told: bool = False
    changed: bool = False
    shrunk: int | None = None
    closed: str | None = None
    fetched: bool = False
    repair: Repair | None = None
    absent: int = 0

    @property
    def name(self) -> Name:
        """Unique in the instrument."""
        return self.epoch, self.first

    @property
    def missing(self) -> int:
        """How many numbers have not come."""
        return intervals.count(self.remaining)

    @property
    def fetchable(self) -> Ranges:
        """What remains and may still be had of the exchange."""
        if self.repair is None or not self.repair.lost:
            return self.remaining
        return intervals.without(self.remaining, self.repair.lost)


def hole_with(holes: Sequence[Hole], first: int, last: int) -> Hole | None:
    """The hole in which all of first…last is missing; the holes are of one epoch, in order."""
    place = bisect_left(holes, first, key=lambda hole: hole.last)
    if place < len(holes) and intervals.contains(holes[place].remaining, first, last):
        return holes[place]
    return None


def any_missing(holes: Sequence[Hole], first: int, last: int) -> bool:
    """Whether any of first…last is missing; the holes are of one epoch, in order."""
    for hole in holes[bisect_left(holes, first, key=lambda hole: hole.last) :]:
        if hole.first > last:
            break
        if intervals.overlaps(hole.remaining, first, last):
            return True
    return False


def due(*groups: Iterable[Hole]) -> int:
    """The age at which the next of the holes has news for the ledger, if all stay as they are."""
    ages = [
        (hole.shrunk or 0) + SHRUNK if hole.told else hole.since + PROVISIONAL
        for holes in groups
        for hole in holes
        if hole.changed or not hole.told
    ]
    return min(ages, default=NEVER)


def news(holes: Iterable[Hole], now: int) -> list[Hole]:
    """Copies of the holes whose news the ledger lacks at stream time `now`, as they stood; they count as told."""
    found = []
    for hole in holes:
        if not hole.told:
            due = bool(hole.remaining) and now - hole.since >= PROVISIONAL
        else:
            due = hole.changed and (not hole.remaining or hole.shrunk is None or now - hole.shrunk >= SHRUNK)
        if due:
            found.append(msgspec.structs.replace(hole, remaining=list(hole.remaining)))
            hole.shrunk = now if hole.told else None
            hole.told, hole.changed = True, False
    return found
