"""Entries of one partition's streams that wait on disk for Postgres: a thread writes and reads, one call at a time.

What `append` counted survives the loss of power. A record says where each of its streams was read from and to, and
where all of them stand after it, so the next process goes on by the last record alone. Never drops what was not stored.
"""

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import msgspec

from pipeline.errors import ServerAway, SettingsError
from pipeline.pause import pause
from pipeline.segments import DiskFull, Position, Segments, SegmentsFull, SegmentsInUse
from pipeline.steps import Entry
from pipeline.timeframes import SECOND

VERSION = 1
READ_BYTES = 4 * 1024 * 1024
RETRY = 1.0
"""Seconds between two tries to open the folder."""
SAMPLES = 31
"""The rate of loading is that of the last 30 seconds."""

T = TypeVar("T")


class Part(NamedTuple):
    """Entries of one stream, read after `old` and up to `new`; `read` is their number, `entries` are those store may
    need. `anew`: the stream ended before where it was read up to, or that was not known: what is read again is
    known by its key, and nothing of it may be taken for stored because of its id."""

    kind: str
    old: str
    new: str
    read: int
    anew: bool
    entries: list[Entry]


class Spilled(NamedTuple):
    """One record on disk. `at`: when it was read (ns, this host). `reach`: by kind where its stream stands afterwards,
    and how many entries were read of it."""

    version: int
    namespace: str
    at: int
    parts: list[Part]
    reach: dict[str, tuple[str, int]]


class Waiting(NamedTuple):
    """A record, and the position to drop it by."""

    position: Position
    record: Spilled


_ENCODE = msgspec.msgpack.Encoder()
_DECODE = msgspec.msgpack.Decoder(Spilled)


class Spill:
    """The records in `folder`, at most `most_bytes` of files. `report` takes errors for people."""

    def __init__(
        self,
        folder: Path,
        most_bytes: int,
        report: Callable[[str], None],
        *,
        namespace: str,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._folder = folder
        self._most = most_bytes
        self._report = report
        self._namespace = namespace
        self._clock = clock
        # One thread: what is cancelled here still ends there before the next begins.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spill")
        self._segments: Segments | None = None
        self.disk: str | None = None
        """What names the folder in Redis, whatever process and host use it; None while it cannot be used."""
        self._reach: dict[str, tuple[str, int]] = {}
        self._oldest: int | None = None
        self._trouble: str | None = None
        self._loaded = 0
        self._samples: deque[tuple[int, int, int]] = deque(maxlen=SAMPLES)

    async def open(self, stop: asyncio.Event) -> None:
        """Finds what an earlier process left; waits for the folder while another process holds it, and while a failing
        disk hides what may be there: what was stored elsewhere must not be mistaken for it.

        Raises SettingsError when it was left by a newer program or for another namespace. Without any records a disk
        that fails only means that nothing is spilled: told."""
        while self._segments is None and not stop.is_set():
            try:
                await self._open()
                self._trouble = None
            except (SegmentsInUse, DiskFull, OSError) as error:
                self._tell(f"cannot open the spill: {error}")
                if not isinstance(error, SegmentsInUse) and not await self._do(self._may_hold):
                    return
                await pause(RETRY, stop)

    @property
    def waiting(self) -> int:
        """Bytes on disk that are not stored."""
        return self._segments.waiting_bytes if self._segments else 0

    @property
    def reach(self) -> dict[str, tuple[str, int]]:
        """By kind, up to where the streams are on disk; empty when nothing waits there."""
        return self._reach if self._segments and self._segments.waiting_records else {}

    async def append(self, records: Sequence[Spilled]) -> int:
        """Puts records on disk, durably; how many of them, from the first on. Errors are told."""
        if self._segments is None:
            return 0
        done, trouble = await self._do(partial(_store, self._segments, records))
        if done:
            self._reach = records[done - 1].reach
            self._oldest = self._oldest or records[0].at
        if trouble is None:
            self._trouble = None
        else:
            self._tell(f"the spill takes no more, what comes waits in the streams: {trouble}")
        return done

    async def read(self) -> list[Waiting]:
        """The oldest records not given yet, some MiB; none when all are. Raises ServerAway when the disk fails."""
        if self._segments is None:
            return []
        segments, lost = self._segments, self._segments.lost
        try:
            stored = await self._do(lambda: segments.read(READ_BYTES))
            waiting = [Waiting(each.position, await self._do(partial(self._decoded, each.data))) for each in stored]
        except (SegmentsFull, OSError) as error:
            raise ServerAway(f"{self._folder}: cannot read the spill: {error}") from error
        if segments.lost > lost:
            self._report(f"{self._folder}: {segments.lost - lost} records are damaged and lost")
        if waiting:
            self._oldest = waiting[0].record.at
        return waiting

    async def drop(self, position: Position) -> None:
        """Everything up to `position` is stored."""
        segments = self._segments
        assert segments is not None
        before = segments.waiting_bytes
        try:
            await self._do(partial(segments.drop, position))
        except OSError as error:
            # What is not dropped is read again by the next process, and lies below the cursors.
            self._report(f"{self._folder}: cannot note how far it was loaded: {error}")
        self._loaded += max(0, before - segments.waiting_bytes)
        # There is room again; where there is not, it is told again.
        self._trouble = None
        if segments.waiting_records == 0:
            self._oldest = None

    async def rewind(self) -> None:
        """Reading begins anew at the oldest record not dropped."""
        if self._segments is not None:
            await self._do(self._segments.rewind)

    async def close(self) -> None:
        """Lets go of the folder, once the thread is done."""
        if self._segments is not None:
            await self._do(self._segments.close)
            self._segments = None
        self._thread.shutdown(wait=False)

    def row(self) -> dict[str, Any]:
        """For the report, each second; as docs/architecture.md lists it."""
        segments = self._segments
        rate, left = self._pace()
        return {
            "bytes": self.waiting,
            "records": segments.waiting_records if segments else 0,
            "oldest": self._oldest if self.waiting else None,
            "bound": self._most,
            "trouble": self._trouble,
            "damaged": segments.lost if segments else 0,
            "rate": rate,
            "seconds_left": left,
        }

    def _pace(self) -> tuple[float | None, float | None]:
        """Bytes loaded a second, and seconds until nothing waits, of what was seen of late; None where unknown."""
        if not self.waiting:
            self._samples.clear()
            return None, None
        self._samples.append((self._clock(), self._loaded, self.waiting))
        (then, loaded, waited), (now, since, waiting) = self._samples[0], self._samples[-1]
        seconds = (now - then) / SECOND
        if seconds <= 0 or since == loaded:
            return None, None
        left = round(waiting / (waited - waiting) * seconds, 1) if waited > waiting else None
        return round((since - loaded) / seconds, 1), left

    def _may_hold(self) -> bool:
        try:
            return any(name.endswith(".seg") for name in os.listdir(self._folder))
        except OSError as error:
            return not isinstance(error, FileNotFoundError | NotADirectoryError)

    async def _open(self) -> None:
        segments = await self._do(lambda: Segments(self._folder, most_bytes=self._most))
        try:
            self.disk = await self._do(self._named)
            if segments.waiting_records:
                first = await self._do(lambda: segments.read(1))
                segments.rewind()
                self._oldest = self._decoded(first[0].data).at if first else None
            if segments.newest is not None:
                self._reach = self._decoded(segments.newest).reach
        except BaseException:
            segments.close()
            raise
        self._segments = segments
        if segments.torn:
            # Nobody was told that these are safe: they are in the streams still.
            self._report(f"{self._folder}: torn by a crash: {segments.torn_bytes} bytes are read from Redis again")

    def _named(self) -> str:
        """The name that the folder keeps, and, for people, where it is."""
        kept = self._folder.with_name(f"{self._folder.name}.name")
        if not kept.exists():
            written = kept.with_suffix(".new")
            with written.open("w") as file:
                file.write(uuid4().hex)
                file.flush()
                os.fsync(file.fileno())
            written.replace(kept)
        return f"{kept.read_text()} {socket.gethostname()}:{self._folder}"

    def _decoded(self, data: bytes) -> Spilled:
        try:
            record = _DECODE.decode(data)
        except msgspec.DecodeError as error:
            raise SettingsError(f"{self._folder} holds records of another version of this program: {error}") from error
        if record.version != VERSION:
            raise SettingsError(
                f"{self._folder} holds records of version {record.version}, this program reads {VERSION}"
            )
        if record.namespace != self._namespace:
            raise SettingsError(
                f"{self._folder} holds records of namespace {record.namespace} that are not stored yet; "
                f"set redis.namespace to it again, or move that folder away"
            )
        return record

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _tell(self, text: str) -> None:
        if self._trouble is None:
            self._report(f"{self._folder}: {text}")
        self._trouble = text


def _store(segments: Segments, records: Sequence[Spilled]) -> tuple[int, str | None]:
    """In the thread: appends and syncs; how many are on disk, and what was in the way of the others."""
    done, trouble = 0, None
    try:
        for record in records:
            segments.append([_ENCODE.encode(record)])
            done += 1
    except (SegmentsFull, OSError) as error:
        trouble = str(error)
    try:
        segments.sync()
    except (SegmentsFull, OSError) as error:
        # It took back all of them.
        return 0, str(error)
    return done, trouble
