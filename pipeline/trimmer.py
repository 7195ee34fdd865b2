"""Trims the streams of one partition to what all their named readers have read. Runs in normalize.

What outsiders are promised beyond that is a share of the settings, by kind: order books are large and soon out of
date, raw frames are internal (SHARES). Of the raw stream what normalize reads again at a restore is kept besides.
Uses no MULTI and nothing a full Redis refuses: it must work exactly when memory is short.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import redis.exceptions

from pipeline.errors import ServerAway
from pipeline.heartbeat import Heartbeat
from pipeline.memory import memory_share
from pipeline.pause import pause
from pipeline.steps import REREAD_FROM, Command, StreamId, stream_id
from pipeline.streams import READERS, Keys
from pipeline.wire import Reply, Wire, check

__all__ = ["Promise", "stream_id", "trim", "trim_forever"]

INTERVAL = 10.0
BUDGET_SHARE = 0.5
"""Above this share of maxmemory what outsiders were promised yields."""
MOST_CUT = 1_000_000
"""Entries cut from one stream at a time. Without a limit of ours the server cuts 10,000, and a busy stream grows."""

log = logging.getLogger(__name__)


class Promise(NamedTuple):
    """What outside readers may count on: the last `milliseconds`, and the last `entries`."""

    milliseconds: int
    entries: int


class Share(NamedTuple):
    """A kind's part of the promise: it is divided by these."""

    milliseconds: int = 1
    entries: int = 1


SHARES: dict[str, Share] = {
    "raw": Share(10, 50),
    "orderbook": Share(10, 50),
    "quote": Share(5, 5),
}
"""A book is about 2 kB, ten times a second: a million of them would be twice a Redis of 1 GiB. Other kinds have all."""


async def trim_forever(
    open_wire: Callable[[], Awaitable[Wire]], keys: Keys, promise: Promise, heartbeat: Heartbeat, stop: asyncio.Event
) -> None:
    """Trims every INTERVAL until `stop` is set; a Redis that is away is tried again next time."""
    while not stop.is_set():
        try:
            wire = await open_wire()
            try:
                heartbeat.counters["trimmed"] += sum((await trim(wire, keys, promise)).values())
            finally:
                await wire.close()
        except ServerAway as error:
            log.info("not trimmed: %s", error)
        await pause(INTERVAL, stop)


async def trim(wire: Wire, keys: Keys, promise: Promise) -> dict[str, int]:
    """Trims once; entries removed per stream."""
    seconds, microseconds = map(int, check((await wire.call(("TIME",)))[0]))
    now = seconds * 1_000 + microseconds // 1_000
    short = await memory_share(wire) > BUDGET_SHARE
    removed: dict[str, int] = {}
    for kind, readers in READERS.items():
        stream = keys.stream(kind)
        floor = await _read_by_all(wire, keys, stream, readers) if readers else None
        if floor is None:
            continue
        most = MOST_CUT
        if not short:
            share = SHARES.get(kind, Share())
            length = check((await wire.call(("XLEN", stream)))[0])
            most = min(most, length - promise.entries // share.entries)
            floor = min(floor, (now - promise.milliseconds // share.milliseconds, 0))
        if most > 0:
            removed[stream] = await _cut(wire, keys, stream, floor, most)
    return removed


async def _cut(wire: Wire, keys: Keys, stream: str, floor: StreamId, most: int) -> int:
    """The floor is noted first, so that a reader below it can tell; a full Redis refuses only the note."""
    minimum = f"{floor[0]}-{floor[1]}"
    trim: Command = ("XTRIM", stream, "MINID", "~", minimum, "LIMIT", most)
    _, cut = await wire.call(("HSET", keys.floor, stream, minimum), trim)
    return int(check(cut))


async def _read_by_all(wire: Wire, keys: Keys, stream: str, readers: tuple[str, ...]) -> StreamId | None:
    """The id up to which every named reader has committed, and will not read again; None while one of them never
    has committed."""
    # In this order: a step between the two can only add an entry to be read again that lies behind what it found.
    reread = [("HGET", keys.state(reader), REREAD_FROM) for reader in readers if stream == keys.raw]
    groups, *again = await wire.call(("XINFO", "GROUPS", stream), *reread)
    if isinstance(groups, redis.exceptions.ResponseError):
        return None
    delivered = {group[b"name"].decode(): group[b"last-delivered-id"] for group in map(_facts, groups)}
    ids = [stream_id(delivered.get(reader, b"0-0")) for reader in readers]
    lowest = min(ids, default=(0, 0))
    if lowest == (0, 0):
        return None
    return min([lowest, *(stream_id(entry) for entry in map(check, again) if entry)])


def _facts(flat: Reply) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
