"""How far apart the data of a subscription or a connection comes, and so how long its silence means nothing. Pure."""

from pipeline.timeframes import HOUR, SECOND

FADE = HOUR
"""About how long a pause in the data is remembered."""
ENOUGH = 50
"""Data after which the pauses between them are believed to be usual."""
FACTOR = 10
"""Times the longest usual pause mean that something is wrong."""
QUIET_FACTOR = 3
STEP = SECOND
"""What fades in less is not worth the arithmetic."""


class Pace:
    """What came so far; times in ns. `heard` is when the last of it came, None before any."""

    __slots__ = ("count", "faded", "heard", "longest", "since")

    def __init__(self) -> None:
        self.heard: int | None = None
        self.longest = 0
        self.count = 0
        self.since = 0
        self.faded = 0
        """Up to when `longest` has faded."""

    def data(self, at: int, count: int = 1) -> None:
        """Something came, or so much of it at once."""
        if self.heard is None:
            self.since = self.faded = at
        elif (pause := at - self.heard) >= self.longest:
            self.longest, self.faded = pause, at
        elif (passed := at - self.faded) >= STEP:
            # What lies an hour back is worth a third of what it was, so nights and weekends are learnt and forgotten.
            faded = self.longest - self.longest * min(passed, FADE) // FADE
            self.longest, self.faded = max(pause, faded), at
        self.heard = at
        self.count += count

    def limit(self, usual: int, least: int, most: int) -> int:
        """After how much silence to do something: `usual` while little is known, never less than `least`, nor more than
        `most`. Pauses seen make it longer at once, briskness shorter only after a while."""
        if self.heard is not None and self.count >= ENOUGH and self.heard - self.since >= 4 * least:
            found = FACTOR * self.longest
        else:
            found = max(usual, QUIET_FACTOR * self.longest)
        return min(most, max(least, found))
