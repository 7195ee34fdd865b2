"""Reads a flood of trades with the library `websockets` alone and drops them: what receiving costs before any work.

Run as `python -m bench.yardsticks.reader <url> <trades> <instrument>…`; tells how long it took as a line of JSON.
"""

import json
import sys
import time
from collections.abc import Sequence

import uvloop
from websockets.asyncio.client import connect

from bench.frames import CHANNELS
from bench.observation import FROM

PATH = "/ws/v5/business"
MOST_QUEUED = 1_024


async def read(url: str, trades: int, names: Sequence[str]) -> dict[str, float]:
    """Subscribes to everything and reads so many trades; the time is that of the last nine tenths."""
    asked = [{"channel": CHANNELS["okx"], "instId": name} for name in names]
    first, got = int(FROM * trades), 0
    async with connect(url + PATH, compression=None, proxy=None, max_queue=MOST_QUEUED) as connection:
        await connection.send(json.dumps({"id": "1", "op": "subscribe", "args": asked}))
        for _ in names:
            await connection.recv()
        while got < first:
            await connection.recv(decode=False)
            got += 1
        begun, before = time.perf_counter(), time.process_time()
        while got < trades:
            await connection.recv(decode=False)
            got += 1
        seconds, cpu = time.perf_counter() - begun, time.process_time() - before
    return {"items": got - first, "seconds": seconds, "cpu": cpu}


if __name__ == "__main__":
    told = uvloop.run(read(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
    sys.stdout.write(json.dumps(told) + "\n")
