"""Frames on disk: once, in order, under their own numbers, also those of a process that was killed."""

import asyncio
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.buffer import Buffer, Place, Spooled
from ingest.spool import Spool
from ingest.timing import MILLISECOND
from ingest.writer import Superseded
from pipeline.frames import MOST_FRAMES, Frame, RawEntry
from pipeline.segments import Position, Segments
from tests.ingest.conftest import DEADLINE, eventually, frames_of, read_raw
from tests.ingest.spooling import SPOOLING
from tests.ingest.test_writer import FRAMES_A_ROUND, KEYS, STARTED, Fixture, check
from tests.servers import RedisServer

PROJECT = Path(__file__).parents[2]
BIG = 1 << 30
SENT = (0, 0)
Entries = list[RawEntry]


def frame(number: int, kind: str = "ws", conn: str = "c#1", size: int = 0) -> Frame:
    return Frame(number, conn, "in", kind, str(number).ljust(size, "."))  # type: ignore[arg-type]


def numbers(entries: Entries) -> list[int]:
    return [one.ts or 0 for one in frames_of(entries)]


def places(entries: Entries) -> list[Place]:
    return [(entry.w, entry.n) for entry in entries]


class Disk:
    """What Segments do, in memory: it outlives the buffer."""

    def __init__(self) -> None:
        self.entries: Entries = []
        self.read = self.dropped = 0

    def load(self) -> list[Spooled]:
        start, self.read = self.read, min(self.read + 3, len(self.entries))
        return [Spooled(self.entries[at], Position(1, at + 1, at + 1)) for at in range(start, self.read)]


class Process:
    """A buffer used as the writer uses it; `stream` and `disk` outlive it."""

    def __init__(self, writer: int, stream: Entries, disk: Disk) -> None:
        self.buffer = Buffer(BIG, keep=30)
        self.writer, self.stream, self.disk = writer, stream, disk
        self.disk.read = self.disk.dropped
        self.wrote = len(stream)
        self.resume(0)

    def resume(self, now: int) -> None:
        self.buffer.resume(self.writer, places(self.stream)[-1] if self.stream else None, now)

    def burst(self, now: int) -> Entries:
        if not self.buffer.sending and self.disk.read < len(self.disk.entries):
            self.buffer.load(self.disk.load(), now)
        return self.buffer.burst(fresh=self.disk.read == len(self.disk.entries))

    def commit(self, now: int) -> bool:
        entries = self.burst(now)
        self.stream += entries
        self.buffer.confirm(len(entries), now)
        if (position := self.buffer.take_droppable()) is not None:
            self.disk.dropped = max(self.disk.dropped, position.record)
        return bool(entries) or self.disk.read < len(self.disk.entries)

    def spool(self, share: float, doubt: bool) -> None:
        entries = self.buffer.spool()
        count = round(len(entries) * share)
        self.disk.entries += entries[:count]
        self.buffer.spooled(count, doubt=doubt)


EVENTS = ["frames", "commit", "applied, reply lost", "lost", "tail lost", "doubt", "spool", "part", "none", "in doubt"]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from([*EVENTS, "kill"]), max_size=80))
def test_every_frame_once_and_in_order_whatever_happens_to_memory_disk_and_stream(events: list[str]) -> None:
    """`tail lost`: Redis forgets what it had confirmed just now. `kill`: what was in memory only is gone."""
    stream: Entries = []
    disk = Disk()
    process = Process(7, stream, disk)
    number, burnt = 0, False
    gone: set[int] = set()
    for now, event in enumerate(events):
        if event == "frames":
            for _ in range(70):
                process.buffer.append(frame(number))
                number += 1
        elif event == "commit":
            process.commit(now)
        elif event in ("applied, reply lost", "lost"):
            entries = process.burst(now)
            stream += entries if event == "applied, reply lost" else []
            process.resume(now)
        elif event == "tail lost":
            # Not what an earlier process wrote: that is not kept in our memory.
            del stream[max(process.wrote, len(stream) - 2) :]
            process.resume(now)
        elif event == "doubt":
            process.resume(now)
        elif event == "kill":
            gone |= set(range(number)) - {*numbers(stream), *numbers(disk.entries)}
            process = Process(process.writer + 1, stream, disk)
        else:
            process.spool({"spool": 1, "part": 0.5}.get(event, 0), event == "in doubt")
            burnt = burnt or event == "in doubt"
    while process.commit(len(events)) or not process.buffer.empty:
        pass
    assert numbers(stream) == [each for each in range(number) if each not in gone]
    assert places(stream) == sorted(set(places(stream)))
    if not burnt:
        for writer in {w for w, _ in places(stream)}:
            of_it = [n for w, n in places(stream) if w == writer]
            assert of_it == list(range(1, len(of_it) + 1)), "no number stays out where nothing was dropped"
    for later in range(2):
        process.buffer.append(frame(number + later))
        while process.commit(len(events) + 100 * (later + 1)):
            pass
    assert disk.dropped == len(disk.entries), "all of it may go once it was kept long enough"


def test_what_comes_back_from_disk_is_older_than_what_was_dropped_meanwhile() -> None:
    """One hole, told before what comes after it."""
    buffer = Buffer(6 * MOST_FRAMES * 160, 30)
    buffer.resume(7, None, 0)
    for number in range(3 * MOST_FRAMES):
        buffer.append(frame(number))
    assert [entry.n for entry in buffer.spool()] == [1, 2, 3]
    lost = sum(buffer.append(frame(number)) for number in range(3 * MOST_FRAMES, 12 * MOST_FRAMES))
    assert lost > 0
    lost += buffer.spooled(1)
    entries: Entries = []
    while burst := buffer.burst():
        entries += burst
        buffer.confirm(len(burst), 0)
    assert [entry.n for entry in entries] == list(range(3, len(entries) + 3)), "1 is on disk, 2 stays out"
    assert MOST_FRAMES + lost + len(numbers(entries)) == 12 * MOST_FRAMES
    assert numbers(entries) == list(range(MOST_FRAMES + lost, 12 * MOST_FRAMES))


class Told:
    """Errors for people."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> None:
        self.texts.append(text)


def entries_of(start: int, end: int, writer: int = 7, size: int = 1_000) -> Entries:
    return [RawEntry(writer, n, (frame(n, size=size),)) for n in range(start, end)]


async def opened(folder: Path, most_bytes: int = BIG) -> tuple[Spool, Told]:
    told = Told()
    spool = Spool(folder, most_bytes, told)
    await spool.open()
    return spool, told


async def drain(spool: Spool) -> Entries:
    entries: Entries = []
    while spool.unread:
        entries += [each.entry for each in await spool.read()]
    return entries


async def test_the_next_process_finds_what_was_left_and_says_whose_it_is(tmp_path: Path) -> None:
    spool, told = await opened(tmp_path)
    assert await spool.append(entries_of(1, 50), SENT) == (49, False)
    assert await spool.append(entries_of(1, 5, writer=9), SENT) == (4, False)
    first = await spool.read()
    await spool.drop(first[9].position)
    await spool.close()
    spool, told = await opened(tmp_path)
    assert spool.newest_writer == 9
    assert spool.unread
    row = spool.row()
    assert (row["records"], row["oldest"], row["dropped"], row["damaged"]) == (43, 11, 0, 0)
    assert row["bytes"] > 43_000
    assert await drain(spool) == [*entries_of(11, 50), *entries_of(1, 5, writer=9)]
    assert spool.row()["oldest"] is None
    assert told.texts == []
    await spool.close()


async def test_where_the_bound_is_reached_the_oldest_go_and_a_number_stays_out(tmp_path: Path) -> None:
    spool, told = await opened(tmp_path, most_bytes=100_000)
    given = 0
    while spool.dropped == 0:
        given += 10
        assert await spool.append(entries_of(given - 9, given + 1), SENT) == (10, False)
    left = await drain(spool)
    assert left == entries_of(given - len(left) + 1, given + 1)
    assert spool.dropped == given - len(left) > 1
    assert len(told.texts) == 1
    assert "the spool is full" in told.texts[0]
    await spool.close()


async def test_what_later_frames_are_read_by_outlives_the_bound(tmp_path: Path) -> None:
    spool, _ = await opened(tmp_path, most_bytes=100_000)
    kinds = ["open", "subscription", "ws", "ws"]
    head = [RawEntry(7, n, (frame(n, kind),)) for n, kind in enumerate(kinds, start=1)]
    await spool.append([*head, *entries_of(5, 60)], SENT)
    await spool.append(entries_of(60, 120), SENT)
    left = await drain(spool)
    saved, rest = left[0], left[1:]
    assert [one.kind for one in saved.frames] == ["open", "subscription"]
    assert saved.n == rest[0].n - 1, "the last of those that are lost"
    assert places(left) == [(7, n) for n in range(saved.n, 120)]
    assert spool.dropped == saved.n - 2
    await spool.close()


async def test_of_a_process_that_is_gone_altogether_nothing_is_saved(tmp_path: Path) -> None:
    spool, _ = await opened(tmp_path, most_bytes=100_000)
    await spool.append([RawEntry(6, 1, (frame(1, "open"),)), *entries_of(1, 60)], SENT)
    await spool.append(entries_of(60, 120), SENT)
    left = await drain(spool)
    assert {entry.w for entry in left} == {7}
    assert numbers(left) == list(range(numbers(left)[0], 120))
    await spool.close()


async def test_an_entry_larger_than_the_bound_stays_in_memory(tmp_path: Path) -> None:
    spool, told = await opened(tmp_path, most_bytes=100_000)
    assert await spool.append(entries_of(1, 2, size=200_000), SENT) == (0, False)
    assert "frames wait in memory" in told.texts[0]
    await spool.close()


async def test_an_entry_of_another_version_is_told_and_counted(tmp_path: Path) -> None:
    segments = Segments(tmp_path, most_bytes=BIG)
    segments.append([b"garbage", msgspec.msgpack.encode((99, 7, 1, ()))])
    segments.sync()
    segments.close()
    spool, told = await opened(tmp_path)
    await spool.append(entries_of(2, 3), SENT)
    assert await drain(spool) == entries_of(2, 3)
    assert spool.row()["damaged"] >= 2
    assert any("version 99" in text for text in told.texts)
    await spool.close()


def harm(folder: Path, what: bytes) -> None:
    """Turns a bit in the only file."""
    (file,) = folder.glob("*.seg")
    text = bytearray(file.read_bytes())
    text[text.index(what) + 1] ^= 1
    file.write_bytes(text)


async def test_a_damaged_entry_is_told_and_its_number_stays_out(tmp_path: Path) -> None:
    spool, _ = await opened(tmp_path)
    await spool.append(entries_of(1, 5), SENT)
    await spool.close()
    harm(tmp_path, b"2....")
    spool, told = await opened(tmp_path)
    assert [entry.n for entry in await drain(spool)] == [1, 3, 4]
    assert spool.row()["damaged"] == 1
    assert "1 entries on disk are damaged" in told.texts[0]
    await spool.close()


async def test_without_a_folder_frames_wait_in_memory(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    spool, told = await opened(tmp_path / "spool")
    assert not spool.usable
    assert len(told.texts) == 1
    assert await spool.append(entries_of(1, 2), SENT) == (0, False)
    await spool.close()


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


@pytest.fixture
def tiny_disk() -> Iterator[Path]:
    """A file system of 96 KiB, where we may mount one."""
    place = Path(tempfile.mkdtemp(prefix="tl-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        if not mounted:
            pytest.skip("may not mount a small disk")
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place)


async def test_a_full_disk_leaves_frames_in_memory_until_redis_is_back(
    redis_server: RedisServer, tiny_disk: Path
) -> None:
    fixture = Spooling(redis_server.url, tiny_disk)
    async with fixture.running():
        await fixture.seen()
        await asyncio.to_thread(redis_server.kill)
        fixture.append(5_000)
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


class Child:
    """tests.ingest.spooling as a process; `said` is what it said last of each word."""

    def __init__(self, url: str, folder: Path, started: int, first: int) -> None:
        command = [sys.executable, "-m", "tests.ingest.spooling", url, str(folder), str(started), str(first)]
        self.said = {"given": first - 1, "safe": -1, "idle": -1}
        self._process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                word, number = line.split()
                self.said[word] = int(number)

    async def says(self, word: str, more_than: int) -> None:
        async def more() -> bool:
            assert self._process.poll() is None, "it ended by itself"
            return self.said[word] > more_than

        await eventually(more)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)
        self._thread.join(DEADLINE)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def children() -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        child.kill()


async def test_killed_while_redis_is_away(redis_server: RedisServer, tmp_path: Path, children: list[Child]) -> None:
    child = Child(redis_server.url, tmp_path, STARTED, 0)
    children.append(child)
    await child.says("idle", 100)
    await asyncio.to_thread(redis_server.kill)
    before = child.said["given"]
    await child.says("safe", before)
    await child.says("safe", child.said["safe"])
    child.kill()
    await asyncio.to_thread(redis_server.start)
    first = child.said["given"] + 1000
    second = Child(redis_server.url, tmp_path, STARTED + 1, first)
    children.append(second)
    await second.says("idle", first)
    second.kill()
    entries = await read_raw(redis_server.url)
    there = numbers(entries)
    old = [number for number in there if number < first]
    assert old == list(range(len(old)))
    assert old[-1] >= child.said["safe"]
    assert there == sorted(set(there))
    assert there[-1] >= second.said["idle"]
    for writer in (STARTED, STARTED + 1):
        of_it = [n for w, n in places(entries) if w == writer]
        assert of_it == list(range(1, len(of_it) + 1))


@pytest.mark.parametrize("seed", range(int(os.environ.get("TAPELINE_KILLS", "2"))))
async def test_killed_at_random_with_redis_killed_at_random(
    redis_server: RedisServer, tmp_path: Path, children: list[Child], seed: int
) -> None:
    """What each process told to be safe is there once, in order; what it did not may be missing at its end only."""
    # With `everysec` a slow disk makes Redis acknowledge what it has not handed to the kernel yet; killed together with
    # the process that still holds it, it forgets that.
    await asyncio.to_thread(redis_server.stop)
    redis_server.options["appendfsync"] = "no"
    await asyncio.to_thread(redis_server.start)
    chance = random.Random(seed)
    safe: list[tuple[int, int, int]] = []
    first = 0
    for turn in range(5):
        child = Child(redis_server.url, tmp_path, STARTED + turn, first)
        children.append(child)
        await child.says("given", first)
        for _ in range(chance.randint(0, 2)):
            await child.says("idle", child.said["given"])
            await asyncio.to_thread(redis_server.kill)
            await child.says("given", child.said["given"] + chance.randint(0, 3_000))
            await asyncio.to_thread(redis_server.start)
        if chance.random() < 0.5:
            await child.says("idle", first)
            await asyncio.to_thread(redis_server.kill)
        await child.says("given", child.said["given"] + chance.randint(0, 2_000))
        child.kill()
        safe.append((first, child.said["given"], max(child.said["safe"], child.said["idle"])))
        first = child.said["given"] + 10_000
        if redis_server._process is None:
            await asyncio.to_thread(redis_server.start)
    last = Child(redis_server.url, tmp_path, STARTED + 99, first)
    children.append(last)
    await last.says("idle", first)
    last.kill()
    entries = await read_raw(redis_server.url)
    there = numbers(entries)
    assert there == sorted(set(there))
    assert places(entries) == sorted(set(places(entries)))
    for start, end, sure in safe:
        of_it = [number for number in there if start <= number < end + 10_000]
        assert of_it == list(range(start, start + len(of_it)))
        assert start + len(of_it) > sure
