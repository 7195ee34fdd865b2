"""One partition's loop: read its streams from the cursors in Postgres, write a batch, move the cursors.

What is in memory is a cache of what Postgres confirmed: after anything but a clean commit the loop drops
both connections and begins again at the stored cursors, as at start. While Postgres is away a second loop puts what
comes on disk (spilling.py); it is loaded before the streams are read again (unspilling.py).
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from pipeline.errors import ServerAway, StepRefused
from pipeline.pause import pause
from pipeline.records import DeadLetter
from pipeline.steps import Step
from pipeline.streams import READERS, Keys
from pipeline.timeframes import DAY
from pipeline.wire import OpenWire, Wire, check
from store.batch import STAGE, Batch, Cursor, Partition
from store.faults import TooManyFaults
from store.postgres import Database, OpenDatabase, PostgresAway
from store.progress import Progress
from store.source import Elsewhere, Source
from store.spill import Spill
from store.spilling import AWAY, Spilling
from store.tables import DAILY, MONTHLY
from store.unspilling import Unspilling

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
SLOW = 2.0
"""Seconds after which a write under way shows as waiting for Postgres."""
DAYS_AHEAD = 2
IDLE_AGE = 1.0
"""Seconds for which entries that make no row (a clock, four times a second) wait for one that does."""


async def store_partition(
    keys: Keys,
    open_wire: OpenWire,
    open_database: OpenDatabase,
    progress: Progress,
    stop: asyncio.Event,
    spill: Spill,
    *,
    most_rows: int,
    age: float,
    patience: float = AWAY,
) -> None:
    """Runs until `stop` is set and the batch under way is written. `age` in seconds; after `patience` seconds without
    Postgres entries go to disk. Closes the spill.

    Raises SettingsError (schema newer or changed; a spill that is not ours) and ContractBroken; waits for everything
    else.
    """
    spilling = Spilling(keys, open_wire, spill, progress, most_rows=most_rows, patience=patience)
    life = Life(keys, open_wire, open_database, progress, spilling, most_rows, age)
    tasks: list[asyncio.Task[None]] = []
    try:
        opening = asyncio.create_task(spill.open(stop))
        tasks.append(opening)
        if opening not in (await asyncio.wait(tasks, timeout=SLOW))[0]:
            progress.waits(keys.partition, "lease")
        await opening
        tasks = [asyncio.create_task(life.run(stop)), asyncio.create_task(spilling.run(stop))]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await spill.close()


class Life:
    """One life of the two connections after another, for one partition."""

    def __init__(
        self,
        keys: Keys,
        open_wire: OpenWire,
        open_database: OpenDatabase,
        progress: Progress,
        spilling: Spilling,
        most_rows: int,
        age: float,
    ) -> None:
        self._keys = keys
        self._open_wire = open_wire
        self._open_database = open_database
        self._progress = progress
        self._spilling = spilling
        self._most_rows = most_rows
        self._age = age
        self._moved = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        wait = 0.0
        while not stop.is_set():
            self._moved = False
            try:
                await self._live(stop)
            except Elsewhere as error:
                self._progress.waits(self._keys.partition, "lease", str(error))
                wait = LONGEST_PAUSE
            except StepRefused as error:
                self._progress.restored(self._keys.partition, str(error))
                wait = FIRST_PAUSE
            except TooManyFaults as error:
                self._progress.waits(self._keys.partition, "operator", str(error))
                wait = LONGEST_PAUSE
            except ServerAway as error:
                away = "postgres" if isinstance(error, PostgresAway) else "redis"
                if away == "postgres":
                    self._spilling.failed()
                self._progress.waits(self._keys.partition, away, str(error))
                # A server that takes connections but no rows (a full disk) is not asked ten times a second.
                wait = FIRST_PAUSE if self._moved else min(LONGEST_PAUSE, max(FIRST_PAUSE, wait * 2))
            finally:
                self._spilling.hand_back()
            await pause(wait * random.uniform(0.5, 1.0), stop)

    async def _live(self, stop: asyncio.Event) -> None:
        wire: Wire | None = None
        loop: Loop | None = None
        database = await self._open_database()
        try:
            if not await self._unspill(database, stop):
                return
            wire = await self._open_wire()
            loop = Loop(
                self._keys,
                wire,
                self._open_wire,
                database,
                self._progress,
                self._spilling,
                most_rows=self._most_rows,
                age=self._age,
            )
            await loop.restore()
            await loop.run(stop)
        finally:
            self._moved = loop is not None and loop.batches > 0
            if wire is not None:
                await wire.close()
            await database.close()

    async def _unspill(self, database: Database, stop: asyncio.Event) -> bool:
        streams = [self._keys.stream(kind) for kind, readers in READERS.items() if STAGE in readers]
        stored = await database.cursors(self._keys.namespace, streams)
        loading = Unspilling(self._keys, self._open_wire, database, self._spilling, self._progress, self._bury, stored)
        return await loading.run(stop)

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        await bury(self._keys, self._open_wire, letters)


class Loop:
    """One life of a partition's two connections. The next batch is read while the last one is written."""

    def __init__(
        self,
        keys: Keys,
        wire: Wire,
        open_wire: OpenWire,
        database: Database,
        progress: Progress,
        spilling: Spilling,
        *,
        most_rows: int,
        age: float,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._keys = keys
        self._source = Source(keys, wire, spilling.spill.disk)
        self._open_wire = open_wire
        self._database = database
        self._progress = progress
        self._spilling = spilling
        self._most_rows = most_rows
        self._age = age
        self._clock = clock
        self._stored: dict[str, Cursor] = {}
        self._writing: asyncio.Task[None] | None = None
        self._day_ahead = 0
        self.batches = 0

    async def restore(self) -> None:
        """Takes the cursors from Postgres and goes to where they stand in Redis. Raises Elsewhere."""
        await self._source.prepare()
        # What was on our disk is stored.
        await self._source.release()
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
                if batch is not None:
                    self._database.render(batch)
                await self._settle()
                if batch is not None:
                    self._writing = asyncio.create_task(self._write(batch))
            await self._settle()
            await self._source.tell()
        finally:
            # A read that failed must not leave a write behind on a connection about to be closed.
            if self._writing is not None:
                await self._wait_for(self._writing)

    async def _collect(self, stop: asyncio.Event) -> Batch | None:
        """What is there, and what comes within `age` of it, up to about `most_rows` entries. Where more waits already,
        time is not what is lacking."""
        batch = Batch(self._keys.partition)
        now = asyncio.get_running_loop().time
        patience = now() + IDLE_AGE
        await self._source.read(batch, self._most_rows, block=True)
        while batch.moves and not batch.holds_rows and not stop.is_set() and now() < patience:
            await self._source.read(batch, self._most_rows, block=True)
        if not batch.moves:
            return None
        if batch.entries < self._most_rows and not self._source.behind:
            await pause(self._age, stop)
            await self._source.read(batch, self._most_rows - batch.entries, block=False)
        return batch

    async def _write(self, batch: Batch) -> None:
        await self._make_ahead()
        written = await self._database.write(self._keys.namespace, batch, self._bury)
        self.batches += 1
        self._spilling.stored()
        self._progress.written(batch, written)
        for stream, move in batch.moves.items():
            cursor = self._stored[stream] = Cursor(move.new, self._stored[stream].entries + move.entries)
            self._source.show(stream, cursor)

    async def _settle(self) -> None:
        """Waits for the write under way; raises what it raised, and StepRefused when others read on meanwhile."""
        if self._writing is None:
            return
        task = self._writing
        slow = await self._wait_for(task)
        self._writing = None
        task.result()
        if not self._spilling.direct:
            raise StepRefused("Postgres took its time: what came meanwhile is on disk")
        if slow:
            self._progress.running(self._keys.partition)

    async def _wait_for(self, task: asyncio.Task[None]) -> bool:
        """Until it ended, well or not; whether it was slow. What takes very long lets others read on: from here on
        nothing may be read, and no group moved."""
        for slow, seconds in ((False, SLOW), (True, self._spilling.patience - SLOW)):
            done, _ = await asyncio.wait({task}, timeout=max(0.0, seconds))
            if done:
                return slow
            self._progress.waits(self._keys.partition, "postgres")
        self._spilling.failed(self._spilling.patience)
        self._spilling.hand_back()
        await asyncio.wait({task})
        return True

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        await bury(self._keys, self._open_wire, letters)

    async def _make_ahead(self) -> None:
        """Today's partitions and those of the next days and months, once a day by this host's clock."""
        today = self._clock() // DAY
        if today != self._day_ahead:
            await self._database.make_partitions(ahead(today))
            self._day_ahead = today


async def bury(keys: Keys, open_wire: OpenWire, letters: Sequence[DeadLetter]) -> None:
    """Puts dead letters into Redis over a connection of their own: the other one is reading."""
    step = Step(keys, STAGE)
    for letter in letters:
        step.bury(letter)
    wire = await open_wire()
    try:
        for reply in await wire.call(*step.commands()):
            check(reply)
    finally:
        await wire.close()


def ahead(today: int) -> set[Partition]:
    """The partitions to have ready. `today` in days since 1970."""
    days = [(today + day) * DAY for day in range(DAYS_AHEAD + 1)]
    # Steps of 28 days never jump over a month.
    months = [(today + 28 * step) * DAY for step in range(DAYS_AHEAD + 2)]
    daily = {Partition(parent, day) for parent in DAILY for day in days}
    return daily | {Partition(parent, month) for parent in MONTHLY for month in months}
