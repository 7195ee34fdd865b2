"""Records on disk, in order, bounded: appended at the back, drained from the front. Blocking: callers use a thread.

What `append` returned from survives the death of the process (SIGKILL included); what `sync` returned from
survives the loss of power. A power loss can take what was appended after the last `sync`, nothing older.
Files are of mode 0600 in a folder of mode 0700; one process at a time holds the folder (flock).
"""

import contextlib
import errno
import fcntl
import logging
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import SettingsError, TapelineError
from pipeline.segment import (
    HEADER,
    RECORD,
    File,
    Position,
    Torn,
    cut_end,
    encode,
    flush,
    flush_folder,
    found,
    header,
    open_mark,
    take,
    write,
    write_mark,
)

__all__ = ["DiskFull", "Position", "Segments", "SegmentsFull", "SegmentsInUse", "Stored"]

MIB = 1024 * 1024
MOST_RECORD = 1024 * MIB
FEWEST = 8
"""Files that the bound holds at least, so that dropping the oldest records soon makes room."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = logging.getLogger(__name__)


class SegmentsFull(TapelineError):
    """The records do not fit in the bound; none of them was written."""


class DiskFull(SegmentsFull):
    """The disk has no room; none of the records was written."""


class SegmentsInUse(SettingsError):
    """Another process holds the folder."""


class Stored(NamedTuple):
    """A record and the position just behind it, which `drop` takes."""

    position: Position
    data: bytes


class Segments:
    """Records in `folder`, in files of about `segment_bytes` (at most an eighth of the bound), at most `most_bytes` of
    files. Each opening begins a file of its own. Raises SegmentsInUse, DiskFull, OSError.

    A record torn at the very end is cut when the folder is opened: `torn` and `torn_bytes` tell. One that is
    damaged further in is skipped alone where its length still leads to a good record; else the rest of its file is
    lost, since no border in it can be trusted. `lost` tells how many records, once reading has come past them: each
    file notes the running number of its first record, so none goes uncounted.
    """

    def __init__(self, folder: Path, *, most_bytes: int, segment_bytes: int = 16 * MIB) -> None:
        self._folder = folder
        self._most = most_bytes
        self._each = min(segment_bytes, most_bytes // FEWEST)
        self.lost = 0
        self.waiting_bytes = 0
        """Bytes on disk of what was not dropped."""
        self.newest: bytes | None = None
        """The last record that was there at the opening, dropped or not."""
        self._torn = Torn()
        self._files: list[File] = []
        self._mark = self._at = self._given = self._synced = Position(0, 0, 0)
        self._last = self._next = self._counted = 0
        self._active: int | None = None
        self._reader: tuple[int, int] | None = None
        self._marks: int | None = None
        self._turn = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._lock: int | None = _lock(folder)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def torn(self) -> int:
        return self._torn.records

    @property
    def torn_bytes(self) -> int:
        return self._torn.bytes

    @property
    def waiting_records(self) -> int:
        """Records appended and not dropped, damaged ones among them."""
        return self._next - self._mark.record

    def append(self, records: Sequence[bytes]) -> None:
        """Puts the records behind all others, in one write. Raises SegmentsFull, DiskFull (nothing was written
        then), OSError (the same)."""
        if not records:
            return
        if max(map(len, records)) > MOST_RECORD:
            raise ValueError(f"a record of {max(map(len, records))} bytes; at most {MOST_RECORD}")
        size = sum(map(len, records)) + RECORD.size * len(records)
        if sum(file.end for file in self._files) + HEADER.size + size > self._most:
            raise SegmentsFull(f"{self._folder}: {size} bytes more would pass the bound of {self._most}")
        with _told(self._folder):
            file, opened = self._file_for(size)
            try:
                write(opened, encode(file.number, file.end, records), file.end)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(opened, file.end)
                raise
        file.end += size
        self._next += len(records)
        self.waiting_bytes += size

    def sync(self) -> None:
        """Returns when all that was appended is on the disk. Raises DiskFull, OSError: then all that was appended since
        the last sync is taken back, since no later one could be trusted with it; append it again."""
        if self._synced.record == self._next:
            return
        try:
            with _told(self._folder):
                for file in self._files[self._place(self._synced.segment) :]:
                    self._flush(file)
                flush_folder(self._folder)
        except (DiskFull, OSError):
            self._take_back()
            raise
        last = self._files[-1]
        self._synced = Position(last.number, last.end, self._next)

    def read(self, most_bytes: int) -> list[Stored]:
        """The oldest records not read yet, up to the one that reaches `most_bytes`; none when all are read. Syncs
        first: what was read is never taken back. Raises DiskFull, OSError."""
        self.sync()
        records: list[Stored] = []
        size = 0
        while size < most_bytes and (stored := self._take()) is not None:
            records.append(stored)
            size += len(stored.data)
            self._given = stored.position
        if not records and self._given <= self._mark:
            # Nothing but damaged records waits.
            self.drop(self._at)
        return records

    def rewind(self) -> None:
        """Reading begins anew at the oldest record not dropped."""
        self._at = self._mark

    def drop(self, position: Position) -> None:
        """Everything up to `position` is done with, durably; files that hold nothing else go. Raises OSError."""
        if position <= self._mark:
            return
        try:
            self._turn += 1
            with _told(self._folder):
                write_mark(self._descriptor(self._marks), position, self._turn)
        except DiskFull:
            # Files that go make room, and what is gone needs no mark: at worst one file is read again.
            log.warning("%s: the disk is full: cannot note how far it was read", self._folder)
        self._mark = position
        self._at = max(self._at, position)
        self._unlink()

    def close(self) -> None:
        """Lets go of the folder. Syncs nothing."""
        for opened in (self._active, self._reader and self._reader[1], self._marks, self._lock):
            if opened is not None:
                os.close(opened)
        self._active = self._reader = self._marks = self._lock = None

    def _open(self) -> None:
        """Finds what is there; cuts a torn end, removes what was dropped."""
        with _told(self._folder):
            self._marks, mark = open_mark(self._folder / "mark")
        numbers = sorted(int(path.stem) for path in self._folder.glob("*.seg") if path.stem.isdigit())
        files = [found(self._folder, number, self._torn) for number in numbers]
        self._files = [file for file in files if file is not None]
        self._last = max([*numbers, mark.segment if mark else 0])
        self._next = self._cut_end()
        if mark is None:
            log.warning("%s: it is not known how far it was read: all there is comes again", self._folder)
            oldest = self._files[0] if self._files else None
            mark = Position(oldest.number, HEADER.size, oldest.first) if oldest else Position(0, 0, 0)
        self._next = max(self._next, mark.record)
        self._mark = self._at = self._given = mark
        self._counted = mark.record
        self._synced = Position(self._last, 0, self._next)
        self._unlink()
        flush_folder(self._folder)

    def _cut_end(self) -> int:
        """Running number of the next record. Files without one at the end go: a kill left them."""
        after = 0
        while self._files:
            index, self.newest = cut_end(self._files[-1], self._torn)
            after = max(after, index)
            if self._files[-1].end > HEADER.size:
                break
            self._files.pop().path.unlink()
        return after

    def _file_for(self, size: int) -> tuple[File, int]:
        """The file to append to, and it opened."""
        if self._active is not None:
            file = self._files[-1]
            if file.end == HEADER.size or file.end + size <= self._each:
                return file, self._active
        file = File(self._folder, self._last + 1, self._next, HEADER.size)
        opened = os.open(file.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write(opened, header(self._next), 0)
        except BaseException:
            os.close(opened)
            file.path.unlink()
            raise
        self._end_active()
        self._active, self._last = opened, file.number
        self._files.append(file)
        return file, opened

    def _flush(self, file: File) -> None:
        if file is self._files[-1]:
            flush(self._descriptor(self._active))
            return
        opened = os.open(file.path, os.O_RDWR)
        try:
            flush(opened)
        finally:
            os.close(opened)

    def _take_back(self) -> None:
        """Undoes what was appended since the last sync, as far as the disk lets us."""
        self._end_active()
        while self._files and self._files[-1].number > self._synced.segment:
            with contextlib.suppress(OSError):
                self._files.pop().path.unlink()
        if self._files and self._files[-1].number == self._synced.segment and self._synced.offset:
            file = self._files[-1]
            file.end = self._synced.offset
            with contextlib.suppress(OSError):
                os.truncate(file.path, file.end)
        self._next = self._synced.record
        self._weigh()

    def _take(self) -> Stored | None:
        """The next record that can be read; those that cannot are counted on the way."""
        while (file := self._file_at()) is not None:
            data, after = take(self._reading(file), file.number, self._at.offset, file.end)
            at, self._at = self._at, Position(file.number, after, self._at.record + 1)
            if data is not None:
                return Stored(self._at, data)
            if after == file.end:
                # How many records these were, the next file tells.
                self._at = Position(file.number, after, at.record)
            else:
                self._lose(at.record, self._at.record)
        self._lose(self._at.record, self._next)
        self._at = Position(self._at.segment, self._at.offset, self._next)
        return None

    def _file_at(self) -> File | None:
        """The file in which reading goes on. What those before it should have held and did not is counted."""
        for file in self._files[self._place(self._at.segment) :]:
            if file.number > self._at.segment:
                self._lose(self._at.record, file.first)
                self._at = Position(file.number, HEADER.size, file.first)
            if self._at.offset < file.end:
                return file
        return None

    def _lose(self, start: int, end: int) -> None:
        """The records from number `start` up to `end` are lost; none is counted twice."""
        start = max(start, self._counted)
        if end > start:
            self.lost += end - start
            self._counted = end
            log.error("%s: %d records are damaged and lost", self._folder, end - start)

    def _reading(self, file: File) -> int:
        """The file, opened to be read."""
        if self._reader is None or self._reader[0] != file.number:
            if self._reader is not None:
                os.close(self._reader[1])
                self._reader = None
            self._reader = (file.number, os.open(file.path, os.O_RDONLY))
        return self._reader[1]

    def _unlink(self) -> None:
        """Removes the files in which everything is dropped."""
        mark = self._mark
        while self._files and (self._files[0].number, self._files[0].end) <= (mark.segment, mark.offset):
            file = self._files.pop(0)
            if not self._files:
                self._end_active()
            file.path.unlink()
        self._weigh()

    def _end_active(self) -> None:
        if self._active is not None:
            os.close(self._active)
            self._active = None

    def _weigh(self) -> None:
        dropped = (self._mark.offset if file.number == self._mark.segment else HEADER.size for file in self._files)
        self.waiting_bytes = sum(file.end for file in self._files) - sum(dropped)

    def _place(self, number: int) -> int:
        """Where the file of that number, or the next one, stands in the list."""
        return bisect_left(self._files, number, key=lambda file: file.number)

    def _descriptor(self, opened: int | None) -> int:
        if opened is None:
            raise ValueError(f"{self._folder} is closed")
        return opened


def _lock(folder: Path) -> int:
    """Holds the folder until it is closed or the process ends. Raises SegmentsInUse."""
    opened = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(opened)
        if isinstance(error, BlockingIOError):
            raise SegmentsInUse(f"{folder} is in use by another process") from error
        raise
    return opened


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turns the errors that mean a full disk into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"{folder}: {error.strerror}") from error
        raise
