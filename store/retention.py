"""Drops partitions that are older than the settings say, oldest first, and measures how the database grows.

In the process `store-0` alone, and of two of them on one database in that which is first. Never waits for a reader or a
writer, nor lets one wait: what is in use, or what the ledger holds, stays and is tried again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pipeline.errors import ServerAway
from pipeline.pause import pause
from store.partitions import IN_USE, Due, Partitions

PROCESS = "store-0"
FIRST = 60.0
"""Seconds after the start: by then the ledger has the gaps of the time for which nothing ran."""
INTERVAL = 300.0
AGAIN = 30.0
"""Seconds between two looks; AGAIN where something was in use, or Postgres away."""
BREATH = 0.1
"""Seconds between two drops, for those that waited for the first."""
MOST_TOLD = 20

log = logging.getLogger(__name__)

OpenPartitions = Callable[[], Awaitable[Partitions]]


async def retain(open_partitions: OpenPartitions, retention: "Retention", stop: asyncio.Event) -> None:
    """Runs until `stop` is set. Waits for Postgres. Raises SettingsError (schema newer or changed)."""
    await pause(FIRST, stop)
    while not stop.is_set():
        try:
            done = await _once(open_partitions, retention, stop)
        except ServerAway as error:
            retention.fails(str(error))
            done = False
        await pause(INTERVAL if done else AGAIN, stop)


async def _once(open_partitions: OpenPartitions, retention: "Retention", stop: asyncio.Event) -> bool:
    partitions = await open_partitions()
    try:
        return await retention.turn(partitions, stop)
    finally:
        await partitions.close()


class Retention:
    """What is kept for how many `days` by kind (others for ever), and what became of it since the process started."""

    def __init__(self, days: Mapping[str, int], *, clock: Callable[[], int] = time.time_ns) -> None:
        self._days = dict(days)
        self._clock = clock
        self._dropped = 0
        self._last: int | None = None
        self._held: dict[str, str] = {}
        self._trouble: str | None = None

    async def turn(self, partitions: Partitions, stop: asyncio.Event) -> bool:
        """Drops what may be dropped now; whether that was all that is not held. Raises PostgresAway."""
        if not await partitions.hold():
            self._held = {}
            return True
        await partitions.measure()
        held: dict[str, str] = {}
        used: set[str] = set()
        for due in await partitions.due(self._days):
            # Who reads a table holds all of it: to try its other partitions would only hold up writers again.
            if stop.is_set() or due.kind in used:
                continue
            if (why := await partitions.drop(due)) is None:
                self._note(due)
                await pause(BREATH, stop)
            else:
                held[due.name] = why
                used |= {due.kind} if why == IN_USE else set()
        self._tell(held)
        return not used

    def fails(self, text: str) -> None:
        """Postgres would not."""
        if text != self._trouble:
            log.warning("retention: %s", text)
        self._trouble = text

    def row(self) -> dict[str, Any]:
        """`held`: partition that is too old to why it stays; the oldest ones."""
        return {
            "dropped": self._dropped,
            "last_dropped": self._last,
            "held": dict(list(self._held.items())[:MOST_TOLD]),
            "trouble": self._trouble,
        }

    def _note(self, due: Due) -> None:
        self._dropped += 1
        self._last = self._clock()
        log.info("dropped %s: older than %d days", due.name, self._days[due.kind])

    def _tell(self, held: dict[str, str]) -> None:
        for name, why in held.items():
            if self._held.get(name) != why:
                log.info("%s is older than its days but stays: %s", name, why)
        self._held, self._trouble = held, None
