"""The product's own Writer, fed from memory in a process of its own: what ingest costs beside its sockets.

Run as `python -m bench.writing <settings> <trades> <seed>`; tells how long it took as a line of JSON.
"""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

import uvloop

from bench.frames import SYMBOLS, URLS, Market
from bench.observation import FROM
from ingest.clock import HostClock
from ingest.spool import Spool
from ingest.timing import Timing
from ingest.writer import MOST_WAITING, Writer
from pipeline import settings as settings_module
from pipeline.frames import Frame
from pipeline.heartbeat import Heartbeat
from pipeline.redis_ready import wait_ready
from pipeline.settings import Settings
from pipeline.streams import Keys
from pipeline.wire import Wire

FULL = 0.005
"""Seconds to leave a writer alone that has enough: much less than it needs for what it has."""
TURN = 64
"""Frames given to the writer before others have their turn: about what one read of a socket brings."""


async def write(settings: Settings, frames: list[Frame]) -> dict[str, float]:
    """Appends every frame as fast as the writer takes them, never more than it likes to have waiting, and waits until
    all are in Redis. The time is that of the last nine tenths."""
    clock, heartbeat = HostClock(), Heartbeat("ingest-okx", settings.heartbeat_dir)
    spool = Spool(settings.state_dir / "spool" / "bench", settings.file.disk.spool_bytes, heartbeat.error)
    keys = Keys(settings.namespace, "okx")
    writer = Writer(keys, lambda: _open(settings), heartbeat, clock.now(), Timing(), spool=spool)
    running = asyncio.create_task(writer.run())
    first = int(FROM * len(frames))
    await _append(writer, frames[:first])
    begun, before, done = time.perf_counter(), time.process_time(), heartbeat.counters["written"]
    await _append(writer, frames[first:])
    await writer.flush()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - before
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    written = heartbeat.counters["written"]
    return {"written": written, "items": written - done, "seconds": seconds, "cpu": cpu}


async def _append(writer: Writer, frames: list[Frame]) -> None:
    for place in range(0, len(frames), TURN):
        for frame in frames[place : place + TURN]:
            writer.append(frame)
        await asyncio.sleep(0)
        while writer.waiting_bytes > MOST_WAITING:  # noqa: ASYNC110 (the writer tells nobody)
            await asyncio.sleep(FULL)


async def _open(settings: Settings) -> Wire:
    wire = await Wire.open(settings.redis_address())
    await wait_ready(wire, settings.namespace)
    return wire


def trades(count: int, seed: int) -> list[Frame]:
    """One trade each, as they come from a socket."""
    market, connection, now = Market("okx", seed, SYMBOLS), f"{URLS['okx']}#1", time.time_ns()
    return [Frame(now + number, connection, "in", "ws", market.trade(now)) for number in range(count)]


if __name__ == "__main__":
    told = uvloop.run(write(settings_module.load(Path(sys.argv[1])), trades(int(sys.argv[2]), int(sys.argv[3]))))
    sys.stdout.write(json.dumps(told) + "\n")
