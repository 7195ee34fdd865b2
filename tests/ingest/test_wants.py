"""The reader of wants against a real Redis: at start, when woken, in between, and after Redis was away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import msgspec
import redis.asyncio

from ingest.timing import MILLISECOND, Timing
from ingest.wants import Wants
from pipeline.streams import Keys
from pipeline.timeframes import HOUR
from pipeline.wants import Want
from pipeline.wire import Wire
from tests.ingest.conftest import HASTY, eventually
from tests.servers import RedisServer

KEYS = Keys("sim", "binance")
PATIENT = msgspec.structs.replace(HASTY, wants=HOUR)


class Reader:
    """The wants as they were read, one reading after another."""

    def __init__(self, url: str, timing: Timing) -> None:
        self.read: list[Mapping[str, Want]] = []
        self.reports: list[str] = []
        self._url = url
        self._wants = Wants(KEYS, self._connect, self.read.append, self.reports.append, timing)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Reader"]:
        task = asyncio.create_task(self._wants.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def numbers(self, **expected: int) -> None:
        """Returns when these keys and numbers are what was read last."""

        async def read() -> bool:
            return bool(self.read) and {key: want.number for key, want in self.read[-1].items()} == expected

        await eventually(read)

    async def _connect(self) -> Wire:
        return await Wire.open(self._url, timeout=PATIENT.redis_timeout / 1e9)


async def put(url: str, key: str, number: int | None, wake: bool = True) -> None:
    """Sets or (None) clears a want, as normalize does."""
    want = Want(what="snapshot", instrument=key, number=number or 0, since=1, reason="first")
    async with redis.asyncio.from_url(url) as client, client.pipeline(transaction=True) as pipe:
        if number is None:
            pipe.hdel(KEYS.want, key)
        else:
            pipe.hset(KEYS.want, key, msgspec.json.encode(want))
        if wake:
            pipe.xadd(KEYS.request, {"key": key}, maxlen=1_000)
        await pipe.execute()


async def test_what_is_wanted_already_is_read_at_the_start_and_the_rest_when_woken(redis_url: str) -> None:
    await put(redis_url, "a", 3)
    async with Reader(redis_url, PATIENT).running() as reader:
        await reader.numbers(a=3)
        await put(redis_url, "b", 1)
        await reader.numbers(a=3, b=1)
        await put(redis_url, "b", 2)
        await reader.numbers(a=3, b=2)
        await put(redis_url, "a", None)
        await reader.numbers(b=2)
    assert not reader.reports


async def test_without_a_wake_up_it_is_read_all_the_same(redis_url: str) -> None:
    timing = msgspec.structs.replace(HASTY, wants=50 * MILLISECOND)
    async with Reader(redis_url, timing).running() as reader:
        await reader.numbers()
        await put(redis_url, "a", 1, wake=False)
        await reader.numbers(a=1)


async def test_no_want_is_lost_over_a_redis_that_dies(redis_server: RedisServer) -> None:
    async with Reader(redis_server.url, PATIENT).running() as reader:
        await put(redis_server.url, "a", 1)
        await reader.numbers(a=1)
        for number in (2, 3):
            await asyncio.to_thread(redis_server.kill)
            await asyncio.to_thread(redis_server.start)
            await put(redis_server.url, "a", number)
            await reader.numbers(a=number)
    assert len(reader.reports) == 2, "said once each time"


async def test_a_redis_that_stands_still_is_left_and_read_again(redis_server: RedisServer) -> None:
    timing = msgspec.structs.replace(HASTY, wants=50 * MILLISECOND)
    async with Reader(redis_server.url, timing).running() as reader:
        await reader.numbers()
        redis_server.pause()
        try:

            async def said() -> bool:
                return bool(reader.reports)

            await eventually(said)
        finally:
            redis_server.resume()
        await put(redis_server.url, "a", 1)
        await reader.numbers(a=1)


async def test_what_is_no_want_is_said_once_and_hides_no_other(redis_url: str) -> None:
    async with redis.asyncio.from_url(redis_url) as client:
        await client.hset(KEYS.want, mapping={"bad": "{", b"\xff": "{}"})
    async with Reader(redis_url, PATIENT).running() as reader:
        await put(redis_url, "a", 1)
        await reader.numbers(a=1)
        await put(redis_url, "a", 2)
        await reader.numbers(a=2)
    assert len(reader.reports) == 2
    assert all("is not a want" in report for report in reader.reports)
