"""The process `store-<n>`: two loops of two connections each for each partition of the enabled exchanges.

In `store-0` a loop besides that drops what is too old."""

import asyncio
import logging
from functools import partial

from pipeline.heartbeat import Heartbeat
from pipeline.settings import Settings
from pipeline.stall import watch_work
from pipeline.streams import Keys
from pipeline.wire import Wire
from store.batch import STAGE
from store.partitions import Partitions
from store.postgres import Database
from store.progress import Progress
from store.rebuild import rebuild_partition
from store.retention import PROCESS, Retention, retain
from store.spill import Spill
from store.stage import store_partition

log = logging.getLogger(__name__)


async def run(settings: Settings, name: str, stop: asyncio.Event) -> None:
    """Runs until `stop` is set and what was read is written. Waits for servers and migrations.

    Raises SettingsError when the database's schema is newer than this program, or was changed."""
    heartbeat = Heartbeat(name, settings.heartbeat_dir)
    progress = Progress(heartbeat)
    partitions = settings.all_partitions()

    async def open_wire() -> Wire:
        return await Wire.open(settings.redis_address())

    async def open_database() -> Database:
        return await Database.open(settings.database_address(), name)

    async def open_partitions() -> Partitions:
        return await Partitions.open(settings.database_address(), name)

    beating = asyncio.create_task(heartbeat.run())
    try:
        async with asyncio.TaskGroup() as group:
            if name == PROCESS:
                retention = Retention(settings.file.retention.days.given())
                progress.retains(retention.row)
                group.create_task(retain(open_partitions, retention, stop))
            for partition in partitions:
                keys = Keys(settings.namespace, partition)
                spill = Spill(
                    # One folder for whoever stores the partition, under any name: it is locked.
                    settings.state_dir / "spill" / partition,
                    settings.file.disk.spill_bytes // len(partitions),
                    heartbeat.error,
                    namespace=settings.namespace,
                )
                group.create_task(rebuild_partition(keys, open_wire, open_database, progress, stop))
                loading = partial(getattr, spill, "waiting")
                group.create_task(watch_work(open_wire, keys, STAGE, heartbeat, stop, besides=loading))
                group.create_task(
                    store_partition(
                        keys,
                        open_wire,
                        open_database,
                        progress,
                        stop,
                        spill,
                        most_rows=settings.file.store.batch_rows,
                        age=settings.file.store.batch_age,
                    ),
                    name=partition,
                )
    except ExceptionGroup as errors:
        # One cause is enough to stop for, and the caller knows errors by their kind.
        raise errors.exceptions[0] from None
    finally:
        beating.cancel()
        await asyncio.wait({beating})
