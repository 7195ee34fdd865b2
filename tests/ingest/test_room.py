"""When what can wait has to: Redis is away, too much waits for it in memory, or frames on disk come first."""

import asyncio
from pathlib import Path

import msgspec

from ingest.timing import MILLISECOND
from ingest.writer import MOST_WAITING
from pipeline.frames import Frame
from tests.ingest.conftest import HASTY, eventually
from tests.ingest.test_writer import Fixture
from tests.servers import RedisServer


async def test_pages_wait_while_redis_is_away_and_come_behind_what_is_on_disk(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    timing = msgspec.structs.replace(HASTY, spool_after=100 * MILLISECOND)
    fixture = Fixture(redis_server.url, tmp_path, timing=timing, spool_bytes=64 * 1024 * 1024)
    assert not fixture.writer.has_room, "nothing is known of Redis yet"
    async with fixture.running():
        fixture.append()
        await fixture.written()
        assert fixture.writer.has_room
        await asyncio.to_thread(redis_server.kill)
        fixture.append()

        async def shut() -> bool:
            spool = fixture.writer.spool
            return not fixture.writer.has_room and spool is not None and spool.unread

        await eventually(shut)
        await asyncio.to_thread(redis_server.start)

        async def open_again() -> bool:
            return fixture.writer.has_room

        await eventually(open_again)
        spool = fixture.writer.spool
        assert spool is not None
        assert not spool.unread


async def test_pages_wait_while_megabytes_wait_for_redis(redis_url: str, tmp_path: Path) -> None:
    fixture = Fixture(redis_url, tmp_path)
    async with fixture.running():
        fixture.append()
        await fixture.written()
        page = "x" * (MOST_WAITING // 4)
        for _ in range(5):
            fixture.writer.append(Frame(1, "c", "in", "rest", page))
        assert not fixture.writer.has_room
        await fixture.written()
        assert fixture.writer.has_room
