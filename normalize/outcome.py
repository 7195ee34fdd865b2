"""What continuity decides on one trade. Pure."""

from typing import Literal, NamedTuple

from pipeline.records import Trade

Dropped = Literal["duplicate", "overlap"]


class NewEpoch(NamedTuple):
    """The numbers began again with the trade `first`, for `reason`; `from_time` is the last trade's before."""

    epoch: int
    first: Trade
    from_time: int
    reason: str


class Outcome(NamedTuple):
    """What became of one trade (and of held ones with it). `passed` are in order and carry their epoch; the
    `epoch` comes before them. `buried` are (reason, trade) for the dead letters."""

    passed: tuple[Trade, ...] = ()
    epoch: NewEpoch | None = None
    dropped: Dropped | None = None
    buried: tuple[tuple[str, Trade], ...] = ()
