"""While Postgres is away the streams are read on: every row once, whatever hangs, is stopped or is full."""

import asyncio
import contextlib
import itertools
import os
import signal
from pathlib import Path

from pipeline.records import encode
from pipeline.steps import Entry
from store.spilling import needed
from tests.servers import PostgresServer, RedisServer
from tests.store.made import KEYS, book, eventually, publish, query, quote, ready, start, ticker, trade
from tests.store.spilled import (
    COUNT,
    KEYLESS,
    PATIENCE,
    SUM,
    all_of,
    cut,
    lengths,
    made,
    safe,
    size,
    spill_of,
    told,
    trades,
    trouble,
    unclaimed,
)


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


async def test_a_store_with_another_disk_passes_over_nothing_that_waits(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """Of another name, on another machine: the streams are cut to what the first one has put on its own disk."""
    url = ready(own_postgres.create_database("tape"))
    first = start(redis_url, url, tmp_path / "here", patience=PATIENCE, age=0.01)
    numbers = itertools.count(1)
    await trades(redis_url, numbers, 100)
    await eventually(url, COUNT, 100)
    await asyncio.to_thread(own_postgres.stop)
    await safe(redis_url, await trades(redis_url, numbers, 400))
    await first.finish()
    await cut(redis_url)
    await asyncio.to_thread(own_postgres.start)
    other = start(redis_url, url, tmp_path / "there", name="store-1", patience=PATIENCE, age=0.01)
    await trades(redis_url, numbers, 100)
    await told(other, "entries wait on another disk")
    assert other.heartbeat.waiting_for == "lease"
    await asyncio.to_thread(own_postgres.stop)
    await told(other, "spill: entries wait on another disk")
    await asyncio.to_thread(own_postgres.start)
    assert query(url, SUM) == all_of(100)
    assert size(tmp_path / "there") == 0
    again = start(redis_url, url, tmp_path / "here", patience=PATIENCE, age=0.01)
    await eventually(url, COUNT, 600)
    await again.finish()
    await trades(redis_url, numbers, 100)
    await eventually(url, COUNT, 700)
    await other.finish()
    assert query(url, SUM) == all_of(700)


async def test_a_store_that_reads_while_another_disk_takes_over_stops(
    redis_url: str, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """Only the other one lost its Postgres: what it puts on disk may be cut before this one comes to it."""
    url = ready(own_postgres.create_database("tape"))
    here = start(redis_url, url, tmp_path / "here", patience=PATIENCE, age=0.01)
    numbers = itertools.count(1)
    await trades(redis_url, numbers, 100)
    await eventually(url, COUNT, 100)
    there = start(redis_url, "postgresql://127.0.0.1:1/none", tmp_path / "there", patience=PATIENCE, age=0.01)
    await told(here, "entries wait on another disk")
    last = await trades(redis_url, numbers, 300)
    await safe(redis_url, last)
    await cut(redis_url)
    assert query(url, SUM) == all_of(100)
    await there.finish()
    again = start(redis_url, url, tmp_path / "there", patience=PATIENCE, age=0.01)
    await eventually(url, COUNT, 400)
    await unclaimed(redis_url)
    await again.finish()
    await trades(redis_url, numbers, 100)
    await eventually(url, COUNT, 500)
    await here.finish()
    assert query(url, SUM) == all_of(500)


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
