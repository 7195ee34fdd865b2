"""The numbers of one instrument's trades: which are stored, which are missing, which are stored twice. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Literal

import msgspec

from pipeline.commands._audit.kept import Dropped
from pipeline.commands._audit.ledger import Entry

State = Literal["open", "unrecoverable", "unexplained"]


class Run(msgspec.Struct, frozen=True):
    """Unbroken numbers `first` … `last` of an epoch, stored by `trades` rows between the two times. `side`: in the
    range asked for (0), or only looked at before (-1) or after it (1). `day` tells apart where it was read."""

    epoch: int
    first: int
    last: int
    trades: int
    from_time: datetime
    to_time: datetime
    side: int = 0
    day: int = 0


class Hole(msgspec.Struct, frozen=True):
    """Numbers that are not stored, and what the ledger says of them. Times are those of the trades on both sides."""

    epoch: int
    first: int
    last: int
    from_time: datetime
    to_time: datetime
    state: State
    reason: str | None = None

    @property
    def count(self) -> int:
        return self.last - self.first + 1


class Twice(msgspec.Struct, frozen=True):
    """Numbers that are stored more than once: the same trade at two times, perhaps on two days."""

    epoch: int
    first: int
    last: int
    times: tuple[datetime, ...]


def merged(runs: Iterable[Run]) -> tuple[list[Run], list[Twice]]:
    """Runs of several days as unbroken ones, in order, and what two of them both have."""
    found: list[Run] = []
    twice: list[Twice] = []
    for run in sorted(runs, key=lambda each: (each.epoch, each.first, each.last)):
        before = found[-1] if found else None
        if before is None or run.epoch != before.epoch or run.first > before.last + 1:
            found.append(run)
            continue
        if run.first <= before.last and 0 in (run.side, before.side):
            times = (before.to_time, run.from_time)
            twice.append(Twice(run.epoch, run.first, min(run.last, before.last), tuple(sorted(times))))
        found[-1] = msgspec.structs.replace(
            before,
            last=max(before.last, run.last),
            trades=before.trades + run.trades,
            from_time=min(before.from_time, run.from_time),
            to_time=max(before.to_time, run.to_time),
            side=before.side if before.side == run.side else 0,
        )
    return found, twice


def missing(
    runs: list[Run], ledger: Iterable[Entry], begun: tuple[int, int] | None, dropped: Dropped | None = None
) -> list[Hole]:
    """The holes between merged runs, and what the ledger names below the first of an epoch: where that began only the
    ledger knows. `begun`: epoch and number at which collection began; what lies before was replayed on subscribing, and
    says nothing of what is between. Holes outside the range are left out, and what is not kept any more."""
    dropped = dropped or Dropped()
    named = [entry for entry in ledger if entry.remaining and not _forgotten(entry, dropped)]
    holes: list[Hole] = []
    for place, run in enumerate(runs):
        first = place == 0 or runs[place - 1].epoch != run.epoch
        if first and run.side != -1 and (begun is None or (run.epoch, run.first) > begun):
            holes += _below(run, named)
    for before, after in pairwise(runs):
        outside = before.side == after.side != 0
        early = begun is not None and (after.epoch, after.first) <= begun
        if before.epoch == after.epoch and not outside and not early:
            holes += _explained(before, after, named)
    return [hole for hole in holes if hole.state != "unexplained" or not dropped.between(hole.from_time, hole.to_time)]


def _forgotten(entry: Entry, dropped: Dropped) -> bool:
    """Whether what was lost for good lies among trades that are gone anyway. What is open is wanted still."""
    return entry.outcome == "unrecoverable" and dropped.covers(entry.from_time, entry.to_time)


def _below(run: Run, ledger: list[Entry]) -> Iterator[Hole]:
    """What the ledger names below the first stored number of an epoch."""
    for entry in ledger:
        for low, high in entry.remaining if entry.epoch == run.epoch else ():
            if low < run.first:
                state: State = "open" if entry.outcome == "open" else "unrecoverable"
                yield Hole(
                    run.epoch, low, min(high, run.first - 1), entry.from_time, entry.to_time, state, entry.reason
                )


def _explained(before: Run, after: Run, ledger: list[Entry]) -> Iterator[Hole]:
    """The hole, in parts by what the ledger says."""
    times = (before.to_time, after.from_time)
    place, last = before.last + 1, after.first - 1
    overlapping = [
        (max(place, low), min(last, high), entry)
        for entry in ledger
        if entry.epoch == before.epoch
        for low, high in entry.remaining
        if low <= last and high >= place
    ]
    for low, high, entry in sorted(overlapping, key=lambda part: part[:2]):
        if low > place:
            yield Hole(before.epoch, place, low - 1, *times, "unexplained")
        state: State = "open" if entry.outcome == "open" else "unrecoverable"
        yield Hole(before.epoch, max(place, low), high, *times, state, entry.reason)
        place = max(place, high + 1)
    if place <= last:
        yield Hole(before.epoch, place, last, *times, "unexplained")


def contradicted(runs: Iterable[Run], ledger: Iterable[Entry]) -> list[tuple[Entry, int]]:
    """Entries that name numbers as missing which are stored, and how many."""
    kept = list(runs)
    found = []
    for entry in ledger:
        stored = sum(
            max(0, min(last, run.last) - max(first, run.first) + 1)
            for first, last in entry.remaining
            for run in kept
            if run.epoch == entry.epoch
        )
        if stored:
            found.append((entry, stored))
    return found
