"""A worker that has input and commits nothing: found by itself, against a real Redis, and never while it waits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import redis.asyncio

from pipeline.heartbeat import Heartbeat
from pipeline.stall import Idleness, watch_work
from pipeline.streams import Keys
from pipeline.wire import Wire
from tests.servers import RedisServer

KEYS = Keys("md", "okx")
LOOK, AFTER = 0.05, 0.3
DEADLINE = 20.0


def test_it_is_idle_since_it_last_did_something_or_had_nothing_to_do() -> None:
    idleness = Idleness(10)
    assert idleness.look(0, "1-0", True) == 0, "nobody knows since when"
    assert idleness.look(10, "1-0", True) == 10
    assert idleness.look(20, "2-0", True) == 0
    assert idleness.look(30, "2-0", True) == 10
    assert idleness.look(40, "2-0", False) == 0
    assert idleness.look(50, "2-0", True) == 10


def test_time_in_which_nobody_looked_does_not_count() -> None:
    """The whole process stood still, or the machine slept."""
    idleness = Idleness(10)
    idleness.look(0, "1-0", True)
    assert idleness.look(25, "1-0", True) == 25
    assert idleness.look(3_600, "1-0", True) == 0


class Work:
    """A normalize that is told what to do, watched."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.heartbeat = Heartbeat("normalize-okx", folder)
        self.client = redis.asyncio.from_url(url)
        self.opened = 0

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator["Work"]:
        stop = asyncio.Event()
        watching = asyncio.create_task(
            watch_work(self.open, KEYS, "normalize", self.heartbeat, stop, look=LOOK, after=AFTER)
        )
        try:
            yield self
        finally:
            stop.set()
            async with asyncio.timeout(DEADLINE):
                await watching
            await self.client.aclose()

    async def open(self) -> Wire:
        wire = await Wire.open(self.url, timeout=0.5)
        self.opened += 1
        return wire

    async def input(self) -> None:
        await self.client.xadd(KEYS.raw, {"frames": b"x"})

    async def commit(self) -> None:
        last = (await self.client.xinfo_stream(KEYS.raw))["last-generated-id"]
        with contextlib.suppress(redis.exceptions.ResponseError):
            await self.client.xgroup_create(KEYS.raw, "normalize", "0")
        await self.client.xgroup_setid(KEYS.raw, "normalize", last)

    async def looks(self, seconds: float) -> None:
        """Some looks go by, in none of which it is said to do nothing."""
        for _ in range(round(seconds / LOOK)):
            await asyncio.sleep(LOOK)
            assert not self.heartbeat.stalls


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_input_and_no_commit_is_told_until_there_is_one(redis_url: str, tmp_path: Path) -> None:
    async with Work(redis_url, tmp_path).watched() as work:
        await work.looks(2 * AFTER)
        await work.input()
        await until(lambda: work.heartbeat.report().stalled)
        report = work.heartbeat.report()
        assert "okx: there is input" in str(report.stalled_why)
        assert report.stalled is not None
        assert report.beat - report.stalled >= AFTER * 1e9
        assert report.errors == 1, "said once"
        await work.commit()
        await until(lambda: work.heartbeat.report().stalled is None)
        await work.looks(2 * AFTER)


async def test_whoever_waits_or_gets_on_is_not_told_of(redis_url: str, tmp_path: Path) -> None:
    async with Work(redis_url, tmp_path).watched() as work:
        await work.input()
        for waits in ("postgres", "memory", "lease"):
            work.heartbeat.waiting_for = waits
            await work.looks(1.5 * AFTER)
        work.heartbeat.waiting_for = None
        for _ in range(20):
            # A long restore commits nothing, but reads.
            work.heartbeat.counters["reread"] += 1
            await work.looks(LOOK)
        await until(lambda: work.heartbeat.stalls)


async def test_restores_without_end_are_nothing_done(redis_url: str, tmp_path: Path) -> None:
    async with Work(redis_url, tmp_path).watched() as work:
        await work.input()

        def restores() -> bool:
            work.heartbeat.counters["restores"] += 1
            return bool(work.heartbeat.stalls)

        await until(restores)


async def test_nobody_is_told_of_while_redis_is_away(redis_server: RedisServer, tmp_path: Path) -> None:
    work = Work(redis_server.url, tmp_path)
    async with work.watched():
        await work.input()
        await until(lambda: work.heartbeat.stalls)
        redis_server.pause()
        try:
            await until(lambda: not work.heartbeat.stalls)
            await work.looks(3 * AFTER)
        finally:
            redis_server.resume()
        opened = work.opened
        await until(lambda: work.opened > opened)
        await until(lambda: work.heartbeat.stalls)
