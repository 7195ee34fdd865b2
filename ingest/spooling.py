"""Puts on disk what Redis does not take soon: at most `spool_after` long, and `spool_over` bytes, wait in memory."""

import asyncio
from collections.abc import Callable

from ingest.buffer import Buffer
from ingest.events import within
from ingest.spool import Spool
from ingest.timing import Timing
from pipeline.frames import RawEntry
from pipeline.heartbeat import Heartbeat
from pipeline.segments import SegmentsInUse
from pipeline.timeframes import SECOND


class Spooling:
    """Between one writer's buffer and its spool. Set `urgent` while Redis has no room: then nothing waits."""

    def __init__(
        self, buffer: Buffer, spool: Spool, heartbeat: Heartbeat, timing: Timing, monotonic: Callable[[], int]
    ) -> None:
        self.urgent = False
        self.spool = spool
        self._buffer = buffer
        self._heartbeat = heartbeat
        self._timing = timing
        self._monotonic = monotonic
        self._settled = asyncio.Event()
        """Set unless entries are on their way to disk."""
        self._settled.set()
        self._safe = (monotonic(), 0)
        """Monotonic time, and the bytes taken by then, all of which are confirmed or on disk since."""

    async def find(self) -> None:
        """Opens the spool. Who takes over waits here for the process that has lost the lease to it: that one puts
        there what it has, and ends."""
        told = False
        while True:
            try:
                return await self.spool.open()
            except SegmentsInUse as error:
                if not told:
                    self._heartbeat.error(str(error))
                told = True
            await asyncio.sleep(self._timing.redis_pause / SECOND)

    async def run(self, ended: asyncio.Event) -> None:
        """Looks each tick whether frames wait too long, or too many, until `ended`; what is under way arrives."""
        while not ended.is_set():
            if self._late():
                await self.to_disk()
            if (position := self._buffer.take_droppable()) is not None:
                await self.spool.drop(position)
            await within(self._timing.spool_tick, ended)

    async def close(self) -> None:
        """Puts what is left on disk, for the next process, and lets go of it."""
        await self.to_disk()
        await self.spool.close()

    async def burst(self) -> list[RawEntry]:
        """The next burst: what was sent and not confirmed, else from disk, else new; it may be empty. Raises
        ServerAway when the disk fails."""
        if not self._buffer.sending:
            await self._settled.wait()
            if self.spool.unread:
                self._buffer.load(await self.spool.read(), self._monotonic())
        return self._buffer.burst(fresh=not self.spool.unread)

    async def to_disk(self) -> None:
        """Puts what waits in memory on disk, as far as there is room."""
        while not self._settled.is_set():
            await self._settled.wait()
        if not self._buffer.numbering or not self.spool.usable or not (entries := self._buffer.spool()):
            return
        self._settled.clear()
        count, doubt, before = 0, True, self.spool.dropped
        try:
            count, doubt = await self.spool.append(entries, self._buffer.newest)
        finally:
            lost = self._buffer.spooled(count, doubt=doubt) + self.spool.dropped - before
            self._settled.set()
            self._heartbeat.counters["dropped"] += lost
            self._heartbeat.counters["spooled"] += count

    def _late(self) -> bool:
        """Whether what waits in memory should go to disk. Before the stream was first seen it has no numbers."""
        now, safe, waiting = self._monotonic(), self._buffer.safe_bytes, self._buffer.waiting_bytes
        if safe >= self._safe[1]:
            self._safe = (now, safe + waiting)
        late = now - self._safe[0] > self._timing.spool_after
        return self._buffer.numbering and waiting > 0 and (self.urgent or late or waiting > self._timing.spool_over)
