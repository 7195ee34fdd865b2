"""Redis loses under a running store what it relies on: it goes on by what is left."""

import itertools
from pathlib import Path

from tests.servers import RedisServer
from tests.store.made import eventually, ready, start
from tests.store.spilled import COUNT, connected, safe, trades


async def test_the_groups_are_made_again_under_a_running_store(
    redis_server: RedisServer, database_url: str, tmp_path: Path
) -> None:
    """Without them nothing would ever be trimmed again."""
    url = ready(database_url)
    running = start(redis_server.url, url, tmp_path)
    numbers = itertools.count(1)
    await trades(redis_server.url, numbers, 100)
    await eventually(url, COUNT, 100)
    async with connected(redis_server.url) as wire:
        await wire.call(("FLUSHALL",))
    await trades(redis_server.url, numbers, 100)
    await eventually(url, COUNT, 200)
    await safe(redis_server.url, await trades(redis_server.url, numbers, 100))
    await eventually(url, COUNT, 300)
    await running.finish()
