"""What waited on disk into Postgres, in order, each record in its own transaction with the cursors' compare-and-set.

The cursors alone tell what of a record is stored already, so it may end at any point and begin again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from pipeline.steps import stream_id
from pipeline.streams import Keys
from pipeline.wire import Wire
from store.arrived import Arrived
from store.batch import Batch, Cursor, Moved
from store.postgres import Bury, Database
from store.progress import Progress
from store.source import Source
from store.spill import Part, Spilled
from store.spilling import ENOUGH_BYTES, Spilling

NEARLY_DONE = ENOUGH_BYTES // 4
"""With less than this left on disk, what comes stays in the streams until the rest is loaded."""
MOST_ROWS = 5_000

Write = Callable[[Batch], Awaitable[None]]


class Unspilling:
    """One life of a connection to Postgres, before it stores from the streams. `stored` are its cursors."""

    def __init__(
        self,
        keys: Keys,
        open_wire: Callable[[], Awaitable[Wire]],
        database: Database,
        spilling: Spilling,
        progress: Progress,
        bury: Bury,
        stored: Mapping[str, Cursor],
    ) -> None:
        self._keys = keys
        self._open_wire = open_wire
        self._database = database
        self._spilling = spilling
        self._progress = progress
        self._bury = bury
        self._stored = dict(stored)

    async def run(self, stop: asyncio.Event) -> bool:
        """Loads until nothing is left and nothing more is put there: True; or until `stop` is set. Raises as
        Database.write does."""
        spill = self._spilling.spill
        await spill.rewind()
        while not stop.is_set():
            if spill.waiting < NEARLY_DONE:
                await self._finish()
            waiting = await spill.read()
            if not waiting and self._spilling.take_over():
                return True
            for position, record in waiting:
                await self._load(record)
                if stop.is_set():
                    await spill.drop(position)
                    return False
            if waiting:
                await spill.drop(waiting[-1].position)
        return False

    async def _finish(self) -> None:
        """An empty spill and a server that answers: it is there."""
        if not self._spilling.spill.waiting:
            self._spilling.stored()
        if not self._spilling.due:
            await self._spilling.finish()

    async def _load(self, record: Spilled) -> None:
        batch = Batch(self._keys.partition)
        for part in record.parts:
            await self._take(batch, part)
        if batch.moves:
            await self._write(batch)

    async def _take(self, batch: Batch, part: Part) -> None:
        """Adds of one stream what is not stored. What lies between the cursor and the record is stored first."""
        stream = self._keys.stream(part.kind)
        if part.anew:
            await self._go_back(stream, part.old)
        at = stream_id(self._stored[stream].id.encode())
        if at >= stream_id(part.new.encode()):
            return
        if at < stream_id(part.old.encode()):
            await self._fill(part.kind, stream, part.old)
            at = stream_id(self._stored[stream].id.encode())
        fresh = [entry for entry in part.entries if stream_id(entry.id) > at]
        old = self._stored[stream].id
        if fresh:
            batch.take(part.kind, stream, old, Arrived.of(fresh))
        batch.moves[stream] = Moved(old, part.new, part.read - len(part.entries) + len(fresh))

    async def _go_back(self, stream: str, to: str) -> None:
        """Ids that Redis gives out again say nothing of what is stored; the rows' keys do."""
        cursor = self._stored[stream]
        if stream_id(cursor.id.encode()) > stream_id(to.encode()):
            await self._database.rewind(self._keys.namespace, {stream: to})
            self._stored[stream] = Cursor(to, cursor.entries)

    async def _fill(self, kind: str, stream: str, to: str) -> None:
        """Stores from the stream what it still has between the cursor and what is on disk: the database is an older one
        than that which was away, or another."""
        wire = await self._open_wire()
        try:
            source = Source(self._keys, wire, self._spilling.spill.disk)
            await source.prepare()
            floors = await source.trimmed(self._stored)
            while entries := await source.between(stream, self._stored[stream].id, to, MOST_ROWS):
                batch = Batch(self._keys.partition)
                batch.take(kind, stream, self._stored[stream].id, entries)
                await self._write(batch)
        finally:
            await wire.close()
        if stream in floors:
            self._progress.error(self._keys.partition, f"{stream} was trimmed to {floors[stream]} before it was stored")

    async def _write(self, batch: Batch) -> None:
        writing = asyncio.create_task(self._database.write(self._keys.namespace, batch, self._bury))
        try:
            done, _ = await asyncio.wait({writing}, timeout=self._spilling.patience)
            if not done:
                # It may still end well; meanwhile what comes must go to disk.
                self._spilling.failed(self._spilling.patience)
                self._progress.waits(self._keys.partition, "postgres")
            written = await writing
        finally:
            if not writing.done():
                writing.cancel()
                await asyncio.wait({writing})
        self._spilling.stored()
        self._progress.running(self._keys.partition)
        self._progress.written(batch, written)
        for stream, move in batch.moves.items():
            self._stored[stream] = Cursor(move.new, self._stored[stream].entries + move.entries)
