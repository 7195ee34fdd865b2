"""One partition's loop: read its streams from the cursors in Postgres, write a batch, move the cursors.

What is in memory is a cache of what Postgres confirmed: after anything but a clean commit the loop drops
both connections and begins again at the stored cursors, as at start.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from pipeline.errors import ServerAway, StepRefused
from pipeline.pause import pause
from pipeline.records import DeadLetter
from pipeline.steps import Step
from pipeline.streams import Keys
from pipeline.timeframes import DAY
from pipeline.wire import Wire, check
from store.batch import STAGE, Batch, Cursor, Partition
from store.faults import TooManyFaults
from store.postgres import Database, PostgresAway
from store.progress import Progress
from store.source import Source
from store.tables import DAILY, MONTHLY

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
SLOW = 2.0
"""Seconds after which a write under way shows as waiting for Postgres."""
DAYS_AHEAD = 2
IDLE_AGE = 1.0
"""Seconds for which entries that make no row (a clock, four times a second) wait for one that does."""

OpenWire = Callable[[], Awaitable[Wire]]
OpenDatabase = Callable[[], Awaitable[Database]]


async def store_partition(
    keys: Keys,
    open_wire: OpenWire,
    open_database: OpenDatabase,
    progress: Progress,
    stop: asyncio.Event,
    *,
    most_rows: int,
    age: float,
) -> None:
    """Runs until `stop` is set and the batch under way is written. `age` in seconds.

    Raises SettingsError (schema newer or changed) and ContractBroken; waits for everything else.
    """
    wait = 0.0
    while not stop.is_set():
        wire: Wire | None = None
        database: Database | None = None
        loop: Loop | None = None
        try:
            database = await open_database()
            wire = await open_wire()
            loop = Loop(keys, wire, open_wire, database, progress, most_rows=most_rows, age=age)
            await loop.restore()
            await loop.run(stop)
        except StepRefused as error:
            progress.restored(keys.partition, str(error))
            wait = FIRST_PAUSE
        except TooManyFaults as error:
            progress.waits(keys.partition, "operator", str(error))
            wait = LONGEST_PAUSE
        except ServerAway as error:
            away = "postgres" if isinstance(error, PostgresAway) else "redis"
            progress.waits(keys.partition, away, str(error))
            # A server that takes connections but no rows (a full disk) is not asked ten times a second.
            wait = FIRST_PAUSE if loop is not None and loop.batches else min(LONGEST_PAUSE, max(FIRST_PAUSE, wait * 2))
        finally:
            if wire is not None:
                await wire.close()
            if database is not None:
                await database.close()
        await pause(wait * random.uniform(0.5, 1.0), stop)


class Loop:
    """One life of a partition's two connections. The next batch is read while the last one is written."""

    def __init__(
        self,
        keys: Keys,
        wire: Wire,
        open_wire: OpenWire,
        database: Database,
        progress: Progress,
        *,
        most_rows: int,
        age: float,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._keys = keys
        self._source = Source(keys, wire)
        self._open_wire = open_wire
        self._database = database
        self._progress = progress
        self._most_rows = most_rows
        self._age = age
        self._clock = clock
        self._stored: dict[str, Cursor] = {}
        self._writing: asyncio.Task[None] | None = None
        self._day_ahead = 0
        self.batches = 0

    async def restore(self) -> None:
        """Takes the cursors from Postgres and goes to where they stand in Redis."""
        await self._source.prepare()
        self._stored = await self._database.cursors(self._keys.namespace, self._source.streams)
        if behind := await self._source.ends_before(self._stored):
            await self._database.rewind(self._keys.namespace, behind)
            self._stored |= {stream: Cursor(entry, self._stored[stream].entries) for stream, entry in behind.items()}
        self._source.begin(self._stored)
        for stream, floor in (await self._source.trimmed(self._stored)).items():
            self._progress.error(self._keys.partition, f"{stream} was trimmed to {floor} before it was stored")
        self._progress.running(self._keys.partition)

    async def run(self, stop: asyncio.Event) -> None:
        """Reads and writes until `stop` is set; then everything read is written."""
        try:
            while not stop.is_set():
                batch = await self._collect(stop)
                await self._settle()
                if batch is not None:
                    self._writing = asyncio.create_task(self._write(batch))
            await self._settle()
            await self._source.tell()
        finally:
            # A read that failed must not leave a write behind on a connection about to be closed.
            if self._writing is not None:
                await asyncio.gather(self._writing, return_exceptions=True)

    async def _collect(self, stop: asyncio.Event) -> Batch | None:
        """What is there, and what comes within `age` of it, up to about `most_rows` entries."""
        batch = Batch(self._keys.partition)
        now = asyncio.get_running_loop().time
        patience = now() + IDLE_AGE
        await self._source.read(batch, self._most_rows, block=True)
        while batch.moves and not batch.holds_rows and not stop.is_set() and now() < patience:
            await self._source.read(batch, self._most_rows, block=True)
        if not batch.moves:
            return None
        if batch.entries < self._most_rows:
            await pause(self._age, stop)
            await self._source.read(batch, self._most_rows - batch.entries, block=False)
        return batch

    async def _write(self, batch: Batch) -> None:
        await self._make_ahead()
        written = await self._database.write(self._keys.namespace, batch, self._bury)
        self.batches += 1
        self._progress.written(batch, written)
        for stream, move in batch.moves.items():
            cursor = self._stored[stream] = Cursor(move.new, self._stored[stream].entries + move.entries)
            self._source.show(stream, cursor)

    async def _settle(self) -> None:
        """Waits for the write under way; raises what it raised."""
        if self._writing is None:
            return
        done, _ = await asyncio.wait({self._writing}, timeout=SLOW)
        if not done:
            self._progress.waits(self._keys.partition, "postgres")
        task = self._writing
        await asyncio.wait({task})
        self._writing = None
        task.result()
        if not done:
            self._progress.running(self._keys.partition)

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        """Puts dead letters into Redis over a connection of their own: the other one is reading."""
        step = Step(self._keys, STAGE)
        for letter in letters:
            step.bury(letter)
        wire = await self._open_wire()
        try:
            for reply in await wire.call(*step.commands()):
                check(reply)
        finally:
            await wire.close()

    async def _make_ahead(self) -> None:
        """Today's partitions and those of the next days and months, once a day by this host's clock."""
        today = self._clock() // DAY
        if today != self._day_ahead:
            await self._database.make_partitions(ahead(today))
            self._day_ahead = today


def ahead(today: int) -> set[Partition]:
    """The partitions to have ready. `today` in days since 1970."""
    days = [(today + day) * DAY for day in range(DAYS_AHEAD + 1)]
    # Steps of 28 days never jump over a month.
    months = [(today + 28 * step) * DAY for step in range(DAYS_AHEAD + 2)]
    daily = {Partition(parent, day) for parent in DAILY for day in days}
    return daily | {Partition(parent, month) for parent in MONTHLY for month in months}
