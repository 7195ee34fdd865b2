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
    shown = query(database_url, "SELECT stream FROM cursors WHERE entries = 100 ORDER BY stream")
    assert shown == [("test:trade:{okx.0}",), ("test:trade:{okx.1}",)]


async def test_a_newer_schema_stops_it(redis_url: str, database_url: str, tmp_path: Path) -> None:
    made = made_settings(tmp_path, redis_url, ready(database_url))
    query(database_url, "INSERT INTO migrations VALUES (9999, 'later', 'x') RETURNING 1")
    with pytest.raises(SettingsError, match="newer version"):
        await main.run(made, "store-0", asyncio.Event())


def test_it_runs_on_uvloop(redis_url: str, database_url: str, tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_process_stores_all_its_partitions(redis_url, database_url, tmp_path))
