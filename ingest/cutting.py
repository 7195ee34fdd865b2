"""Cuts the CSV in a daily file into pieces: the trades wanted and no others, a block at a time. Reads that file only.

Never holds more of it than a block: a day of trades may have gigabytes.
"""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import IO, NamedTuple

from ingest.feed import Archive, Row
from ingest.history import Wanted
from pipeline.errors import ExchangeError

BLOCK = 64 * 1024
"""Bytes of CSV: a piece is a frame of the raw stream, not larger than a page of trades."""
BLOCKS = 32
"""Read at most in a row before somebody else may have the interpreter."""
LONGEST_LINE = 4 * 1024
_TORN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    # Compressed in a way it does not know, encrypted, with places before the beginning.
    *(NotImplementedError, RuntimeError, ValueError, OverflowError),
)
"""What reading a damaged zip raises."""


class Piece(NamedTuple):
    """Lines with trades wanted, and their numbers as ranges in the order of the lines; without lines where the blocks
    looked through had none."""

    text: str
    ranges: tuple[tuple[int, int], ...]
    trades: int


class Cutter:
    """The one CSV in the zip `file`. Blocking: to be used in a thread, one call at a time. Raises ExchangeError for
    what is no such file."""

    def __init__(self, file: IO[bytes], archive: Archive, wanted: Wanted) -> None:
        self._file = file
        self._archive = archive
        self._wanted = wanted
        self._member: IO[bytes] | None = None
        self._rest = b""
        self._begun = False
        self._ended = False

    def next(self) -> Piece | None:
        """The next piece; None after the last."""
        try:
            member = self._member = self._member or self._open()
            for _ in range(BLOCKS):
                if self._ended:
                    return None
                piece = self._cut(self._block(member))
                if piece.trades:
                    return piece
        except _TORN as error:
            raise ExchangeError(f"the file is torn: {error}") from error
        return Piece("", (), 0)

    def _open(self) -> IO[bytes]:
        packed = zipfile.ZipFile(self._file)
        names = packed.namelist()
        if len(names) != 1:
            raise ExchangeError(f"the file holds {len(names)} files, not one")
        return packed.open(names[0])

    def _block(self, member: IO[bytes]) -> list[bytes]:
        """The lines that end in the next block; at the end the last one, too."""
        read = member.read(BLOCK)
        self._ended = not read
        *lines, self._rest = (self._rest + read).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ExchangeError(f"the file has a line of more than {LONGEST_LINE} bytes")
        return [*lines, self._rest] if self._ended else lines

    def _cut(self, lines: list[bytes]) -> Piece:
        first, last = self._wanted.first, self._wanted.last
        kept: list[bytes] = []
        rows = []
        if self._before(lines):
            return Piece("", (), 0)
        for line in lines:
            if (row := self._row(line)) is None:
                continue
            if first <= row.number <= last:
                kept.append(line.rstrip(b"\r"))
                rows.append(row)
            elif row.number > last and not rows:
                # Oldest first: nothing wanted comes any more.
                self._ended = True
                break
        if self._wanted.renumbered(rows):
            raise ExchangeError("the file has these numbers at other times: the instrument was listed anew")
        try:
            text = b"".join(line + b"\n" for line in kept).decode("ascii")
        except UnicodeDecodeError as error:
            raise ExchangeError("the file is not plain text") from error
        return Piece(text, _ranges([row.number for row in rows]), len(rows))

    def _before(self, lines: list[bytes]) -> bool:
        """Whether all of them are older than what is wanted, as their ends tell: a day of others is passed quickly, and
        does not keep the interpreter from those who read sockets."""
        if not self._begun or len(lines) < 2:
            return False
        ends = [self._row(line) for line in (lines[0], lines[-1])]
        return all(row is not None and row.number < self._wanted.first for row in ends)

    def _row(self, line: bytes) -> Row | None:
        """The trade of a line; none in an empty one, or in a first one that names the columns."""
        begun, self._begun = self._begun, True
        if not line.strip() or (not begun and not line[:1].isdigit()):
            return None
        try:
            return self._archive.read(line)
        except ValueError as error:
            raise ExchangeError(f"the file has a line that is no trade: {line[:80]!r}") from error


def _ranges(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Neighbours joined."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
