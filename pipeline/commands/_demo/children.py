"""The demo's two children: the simulator and `pipeline up`. Both fall with the demo, however it ends."""

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ServerAway

_LAUNCH = """
import os, signal, sys
from pipeline.parent import fall_with_parent
fall_with_parent(signal.SIGTERM, exec_follows=True)
os.execv(sys.executable, [sys.executable, "-P", "-m", "pipeline", *sys.argv[1:]])
"""
"""Asks for a signal when the demo dies, then becomes `pipeline …`."""

READY = 30.0
STOP = 120.0
"""Seconds for `pipeline up` to stop everything in order, Postgres among it."""


class Child:
    """One `pipeline` command in a session of its own, so that Ctrl-C is for the demo alone."""

    def __init__(self, name: str, arguments: list[str], log: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _LAUNCH, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if name.startswith("simulator") else output,
                stderr=output,
                cwd="/",
                env=dict(environ),
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises ServerAway with the last words of a child that has ended."""
        if (code := self._process.poll()) is not None:
            raise ServerAway(f"{self.name} ended (exit code {code}): {self.last_words()}")

    def first_line(self) -> dict[str, Any]:
        """The object in the first line of its output. Raises ServerAway when none comes."""
        assert self._process.stdout is not None
        end = time.monotonic() + READY
        while not select.select([self._process.stdout], [], [], 0.2)[0]:
            self.check()
            if time.monotonic() > end:
                raise ServerAway(f"{self.name} said nothing within {READY:g} s: {self.last_words()}")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(READY)
            self.check()
        return dict(json.loads(line))

    def last_words(self) -> str:
        """The end of its log, on one line."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "it wrote nothing"

    def stop(self) -> None:
        """Asks it to end and waits; kills it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
