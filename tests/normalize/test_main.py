"""The process on a real Redis: entries in, records out, once, also across a restart."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from normalize.main import run
from pipeline import settings as settings_module
from pipeline.errors import SettingsError
from pipeline.frames import RawEntry, pack
from pipeline.reports import read
from pipeline.settings import Settings
from pipeline.wire import Wire
from tests.normalize.playing import KEYS, clock, entries, opened, play, subscription, trade

RAW = entries(
    [clock(0), opened(0), subscription("subscribed", 0), *(trade(n, n) for n in range(1, 120)), clock(130, a=130)]
)


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return settings_module.complete(
        settings_module.default_file(), tmp_path / "config" / "data_collection.json", {"REDIS_URL": redis_url}
    )


async def write(settings: Settings, raw: list[RawEntry]) -> None:
    wire = await Wire.open(settings.redis_address())
    commands = [("XADD", KEYS.raw, "*", *(part for pair in pack(entry).items() for part in pair)) for entry in raw]
    await wire.call(*commands)
    await wire.close()


async def trade_stream(settings: Settings) -> list[dict[bytes, bytes]]:
    wire = await Wire.open(settings.redis_address())
    found = (await wire.call(("XRANGE", KEYS.trade, "-", "+")))[0]
    await wire.close()
    return [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in found]


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, "normalize-okx", stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await task


async def until_records(settings: Settings, count: int) -> list[dict[bytes, bytes]]:
    async with asyncio.timeout(20):
        while len(found := await trade_stream(settings)) < count:
            await asyncio.sleep(0.05)
    return found


async def test_a_restart_in_the_middle_gives_what_one_run_gives(settings: Settings) -> None:
    expected = [record for _, record in play(RAW).ordered()]
    async with running(settings):
        await write(settings, RAW[:60])
        await until_records(settings, 50)
    async with running(settings):
        await write(settings, RAW[60:])
        await until_records(settings, len(expected))
    assert [json.loads(fields[b"data"]) for fields in await trade_stream(settings)] == expected


async def test_the_report_describes_every_partition(settings: Settings) -> None:
    async with running(settings):
        await write(settings, RAW)
        await until_records(settings, len(play(RAW).ordered()))
    report: Any = read(settings.heartbeat_dir / "normalize-okx")
    row = report.details["partitions"]["okx"]["subscriptions"]["BTC-USDT"]
    assert (row["trades"], row["covered"], row["missing"]) == (119, True, 0)
    assert report.last_data == row["last_message"]


async def test_an_exchange_that_is_not_enabled_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="no exchange 'kraken' is enabled"):
        await run(settings, "normalize-kraken", asyncio.Event())
