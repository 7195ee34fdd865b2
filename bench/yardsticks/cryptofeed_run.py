"""Runs cryptofeed over a file of frames and tells how long it took. Imports nothing of ours: its interpreter need not
have it. cryptofeed (AGPL) is a yardstick and is imported nowhere else.

The one argument is JSON: backend (noop, redis, postgres), frames (a file), instruments, and where the servers are.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from cryptofeed.backends.postgres import TradePostgres
from cryptofeed.backends.redis import TradeStream
from cryptofeed.defines import TRADES
from cryptofeed.exchanges.okx import OKX
from cryptofeed.symbols import Symbols


class Counter:
    """A callback that keeps nothing."""

    delivered = 0

    async def __call__(self, trade: Any, received: float) -> None:
        self.delivered += 1


def callback_of(asked: dict[str, Any]) -> Any:
    """Nothing is dropped: a full queue blocks, where the default drops the oldest."""
    if asked["backend"] == "redis":
        return TradeStream(host=asked["redis"], socket=True, overflow="block")
    if asked["backend"] == "postgres":
        return TradePostgres(**asked["postgres"], overflow="block", batch_max=5_000)
    return Counter()


async def run(asked: dict[str, Any], frames: list[str]) -> dict[str, float]:
    """Feeds every frame to the message handler, as its connection would; then waits until all is written."""
    Symbols.set(OKX.id, {name: name for name in asked["instruments"]}, {})
    callback = callback_of(asked)
    feed = OKX(symbols=list(asked["instruments"]), channels=[TRADES], callbacks={TRADES: callback})
    begun, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        backend = not isinstance(callback, Counter)
        if backend:
            callback.start_writer(group, "writer")
        for frame in frames:
            await feed.message_handler(frame, None, time.time())
        if backend:
            await callback.stop()
    delivered = callback.stats.delivered if backend else callback.delivered
    return {"delivered": delivered, "seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    told = asyncio.run(run(asked, Path(asked["frames"]).read_text().splitlines()))
    sys.stdout.write(json.dumps(told) + "\n")
