"""Getting ready: which servers can be worked with, and the database made. Waits, tells why, never gives up.

Stages that need only Redis do not wait for Postgres for ever: their records keep in the streams.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pipeline.errors import ServerAway, SettingsError, TapelineError
from pipeline.heartbeat import Heartbeat
from pipeline.redis_ready import wait_ready
from pipeline.servers.fitness import Check, check_postgres, check_redis
from pipeline.settings import Settings
from pipeline.wire import Wire

RETRY = 0.25
RETRY_UNFIT = 5.0
PATIENCE = 30.0
"""Seconds after which stages that do not need Postgres start without it."""

Prepare = Callable[[str], Any]
"""Makes the database at this URL and its tables; blocks. Raises ServerAway for now, SettingsError for good."""

log = logging.getLogger(__name__)


class Readiness:
    """What is ready of what the settings ask for."""

    def __init__(self, settings: Settings, prepare: Prepare, heartbeat: Heartbeat) -> None:
        self._settings = settings
        self._prepare = prepare
        self._heartbeat = heartbeat
        self._begun = time.monotonic()
        self._told: dict[str, str] = {}
        self.redis = False
        self.postgres = False

    def may_start(self, process: str) -> bool:
        """Whether the process may be started for the first time."""
        if process in ("redis", "postgres"):
            return True
        if process.startswith("store-"):
            return self.redis and self.postgres
        return self.redis and (self.postgres or time.monotonic() - self._begun > PATIENCE)

    def waiting_for(self) -> str | None:
        return None if self.redis and self.postgres else "postgres" if self.redis else "redis"

    async def run(self) -> None:
        """Returns when all is ready."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._until("Redis", self._ready_redis))
            tasks.create_task(self._until("Postgres", self._ready_postgres))

    async def _until(self, title: str, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except ServerAway as error:
                self._tell(title, f"waiting for {title}: {error}", quiet=time.monotonic() - self._begun < 5)
                await asyncio.sleep(RETRY)
            except TapelineError as error:
                self._tell(title, f"{title} cannot be used: {error}")
                await asyncio.sleep(RETRY_UNFIT)
            else:
                log.info("%s is ready", title)
                return

    async def _ready_redis(self) -> None:
        url, redis = self._settings.redis_address(), self._settings.file.redis
        _refuse(await check_redis(url, redis.accept_eviction))
        wire = await Wire.open(url)
        try:
            await wait_ready(wire, redis.namespace)
        finally:
            await wire.close()
        self.redis = True

    async def _ready_postgres(self) -> None:
        url = self._settings.database_address()
        await asyncio.to_thread(self._prepare, url)
        _refuse(await check_postgres(url))
        self.postgres = True

    def _tell(self, title: str, text: str, quiet: bool = False) -> None:
        """Says each new reason once."""
        if self._told.get(title) == text:
            return
        if not quiet:
            self._told[title] = text
            self._heartbeat.error(text)


def _refuse(checks: list[Check]) -> None:
    for check in checks:
        if check.level == "fail":
            raise SettingsError(f"{check.text}: {check.advice}")
        if check.level == "warn":
            log.warning("%s: %s; %s", check.name, check.text, check.advice)
