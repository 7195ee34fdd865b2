"""Consumer groups of readers outside the product: what they still need of a stream, and what they cannot have any more.

Any group that is not of a named reader of the stream counts. On the raw stream none is waited for: it is internal.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import redis.exceptions

from pipeline.steps import StreamId, stream_id
from pipeline.wire import Reply, Wire, check

INTERNAL = ("raw",)
MOST_ROUNDS = 100
MOST_PENDING = 1_000
"""Entries acknowledged at a time."""


class Outsider(NamedTuple):
    """A group on a stream. `delivered` is the last entry it was given, `lag` what follows (None: Redis cannot tell);
    from `oldest` on it needs what there is."""

    stream: str
    name: str
    delivered: StreamId
    lag: int | None
    pending: int
    oldest: StreamId


def outsiders(stream: str, groups: Iterable[Mapping[bytes, Reply]], readers: tuple[str, ...]) -> list[Outsider]:
    """The outside groups among those that XINFO GROUPS tells of; `oldest` without regard to what is pending."""
    found = []
    for group in groups:
        name = group[b"name"].decode()
        if name not in readers:
            delivered = stream_id(group[b"last-delivered-id"])
            found.append(Outsider(stream, name, delivered, group.get(b"lag"), group[b"pending"], delivered))
    return found


async def with_pending(wire: Wire, groups: list[Outsider]) -> list[Outsider]:
    """The same with the oldest pending entry of each. To be called after XINFO GROUPS was answered: what is delivered
    between the two lies behind `delivered` and is kept anyway; in the other order it would be nobody's."""
    asked = [group for group in groups if group.pending]
    if not asked:
        return groups
    replies = await wire.call(*(("XPENDING", group.stream, group.name) for group in asked))
    # The least id that is pending; None when all was acknowledged meanwhile. An error: the group is gone.
    oldest = {
        (group.stream, group.name): stream_id(reply[1])
        for group, reply in zip(asked, replies, strict=True)
        if not isinstance(reply, redis.exceptions.ResponseError) and reply[1]
    }
    return [
        group._replace(oldest=min(group.delivered, oldest.get((group.stream, group.name), group.delivered)))
        for group in groups
    ]


async def let_go(wire: Wire, group: Outsider, first: StreamId) -> int:
    """Acknowledges for the group what is pending of entries before `first`, the stream's first one: they are gone, and
    the list of them would fill Redis in their place. How many; a bounded piece at a time."""
    gone = 0
    for _ in range(MOST_ROUNDS):
        pending: Reply = ("XPENDING", group.stream, group.name, "-", f"({first[0]}-{first[1]}", MOST_PENDING)
        (found,) = await wire.call(pending)
        if isinstance(found, redis.exceptions.ResponseError) or not found:
            break
        (acknowledged,) = await wire.call(("XACK", group.stream, group.name, *(entry[0] for entry in found)))
        gone += check(acknowledged)
    return gone
