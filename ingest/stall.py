"""Whether collecting has come to nothing: all is silent on one socket after another, and the exchange answers.

Pure. Then asking and connecting anew help no more, and the process itself is to be doubted.
"""

from collections.abc import Iterable

import msgspec

from ingest.pace import Pace
from pipeline.timeframes import SECOND

CERTAIN = 2
"""So many instruments do not all rest at a time; what is steady never does."""


class Sight(msgspec.Struct, frozen=True):
    """What is seen of the process: when its connections were `given_up`, each time and again, for silence, None where
    one was not; when the exchange last `answered` by REST, when the last data came (`heard`, 0 before any). ns of the
    host's clock. `instruments` that are subscribed; `steady`: whether something comes even if nobody trades;
    `waiting`: whether it waits for a server, an exchange or an operator."""

    given_up: int | None
    answered: int | None
    heard: int
    instruments: int
    steady: bool
    waiting: bool


class Stall:
    """Looks again and again."""

    def __init__(self) -> None:
        self._pace = Pace()

    def look(self, sight: Sight, now: int) -> tuple[int, str] | None:
        """Since when (ns) nothing comes although it should, and why we think so; None while all is well or may be."""
        if sight.heard and sight.heard != self._pace.heard:
            self._pace.data(sight.heard)
        if sight.waiting or sight.given_up is None or sight.answered is None or sight.answered <= sight.given_up:
            return None
        if now - sight.heard < self._pace.limit(0, 0, now):
            return None
        if not sight.steady and sight.instruments < CERTAIN:
            return None
        since = sight.heard or sight.given_up
        return (
            since,
            f"no data of any subscription for {(now - since) // SECOND} s, asked for and connected to again, "
            "while the exchange answers",
        )


def last_given_up(ends: Iterable[int | None]) -> int | None:
    """When the last of all connections was given up; None while one is not, or there are none."""
    found = list(ends)
    known = [end for end in found if end is not None]
    return max(known) if known and len(known) == len(found) else None
