"""Processes killed while frames wait on disk: what they told to be safe is written by the next."""

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ingest.conftest import DEADLINE, eventually, read_raw
from tests.ingest.spooled import numbers, places
from tests.ingest.test_writer import STARTED
from tests.servers import RedisServer

PROJECT = Path(__file__).parents[2]


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
