"""A reader outside the product, as docs/streams.md has it: run beside a demo, killed now and then, and counted."""

import os
import re
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline import settings

PAGE = Path(__file__).parents[2] / "docs" / "streams.md"
LIFE = 6.0
"""Seconds after which it is killed and started again."""


def program(streams: tuple[str, ...]) -> str:
    """The page's program, on other streams and so that it cannot overlook a trade that comes twice."""
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "sqlite3" in code]
    cursors = ", ".join(f'"{stream}": "0"' for stream in streams)
    assert '"md:trade:{okx}": "0"' in code
    assert "INSERT OR IGNORE" in code
    return code.replace('"md:trade:{okx}": "0"', cursors).replace("INSERT OR IGNORE", "INSERT")


class Outsider:
    """Reads from when the settings of the demo are there until the end of the block."""

    def __init__(self, folder: Path, streams: tuple[str, ...]) -> None:
        self._settings = folder / "data_collection.json"
        self._home = folder.parent
        self._code = program(streams)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.ends: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def count(self) -> int:
        """How many trades it has."""
        with sqlite3.connect(self._home / "outside.db") as found:
            (count,) = found.execute("SELECT count(*) FROM trades").fetchone()
            return int(count)

    def _run(self) -> None:
        while not self._settings.exists() or not self._settings.read_bytes().endswith(b"}\n"):
            if self._stop.wait(0.2):
                return
        # Below a long path the socket is elsewhere: the settings know.
        environ = {**os.environ, "REDIS_URL": settings.load(self._settings, {}).redis_address()}
        while not self._stop.is_set():
            child = subprocess.Popen([sys.executable, "-c", self._code], cwd=self._home, env=environ)
            self._stop.wait(LIFE)
            child.kill()
            self.ends.append(child.wait())
