"""What consumer groups outside the product hold and lost: the record in `md:lost`, and the arithmetic. Pure."""

import msgspec

from pipeline.steps import StreamId
from pipeline.timeframes import DAY

TOLD_FOR = DAY
"""A loss is a finding for so long (ns); one that comes later begins a new record."""


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """`entries` of `stream` were removed before `group` had dealt with them; more than that where not `exact`. `since`
    and `time` (ns) of the first and last removal; all of them lie behind the id `after`, and at or before `to`."""

    stream: str
    group: str
    entries: int
    exact: bool
    since: int
    time: int
    after: str
    to: str

    def told(self, now: int) -> bool:
        """Whether it is still a finding."""
        return now - self.time < TOLD_FOR


def held_bytes(size: int | None, first: StreamId, newest: StreamId, read: StreamId, oldest: StreamId) -> int | None:
    """About how many of a stream's `size` bytes a group keeps that needs it from `oldest` on, while all others have
    `read` it: by the time that its entries span, which is all that ids tell."""
    span = newest[0] - first[0]
    if size is None or span <= 0:
        return None if size is None else 0
    kept = min(read[0], newest[0]) - max(oldest[0], first[0])
    return size * max(0, kept) // span


def lost_of(text: bytes) -> Lost | None:
    """The record as saved; None for what is not ours."""
    try:
        return msgspec.json.decode(text, type=Lost)
    except msgspec.DecodeError:
        return None


def lost_field(stream: str, group: str) -> str:
    """Field of `md:lost`."""
    return f"{stream} {group}"


def joined(old: Lost | None, new: Lost) -> Lost:
    """Both together; the new one alone where the old one is of another time."""
    if old is None or not old.told(new.time):
        return new
    return msgspec.structs.replace(
        new, entries=old.entries + new.entries, exact=old.exact and new.exact, since=old.since, after=old.after
    )


def undelivered(
    delivered: StreamId, lag: int | None, first: StreamId, length: int, last: StreamId, removed: int
) -> int | None:
    """How many of the `removed` entries a group had not been given; None where Redis cannot tell.

    `delivered`, `lag`, `first` (entry) and `length` are of before the removal, `last` is the last entry it might
    reach."""
    if delivered < first:
        return removed
    if delivered >= last:
        return 0
    return None if lag is None else max(0, removed - max(0, length - lag))
