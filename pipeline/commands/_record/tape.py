"""The file a recording goes to: JSON Lines, gzip by name, never over another one unless asked to."""

import contextlib
import gzip
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pipeline.errors import SettingsError, TapelineError

LEVEL = 5
"""Of gzip: about as small as the default, in half the time."""


class Tape:
    """`bytes` counts what was written before compression. What has been flushed survives a kill."""

    def __init__(self, path: Path, *, force: bool) -> None:
        """Raises SettingsError when the file is there already or cannot be made."""
        self.path = path
        self.bytes = 0
        try:
            self._raw: BinaryIO = path.open("wb" if force else "xb")
        except FileExistsError:
            raise SettingsError(f"{path} is there already; --force overwrites it") from None
        except OSError as error:
            raise SettingsError(f"cannot write {path}: {error.strerror}") from error
        zipped = path.name.endswith(".gz")
        self._lines = gzip.GzipFile("", "wb", LEVEL, self._raw) if zipped else self._raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._lines is not self._raw:
                self._lines.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
        except OSError as fault:
            raise _full(self.path, fault) from fault
        finally:
            # What could not be flushed has just been told; closing would try, and tell, it again.
            with contextlib.suppress(OSError):
                self._raw.close()

    def write(self, line: bytes) -> None:
        """Adds a line, its newline included. Raises TapelineError when the disk takes no more."""
        self.bytes += len(line)
        try:
            self._lines.write(line)
        except OSError as fault:
            raise _full(self.path, fault) from fault

    def flush(self) -> None:
        """Hands everything so far to the system."""
        try:
            self._lines.flush()
            self._raw.flush()
        except OSError as fault:
            raise _full(self.path, fault) from fault


def _full(path: Path, fault: OSError) -> TapelineError:
    return TapelineError(f"cannot write {path}: {fault.strerror}")
