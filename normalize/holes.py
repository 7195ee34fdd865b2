"""Runs of trade numbers that were jumped over, and what has come of them since. Pure."""

from collections.abc import Iterable

import msgspec

from normalize import intervals
from normalize.intervals import Ranges
from pipeline.timeframes import SECOND

PROVISIONAL = 2 * SECOND
"""A hole younger than this in stream time is reordering or a joining connection, not yet a gap."""


class Hole(msgspec.Struct):
    """Numbers `first`…`last` of `epoch` were jumped over at stream time `since`. `remaining` is what has not come
    since; `told`: it is in the ledger; `changed`: the ledger does not know yet what came; `given_up`: what remains
    counts as lost, there are too many holes to remember."""

    epoch: int
    first: int
    last: int
    from_time: int
    to_time: int
    since: int
    remaining: Ranges
    told: bool = False
    changed: bool = False
    given_up: bool = False

    @property
    def missing(self) -> int:
        """How many numbers have not come."""
        return intervals.count(self.remaining)


def hole_with(holes: Iterable[Hole], first: int, last: int) -> Hole | None:
    """The hole in which all of first…last is missing."""
    return next((hole for hole in holes if intervals.contains(hole.remaining, first, last)), None)


def any_missing(holes: Iterable[Hole], first: int, last: int) -> bool:
    """Whether any of first…last is missing."""
    return any(intervals.overlaps(hole.remaining, first, last) for hole in holes)


def news(holes: Iterable[Hole], now: int) -> list[Hole]:
    """Copies of the holes whose news the ledger lacks at stream time `now`, as they stood; they count as told."""
    found = []
    for hole in holes:
        old_enough = hole.remaining and now - hole.since >= PROVISIONAL
        if hole.changed if hole.told else old_enough:
            found.append(msgspec.structs.replace(hole, remaining=list(hole.remaining)))
            hole.told, hole.changed = True, False
    return found
