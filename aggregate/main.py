"""The process aggregate-<n>: a run loop per partition it owns. No network but Redis."""

import asyncio
import time

from aggregate.stage import Aggregate
from pipeline.errors import SettingsError
from pipeline.heartbeat import Heartbeat
from pipeline.settings import Settings
from pipeline.stall import watch_work
from pipeline.streams import Keys
from pipeline.wire import Wire
from pipeline.worker import work


def owned(settings: Settings, name: str) -> dict[str, str]:
    """Partition to exchange, of the partitions that process `name` works on.

    All partitions are shared out by position over the aggregate processes that the settings call for. Raises
    SettingsError when `name` is none of them.
    """
    instances = [process for process in settings.processes() if process.startswith(f"{Aggregate.name}-")]
    if name not in instances:
        raise SettingsError(f"{name} is not a process that {settings.path} calls for")
    exchanges = settings.enabled_exchanges()
    everything = [(partition, exchange) for exchange in exchanges for partition in settings.partitions(exchange)]
    return dict(everything[instances.index(name) :: len(instances)])


async def run(settings: Settings, name: str, stop: asyncio.Event) -> None:
    """Works until `stop` is set and the steps under way are finished. Raises SettingsError; a group with
    ContractBroken."""
    exchanges = owned(settings, name)
    stages: dict[str, Aggregate] = {}
    heartbeat = Heartbeat(name, settings.heartbeat_dir)

    def make(keys: Keys) -> Aggregate:
        stage = stages[keys.partition] = Aggregate(keys, exchanges[keys.partition])
        return stage

    def describe() -> dict[str, object]:
        heartbeat.last_data = max((stage.last_data for stage in stages.values() if stage.last_data), default=None)
        return {partition: stage.report() for partition, stage in stages.items()}

    async def open_wire() -> Wire:
        return await Wire.open(settings.redis_address())

    heartbeat.describe("partitions", describe)
    beating = asyncio.create_task(heartbeat.run())
    token = f"{time.time_ns()}-{name}"
    try:
        async with asyncio.TaskGroup() as group:
            for partition in exchanges:
                keys = Keys(settings.namespace, partition)
                group.create_task(work(make, open_wire, keys, token, heartbeat, stop))
                group.create_task(watch_work(open_wire, keys, Aggregate.name, heartbeat, stop))
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
