"""How full Redis is, and the marks at which who fills it gives way: shares of maxmemory.

Readers outside the product give way below the mark at which ingest stops. Above it nothing grows any more: a mark of
theirs would never be reached, and a dead group would hold the memory while ingest spools for ever.
"""

from typing import NamedTuple

from pipeline.wire import Wire, check

INGEST_STOPS = 0.60
"""Above it ingest writes nothing (frames go to disk): the stages that read need the rest to make room."""
NORMALIZE_PAUSES = 0.75
"""Above it normalize waits while what it has written and nobody read is the larger part (pressure.py)."""

SECOND = 1_000
MINUTE = 60_000
HOUR = 60 * MINUTE


class Left(NamedTuple):
    """What the trimmer leaves to outsiders, in ms of the newest entries; None: all of it. `promised`: of the promise to
    anyone, `counted`: also of that by a number of entries; `grouped`: of what consumer groups have not dealt with."""

    promised: int | None
    grouped: int | None
    counted: bool = False


ALL = Left(None, None, counted=True)
MARKS: tuple[tuple[float, Left], ...] = (
    (0.59, Left(0, 0)),
    (0.57, Left(0, 5 * SECOND)),
    (0.55, Left(0, MINUTE)),
    (0.50, Left(MINUTE, 10 * MINUTE)),
    (0.45, Left(None, HOUR)),
)
"""Above which share what is left. What is counted goes first: it may be days, and gives way bit by bit. So does a group
an hour behind, or a dead one would end the promise to all others; one that is less behind outlives the promise."""


def left_to_outsiders(share: float) -> Left:
    """What is left to them while so much of the memory is used."""
    return next((left for mark, left in MARKS if share > mark), ALL)


class Memory(NamedTuple):
    """Bytes; `limit` is 0 where there is none."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        return self.used / self.limit if self.limit else 0.0


async def memory(wire: Wire, budget: int = 0) -> Memory:
    """What is used of `maxmemory`; where the server has none, of `budget` bytes. A full Redis tells it too."""
    text: bytes = check((await wire.call(("INFO", "memory")))[0])
    facts = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    return Memory(int(facts["used_memory"]), int(facts["maxmemory"]) or budget)


async def memory_share(wire: Wire, budget: int = 0) -> float:
    """The same as a share; 0 where there is no limit."""
    return (await memory(wire, budget)).share
