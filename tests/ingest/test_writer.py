"""The writer on a real Redis behind a faulty wire: every frame in the raw stream once, in order, n contiguous."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self

import msgspec
import pytest
import redis.asyncio

from ingest.spool import Spool
from ingest.timing import Timing
from ingest.writer import Forgotten, Superseded, Writer
from pipeline.errors import ContractBroken, StepRefused
from pipeline.frames import Frame, RawEntry
from pipeline.heartbeat import Heartbeat
from pipeline.redis_ready import wait_ready
from pipeline.streams import Keys
from pipeline.wire import Wire
from tests.ingest.conftest import DEADLINE, HASTY, eventually, frames_of, read_raw
from tests.proxy import TcpProxy
from tests.servers import RedisServer

KEYS = Keys("sim", "okx")
STARTED = 1_790_000_000_000_000_000
FRAMES_A_ROUND = 150

Proxy = Callable[[int], TcpProxy]


class Fixture:
    """A writer to `url` and the frames it was given."""

    def __init__(
        self,
        url: str,
        folder: Path,
        started: int = STARTED,
        timing: Timing = HASTY,
        spool_bytes: int | None = None,
    ) -> None:
        self.heartbeat = Heartbeat("ingest-okx", folder)
        self.url = url
        spool = None if spool_bytes is None else Spool(folder / "spool", spool_bytes, self.heartbeat.error)
        self.writer = Writer(KEYS, self._open_ready, self.heartbeat, started, timing, spool=spool)
        self.given = 0

    def append(self, count: int = FRAMES_A_ROUND) -> None:
        for _ in range(count):
            self.writer.append(Frame(self.given, "c#1", "in", "ws", f'{{"number":{self.given}}}'))
            self.given += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        task = asyncio.create_task(self.writer.run())
        try:
            yield self
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def written(self) -> None:
        """Returns when everything given is confirmed."""
        async with asyncio.timeout(DEADLINE):
            while not await self.writer.flush():
                continue

    async def _open_ready(self) -> Wire:
        wire = await Wire.open(self.url, timeout=HASTY.redis_timeout / 1e9)
        try:
            await wait_ready(wire, KEYS.namespace)
        except BaseException:
            await wire.close()
            raise
        return wire


def check(entries: list[RawEntry], given: int, started: int = STARTED) -> None:
    """Every frame once, in order; numbers 1, 2, 3 …; one writer."""
    assert [frame.ts for frame in frames_of(entries)] == list(range(given))
    assert [(entry.w, entry.n) for entry in entries] == [(started, number) for number in range(1, len(entries) + 1)]


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator["redis.asyncio.Redis"]:
    async with redis.asyncio.from_url(redis_server.url) as client:
        yield client


async def test_frames_arrive_once_in_order_and_numbered(redis_url: str, tmp_path: Path) -> None:
    async with Fixture(redis_url, tmp_path).running() as fixture:
        for _ in range(20):
            fixture.append(37)
            await asyncio.sleep(0)
        await fixture.written()
    entries = await read_raw(redis_url)
    check(entries, 740)
    assert fixture.heartbeat.counters["written"] == 740
    assert fixture.writer.waiting_bytes == 0


async def test_a_reply_lost_after_the_exec_was_applied(
    redis_server: RedisServer, tmp_path: Path, tcp_proxy: Proxy
) -> None:
    proxy = tcp_proxy(redis_server.port)
    async with Fixture(proxy.redis_url(), tmp_path).running() as fixture:
        fixture.append()
        await fixture.written()
        proxy.drop_replies()
        fixture.append()

        async def applied() -> bool:
            return len(frames_of(await read_raw(redis_server.url))) == 2 * FRAMES_A_ROUND

        await eventually(applied)
        assert fixture.writer.waiting_bytes > 0, "the writer cannot know"
        proxy.pass_replies()
        proxy.cut()
        fixture.append()
        await fixture.written()
    check(await read_raw(redis_server.url), 3 * FRAMES_A_ROUND)


class Sabotage:
    """Lets every third EXEC fail, each time in the next of five ways."""

    ways = ("oom", "nil", "reply lost after applied", "request lost", "cut")

    def __init__(self, proxy: TcpProxy, server: RedisServer) -> None:
        self._proxy = proxy
        self._client = redis.Redis.from_url(server.url)
        self._seen = 0
        self.done: list[str] = []
        proxy.requests, proxy.replies = self._request, self._reply
        self._cut_reply = False

    def close(self) -> None:
        self._client.close()

    def _request(self, data: bytes) -> bytes | None:
        self._cut_reply = False
        if b"XADD" not in data or b"$4\r\nEXEC\r\n" not in data:
            return data
        self._seen += 1
        if self._seen % 3:
            return data
        way = self.ways[len(self.done) % len(self.ways)]
        self.done.append(way)
        if way == "oom":
            self._client.config_set("maxmemory", "1")
        elif way == "nil":
            self._client.set(KEYS.lease("ingest"), self._client.get(KEYS.lease("ingest")) or b"")
        elif way == "reply lost after applied":
            self._cut_reply = True
        elif way == "request lost":
            return b""
        return None if way == "cut" else data

    def _reply(self, data: bytes) -> bytes | None:
        if b"OOM" in data:
            self._client.config_set("maxmemory", "256mb")
        return None if self._cut_reply else data


async def test_every_third_exec_fails_in_five_ways(redis_server: RedisServer, tmp_path: Path, tcp_proxy: Proxy) -> None:
    proxy = tcp_proxy(redis_server.port)
    sabotage = Sabotage(proxy, redis_server)
    try:
        async with Fixture(proxy.redis_url(), tmp_path).running() as fixture:
            async with asyncio.timeout(3 * DEADLINE):
                while len(sabotage.done) < 12:
                    fixture.append(20)
                    await fixture.written()
            await fixture.written()
    finally:
        sabotage.close()
    assert set(sabotage.done) == set(Sabotage.ways)
    check(await read_raw(redis_server.url), fixture.given)


async def test_a_burst_its_lease_and_the_next_watch_are_one_write(
    redis_server: RedisServer, tmp_path: Path, tcp_proxy: Proxy
) -> None:
    proxy, sent = tcp_proxy(redis_server.port), list[bytes]()

    def note(data: bytes) -> bytes:
        sent.append(data)
        return data

    async with Fixture(proxy.redis_url(), tmp_path).running() as fixture:
        fixture.append()
        await fixture.written()
        proxy.requests = note
        for _ in range(3):
            fixture.append(20)
            await fixture.written()
    bursts = [data for data in sent if b"memory" not in data]
    assert len(bursts) == 3
    for burst in bursts:
        assert [burst.count(word) for word in (b"MULTI", b"XADD", b"EXEC", b"WATCH", b"GET")] == [1] * 5
        assert burst.index(b"EXEC") < burst.index(b"WATCH") < burst.index(b"GET")


async def test_redis_stopped_and_continued(redis_server: RedisServer, tmp_path: Path) -> None:
    async with Fixture(redis_server.url, tmp_path).running() as fixture:
        for _ in range(3):
            fixture.append()
            await fixture.written()
            redis_server.pause()
            try:
                fixture.append()
                restores = fixture.heartbeat.counters["restores"]

                async def gave_up(before: int = restores) -> bool:
                    return fixture.heartbeat.counters["restores"] >= before + 2

                await eventually(gave_up)
                assert fixture.writer.away
            finally:
                redis_server.resume()
        await fixture.written()
    check(await read_raw(redis_server.url), 6 * FRAMES_A_ROUND)


async def test_redis_killed_and_restarted(redis_server: RedisServer, tmp_path: Path) -> None:
    async with Fixture(redis_server.url, tmp_path).running() as fixture:
        for _ in range(3):
            fixture.append()
            await fixture.written()
            fixture.append()
            await asyncio.to_thread(redis_server.kill)
            fixture.append()
            await asyncio.to_thread(redis_server.start)
        await fixture.written()
    check(await read_raw(redis_server.url), 9 * FRAMES_A_ROUND)
    assert fixture.heartbeat.report().last_error is not None


async def test_what_redis_confirmed_and_then_lost_is_written_again(
    redis_url: str, tmp_path: Path, client: "redis.asyncio.Redis"
) -> None:
    """As after a kill while an fsync hung: up to some seconds of confirmed entries are gone."""
    async with Fixture(redis_url, tmp_path).running() as fixture:
        fixture.append(10 * FRAMES_A_ROUND)
        await fixture.written()
        newest = await client.xrevrange(KEYS.raw, count=7)
        await client.xdel(KEYS.raw, *[identity for identity, _ in newest])
        await client.client_kill_filter(_type="normal", skipme=True)
        fixture.append()
        await fixture.written()
    check(await read_raw(redis_url), 11 * FRAMES_A_ROUND)


async def test_a_full_buffer_drops_the_oldest_counts_them_and_leaves_a_number_out(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with Fixture(
        redis_server.url, tmp_path, timing=msgspec.structs.replace(HASTY, buffer=200_000)
    ).running() as fixture:
        fixture.append()
        await fixture.written()
        await asyncio.to_thread(redis_server.kill)
        fixture.append(10_000)
        assert fixture.writer.waiting_bytes <= 200_000
        assert "buffer full" in str(fixture.heartbeat.report().last_error)
        await asyncio.to_thread(redis_server.start)
        await fixture.written()
        fixture.append()
        await fixture.written()
    entries = await read_raw(redis_server.url)
    there = [frame.ts or 0 for frame in frames_of(entries)]
    assert there == sorted(set(there))
    assert fixture.given - len(there) == fixture.heartbeat.counters["dropped"] > 0
    jumps = [(one.n, two.n) for one, two in itertools.pairwise(entries) if two.n != one.n + 1]
    holes = [(one, two) for one, two in itertools.pairwise(there) if two != one + 1]
    assert len(jumps) == len(holes) == 1
    assert jumps[0][1] == jumps[0][0] + 2


async def test_a_redis_that_is_nearly_full_is_left_room_to_be_read(
    redis_server: RedisServer, client: "redis.asyncio.Redis", tmp_path: Path
) -> None:
    """A Redis full of raw frames could never be emptied: what normalize writes would be refused."""
    await client.config_set("maxmemory", "64mb")
    for _ in range(45):
        await client.append("foreign", bytes(1_000_000))
    fixture = Fixture(redis_server.url, tmp_path)
    async with fixture.running():
        fixture.append()
        await eventually(lambda: _told(fixture, "frames wait for room"))
        assert fixture.writer.away
        assert await client.xlen(KEYS.raw) == 0
        await client.delete("foreign")
        await fixture.written()
        assert not fixture.writer.away
    check(await read_raw(redis_server.url), fixture.given)


async def _told(fixture: Fixture, what: str) -> bool:
    return what in str(fixture.heartbeat.report().last_error)


async def test_the_writer_started_later_wins_and_the_other_stops(redis_url: str, tmp_path: Path) -> None:
    first = Fixture(redis_url, tmp_path)
    task = asyncio.create_task(first.writer.run())
    first.append()
    await first.written()
    # Its wall clock is behind the first one's: later is who came later, not whose clock says so.
    async with Fixture(redis_url, tmp_path, started=STARTED - 1).running() as second:
        second.append()
        await second.written()
        first.append()
        with pytest.raises(Superseded):
            async with asyncio.timeout(DEADLINE):
                await task
        second.append()
        await second.written()
    entries = await read_raw(redis_url)
    assert [frame.ts for frame in frames_of(entries)] == [*range(first.given - FRAMES_A_ROUND), *range(second.given)]
    writers = list(dict.fromkeys(entry.w for entry in entries))
    assert writers == [STARTED, STARTED + 1]
    for writer in writers:
        assert [entry.n for entry in entries if entry.w == writer] == list(
            range(1, sum(entry.w == writer for entry in entries) + 1)
        )


async def test_an_exec_of_the_old_writer_still_on_its_way_is_refused(
    redis_server: RedisServer, tmp_path: Path, tcp_proxy: Proxy
) -> None:
    proxy = tcp_proxy(redis_server.port)
    first = Fixture(proxy.redis_url(), tmp_path)
    task = asyncio.create_task(first.writer.run())
    first.append()
    await first.written()
    proxy.stall()
    first.append()
    async with Fixture(redis_server.url, tmp_path, started=STARTED + 1).running() as second:
        second.append()
        await second.written()
        proxy.resume()
        with pytest.raises(Superseded):
            async with asyncio.timeout(DEADLINE):
                await task
    entries = await read_raw(redis_server.url)
    assert [frame.ts for frame in frames_of(entries)] == [*range(FRAMES_A_ROUND), *range(FRAMES_A_ROUND)]
    assert {entry.w for entry in entries} == {STARTED, STARTED + 1}


async def test_a_key_that_is_not_ours_stops_the_writer(
    redis_url: str, tmp_path: Path, client: "redis.asyncio.Redis"
) -> None:
    await client.set(KEYS.raw, "something else")
    fixture = Fixture(redis_url, tmp_path)
    fixture.append()
    with pytest.raises(ContractBroken):
        async with asyncio.timeout(DEADLINE):
            await fixture.writer.run()


async def test_flush_has_a_bound_while_redis_is_away(tmp_path: Path) -> None:
    fixture = Fixture("redis://127.0.0.1:1/0", tmp_path, timing=msgspec.structs.replace(HASTY, flush=100_000_000))
    async with fixture.running():
        fixture.append()
        assert not await fixture.writer.flush()
        assert fixture.writer.away


def test_superseded_is_not_mistaken_for_a_doubt() -> None:
    assert not issubclass(Superseded, StepRefused)


async def test_a_stream_that_was_flushed_is_begun_by_another_process(
    redis_server: RedisServer, client: "redis.asyncio.Redis", tmp_path: Path
) -> None:
    """Lists, connections and subscriptions are told at a start only. What was not lost comes before."""
    first = Fixture(redis_server.url, tmp_path, spool_bytes=1 << 30)
    writing = asyncio.create_task(first.writer.run())
    first.append()
    await first.written()
    await client.flushall()
    first.append()
    with pytest.raises(Forgotten):
        async with asyncio.timeout(DEADLINE):
            await writing
    assert await read_raw(redis_server.url) == []
    async with Fixture(redis_server.url, tmp_path, STARTED + 5, spool_bytes=1 << 30).running() as second:
        second.append()
        await second.written()
    frames = [frame.ts for frame in frames_of(await read_raw(redis_server.url))]
    assert frames == [*range(2 * FRAMES_A_ROUND), *range(FRAMES_A_ROUND)]
