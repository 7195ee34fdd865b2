"""What waits on disk for Postgres: every row once, whatever goes away, is killed, is full or comes back as another."""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from pipeline.errors import SettingsError
from pipeline.records import encode
from pipeline.steps import Entry, stream_id
from pipeline.trimmer import Promise, trim
from pipeline.wire import Wire, check
from store.spill import VERSION, Part, Spill, Spilled
from store.spilling import needed
from tests.servers import PostgresServer, RedisServer, wait_until
from tests.store.made import (
    KEYS,
    Running,
    book,
    clock,
    eventually,
    publish,
    query,
    quote,
    ready,
    start,
    ticker,
    trade,
)

PATIENCE = 0.2
COUNT = "SELECT count(*) FROM trades"
SUM = "SELECT count(*), count(DISTINCT sequence), sum(sequence), min(sequence), max(sequence) FROM trades"
KEYLESS = "SELECT (SELECT count(*) FROM quotes), (SELECT count(*) FROM tickers), (SELECT count(*) FROM orderbooks)"
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


def all_of(last: int) -> list[tuple[int, ...]]:
    """What SUM gives when trades 1 … last are stored once each."""
    return [(last, last, last * (last + 1) // 2, 1, last)]


def spill_of(running: Running) -> dict[str, object]:
    (row,) = running.heartbeat.report().details["spill"].values()
    return dict(row)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    wire = await Wire.open(url)
    try:
        yield wire
    finally:
        await wire.close()


async def lengths(url: str, kind: str = "trade") -> int:
    async with connected(url) as wire:
        return int(check((await wire.call(("XLEN", KEYS.stream(kind))))[0]))


async def safe(url: str, last: bytes, kind: str = "trade") -> None:
    """Waits until the group shows that all up to `last` is safe."""
    for _ in range(2000):
        async with connected(url) as wire:
            (groups,) = await wire.call(("XINFO", "GROUPS", KEYS.stream(kind)))
        facts = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in check(groups)]
        shown = {group[b"name"]: group[b"last-delivered-id"] for group in facts}.get(b"store")
        if shown == last:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the group stands at {shown}, not at {last!r}")


async def cut(url: str) -> None:
    """Trims the streams to what store has shown as safe; aggregate is there too, far ahead."""
    async with connected(url) as wire:
        await wire.call(("XGROUP", "CREATE", KEYS.trade, "aggregate", "$", "MKSTREAM"))
        await wire.call(("XGROUP", "SETID", KEYS.trade, "aggregate", "99999999999999-0"))
        await trim(wire, KEYS, Promise(0, 0))
        # The server cuts whole nodes only; the test wants every entry gone that may go.
        (floors,) = await wire.call(("HGETALL", KEYS.floor))
        pairs = zip(floors[::2], floors[1::2], strict=True)
        for stream, floor in pairs:
            milliseconds, number = stream_id(floor)
            check((await wire.call(("XTRIM", stream, "MINID", f"{milliseconds}-{number + 1}")))[0])


async def trades(url: str, numbers: "itertools.count[int]", count: int) -> bytes:
    """Publishes the next `count`; the last one's entry."""
    return (await publish(url, [trade(next(numbers)) for _ in range(count)]))[-1]


def signal_all(server: PostgresServer, number: signal.Signals) -> None:
    """To the server and all its backends."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    for pid in (server.pid, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def test_postgres_stopped_under_load_while_the_streams_are_trimmed(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    url = ready(own_postgres.create_database("tape"))
    running = start(redis_url, url, tmp_path, patience=PATIENCE, most_rows=200, age=0.01)
    numbers = itertools.count(1)
    for turn in range(3):
        await trades(redis_url, numbers, 500)
        await asyncio.to_thread(own_postgres.kill if turn % 2 else own_postgres.stop)
        for _ in range(5):
            last = await trades(redis_url, numbers, 400)
            await publish(redis_url, [quote(next(numbers)), ticker(next(numbers)), book(next(numbers) * 10)])
            await safe(redis_url, last)
            await cut(redis_url)
            assert await lengths(redis_url) <= 1
        row = spill_of(running)
        assert row["spilling"] is True
        assert isinstance(row["bytes"], int)
        assert row["bytes"] > 2_000 * 200
        assert isinstance(row["oldest"], int)
        await asyncio.to_thread(own_postgres.start)
        await trades(redis_url, numbers, 100)
        expected = (turn + 1) * 2_600
        await eventually(url, COUNT, expected, 60)
    await running.finish()
    assert query(url, "SELECT count(*), count(DISTINCT (instrument_id, sequence)) FROM trades") == [(7800, 7800)]
    assert query(url, KEYLESS) == [(15, 15, 15)]
    assert running.heartbeat.counters["known"] == 0
    row = spill_of(running)
    assert (row["bytes"], row["records"], row["oldest"], row["spilling"]) == (0, 0, None, False)


async def test_a_postgres_that_hangs_is_away_too(redis_url: str, own_postgres: PostgresServer, tmp_path: Path) -> None:
    url = ready(own_postgres.create_database("tape"))
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    numbers = itertools.count(1)
    await trades(redis_url, numbers, 100)
    await eventually(url, COUNT, 100)
    signal_all(own_postgres, signal.SIGSTOP)
    try:
        for _ in range(4):
            last = await trades(redis_url, numbers, 250)
            await safe(redis_url, last)
            await cut(redis_url)
        assert await lengths(redis_url) <= 1
        assert running.heartbeat.waiting_for == "postgres"
    finally:
        signal_all(own_postgres, signal.SIGCONT)
    await eventually(url, COUNT, 1100, 90)
    await running.finish()
    assert query(url, SUM) == all_of(1100)
    assert running.heartbeat.counters["known"] == 0
    assert running.heartbeat.waiting_for is None


async def test_both_servers_killed(redis_server: RedisServer, own_postgres: PostgresServer, tmp_path: Path) -> None:
    url = ready(own_postgres.create_database("tape"))
    redis_server.options["appendfsync"] = "always"
    await asyncio.to_thread(redis_server.restart)
    running = start(redis_server.url, url, tmp_path, patience=PATIENCE, most_rows=100, age=0.01)
    numbers = itertools.count(1)
    for turn in range(3):
        await trades(redis_server.url, numbers, 300)
        await asyncio.to_thread(own_postgres.kill)
        last = await trades(redis_server.url, numbers, 300)
        await safe(redis_server.url, last)
        await cut(redis_server.url)
        await trades(redis_server.url, numbers, 300)
        await asyncio.to_thread(redis_server.kill)
        await asyncio.to_thread(own_postgres.start if turn % 2 else redis_server.start)
        await asyncio.to_thread(redis_server.start if turn % 2 else own_postgres.start)
        await eventually(url, COUNT, (turn + 1) * 900, 60)
    await running.finish()
    assert query(url, SUM) == all_of(2700)


async def test_stopped_while_postgres_is_away_and_started_again(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """Also a start without Postgres goes to disk, behind what is there."""
    url = ready(own_postgres.create_database("tape"))
    numbers = itertools.count(1)
    await asyncio.to_thread(own_postgres.stop)
    for _ in range(3):
        running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
        await safe(redis_url, await trades(redis_url, numbers, 300))
        await cut(redis_url)
        await running.finish()
    await trades(redis_url, numbers, 100)
    await asyncio.to_thread(own_postgres.start)
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    await eventually(url, COUNT, 1000, 60)
    await running.finish()
    assert query(url, SUM) == all_of(1000)
    assert running.heartbeat.report().errors == 0
    assert query(url, "SELECT entries FROM cursors WHERE stream = %s", KEYS.trade) == [(1000,)]


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


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.seg"))


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


async def told(running: Running, text: str) -> None:
    """Waits until the last error says so."""
    for _ in range(3000):
        if text in (running.heartbeat.report().last_error or ""):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it says {running.heartbeat.report().last_error!r}")


async def trouble(running: Running, text: str) -> None:
    for _ in range(3000):
        if text in str(spill_of(running)["trouble"]):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it says {spill_of(running)}")


async def test_at_the_bound_the_streams_fill_and_nothing_is_dropped(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    url = ready(own_postgres.create_database("tape"))
    bound = 400_000
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01, most_rows=200, most_bytes=bound)
    await eventually(url, "SELECT count(*) > 0 FROM cursors", True)
    await asyncio.to_thread(own_postgres.stop)
    numbers = itertools.count(1)
    for _ in range(10):
        await trades(redis_url, numbers, 500)
    await trouble(running, "bound")
    await cut(redis_url)
    assert 3_000 < await lengths(redis_url) < 5_000
    row = spill_of(running)
    assert isinstance(row["bytes"], int)
    assert bound / 2 < row["bytes"] <= bound
    assert size(tmp_path) <= bound
    await asyncio.to_thread(own_postgres.start)
    await eventually(url, COUNT, 5000, 60)
    await running.finish()
    assert query(url, SUM) == all_of(5000)
    assert (spill_of(running)["trouble"], spill_of(running)["bytes"]) == (None, 0)


async def test_what_comes_while_much_is_loaded_goes_behind_it(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock holds up the loading; the streams go on being emptied, and all is stored in the end."""
    monkeypatch.setattr("store.spilling.ENOUGH_BYTES", 100_000)
    monkeypatch.setattr("store.unspilling.NEARLY_DONE", 50_000)
    url = ready(own_postgres.create_database("tape"))
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01, most_rows=200)
    await eventually(url, "SELECT count(*) > 0 FROM cursors", True)
    await asyncio.to_thread(own_postgres.stop)
    numbers = itertools.count(1)
    await safe(redis_url, await trades(redis_url, numbers, 2000))
    await asyncio.to_thread(own_postgres.start)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("LOCK TABLE trades")
        for _ in range(5):
            await safe(redis_url, await trades(redis_url, numbers, 500))
            await cut(redis_url)
        assert await lengths(redis_url) <= 1
    await eventually(url, COUNT, 4500, 60)
    await trades(redis_url, numbers, 500)
    await eventually(url, COUNT, 5000, 60)
    await running.finish()
    assert query(url, SUM) == all_of(5000)
    assert running.heartbeat.counters["known"] == 0


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """256 KiB; where nothing may be mounted, the machine has no such disk to try."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_leaves_the_rest_in_the_streams(
    redis_url: str, own_postgres: PostgresServer, tiny_disk: Path
) -> None:
    url = ready(own_postgres.create_database("tape"))
    running = start(redis_url, url, tiny_disk, patience=PATIENCE, age=0.01, most_rows=200)
    await eventually(url, "SELECT count(*) > 0 FROM cursors", True)
    await asyncio.to_thread(own_postgres.stop)
    numbers = itertools.count(1)
    for _ in range(10):
        await trades(redis_url, numbers, 500)
    await trouble(running, "No space left")
    await cut(redis_url)
    assert await lengths(redis_url) > 3_000
    await asyncio.to_thread(own_postgres.start)
    await eventually(url, COUNT, 5000, 60)
    await running.finish()
    assert query(url, SUM) == all_of(5000)


async def test_a_redis_that_loses_all_and_gives_ids_out_again_meanwhile(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """Its clock is set back besides: the new ids lie below all that is stored and on disk."""
    url = ready(own_postgres.create_database("tape"))
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    numbers = itertools.count(1)
    await trades(redis_url, numbers, 200)
    await eventually(url, COUNT, 200)
    await asyncio.to_thread(own_postgres.stop)
    await safe(redis_url, await trades(redis_url, numbers, 300))
    await running.finish()
    async with connected(redis_url) as wire:
        await wire.call(("FLUSHALL",))
        fields = [("symbol", "BTC-USDT", "data", encode(trade(number))) for number in range(401, 801)]
        await wire.call(*(("XADD", KEYS.trade, f"1000-{at}", *pair) for at, pair in enumerate(fields)))
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    await safe(redis_url, b"1000-399")
    await cut(redis_url)
    await asyncio.to_thread(own_postgres.start)
    await eventually(url, COUNT, 800, 60)
    await running.finish()
    assert query(url, SUM) == all_of(800)
    assert running.heartbeat.counters["known"] == 100


async def test_the_same_with_nothing_on_disk(redis_url: str, own_postgres: PostgresServer, tmp_path: Path) -> None:
    url = ready(own_postgres.create_database("tape"))
    running = start(redis_url, url, tmp_path, age=0.01)
    numbers = itertools.count(1)
    await trades(redis_url, numbers, 200)
    await eventually(url, COUNT, 200)
    await running.finish()
    await asyncio.to_thread(own_postgres.stop)
    async with connected(redis_url) as wire:
        await wire.call(("FLUSHALL",))
        fields = [("symbol", "BTC-USDT", "data", encode(trade(number))) for number in range(151, 401)]
        await wire.call(*(("XADD", KEYS.trade, f"1000-{at}", *pair) for at, pair in enumerate(fields, start=1)))
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    await safe(redis_url, b"1000-250")
    await asyncio.to_thread(own_postgres.start)
    await eventually(url, COUNT, 400, 60)
    await running.finish()
    assert query(url, SUM) == all_of(400)


async def test_a_postgres_from_a_backup_gets_what_the_streams_still_have_before_what_is_on_disk(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    url = ready(own_postgres.create_database("tape"))
    numbers = itertools.count(1)
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    await trades(redis_url, numbers, 300)
    await eventually(url, COUNT, 300)
    (backup,) = query(url, "SELECT id, entries FROM cursors WHERE stream = %s", KEYS.trade)
    await trades(redis_url, numbers, 300)
    await eventually(url, COUNT, 600)
    await asyncio.to_thread(own_postgres.stop)
    await safe(redis_url, await trades(redis_url, numbers, 300))
    await running.finish()
    await asyncio.to_thread(own_postgres.start)
    query(url, "DELETE FROM trades WHERE sequence > 300 RETURNING 1")
    update = "UPDATE cursors SET id = %s, entries = %s WHERE stream = %s RETURNING 1"
    query(url, update, *backup, KEYS.trade)
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    await eventually(url, COUNT, 900, 60)
    await running.finish()
    assert query(url, SUM) == all_of(900)
    assert running.heartbeat.report().errors == 0


async def test_another_database_gets_all_there_is_and_what_is_gone_is_told(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    url = ready(own_postgres.create_database("tape"))
    numbers = itertools.count(1)
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    await trades(redis_url, numbers, 300)
    await eventually(url, COUNT, 300)
    await running.finish()
    await cut(redis_url)
    await asyncio.to_thread(own_postgres.stop)
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    await safe(redis_url, await trades(redis_url, numbers, 300))
    await running.finish()
    await asyncio.to_thread(own_postgres.start)
    other = ready(own_postgres.create_database("other"))
    running = start(redis_url, other, tmp_path, patience=PATIENCE, age=0.01)
    await told(running, "was trimmed to")
    await trades(redis_url, numbers, 100)
    await eventually(other, "SELECT max(sequence) FROM trades", 700, 60)
    await running.finish()
    # Of the first 300 the stream has the last one still: the floor itself is not cut.
    assert query(other, "SELECT min(sequence), count(*) FROM trades") == [(300, 401)]


async def test_unusable_entries_are_buried_when_they_are_loaded(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    url = ready(own_postgres.create_database("tape"))
    running = start(redis_url, url, tmp_path, patience=PATIENCE, age=0.01)
    await eventually(url, "SELECT count(*) > 0 FROM cursors", True)
    await asyncio.to_thread(own_postgres.stop)
    await publish(redis_url, [trade(1), trade(2, price="x"), clock(trade(2).received)])
    await safe(redis_url, (await publish(redis_url, [trade(3)]))[-1])
    await asyncio.to_thread(own_postgres.start)
    await eventually(url, COUNT, 2, 60)
    await running.finish()
    assert await lengths(redis_url, "dead") == 1
    assert running.heartbeat.counters["buried"] == 1
    assert query(url, "SELECT count(*) FROM clocks") == [(1,)]


async def test_a_start_waits_for_whoever_has_the_folder(redis_url: str, database_url: str, tmp_path: Path) -> None:
    stop = asyncio.Event()
    holder = made(tmp_path / "spill" / "store-0", [])
    await holder.open(stop)
    running = start(redis_url, ready(database_url), tmp_path, age=0.01)
    await publish(redis_url, [trade(1)])
    await told(running, "in use by another process")
    assert query(database_url, COUNT) == [(0,)]
    await holder.close()
    await eventually(database_url, COUNT, 1)
    await running.finish()


def made(folder: Path, reports: list[str], namespace: str = "test") -> Spill:
    return Spill(folder, 1 << 20, reports.append, namespace=namespace, clock=itertools.count(0, 10**9).__next__)


def record(number: int, namespace: str = "test", version: int = VERSION) -> Spilled:
    part = Part("trade", f"{number - 1}-0", f"{number}-0", 1, False, [Entry(b"%d-0" % number, {b"data": b"x"})])
    return Spilled(version, namespace, number, [part], {"trade": (f"{number}-0", number)})


def tear(folder: Path) -> None:
    """As a kill in the middle of the last write leaves it."""
    (path,) = folder.glob("*.seg")
    os.truncate(path, path.stat().st_size - 3)


async def test_what_is_on_disk_outlives_the_process(tmp_path: Path) -> None:
    reports: list[str] = []
    spill, stop = made(tmp_path, reports), asyncio.Event()
    await spill.open(stop)
    assert await spill.append([record(n) for n in range(1, 11)]) == 10
    (*_, fifth, _, _, _, _, _) = await spill.read()
    assert fifth.record == record(5)
    await spill.drop(fifth.position)
    await spill.close()
    tear(tmp_path)
    spill = made(tmp_path, reports)
    await spill.open(stop)
    assert spill.row()["oldest"] == 6
    assert spill.reach == {"trade": ("9-0", 9)}
    assert [each.record for each in await spill.read()] == [record(n) for n in range(6, 10)]
    assert "torn by a crash" in reports[0]
    await spill.close()


async def test_the_pace_of_loading_shows(tmp_path: Path) -> None:
    spill = made(tmp_path, [])
    await spill.open(asyncio.Event())
    await spill.append([record(n) for n in range(1, 11)])
    assert (spill.row()["rate"], spill.row()["seconds_left"]) == (None, None)
    each = spill.waiting / 10
    first, second, *_ = await spill.read()
    await spill.drop(first.position)
    await spill.drop(second.position)
    row = spill.row()
    # Two records in the two seconds since the first row.
    assert row["rate"] == pytest.approx(each, abs=1)
    assert row["seconds_left"] == pytest.approx(8, abs=0.5)
    await spill.close()


@pytest.mark.parametrize(
    ("left", "text"), [(record(1, "sim"), "namespace sim"), (record(1, version=VERSION + 1), "of version")]
)
async def test_records_that_are_not_ours_stop_the_start_and_stay(tmp_path: Path, left: Spilled, text: str) -> None:
    other = made(tmp_path, [], "sim")
    await other.open(asyncio.Event())
    await other.append([left])
    await other.close()
    spill = made(tmp_path, [])
    with pytest.raises(SettingsError, match=text):
        await spill.open(asyncio.Event())
    await spill.close()
    assert size(tmp_path) > 70


async def test_without_a_folder_nothing_is_spilled_and_all_goes_on(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "spill").write_text("a file")
    running = start(redis_url, ready(database_url), tmp_path, age=0.01)
    await publish(redis_url, [trade(1)])
    await eventually(database_url, COUNT, 1)
    await running.finish()
    assert "cannot open the spill" in (running.heartbeat.report().last_error or "")


def test_of_books_only_those_that_may_be_stored_are_kept() -> None:
    books = [
        book(10),
        book(11, grid=False),
        book(12, grid=False, valid=False, reason="gap"),
        book(13, grid=False, valid=False, reason="gap"),
        book(14, grid=False, instrument="ETH-USDT"),
        book(15, grid=False),
    ]
    entries = [Entry(b"%d-0" % n, {b"data": encode(each)}) for n, each in enumerate(books)]
    entries.append(Entry(b"6-0", {b"data": b"{"}))
    assert [int(entry.id[:1]) for entry in needed("orderbook", entries)] == [0, 2, 4, 5, 6]
    assert needed("trade", entries) == entries
