"""Whether a worker commits nothing although it has input: it looks itself, and says so in its heartbeat.

Where Redis does not answer nothing is said. What it waits for it says itself (`waiting_for`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable

import redis.exceptions

from pipeline.errors import ServerAway
from pipeline.heartbeat import Heartbeat
from pipeline.pause import pause
from pipeline.steps import stream_id
from pipeline.streams import READERS, Keys
from pipeline.wire import Reply, Wire

LOOK = 10.0
AFTER = 120.0
"""Seconds with input and without a commit. A step takes well under one."""


class Idleness:
    """How long nothing was done although there was something to do. Pure; times in s of a monotonic clock."""

    def __init__(self, look: float = LOOK) -> None:
        self._longest_look = 3 * look
        self._done: Hashable = None
        self._since: float | None = None
        self._looked: float | None = None

    def look(self, now: float, done: Hashable, pending: bool) -> float:
        """`done` is anything that changes with what gets done; `pending`: there is input, and nothing it waits for."""
        blind = self._looked is None or now - self._looked > self._longest_look
        if blind or done != self._done or not pending or self._since is None:
            self._since = now
        self._done, self._looked = done, now
        return now - self._since


async def watch_work(
    open_wire: Callable[[], Awaitable[Wire]],
    keys: Keys,
    stage: str,
    heartbeat: Heartbeat,
    stop: asyncio.Event,
    *,
    besides: Callable[[], Hashable] | None = None,
    look: float = LOOK,
    after: float = AFTER,
) -> None:
    """Looks each `look` s until `stop`, and says in the heartbeat when nothing was done for `after` s.

    `besides` is what changes while it gets on with the partition although it commits nothing: where it is not given,
    what a restore reads again."""
    streams = [keys.stream(kind) for kind, readers in READERS.items() if stage in readers]
    idleness = Idleness(look)
    wire: Wire | None = None
    try:
        while not stop.is_set():
            try:
                wire = wire or await open_wire()
                places, behind = await positions(wire, streams, stage)
            except ServerAway:
                if wire is not None:
                    await wire.close()
                wire, idleness = None, Idleness(look)
                heartbeat.stalls.pop(keys.partition, None)
            else:
                done = (places, heartbeat.counters["reread"] if besides is None else besides())
                idle = idleness.look(time.monotonic(), done, behind and heartbeat.waiting_for is None)
                _say(heartbeat, keys.partition, idle, after)
            await pause(look, stop)
    finally:
        if wire is not None:
            await wire.close()


async def positions(wire: Wire, streams: list[str], stage: str) -> tuple[tuple[str, ...], bool]:
    """How far the stage's group is in each stream, and whether one of them has more. Raises ServerAway."""
    asked = [command for name in streams for command in (("XINFO", "STREAM", name), ("XINFO", "GROUPS", name))]
    replies = await wire.call(*asked)
    places: list[str] = []
    behind = False
    for facts, groups in zip(replies[::2], replies[1::2], strict=True):
        if isinstance(facts, redis.exceptions.ResponseError) or isinstance(groups, redis.exceptions.ResponseError):
            continue  # There is no such stream yet, or the server is not ready.
        place = _place(groups, stage)
        behind |= stream_id(_fields(facts)[b"last-generated-id"]) > stream_id(place)
        places.append(place.decode())
    return tuple(places), behind


def _place(groups: Reply, stage: str) -> bytes:
    for group in map(_fields, groups):
        if group[b"name"] == stage.encode():
            place: bytes = group[b"last-delivered-id"]
            return place
    return b"0-0"


def _fields(flat: Reply) -> dict[bytes, Reply]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _say(heartbeat: Heartbeat, partition: str, idle: float, after: float) -> None:
    if idle < after:
        heartbeat.stalls.pop(partition, None)
    elif partition not in heartbeat.stalls:
        why = f"{partition}: there is input, and nothing of it was committed for {after:.0f} s"
        heartbeat.stalls[partition] = (time.time_ns() - round(idle * 1e9), why)
        heartbeat.error(why)
