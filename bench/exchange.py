"""The lean exchange as the bench sees it: its process, what it is told, and what it says it has printed."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from bench.venue import Told
from pipeline.errors import ServerAway

STOP = 10.0


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """What the venue says. `numbers`: instrument to its first and last trade's; `sent_at`: when its last trade was
    sent (ns UTC); `latest`: seconds by which a paced trade was sent after its turn, at most; `cpu`: seconds of its
    own."""

    printed: int
    printing: bool
    latest: float
    connections: int
    subscribed: int
    cpu: float
    fault: str | None
    numbers: dict[str, tuple[int, int]]
    sent_at: dict[str, int]


class _Greeting(msgspec.Struct, frozen=True):
    port: int
    names: tuple[str, ...]


class Exchange:
    """A venue with so many instruments, while this is entered. It ends with us: its stdin ends."""

    def __init__(self, symbols: int, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.venue", str(symbols), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        greeting = msgspec.json.decode(self._line(), type=_Greeting)
        self.names = greeting.names
        self.ws_url = f"ws://127.0.0.1:{greeting.port}"
        self.rest_url = f"http://127.0.0.1:{greeting.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def print(self, trades: int, rate: float | None = None) -> None:
        """Prints that many (rounded up to whole chunks): `rate` a second evenly, or as fast as `allow` lets it."""
        self._tell(Told(print=trades, rate=rate))

    def allow(self, trades: int) -> None:
        """So many trades may have been printed in all."""
        self._tell(Told(allow=trades))

    def told(self) -> Printed:
        """How far it is. Raises ServerAway when it is gone or could not go on."""
        self._tell(Told())
        said = msgspec.json.decode(self._line(), type=Printed)
        if said.fault is not None:
            raise ServerAway(f"the venue of the bench: {said.fault}")
        return said

    def _tell(self, told: Told) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(told) + b"\n")
        self._process.stdin.flush()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise ServerAway(f"the venue of the bench ended (exit code {self._process.wait(STOP)})")
        return line
