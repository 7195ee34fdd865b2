"""Entries of one stream as Redis gave them: an Entry is made of one only where it is looked at. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Self, overload

from pipeline.steps import Entry, entries_of

Pair = tuple[bytes, list[bytes]]
"""An entry's id, and its fields' names and values in turn."""


class Arrived(Sequence[Entry]):
    """What XREAD or XRANGE gave of one stream, in order."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Self:
        """As if Redis had given them just now."""
        return cls([(entry.id, [*chain.from_iterable(entry.fields.items())]) for entry in entries])

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
