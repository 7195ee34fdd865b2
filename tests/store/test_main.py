"""The whole process from settings: every partition stored, settings errors told."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from pipeline import reports, settings
from pipeline.errors import SettingsError
from pipeline.settings import Settings, SettingsFile
from pipeline.streams import Keys
from store import main
from tests.store.made import eventually, publish, query, ready, trade


def made_settings(tmp_path: Path, redis_url: str, database_url: str) -> Settings:
    pair = settings.TradingPair(symbol="BTC-USDT")
    exchange = settings.ExchangeSettings(trading_pairs=(pair,), partitions=2)
    file = SettingsFile(exchanges={"okx": exchange}, redis=settings.RedisSettings(namespace="test"))
    environ = {"REDIS_URL": redis_url, "DATABASE_URL": database_url}
    return settings.complete(file, tmp_path / "config" / "data_collection.json", environ)


async def test_a_process_stores_all_its_partitions(redis_url: str, database_url: str, tmp_path: Path) -> None:
    made = made_settings(tmp_path, redis_url, ready(database_url))
    stop = asyncio.Event()
    running = asyncio.create_task(main.run(made, "store-0", stop))
    for number, partition in enumerate(("okx.0", "okx.1")):
        keys = Keys("test", partition)
        name = f"C{number}-USDT"
        await publish(redis_url, [trade(n, instrument=name, symbol=name) for n in range(1, 101)], keys)
    await eventually(database_url, "SELECT count(*) FROM trades", 200)
    stop.set()
    await running
    report = reports.read(made.heartbeat_dir / "store-0")
    assert report.status == "stopped"
    assert report.details["tables"]["trades"]["rows"] == 200
    assert report.details["retention"] == {"dropped": 0, "last_dropped": None, "held": {}, "trouble": None}
    shown = query(database_url, "SELECT stream FROM cursors WHERE entries = 100 ORDER BY stream")
    assert shown == [("test:trade:{okx.0}",), ("test:trade:{okx.1}",)]


async def test_two_processes_of_other_names_do_not_store_side_by_side(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    """Either would take for stored what the other has on disk."""
    made = made_settings(tmp_path, redis_url, ready(database_url))
    stops = [asyncio.Event(), asyncio.Event()]
    first = asyncio.create_task(main.run(made, "store-0", stops[0]))
    keys = Keys("test", "okx.0")
    await publish(redis_url, [trade(number) for number in range(1, 101)], keys)
    await eventually(database_url, "SELECT count(*) FROM trades", 100)
    second = asyncio.create_task(main.run(made, "store-1", stops[1]))
    while "in use by another process" not in (told(made) or ""):
        await asyncio.sleep(0.05)
    stops[0].set()
    await first
    await publish(redis_url, [trade(number) for number in range(101, 201)], keys)
    await eventually(database_url, "SELECT count(*) FROM trades", 200)
    stops[1].set()
    await second
    told_last = reports.read(made.heartbeat_dir / "store-1").details
    assert told_last["tables"]["trades"]["rows"] == 100
    assert "retention" not in told_last, "one process drops"


def told(made: Settings) -> str | None:
    """The last error of the second store."""
    path = made.heartbeat_dir / "store-1"
    return reports.read(path).last_error if path.exists() else None


async def test_a_newer_schema_stops_it(redis_url: str, database_url: str, tmp_path: Path) -> None:
    made = made_settings(tmp_path, redis_url, ready(database_url))
    query(database_url, "INSERT INTO migrations VALUES (9999, 'later', 'x') RETURNING 1")
    with pytest.raises(SettingsError, match="newer version"):
        await main.run(made, "store-0", asyncio.Event())


def test_it_runs_on_uvloop(redis_url: str, database_url: str, tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_process_stores_all_its_partitions(redis_url, database_url, tmp_path))
