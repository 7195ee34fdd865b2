"""Entries as a worker fetches them: how many to ask for, and how many of them go into one step. Pure."""

from typing import NamedTuple

from pipeline.steps import Found, Step

FIRST_COUNT = 100
MOST_BYTES_IN = 1024 * 1024


class Fetched(NamedTuple):
    """Entries of one read, in order."""

    entries: Found
    size: int
    """Bytes of the replies they came with."""
    full: bool
    """As many as were asked for: more may be there."""

    def fitting(self) -> Found:
        """Those a step may take in: the last of them reaches the bound."""
        size = 0
        if self.size > MOST_BYTES_IN:
            for taken, (_, flat) in enumerate(self.entries, start=1):
                size += sum(map(len, flat[1::2]))
                if size >= MOST_BYTES_IN:
                    return self.entries[:taken]
        return self.entries


NOTHING = Fetched([], 0, full=False)


class Count:
    """How many entries to ask for: about as many as one step can use, for what is read beyond that is read again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.now = min(FIRST_COUNT, most)

    def learn(self, found: Fetched, taken: int, step: Step) -> None:
        """The step used so many of them. Few small entries tell nothing: after a quiet hour a thousand large ones would
        come at once."""
        if taken < len(found.entries):
            self.now = max(1, taken)
        elif found.full:
            share = max(step.share, found.size / MOST_BYTES_IN)
            self.now = max(taken, min(self._most, 2 * taken, int(taken / share)))

    def of(self, entries: int, size: int) -> int:
        """How many of those of which `entries` have `size` bytes."""
        return max(1, min(self._most, MOST_BYTES_IN * entries // max(1, size)))
