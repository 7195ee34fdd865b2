"""A writer whose Redis is away, full or forgetful: its frames go over the disk, once and in order."""

import asyncio
import itertools
from pathlib import Path

import msgspec
import pytest
import redis.asyncio

from ingest.timing import MILLISECOND
from ingest.writer import Superseded
from tests.ingest.conftest import DEADLINE, eventually, read_raw
from tests.ingest.spooled import BIG, frame, numbers, places
from tests.ingest.spooling import SPOOLING
from tests.ingest.test_writer import FRAMES_A_ROUND, KEYS, STARTED, Fixture, check
from tests.servers import RedisServer


class Spooling(Fixture):
    """A writer with a spool."""

    def __init__(self, url: str, folder: Path, started: int = STARTED, most_bytes: int = BIG, **bounds: int) -> None:
        super().__init__(url, folder, started, msgspec.structs.replace(SPOOLING, **bounds), most_bytes)
        assert self.writer.spool is not None
        self.spool = self.writer.spool

    async def spooled(self) -> None:
        """Returns when all that was given is on disk."""
        await eventually(self._safe)

    async def _safe(self) -> bool:
        return self.writer.waiting_bytes == 0

    async def seen(self) -> None:
        """Returns when the stream was looked at: only then entries have numbers."""
        self.append(1)
        await self.written()


async def test_redis_away_under_load(redis_server: RedisServer, tmp_path: Path) -> None:
    async with Spooling(redis_server.url, tmp_path).running() as fixture:
        fixture.append()
        await fixture.written()
        for _ in range(3):
            await asyncio.to_thread(redis_server.kill)
            for _ in range(5):
                fixture.append()
                await fixture.spooled()
                assert fixture.spool.unread
            await asyncio.to_thread(redis_server.start)
            fixture.append()
            await fixture.written()
        await fixture.written()
        assert fixture.heartbeat.counters["spooled"] > 0
    check(await read_raw(redis_server.url), fixture.given)
    assert fixture.heartbeat.counters["dropped"] == 0


async def test_a_stalled_redis_is_away_too(redis_server: RedisServer, tmp_path: Path) -> None:
    async with Spooling(redis_server.url, tmp_path).running() as fixture:
        await fixture.seen()
        redis_server.pause()
        try:
            for _ in range(4):
                fixture.append()
                await fixture.spooled()
        finally:
            redis_server.resume()
        await fixture.written()
    check(await read_raw(redis_server.url), fixture.given)


async def test_frames_that_come_while_the_disk_is_read_come_after(redis_server: RedisServer, tmp_path: Path) -> None:
    fixture = Spooling(redis_server.url, tmp_path, spool_over=20_000)
    async with fixture.running():
        await fixture.seen()
        await asyncio.to_thread(redis_server.kill)
        for _ in range(200):
            fixture.append(100)
        await fixture.spooled()
        await asyncio.to_thread(redis_server.start)
        for _ in range(100):
            fixture.append(20)
            await asyncio.sleep(0.002)
        await fixture.written()
    check(await read_raw(redis_server.url), fixture.given)


async def test_what_was_drained_leaves_the_disk_when_redis_surely_has_it(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    fixture = Spooling(redis_server.url, tmp_path, keep=200 * MILLISECOND)
    async with fixture.running():
        await fixture.seen()
        await asyncio.to_thread(redis_server.kill)
        fixture.append()
        await fixture.spooled()
        await asyncio.to_thread(redis_server.start)
        await fixture.written()

        async def gone() -> bool:
            fixture.append(1)
            await fixture.written()
            return not list((tmp_path / "spool").glob("*.seg"))

        await eventually(gone)
        assert fixture.spool.row()["records"] == 0
    check(await read_raw(redis_server.url), fixture.given)


async def test_a_redis_over_the_mark_gets_its_frames_when_it_has_room(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with redis.asyncio.from_url(redis_server.url) as client:
        fixture = Spooling(redis_server.url, tmp_path)
        async with fixture.running():
            await fixture.seen()
            await client.config_set("maxmemory", "64mb")
            for _ in range(45):
                await client.append("foreign", bytes(1_000_000))
            length = await client.xlen(KEYS.raw)

            async def full() -> bool:
                fixture.append(1)
                return fixture.writer.away

            await eventually(full)
            length = await client.xlen(KEYS.raw)
            fixture.append()
            await fixture.spooled()
            assert fixture.writer.away
            assert await client.xlen(KEYS.raw) == length
            await client.delete("foreign")
            await fixture.written()
    check(await read_raw(redis_server.url), fixture.given)


async def test_too_many_frames_in_memory_go_to_disk_although_redis_is_there(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    fixture = Spooling(redis_server.url, tmp_path, spool_over=1, spool_after=3_600_000_000_000)
    async with fixture.running():
        await fixture.seen()
        for _ in range(50):
            fixture.append()
            await asyncio.sleep(0.01)
        await fixture.written()
        assert fixture.heartbeat.counters["spooled"] > 0
    check(await read_raw(redis_server.url), fixture.given)


async def test_what_redis_confirmed_and_lost_is_written_again_though_it_was_on_disk(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Redis loses its last seconds in the middle of the draining, and confirmed entries from before the outage."""
    async with redis.asyncio.from_url(redis_server.url) as client:
        fixture = Spooling(redis_server.url, tmp_path)
        async with fixture.running():
            fixture.append(10 * FRAMES_A_ROUND)
            await fixture.written()
            for lost in (4, 40):
                redis_server.pause()
                fixture.append(5 * FRAMES_A_ROUND)
                await fixture.spooled()
                redis_server.resume()
                await fixture.written()
                newest = await client.xrevrange(KEYS.raw, count=lost)
                await client.xdel(KEYS.raw, *[identity for identity, _ in newest])
                await client.client_kill_filter(_type="normal", skipme=True)
            fixture.append()
            await fixture.written()
    check(await read_raw(redis_server.url), fixture.given)


async def test_the_bound_reached_while_redis_is_away(redis_server: RedisServer, tmp_path: Path) -> None:
    fixture = Spooling(redis_server.url, tmp_path, most_bytes=200_000)
    async with fixture.running():
        await fixture.seen()
        await asyncio.to_thread(redis_server.kill)
        while fixture.heartbeat.counters["dropped"] == 0:
            fixture.append()
            await fixture.spooled()
        assert "the spool is full" in str(fixture.heartbeat.report().last_error)
        await asyncio.to_thread(redis_server.start)
        await fixture.written()
    entries = await read_raw(redis_server.url)
    there = numbers(entries)
    assert there == sorted(set(there))
    assert fixture.given - len(there) == fixture.heartbeat.counters["dropped"]
    jumps = [here.n - before.n for before, here in itertools.pairwise(entries)]
    assert sum(jump > 1 for jump in jumps) == 1
    assert there[-1] == fixture.given - 1


async def test_a_full_disk_leaves_frames_in_memory_until_redis_is_back(
    redis_server: RedisServer, tiny_disk: Path
) -> None:
    fixture = Spooling(redis_server.url, tiny_disk)
    async with fixture.running():
        await fixture.seen()
        await asyncio.to_thread(redis_server.kill)
        fixture.append(15_000)
        await eventually(lambda: told(fixture, "wait in memory"))
        fixture.append(100)
        await asyncio.to_thread(redis_server.start)
        await fixture.written()
    check(await read_raw(redis_server.url), fixture.given)
    assert fixture.heartbeat.counters["dropped"] == 0


async def told(fixture: Fixture, what: str) -> bool:
    return what in str(fixture.heartbeat.report().last_error)


async def test_stopped_while_redis_is_away_and_started_again(redis_server: RedisServer, tmp_path: Path) -> None:
    first = Spooling(redis_server.url, tmp_path, spool_after=3_600_000_000_000)
    async with first.running():
        await first.seen()
        await asyncio.to_thread(redis_server.kill)
        first.append()
    await asyncio.to_thread(redis_server.start)
    second = Spooling(redis_server.url, tmp_path, started=STARTED - 5)
    second.given = first.given
    async with second.running():
        second.append()
        await second.written()
    entries = await read_raw(redis_server.url)
    assert numbers(entries) == list(range(second.given))
    assert list(dict.fromkeys(w for w, _ in places(entries))) == [STARTED, STARTED + 1]


async def test_who_takes_over_writes_first_what_the_other_left_on_disk(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    first = Spooling(redis_server.url, tmp_path)
    task = asyncio.create_task(first.writer.run())
    await first.seen()
    redis_server.pause()
    first.append()
    await first.spooled()
    second = Spooling(redis_server.url, tmp_path, started=STARTED + 1)
    second.given = first.given
    async with second.running():
        second.append()
        redis_server.resume()
        async with asyncio.timeout(DEADLINE):
            while not first.writer._ended.is_set():
                # Whoever of the two was quicker: the first hears of it when it next has something to write.
                first.writer.append(frame(second.given))
                second.given += 1
                await asyncio.sleep(0.01)
            with pytest.raises(Superseded):
                await task
        await second.written()
    entries = await read_raw(redis_server.url)
    assert sorted(numbers(entries)) == list(range(second.given))
    assert places(entries) == sorted(places(entries))
