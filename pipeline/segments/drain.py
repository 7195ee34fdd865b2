"""The front: reads records in order, skips what is damaged, counts what is lost."""

import logging
import os
from pathlib import Path
from typing import NamedTuple

from pipeline.segments.file import HEADER, File, Position, place_of, take

log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """A record and the position just behind it, which `Segments.drop` takes."""

    position: Position
    data: bytes


class Drain:
    """Reads `files`, a list that others change; from where `begin` says. `at`: up to where it has read."""

    def __init__(self, folder: Path, files: list[File]) -> None:
        self.at = Position(0, 0, 0)
        self.lost = 0
        """Records that could not be read, as far as it has come."""
        self._folder = folder
        self._files = files
        self._counted = 0
        self._opened: tuple[int, int] | None = None

    def begin(self, start: Position) -> None:
        """Nothing before `start` is missed."""
        self.at = start
        self._counted = start.record

    def take(self, end: int) -> Stored | None:
        """The next record before number `end` that can be read; those that cannot are counted on the way. Raises
        OSError."""
        while (file := self._file()) is not None:
            try:
                opened = self._reading(file)
            except FileNotFoundError:
                # Somebody removed it. How many records these were, the next file tells.
                self.at = Position(file.number, file.end, self.at.record)
                continue
            data, after = take(opened, file.number, self.at.offset, file.end)
            at, self.at = self.at, Position(file.number, after, self.at.record + 1)
            if data is not None:
                return Stored(self.at, data)
            if after == file.end:
                # How many records these were, the next file tells.
                self.at = Position(file.number, after, at.record)
            else:
                self._lose(at.record, self.at.record)
        self._lose(self.at.record, end)
        self.at = Position(self.at.segment, self.at.offset, end)
        return None

    def close(self) -> None:
        if self._opened is not None:
            os.close(self._opened[1])
            self._opened = None

    def _file(self) -> File | None:
        """The file in which reading goes on. What those before it should have held and did not is counted."""
        for file in self._files[place_of(self._files, self.at.segment) :]:
            if file.number > self.at.segment:
                self._lose(self.at.record, file.first)
                self.at = Position(file.number, HEADER.size, file.first)
            if self.at.offset < file.end:
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
        if self._opened is None or self._opened[0] != file.number:
            self.close()
            self._opened = (file.number, os.open(file.path, os.O_RDONLY))
        return self._opened[1]
