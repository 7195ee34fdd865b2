"""Writes one partition's raw stream: buffered, numbered, exactly once. Never blocks who reads the sockets.

Frames that Redis does not take soon go to disk (ingest.spool) and come first once it does.

A lease, watched by every transaction, is taken anew with each connection to Redis. So an EXEC that is
still on its way on an old socket either shows in the stream before we look, or is refused after.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from ingest.buffer import BURST_BYTES, Buffer
from ingest.clock import monotonic_ns
from ingest.spool import Spool
from ingest.spooling import Spooling
from ingest.timing import Timing
from pipeline.errors import ServerAway, SettingsError, StepRefused, TapelineError
from pipeline.frames import Frame, RawEntry, pack, unpack
from pipeline.heartbeat import Heartbeat
from pipeline.memory import INGEST_STOPS, memory_share
from pipeline.segments import SegmentsInUse
from pipeline.steps import Command
from pipeline.streams import Keys
from pipeline.timeframes import SECOND
from pipeline.wire import Reply, Wire, check

CROWDED = 16 * 1024 * 1024
"""Bytes in the buffer above which sockets wait, while Redis takes what it is given: twice what goes to disk."""
MOST_WAITING = 4 * 1024 * 1024
"""Bytes in the buffer above which what can wait has to."""

log = logging.getLogger(__name__)


class Superseded(SettingsError):
    """An ingest started later writes this stream; only one may."""


class Forgotten(TapelineError):
    """Redis lost the whole stream: whoever reads it knows neither instruments nor connections. What tells of them comes
    with a new start, so this process ends."""


class Writer:
    """One raw stream. `append` is for the readers of sockets; `run` is the task that writes.

    `open_ready` connects to a Redis that may be written to; `started` (ns) becomes the entries' `w`. Without a `spool`
    all waits in memory.
    """

    def __init__(
        self,
        keys: Keys,
        open_ready: Callable[[], Awaitable[Wire]],
        heartbeat: Heartbeat,
        started: int,
        timing: Timing,
        *,
        spool: Spool | None = None,
        monotonic: Callable[[], int] = monotonic_ns,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.keys = keys
        self._open_ready = open_ready
        self._heartbeat = heartbeat
        self._started = started
        self._timing = timing
        self._monotonic = monotonic
        self._random = random
        self._buffer = Buffer(timing.buffer, timing.keep)
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self.spool = spool
        self._spooling = Spooling(self._buffer, spool, heartbeat, timing, monotonic) if spool else None
        self._ended = asyncio.Event()
        self._writer: int | None = None
        self._session = 0
        self._wrote = False
        self._token = b""
        self._overflowing = False
        self._weighed = 0
        self.away = True
        """Whether Redis is out of reach, not ready or too full."""

    @property
    def waiting_bytes(self) -> int:
        return self._buffer.waiting_bytes

    @property
    def has_room(self) -> bool:
        """Whether what can wait may come now: Redis takes what we give it."""
        return not self.away and not self._disk_first and self._buffer.waiting_bytes <= MOST_WAITING

    @property
    def crowded(self) -> bool:
        """Whether more comes than Redis and the disk take, although both work: the buffer would have to drop some."""
        return not self.away and self._buffer.waiting_bytes > CROWDED

    def append(self, frame: Frame) -> None:
        """Takes a frame. When the buffer is full the oldest entries go, are counted and told."""
        self._took(self._buffer.append(frame))

    def extend(self, frames: Sequence[Frame]) -> None:
        """Takes frames in a row, as `append` one after another."""
        self._took(self._buffer.extend(frames))

    def _took(self, lost: int) -> None:
        self._filled.set()
        if lost:
            self._heartbeat.counters["dropped"] += lost
            if not self._overflowing:
                self._heartbeat.error(f"{self.keys.raw}: buffer full, Redis takes nothing: dropping the oldest frames")
            self._overflowing = True

    async def run(self) -> None:
        """Writes until cancelled; then what is left goes to disk. Raises Superseded, Forgotten, or ContractBroken
        where the stream is not ours."""
        spooling = self._spooling
        if spooling is not None:
            with contextlib.suppress(SegmentsInUse):
                await spooling.spool.open()
        tasks = [asyncio.create_task(self._write_forever())]
        tasks += [asyncio.create_task(spooling.run(self._ended))] if spooling else []
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            tasks[0].cancel()
            self._ended.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            if spooling is not None:
                await spooling.close()

    async def flush(self) -> bool:
        """Waits, with a bound, until everything is written; whether it is."""
        self._emptied.clear()
        self._filled.set()
        if not self._written:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.flush / SECOND):
                    await self._emptied.wait()
        return self._written

    @property
    def _written(self) -> bool:
        return self._buffer.empty and not self._disk_first

    @property
    def _disk_first(self) -> bool:
        """Whether frames on disk are still to be written, before any new one."""
        return self.spool is not None and self.spool.unread

    async def _write_forever(self) -> None:
        failures = 0
        while True:
            wire: Wire | None = None
            try:
                wire = await self._open_ready()
                await self._take(wire)
                if self._spooling is not None:
                    await self._spooling.find()
                failures, self.away, self._overflowing = 0, False, False
                await self._write(wire)
            except (ServerAway, StepRefused) as error:
                self.away = isinstance(error, ServerAway)
                failures += 1
                self._tell(error, failures)
            finally:
                if wire is not None:
                    await wire.close()
            ceiling = self._timing.redis_pause >> max(0, 5 - failures)
            await asyncio.sleep(self._random() * ceiling / SECOND)

    def _tell(self, error: Exception, failures: int) -> None:
        """The first failure of an outage is an error; the repeated ones would only fill the log."""
        self._heartbeat.counters["restores"] += 1
        if failures == 1:
            self._heartbeat.error(f"{self.keys.raw}: {error}")
        else:
            log.debug("%s: %s", self.keys.raw, error)

    async def _take(self, wire: Wire) -> None:
        """Takes the lease, then sees how far the stream has come. Raises Superseded, Forgotten, StepRefused,
        ServerAway."""
        token, last = await self._look(wire)
        if self._wrote and last is None:
            raise Forgotten(f"{self.keys.raw}: all that was written is gone (flushed, or a Redis that keeps nothing)")
        others = max(int(token.split(b"-")[0]) if token else 0, last[0] if last else 0)
        if self._writer is None:
            # Later than all before us even if the wall clock was set back.
            left = self.spool.newest_writer if self.spool else 0
            self._writer = max(self._started, others + 1, left + 1)
        elif others > self._writer:
            raise Superseded(f"another {self._heartbeat.name} writes {self.keys.raw} since {others}: this one stops")
        self._session += 1
        self._token = b"%d-%d" % (self._writer, self._session)
        await wire.transact([("SET", self.keys.lease("ingest"), self._token)])
        token, last = await self._look(wire)
        self._check_lease(token)
        self._buffer.resume(self._writer, last, self._monotonic())

    async def _look(self, wire: Wire) -> tuple[bytes | None, tuple[int, int] | None]:
        """(token in the lease, (w, n) of the last entry), each None where there is none; the lease is watched."""
        lease, raw = self.keys.lease("ingest"), self.keys.raw
        replies = await wire.call(("WATCH", lease), ("GET", lease), ("XREVRANGE", raw, "+", "-", "COUNT", 1))
        _, token, entries = map(check, replies)
        return token, _position(entries)

    def _check_lease(self, token: bytes | None) -> None:
        if token != self._token:
            raise StepRefused(f"the lease is {token!r}, not {self._token!r}")

    async def _write(self, wire: Wire) -> None:
        """Writes bursts until something goes wrong. The lease is watched before each one."""
        while True:
            if self._written:
                self._emptied.set()
                self._filled.clear()
                await self._filled.wait()
            if self._buffer.waiting_bytes < BURST_BYTES and not self._disk_first:
                # A few ms for more: one wake-up of all who read then serves many frames.
                await asyncio.sleep(self._timing.linger / SECOND)
            if self._monotonic() - self._weighed >= SECOND:
                await self._wait_for_room(wire)
            if entries := await self._spooling.burst() if self._spooling else self._buffer.burst():
                await self._commit(wire, entries)

    async def _wait_for_room(self, wire: Wire) -> None:
        """Returns once Redis has memory to spare for us; until then frames wait in the buffer."""
        while (share := await memory_share(wire)) > INGEST_STOPS:
            if not self.away:
                self._heartbeat.error(f"{self.keys.raw}: Redis is {share:.0%} full: frames wait for room")
            self.away = True
            self._press(True)
            await asyncio.sleep(self._timing.redis_pause / SECOND)
        self.away, self._weighed = False, self._monotonic()
        self._press(False)

    def _press(self, urgent: bool) -> None:
        if self._spooling is not None:
            self._spooling.urgent = urgent

    async def _commit(self, wire: Wire, entries: list[RawEntry]) -> None:
        lease, raw = self.keys.lease("ingest"), self.keys.raw
        # EXEC ends the watch: the same write renews it, and reads whose the lease is, before the next burst is taken.
        done = await wire.transact([_append(raw, entry) for entry in entries], ("WATCH", lease), ("GET", lease))
        self._wrote = True
        self._buffer.confirm(len(entries), self._monotonic())
        self._heartbeat.counters["entries"] += len(entries)
        self._heartbeat.counters["written"] += sum(len(entry.frames) for entry in entries)
        _, token = map(check, done[len(entries) :])
        self._check_lease(token)


def _append(raw: str, entry: RawEntry) -> Command:
    return ("XADD", raw, "*", *(part for pair in pack(entry).items() for part in pair))


def _position(entries: Reply) -> tuple[int, int] | None:
    """(w, n) of the entry XREVRANGE found. Raises ContractBroken for one we never wrote."""
    if not entries:
        return None
    flat = entries[0][1]
    entry = unpack(dict(zip(flat[::2], flat[1::2], strict=True)))
    return entry.w, entry.n
