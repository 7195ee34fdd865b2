"""Where the records of a replay go: what every place offers, and files, one a kind."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from pipeline.records import CONTROLS, KINDS
from pipeline.steps import Command
from pipeline.streams import Keys

FILES = (*KINDS, "coverage", "dead")
"""Candles and klines of all time frames stand in one file each; clocks are not written."""


class Target(Protocol):
    """`namespace` is that of the keys it understands. `append` takes the XADD of one stage's step, `newest` its HSET
    of newest records."""

    namespace: str

    def append(self, keys: Keys, kind: str, command: Command) -> None: ...

    def newest(self, keys: Keys, command: Command) -> None: ...

    def refused(self, letter: bytes) -> None:
        """A dead letter of a line that belongs to no partition."""

    def flush(self) -> None:
        """Whatever was taken so far can be read."""


class Files:
    """DIR/<kind>.jsonl, all of them open from the start and closed in any case."""

    namespace = "replay"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, BinaryIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        for kind in FILES:
            self._files[kind] = self._stack.enter_context((self._directory / f"{kind}.jsonl").open("wb"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def append(self, keys: Keys, kind: str, command: Command) -> None:
        """One record to its file. Gaps are taken from their own stream, other controls from the trades'."""
        label, value, data = command[-4], command[-3], command[-1]
        name = kind.partition(":")[0]
        if label == b"control":
            assert isinstance(value, bytes)
            name = value.decode()
            assert name in CONTROLS
            if name != "coverage":
                return
        assert isinstance(data, bytes)
        self._files[name].write(data + b"\n")

    def newest(self, keys: Keys, command: Command) -> None:
        """Files hold all records: the newest stands last."""

    def refused(self, letter: bytes) -> None:
        """To the other dead letters."""
        self._files["dead"].write(letter + b"\n")

    def flush(self) -> None:
        """To the system."""
        for file in self._files.values():
            file.flush()
