"""Entries of one stream as Redis gave them: an Entry is made of one only where it is looked at. Pure."""

from collections.abc import Iterator, Sequence
from typing import overload

from pipeline.steps import Entry, entries_of

Pair = tuple[bytes, list[bytes]]
"""An entry's id, and its fields' names and values in turn."""


class Arrived(Sequence[Entry]):
    """What XREAD or XRANGE gave of one stream, in order."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Entry]:
        return iter(entries_of(self.pairs))

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> "Arrived": ...
    def __getitem__(self, place: int | slice) -> "Entry | Arrived":
        if isinstance(place, slice):
            return Arrived(self.pairs[place])
        return entries_of([self.pairs[place]])[0]
