"""Segments: the folder that holds the files, its bound and its mark; opened after any death."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import SettingsError, TapelineError
from pipeline.segments.drain import Drain, Stored
from pipeline.segments.file import (
    HEADER,
    RECORD,
    File,
    Position,
    Torn,
    cut_end,
    flush_folder,
    found,
    lock,
    open_mark,
    write_mark,
)
from pipeline.segments.tail import Tail

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


class Segments:
    """Records in `folder`, in files of about `segment_bytes` (at most an eighth of the bound), at most `most_bytes` of
    files. Each opening begins a file of its own. Raises SegmentsInUse, DiskFull, OSError.

    A record torn at the very end is cut when the folder is opened: `torn` and `torn_bytes` tell. One that is
    damaged further in is skipped alone where its length still leads to a good record; else the rest of its file is
    lost, since no border in it can be trusted. `lost` tells how many records, once reading has come past them: each
    file notes the running number of its first record, so none goes uncounted. So are the records of files that somebody
    removed; a folder that is gone is made anew.
    """

    def __init__(self, folder: Path, *, most_bytes: int, segment_bytes: int = 16 * MIB) -> None:
        self._folder = folder
        self._most = most_bytes
        self.waiting_bytes = 0
        """Bytes on disk of what was not dropped."""
        self.newest: bytes | None = None
        """The last record that was there at the opening, dropped or not."""
        self._torn = Torn()
        self._files: list[File] = []
        self._tail = Tail(folder, self._files, min(segment_bytes, most_bytes // FEWEST))
        self._drain = Drain(folder, self._files)
        self._mark = self._given = Position(0, 0, 0)
        self._marks: int | None = None
        self._turn = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._lock = lock(folder)
        if self._lock is None:
            raise SegmentsInUse(f"{folder} is in use by another process")
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
    def lost(self) -> int:
        return self._drain.lost

    @property
    def waiting_records(self) -> int:
        """Records appended and not dropped, damaged ones among them."""
        return self._tail.next - self._mark.record

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
            self._tail.append(records, size)
        self.waiting_bytes += size

    def sync(self) -> None:
        """Returns when all that was appended is on the disk. Raises DiskFull, OSError: then all that was appended since
        the last sync is taken back, since no later one could be trusted with it; append it again."""
        try:
            with _told(self._folder):
                self._tail.sync()
        except (DiskFull, OSError):
            self._weigh()
            raise

    def read(self, most_bytes: int) -> list[Stored]:
        """The oldest records not read yet, up to the one that reaches `most_bytes`; none when all are read. Syncs
        first: what was read is never taken back. Raises DiskFull, OSError."""
        self.sync()
        records: list[Stored] = []
        size = 0
        while size < most_bytes and (stored := self._drain.take(self._tail.next)) is not None:
            records.append(stored)
            size += len(stored.data)
            self._given = stored.position
        if not records and self._given <= self._mark:
            # Nothing but damaged records waits.
            self.drop(self._drain.at)
        return records

    def rewind(self) -> None:
        """Reading begins anew at the oldest record not dropped."""
        self._drain.at = self._mark

    def drop(self, position: Position) -> None:
        """Everything up to `position` is done with, durably; files that hold nothing else go. Raises OSError."""
        if position <= self._mark:
            return
        if self._marks is None:
            raise ValueError(f"{self._folder} is closed")
        try:
            self._turn += 1
            with _told(self._folder):
                write_mark(self._marks, position, self._turn)
        except DiskFull:
            # Files that go make room, and what is gone needs no mark: at worst one file is read again.
            log.warning("%s: the disk is full: cannot note how far it was read", self._folder)
        self._mark = position
        self._drain.at = max(self._drain.at, position)
        self._unlink()

    def close(self) -> None:
        """Lets go of the folder. Syncs nothing."""
        self._tail.close()
        self._drain.close()
        for opened in (self._marks, self._lock):
            if opened is not None:
                os.close(opened)
        self._marks = self._lock = None

    def _open(self) -> None:
        """Finds what is there; cuts a torn end, removes what was dropped."""
        with _told(self._folder):
            self._marks, mark = open_mark(self._folder / "mark")
        numbers = sorted(int(path.stem) for path in self._folder.glob("*.seg") if path.stem.isdigit())
        files = [found(self._folder, number, self._torn) for number in numbers]
        self._files += [file for file in files if file is not None]
        following = self._cut_end()
        if mark is None:
            log.warning("%s: it is not known how far it was read: all there is comes again", self._folder)
            oldest = self._files[0] if self._files else None
            mark = Position(oldest.number, HEADER.size, oldest.first) if oldest else Position(0, 0, 0)
        self._mark = self._given = mark
        self._drain.begin(mark)
        self._tail.begin(max([*numbers, mark.segment]), max(following, mark.record))
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

    def _unlink(self) -> None:
        """Removes the files in which everything is dropped."""
        mark = self._mark
        while self._files and (self._files[0].number, self._files[0].end) <= (mark.segment, mark.offset):
            file = self._files.pop(0)
            if not self._files:
                self._tail.close()
            file.path.unlink(missing_ok=True)
        self._weigh()

    def _weigh(self) -> None:
        dropped = (self._mark.offset if file.number == self._mark.segment else HEADER.size for file in self._files)
        self.waiting_bytes = sum(file.end for file in self._files) - sum(dropped)


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turns the errors that mean a full disk into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"{folder}: {error.strerror}") from error
        raise
