"""A store killed while it spills and while it loads: every row once."""

import asyncio
import contextlib
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.servers import PostgresServer, wait_until
from tests.store.made import eventually, publish, query, quote, ready
from tests.store.spilled import COUNT, KEYLESS, cut, size, trades

PROJECT = Path(__file__).parents[2]
CHILD = """
import asyncio, sys
from pathlib import Path
from tests.store.made import start
async def run():
    redis_url, database_url, folder = sys.argv[1:]
    await start(redis_url, database_url, Path(folder), patience=0.2, most_rows=50, age=0.01).task
asyncio.run(run())
"""


class Child:
    """A store in a process of its own, to be killed."""

    def __init__(self, *arguments: str) -> None:
        self._command = [sys.executable, "-c", CHILD, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=PROJECT)

    def kill(self) -> None:
        if self._process is not None:
            assert self._process.poll() is None, "it ended by itself"
            self._process.kill()
            self._process.wait(30)
            self._process = None


@pytest.fixture
def child_of(tmp_path: Path) -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        with contextlib.suppress(AssertionError):
            child.kill()


def grown(folder: Path, before: int) -> bool:
    return size(folder) > before


def loaded(url: str, before: int, last: int) -> bool:
    (stored,) = query(url, COUNT)[0]
    return bool(stored > before or stored == last)


async def test_killed_while_spilling_and_while_loading(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path, child_of: list[Child]
) -> None:
    url = ready(own_postgres.create_database("tape"))
    child = Child(redis_url, url, str(tmp_path))
    child_of.append(child)
    numbers = itertools.count(1)
    chance = random.Random(7)
    folder = tmp_path / "spill" / "store-0"
    for turn in range(3):
        await asyncio.to_thread(own_postgres.kill)
        for _ in range(3):
            child.start()
            before = size(folder)
            for _ in range(10):
                await trades(redis_url, numbers, 100)
                await publish(redis_url, [quote(next(numbers))])
            # At the first bytes it writes, and at any moment of the writing.
            await asyncio.to_thread(wait_until, partial(grown, folder, before), "bytes on disk")
            await asyncio.sleep(chance.random() * 0.05)
            child.kill()
            await cut(redis_url)
        await asyncio.to_thread(own_postgres.start)
        stored = 0
        for _ in range(4):
            child.start()
            await asyncio.to_thread(wait_until, partial(loaded, url, stored, (turn + 1) * 3000), "rows")
            await asyncio.sleep(chance.random() * 0.02)
            child.kill()
            stored = query(url, COUNT)[0][0]
        child.start()
        await eventually(url, COUNT, (turn + 1) * 3000, 60)
        await eventually(url, "SELECT count(*) FROM quotes", (turn + 1) * 30, 60)
        child.kill()
    assert query(url, "SELECT count(*), count(DISTINCT sequence) FROM trades") == [(9000, 9000)]
    assert query(url, KEYLESS) == [(90, 0, 0)]
