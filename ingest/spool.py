"""Frames of one partition that wait on disk for Redis: a thread writes and reads them, one call at a time, in order.

Entries keep their (w, n). So what a killed process left is written by the next one as the old one's, before its
own, and what the stream has already is known by its number. Never drops silently: the numbers of what is dropped
stay out, and what later frames are read by is saved into the last of them.

A kill loses what came since the last write: while Redis takes nothing, Timing.spool_after and a spool_tick at most.
A power loss takes no more, since each write is synced. What was saved of dropped frames is in memory until it is read.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ingest.buffer import BURST_BYTES, Place, Spooled
from ingest.salvage import Salvage
from pipeline.errors import ServerAway
from pipeline.frames import VERSION, Frame, RawEntry, split
from pipeline.segments import DiskFull, Position, Segments, SegmentsFull

_ENCODE = msgspec.msgpack.Encoder()
_DECODE = msgspec.msgpack.Decoder(tuple[int, int, int, tuple[Frame, ...]])
T = TypeVar("T")


class Spool:
    """The entries in `folder`, at most `most_bytes` of files; where that is reached the oldest go. `report` takes
    errors for people."""

    def __init__(self, folder: Path, most_bytes: int, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._most = most_bytes
        self._report = report
        self._turn = asyncio.Lock()
        # One thread: what is cancelled here still ends there before the next begins.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._segments: Segments | None = None
        self._hole = Hole()
        self._opened = False
        self._troubled = False
        self._undecodable = 0
        self._oldest: int | None = None
        self.unread = False
        """Whether there are entries that `read` has not given yet."""
        self.dropped = 0
        """Frames that went for want of room, those that were saved not among them."""
        self.newest_writer = 0
        """`w` of the last entry that an earlier process left."""

    async def open(self) -> None:
        """Finds what an earlier process left; once is enough. Raises SegmentsInUse. Where the disk fails there is no
        spool until the next connection to Redis: told."""
        if self._opened:
            return
        try:
            segments = await self._do(lambda: Segments(self._folder, most_bytes=self._most))
            self._opened, self._segments = True, segments
            self.unread = segments.waiting_records > 0
            if segments.newest is not None and (entry := self._decoded(segments.newest)) is not None:
                self.newest_writer = entry.w
            if self.unread:
                first = await self._do(lambda: segments.read(1))
                segments.rewind()
                self._look_at([entry for stored in first if (entry := self._decoded(stored.data))], first_frame=True)
        except (OSError, DiskFull) as error:
            self._tell(f"cannot open the spool, frames wait in memory only: {error}")
            return
        if segments.torn:
            self._report(f"{self._folder}: torn by a crash: {segments.torn_bytes} bytes are lost")

    @property
    def usable(self) -> bool:
        return self._segments is not None

    async def append(self, entries: Sequence[RawEntry], sent: Place) -> tuple[int, bool]:
        """Puts entries on disk, durably. How many of them, from the first on, are there; and whether it is in doubt
        what became of the others. Those up to `sent` are in the stream, or in memory on their way: where the oldest
        have to go, these are no loss. Errors are told."""
        done = 0
        async with self._turn:
            if self._segments is None:
                return 0, False
            for group in _chunks(entries):
                try:
                    await self._do(partial(self._store, group, sent))
                except (SegmentsFull, OSError) as error:
                    self._tell(f"frames wait in memory: {error}")
                    return done, not isinstance(error, SegmentsFull)
                if self._oldest is None:
                    self._look_at(group, first_frame=True)
                done += len(group)
                self.unread = True
        if self._hole.entries == 0:
            self._troubled = False
        return done, False

    async def read(self) -> list[Spooled]:
        """The oldest entries not given yet, about a burst; none when all are. Raises ServerAway when the disk fails."""
        async with self._turn:
            assert self._segments is not None
            try:
                more, entries = await self._do(partial(self._load, self._segments))
            except (SegmentsFull, OSError) as error:
                raise ServerAway(f"{self._folder}: cannot read the spool: {error}") from error
            self.unread = more
            self._look_at([each.entry for each in entries], first_frame=False)
            return [*self._hole.take(), *entries]

    async def drop(self, position: Position) -> None:
        """Everything up to `position` is done with."""
        async with self._turn:
            if self._segments is not None:
                try:
                    await self._do(partial(self._segments.drop, position))
                except OSError as error:
                    # What is not dropped is read again by the next process, and known by its number.
                    self._tell(f"cannot note how far it was read: {error}")

    async def close(self) -> None:
        """Lets go of the folder."""
        async with self._turn:
            if self._segments is not None:
                await self._do(self._segments.close)
                self._segments, self.unread = None, False
        self._thread.shutdown(wait=False)

    def row(self) -> dict[str, Any]:
        """For the report. `oldest`: about the time (ns) of the oldest frame that waits; `damaged`: records on disk
        that could not be read again."""
        segments = self._segments
        return {
            "bytes": segments.waiting_bytes if segments else 0,
            "records": segments.waiting_records if segments else 0,
            "oldest": self._oldest if self.unread else None,
            "dropped": self.dropped,
            "damaged": segments.lost + segments.torn + self._undecodable if segments else 0,
        }

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _store(self, entries: Sequence[RawEntry], sent: Place) -> None:
        """In the thread: appends and syncs; drops the oldest while the bound (not the disk) is in the way."""
        assert self._segments is not None
        records = [_ENCODE.encode((VERSION, entry.w, entry.n, entry.frames)) for entry in entries]
        while True:
            try:
                self._segments.append(records)
                break
            except DiskFull:
                # What others fill we cannot free: memory may last until the disk or Redis is back.
                raise
            except SegmentsFull:
                if not self._make_room(self._segments, sent):
                    raise
        self._segments.sync()

    def _load(self, segments: Segments) -> tuple[bool, list[Spooled]]:
        """In the thread: whether there may be more, and the next entries."""
        before = segments.lost
        stored = segments.read(BURST_BYTES)
        if segments.lost > before:
            self._report(f"{self._folder}: {segments.lost - before} entries on disk are damaged and lost")
        return bool(stored), [Spooled(entry, each.position) for each in stored if (entry := self._decoded(each.data))]

    def _make_room(self, segments: Segments, sent: Place) -> bool:
        """In the thread: drops some of the oldest; whether there were any."""
        stored = segments.read(BURST_BYTES)
        if not stored:
            return False
        for each in stored:
            entry = self._decoded(each.data)
            if entry is not None and (entry.w, entry.n) > sent:
                self._tell("the spool is full: dropping the oldest frames")
                self.dropped += self._hole.lose(entry, each.position)
        segments.drop(stored[-1].position)
        return True

    def _decoded(self, data: bytes) -> RawEntry | None:
        """The entry; None for one that we cannot read: its number stays out."""
        try:
            version, w, n, frames = _DECODE.decode(data)
        except msgspec.DecodeError as error:
            version, text = None, str(error)
        else:
            text = f"version {version}, this program reads {VERSION}"
        if version != VERSION:
            self._undecodable += 1
            self._report(f"{self._folder}: an entry is not ours and lost: {text}")
            return None
        return RawEntry(w, n, frames)

    def _look_at(self, entries: Sequence[RawEntry], *, first_frame: bool) -> None:
        if entries:
            frame = entries[0].frames[0] if first_frame else entries[-1].frames[-1]
            self._oldest = frame.ts
        elif not self.unread:
            self._oldest = None

    def _tell(self, text: str) -> None:
        if not self._troubled:
            self._report(f"{self._folder}: {text}")
        self._troubled = True


class Hole:
    """A run of entries that were dropped, and what is saved of them."""

    def __init__(self) -> None:
        self._saved = Salvage()
        self._last: RawEntry | None = None
        self._position = Position(0, 0, 0)
        self.entries = 0

    def lose(self, entry: RawEntry, position: Position) -> int:
        """Takes the next entry; how many of its frames are lost."""
        if self._last is not None and self._last.w != entry.w:
            # All of an older process is gone: its connections are of no more use to anybody.
            self._saved, self.entries = Salvage(), 0
        self._last, self._position = entry, position
        self.entries += 1
        return len(entry.frames) - sum(self._saved.save(frame) for frame in entry.frames)

    def take(self) -> list[Spooled]:
        """The saved frames under the last of the numbers that were lost; at least one number stays out."""
        if self._last is None:
            return []
        last = self._last
        groups = list(split(self._saved.take()))
        groups = groups[max(0, len(groups) - (self.entries - 1)) :]
        first = last.n - len(groups) + 1
        entries = [RawEntry(last.w, first + place, group) for place, group in enumerate(groups)]
        self._last, self.entries = None, 0
        return [Spooled(entry, self._position) for entry in entries]


def _chunks(entries: Sequence[RawEntry]) -> Iterator[Sequence[RawEntry]]:
    """Groups of about a burst."""
    start = size = 0
    for place, entry in enumerate(entries):
        size += sum(len(frame.data) for frame in entry.frames)
        if size >= BURST_BYTES:
            yield entries[start : place + 1]
            start, size = place + 1, 0
    if start < len(entries):
        yield entries[start:]
