"""The back: appends to the last file, syncs, and takes back what a failed sync leaves in doubt."""

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.segments.file import HEADER, File, Position, encode, flush, flush_folder, header, place_of, write


class Tail:
    """Adds to `files`, a list that others change too; a file grows to about `each` bytes. Each beginning starts a new
    one. `next`: running number of the next record."""

    def __init__(self, folder: Path, files: list[File], each: int) -> None:
        self.next = 0
        self._folder = folder
        self._files = files
        self._each = each
        self._last = 0
        self._synced = Position(0, 0, 0)
        self._opened: int | None = None

    def begin(self, last: int, record: int) -> None:
        """Goes on behind file number `last` with the record of that number; all before is on the disk."""
        self.next, self._last = record, last
        self._synced = Position(last, 0, record)

    def append(self, records: Sequence[bytes], size: int) -> None:
        """Puts the records, `size` bytes in their file, behind all others. Raises OSError; then none was written."""
        file, opened = self._file_for(size)
        try:
            write(opened, encode(file.number, file.end, records), file.end)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(opened, file.end)
            raise
        file.end += size
        self.next += len(records)

    def sync(self) -> None:
        """Returns when all that was appended is on the disk. Raises OSError; then all that was appended since the last
        sync is taken back."""
        if self._synced.record == self.next:
            return
        try:
            for file in self._files[place_of(self._files, self._synced.segment) :]:
                self._flush(file)
            flush_folder(self._folder)
        except OSError:
            self._take_back()
            raise
        last = self._files[-1]
        self._synced = Position(last.number, last.end, self.next)

    def close(self) -> None:
        """Appends no more to the file that is open."""
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    def _file_for(self, size: int) -> tuple[File, int]:
        """The file to append to, and it opened."""
        if self._opened is not None:
            file = self._files[-1]
            if file.end == HEADER.size or file.end + size <= self._each:
                return file, self._opened
        file = File(self._folder, self._last + 1, self.next, HEADER.size)
        # Whoever needs room on the disk may have removed all of it.
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = os.open(file.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write(opened, header(self.next), 0)
        except BaseException:
            os.close(opened)
            file.path.unlink(missing_ok=True)
            raise
        self.close()
        self._opened, self._last = opened, file.number
        self._files.append(file)
        return file, opened

    def _flush(self, file: File) -> None:
        if file is self._files[-1]:
            if self._opened is None:
                raise ValueError(f"{self._folder} is closed")
            flush(self._opened)
            if not os.fstat(self._opened).st_nlink:
                raise FileNotFoundError(errno.ENOENT, "removed while it was written", str(file.path))
            return
        # What was removed is lost, and counted when its turn comes to be read.
        with contextlib.suppress(FileNotFoundError):
            opened = os.open(file.path, os.O_RDWR)
            try:
                flush(opened)
            finally:
                os.close(opened)

    def _take_back(self) -> None:
        """Undoes what was appended since the last sync, as far as the disk lets us."""
        self.close()
        while self._files and self._files[-1].number > self._synced.segment:
            with contextlib.suppress(OSError):
                self._files.pop().path.unlink()
        if self._files and self._files[-1].number == self._synced.segment and self._synced.offset:
            file = self._files[-1]
            file.end = self._synced.offset
            with contextlib.suppress(OSError):
                os.truncate(file.path, file.end)
        self.next = self._synced.record
