"""The program that docs/streams.md gives to readers outside, run as it stands there, on a real Redis."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.trimmer import Promise, trim
from pipeline.wire import Wire, check
from tests.demo.outsider import program
from tests.pipeline.test_trimmer import KEYS
from tests.servers import RedisServer, wait_until

NOTHING = Promise(milliseconds=-100_000, entries=0)


@pytest.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[Wire]:
    opened = await Wire.open(redis_server.url)
    yield opened
    await opened.close()


async def publish(wire: Wire, first: int, last: int) -> None:
    """Trades of these numbers, read by all of ours."""
    for number in range(first, last + 1):
        data = json.dumps({"instrument": "BTC-USDT", "sequence": number, "price": "1", "size": "1"})
        await wire.call(("XADD", KEYS.trade, "*", "symbol", "BTC-USDT", "data", data))
    for group in ("aggregate", "store"):
        await wire.call(("XGROUP", "CREATE", KEYS.trade, group, "$"), ("XGROUP", "SETID", KEYS.trade, group, "$"))


def stored(folder: Path) -> list[int]:
    with sqlite3.connect(folder / "outside.db") as found:
        if not found.execute("SELECT 1 FROM sqlite_master WHERE name = 'trades'").fetchone():
            return []
        return [number for (number,) in found.execute("SELECT sequence FROM trades ORDER BY sequence")]


def run_until(folder: Path, url: str, last: int) -> str:
    """Runs the program until it has this trade, then kills it; what it said."""
    environ = {**os.environ, "REDIS_URL": url}
    told = folder / "told"
    with told.open("wb") as stderr:
        child = subprocess.Popen([sys.executable, "-c", program((KEYS.trade,))], cwd=folder, env=environ, stderr=stderr)
        try:
            wait_until(lambda: last in stored(folder) or child.poll() is not None, f"trade {last}")
        finally:
            child.kill()
            child.wait()
    return told.read_text()


async def test_it_tells_when_entries_were_trimmed_that_it_has_not_read(
    tmp_path: Path, redis_server: RedisServer, wire: Wire
) -> None:
    await publish(wire, 1, 250)
    assert run_until(tmp_path, redis_server.url, 250) == ""
    # What it has read is trimmed, and more comes: it has missed nothing.
    assert (await trim(wire, KEYS, NOTHING))[KEYS.trade] > 100
    await publish(wire, 251, 300)
    assert run_until(tmp_path, redis_server.url, 300) == ""
    await publish(wire, 301, 700)
    assert (await trim(wire, KEYS, NOTHING))[KEYS.trade] > 300
    await publish(wire, 701, 710)
    told = run_until(tmp_path, redis_server.url, 710)
    first = int(
        json.loads(check((await wire.call(("XRANGE", KEYS.trade, "-", "+", "COUNT", 1)))[0])[0][1][3])["sequence"]
    )
    assert first > 301
    assert stored(tmp_path) == [*range(1, 301), *range(first, 711)]
    assert told.startswith(f"{KEYS.trade}: trimmed between ")
    assert told.count("\n") == 1, "once"


async def test_a_first_start_on_a_trimmed_stream_tells_it_too(
    tmp_path: Path, redis_server: RedisServer, wire: Wire
) -> None:
    await publish(wire, 1, 250)
    await trim(wire, KEYS, NOTHING)
    assert "trimmed between 0 and " in run_until(tmp_path, redis_server.url, 250)
