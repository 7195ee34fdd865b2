"""The files: of segments, a header, then length, crc32 and bytes of each record; the mark; the lock.

A record's checksum covers where it stands, so that neither zeros, nor an old block of the disk, nor a
record inside another one's bytes is ever taken for one.
"""

import errno
import fcntl
import logging
import os
import struct
import sys
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

MAGIC = b"tlseg001"
HEADER = struct.Struct("<8sQI")
"""Magic and version, running number of the file's first record, checksum."""
RECORD = struct.Struct("<II")
MARK = struct.Struct("<QQQI")
SLOTS = (0, 4096)
"""Where the mark is written, in turns: a torn write leaves the one before."""
_PLACE = struct.Struct("<QQI")

log = logging.getLogger(__name__)


class Position(NamedTuple):
    """Just behind a record: number of its file, bytes from the file's start, running number of the next record."""

    segment: int
    offset: int
    record: int


class File(msgspec.Struct):
    """`first`: running number of its first record; `end`: bytes of it that count."""

    folder: Path
    number: int
    first: int
    end: int

    @property
    def path(self) -> Path:
        return self.folder / name_of(self.number)


class Torn(msgspec.Struct):
    """What was cut at an opening: ends, and files without a beginning."""

    records: int = 0
    bytes: int = 0


def name_of(number: int) -> str:
    """The file's name; names sort as numbers do."""
    return f"{number:012d}.seg"


def header(first: int) -> bytes:
    """What a file begins with."""
    return HEADER.pack(MAGIC, first, zlib.crc32(HEADER.pack(MAGIC, first, 0)))


def first_of(file: int) -> int | None:
    """Running number of the file's first record; None where the header is torn or not ours."""
    text = os.pread(file, HEADER.size, 0)
    if len(text) < HEADER.size:
        return None
    first: int = HEADER.unpack(text)[1]
    return first if text == header(first) else None


def place_of(files: Sequence[File], number: int) -> int:
    """Where the file of that number, or the next one, stands in the list."""
    return bisect_left(files, number, key=lambda file: file.number)


def encode(number: int, offset: int, records: Iterable[bytes]) -> bytes:
    """The records as they stand in file `number` from `offset` on."""
    parts: list[bytes] = []
    for data in records:
        parts += (RECORD.pack(len(data), _checksum(number, offset, data)), data)
        offset += RECORD.size + len(data)
    return b"".join(parts)


def take(file: int, number: int, offset: int, end: int) -> tuple[bytes | None, int]:
    """The record at `offset` and where the next one begins. Data is None where it is damaged.

    The length of a damaged record is believed only if a good record, or the end, stands where it leads; else
    the next one begins at `end`: a guessed border could pass data off as records.
    """
    data, after = _look(file, number, offset, end)
    if data is None and after < end and _look(file, number, after, end)[0] is None:
        after = end
    return data, after


def found(folder: Path, number: int, torn: Torn) -> File | None:
    """The file of that number; None, and it is gone, where its beginning is not ours. Raises OSError."""
    path = folder / name_of(number)
    opened = os.open(path, os.O_RDONLY)
    try:
        first, size = first_of(opened), os.fstat(opened).st_size
    finally:
        os.close(opened)
    if first is not None:
        return File(folder, number, first, size)
    # A kill while a file is made leaves less than a header; anything else may have held records.
    log.warning("%s: its beginning is torn: %d bytes are lost", path, size)
    torn.records += 1
    torn.bytes += size
    path.unlink()
    return None


def cut_end(file: File, torn: Torn) -> tuple[int, bytes | None]:
    """Cuts what is torn at the file's end and syncs it; running number of the next record, and the last good one.
    Raises OSError."""
    opened = os.open(file.path, os.O_RDWR)
    newest: bytes | None = None
    try:
        offset, index = HEADER.size, file.first
        while offset < file.end:
            data, after = take(opened, file.number, offset, file.end)
            if data is None and after == file.end:
                log.warning("%s: torn at its end: %d bytes are cut", file.path, file.end - offset)
                torn.records += 1
                torn.bytes += file.end - offset
                os.ftruncate(opened, offset)
                file.end = offset
                break
            offset, index, newest = after, index + 1, newest if data is None else data
        flush(opened)
    finally:
        os.close(opened)
    return index, newest


def write(file: int, data: bytes, offset: int) -> None:
    """Writes all of it. Raises OSError, and then some of it may be there."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def flush(file: int) -> None:
    """Returns when the disk has what was written."""
    if sys.platform == "darwin":
        # There fsync leaves it in the drive's own cache.
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(file)


def flush_folder(folder: Path) -> None:
    """Returns when the disk knows the folder's files by name."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def lock(folder: Path) -> int | None:
    """Holds the folder until it is closed or the process ends; None while another process does. Raises OSError."""
    opened = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(opened)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return opened


def open_mark(path: Path) -> tuple[int, Position | None]:
    """The file of marks, made where there is none, and the mark; None where it was lost. Raises OSError."""
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(opened).st_size == 0:
            # Both slots now: to move the mark on a full disk must need no room.
            for turn in range(len(SLOTS)):
                write_mark(opened, Position(0, 0, 0), turn)
        return opened, read_mark(opened)
    except BaseException:
        os.close(opened)
        raise


def read_mark(file: int) -> Position | None:
    """The furthest of the marks that are whole; None where there is none."""
    marks: list[Position] = []
    for slot in SLOTS:
        text = os.pread(file, MARK.size, slot)
        if len(text) == MARK.size:
            *place, checksum = MARK.unpack(text)
            if checksum == zlib.crc32(text[:-4], 1):
                marks.append(Position(*place))
    return max(marks, default=None)


def write_mark(file: int, mark: Position, turn: int) -> None:
    """Writes the mark durably into the slot whose turn it is. Raises OSError."""
    text = MARK.pack(*mark, 0)[:-4]
    write(file, text + struct.pack("<I", zlib.crc32(text, 1)), SLOTS[turn % len(SLOTS)])
    flush(file)


def _look(file: int, number: int, offset: int, end: int) -> tuple[bytes | None, int]:
    """As `take`, but believes every length that fits."""
    head = _bytes(file, RECORD.size, offset)
    if len(head) < RECORD.size:
        return None, end
    length, checksum = RECORD.unpack(head)
    after = offset + RECORD.size + length
    if after > end:
        return None, end
    data = _bytes(file, length, offset + RECORD.size)
    return (data if len(data) == length and _checksum(number, offset, data) == checksum else None), after


def _bytes(file: int, length: int, offset: int) -> bytes:
    """What the disk has there; a block that it cannot read is as damaged as one it reads wrongly."""
    try:
        return os.pread(file, length, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _checksum(number: int, offset: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_PLACE.pack(number, offset, len(data))))
