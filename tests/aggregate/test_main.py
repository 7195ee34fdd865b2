"""The process on a real Redis: it works on what settings enable, and what a stop interrupts goes on after it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from aggregate.main import owned, run
from pipeline import reports
from pipeline.errors import SettingsError
from pipeline.settings import Settings, complete, decode
from pipeline.streams import Keys
from pipeline.wire import Wire
from tests.aggregate.made import Player, entries
from tests.aggregate.market import Market
from tests.pipeline.faults import until

NAME = "aggregate-0"
KEYS = Keys("md", "okx.1")


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    pairs = [{"symbol": "BTC-USDT"}]
    tree = {"exchanges": {"okx": {"trading_pairs": pairs, "partitions": 2}}, "redis": {"url": redis_url}}
    path = tmp_path / "settings.json"
    return complete(decode(msgspec.json.encode(tree), path), path, {})


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, NAME, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def test_from_trades_to_candles_over_a_restart(settings: Settings) -> None:
    market = Market(3, ("1s", "5s", "1m")).run(90)
    expected = Player()
    found = entries(market.records)
    expected.play(found)
    wire = await Wire.open(settings.redis_address())

    async def caught_up(last: bytes) -> None:
        async def done() -> bool:
            return (await wire.call(("HGET", KEYS.state("aggregate"), "cursor")))[0] == last

        await until(done, "aggregate to read all of it", 30)

    try:
        for part in (found[:100], found[100:]):
            async with running(settings):
                flat = [(*(pair for field in entry.fields.items() for pair in field),) for entry in part]
                await wire.call(*(("XADD", KEYS.trade, e.id, *f) for e, f in zip(part, flat, strict=True)))
                await caught_up(part[-1].id)
        for timeframe in ("1s", "5s", "1m"):
            rows = (await wire.call(("XRANGE", KEYS.stream(f"candle:{timeframe}"), "-", "+")))[0]
            stream = f"md:candle:{timeframe}:{{okx}}"
            assert [fields[3] for _, fields in rows] == expected.lines[stream]
    finally:
        await wire.close()
    report = reports.read(settings.heartbeat_dir / NAME)
    assert report.status == "stopped"
    assert report.last_data is not None
    assert report.details["partitions"]["okx.1"] == expected.stage.report()
    assert report.details["partitions"]["okx.0"]["instruments"] == 0


def test_it_owns_every_partition(settings: Settings) -> None:
    assert owned(settings, NAME) == {"okx.0": "okx", "okx.1": "okx"}


def test_a_process_that_settings_do_not_call_for_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="aggregate-7"):
        owned(settings, "aggregate-7")
