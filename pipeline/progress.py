"""Copies a process's report from its heartbeat file to `md:progress` in Redis, for readers on other machines.

Never part of liveness: when Redis is away the copy grows old, the file does not.
"""

import asyncio

from pipeline.errors import ServerAway
from pipeline.settings import Settings
from pipeline.streams import progress_key
from pipeline.wire import Wire

INTERVAL = 2.0


async def publish(settings: Settings, name: str) -> None:
    """Until cancelled."""
    wire: Wire | None = None
    try:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                report = (settings.heartbeat_dir / name).read_bytes()
                wire = wire or await Wire.open(settings.redis_address())
                await wire.call(("HSET", progress_key(settings.namespace), name, report))
            except FileNotFoundError:
                continue
            except ServerAway:
                if wire is not None:
                    await wire.close()
                wire = None
    finally:
        if wire is not None:
            await wire.close()
