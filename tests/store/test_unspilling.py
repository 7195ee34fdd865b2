"""What is loaded from disk goes between what is stored and what the streams have, also where ids begin again."""

import asyncio
import itertools
from pathlib import Path

import psycopg
import pytest

from pipeline.records import encode
from tests.servers import PostgresServer
from tests.store.made import KEYS, clock, eventually, publish, query, ready, start, trade
from tests.store.spilled import COUNT, PATIENCE, SUM, all_of, connected, cut, lengths, safe, told, trades


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
