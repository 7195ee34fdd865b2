"""When the disk under the database will be full, from how it grew and what retention will drop. Pure.

A kind with a bound of days grows to what so many days hold, and no further. Nothing is guessed: where no day has been
measured yet there is no forecast.
"""

from collections.abc import Mapping

from pipeline.facts import Size
from pipeline.timeframes import DAY

HORIZON = 3_650
"""Days that are looked ahead; what lasts longer is not said."""
WHOLE = "database"
MONTHLY = ("candle", "kline")
"""Kinds in partitions of a month: the last of its days must be old enough."""


def growth(sizes: Mapping[str, Size]) -> float | None:
    """Bytes a day that are added to the database, what is dropped not taken off; None: not known yet."""
    return sizes[WHOLE].growth if WHOLE in sizes else None


def days_until_full(free: int | None, sizes: Mapping[str, Size], days: Mapping[str, int], now: int) -> float | None:
    """Days until `free` bytes are used up; None where that is not known, or lies beyond the horizon. `days`: for how
    many days kinds are kept; `now` in ns."""
    if free is None or growth(sizes) is None:
        return None
    before = 0.0
    for day in range(1, HORIZON + 1):
        needed = added(sizes, days, now, day)
        if needed >= free:
            return day - 1 + max(0.0, min(1.0, (free - before) / (needed - before) if needed > before else 1.0))
        before = needed
    return None


def added(sizes: Mapping[str, Size], days: Mapping[str, int], now: int, after: float) -> float:
    """Bytes by which the database will have grown in `after` days."""
    kinds = {kind: size for kind, size in sizes.items() if kind != WHOLE}
    rest = (growth(sizes) or 0.0) - sum(size.growth or 0.0 for size in kinds.values())
    return rest * after + sum(_added(kind, size, days.get(kind), now, after) for kind, size in kinds.items())


def _added(kind: str, size: Size, days: int | None, now: int, after: float) -> float:
    """Days that are stored already are taken to be alike, those to come as large as the measured ones."""
    rate = size.growth or 0.0
    if days is None or size.since is None:
        return rate * after
    span = days + (31 if kind in MONTHLY else 1)
    stored = max(0.0, (now - size.since) / DAY)
    first = max(0.0, span - stored)
    going = min(max(0.0, after - first), stored, span)
    old = size.bytes / stored if stored else 0.0
    return rate * after - old * going - rate * max(0.0, after - span)
