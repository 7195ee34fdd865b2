"""Trims the streams of one partition to what all their named readers have read. Runs in normalize.

Uses no MULTI and nothing a full Redis refuses: it must work exactly when memory is short.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import redis.exceptions

from pipeline.errors import ServerAway
from pipeline.heartbeat import Heartbeat
from pipeline.pause import pause
from pipeline.streams import READERS, Keys
from pipeline.wire import Reply, Wire, check

INTERVAL = 10.0
BUDGET_SHARE = 0.5
"""Above this share of maxmemory what outsiders were promised yields."""

log = logging.getLogger(__name__)

StreamId = tuple[int, int]


class Promise(NamedTuple):
    """What outside readers may count on: the last `milliseconds`, and the last `entries`."""

    milliseconds: int
    entries: int


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
    short = await _memory_is_short(wire)
    removed: dict[str, int] = {}
    for kind, readers in READERS.items():
        stream = keys.stream(kind)
        floor = await _read_by_all(wire, stream, readers) if readers else None
        if floor is None:
            continue
        if not short:
            length = check((await wire.call(("XLEN", stream)))[0])
            if length <= promise.entries:
                continue
            floor = min(floor, (now - promise.milliseconds, 0))
        removed[stream] = await _cut(wire, keys, stream, floor)
    return removed


async def _cut(wire: Wire, keys: Keys, stream: str, floor: StreamId) -> int:
    """The floor is noted first, so that a reader below it can tell; a full Redis refuses only the note."""
    minimum = f"{floor[0]}-{floor[1]}"
    _, cut = await wire.call(("HSET", keys.floor, stream, minimum), ("XTRIM", stream, "MINID", "~", minimum))
    return int(check(cut))


async def _read_by_all(wire: Wire, stream: str, readers: tuple[str, ...]) -> StreamId | None:
    """The id up to which every named reader has committed; None while one of them never has."""
    groups = (await wire.call(("XINFO", "GROUPS", stream)))[0]
    if isinstance(groups, redis.exceptions.ResponseError):
        return None
    delivered = {group[b"name"].decode(): group[b"last-delivered-id"] for group in map(_facts, groups)}
    ids = [stream_id(delivered.get(reader, b"0-0")) for reader in readers]
    lowest = min(ids, default=(0, 0))
    return lowest if lowest > (0, 0) else None


async def _memory_is_short(wire: Wire) -> bool:
    text: bytes = check((await wire.call(("INFO", "memory")))[0])
    facts = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    most = int(facts["maxmemory"])
    return most > 0 and int(facts["used_memory"]) > BUDGET_SHARE * most


def stream_id(text: bytes) -> StreamId:
    """(milliseconds, number) of an entry id."""
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number or 0)


def _facts(flat: Reply) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
