"""Frames on disk are removed while Redis is away: they are lost, what comes after them is not."""

import itertools
import shutil
from pathlib import Path

from tests.ingest.conftest import eventually, frames_of, read_raw
from tests.ingest.spooling import SPOOLING
from tests.ingest.test_writer import Fixture
from tests.servers import RedisServer


async def test_the_spool_was_removed_while_redis_was_away(redis_server: RedisServer, tmp_path: Path) -> None:
    async with Fixture(redis_server.url, tmp_path, timing=SPOOLING, spool_bytes=1 << 30).running() as fixture:
        fixture.append()
        await fixture.written()
        redis_server.kill()
        fixture.append()

        async def spooled() -> bool:
            return fixture.heartbeat.counters["spooled"] > 0 and fixture.writer.waiting_bytes == 0

        await eventually(spooled)
        shutil.rmtree(tmp_path / "spool")
        redis_server.start()
        fixture.append()

        async def newest() -> bool:
            return frames_of(await read_raw(redis_server.url))[-1].ts == fixture.given - 1

        await eventually(newest)
        entries = await read_raw(redis_server.url)
        # What was open when it was removed can still be read: it depends on the moment how much is lost, if any.
        for before, after in itertools.pairwise(entries):
            whole = after.frames[0].ts == before.frames[-1].ts + 1
            assert after.n > before.n + 1 or (whole and after.n == before.n + 1), "numbers of what was lost stay out"
