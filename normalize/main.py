"""The process normalize-<exchange>: a run loop and a trimmer per partition of its exchange. No network but Redis."""

import asyncio
import time

from normalize.stage import NAME, Normalize
from pipeline.errors import SettingsError
from pipeline.exchanges import EXCHANGES
from pipeline.heartbeat import Heartbeat
from pipeline.settings import Settings
from pipeline.stall import watch_work
from pipeline.streams import Keys
from pipeline.trimmer import Promise, trim_forever
from pipeline.wire import Wire
from pipeline.worker import work


async def run(settings: Settings, name: str, stop: asyncio.Event) -> None:
    """Works until `stop` is set and the steps under way are finished. Raises SettingsError; a group with
    ContractBroken."""
    exchange_name = name.removeprefix(f"{NAME}-")
    if exchange_name not in settings.enabled_exchanges():
        raise SettingsError(f"{name}: no exchange {exchange_name!r} is enabled in {settings.path}")
    exchange = EXCHANGES[exchange_name]
    stages: dict[str, Normalize] = {}
    heartbeat = Heartbeat(name, settings.heartbeat_dir)

    def make(keys: Keys) -> Normalize:
        stage = stages[keys.partition] = Normalize(keys, exchange)
        return stage

    def describe() -> dict[str, object]:
        heartbeat.last_data = max((stage.last_data for stage in stages.values() if stage.last_data), default=None)
        return {partition: stage.report() for partition, stage in stages.items()}

    async def open_wire() -> Wire:
        return await Wire.open(settings.redis_address())

    heartbeat.describe("partitions", describe)
    beating = asyncio.create_task(heartbeat.run())
    token = f"{time.time_ns()}-{name}"
    retention = settings.file.retention
    promise = Promise(retention.stream_seconds * 1000, retention.stream_entries)
    budget = settings.file.redis.maxmemory
    try:
        async with asyncio.TaskGroup() as group:
            for partition in settings.partitions(exchange_name):
                keys = Keys(settings.namespace, partition)
                group.create_task(work(make, open_wire, keys, token, heartbeat, stop))
                group.create_task(watch_work(open_wire, keys, NAME, heartbeat, stop))
                group.create_task(trim_forever(open_wire, keys, promise, heartbeat, stop, budget=budget))
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
