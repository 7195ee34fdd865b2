"""`pipeline audit` on the database of a run, as a user would call it; and whether it sees what is spoilt by hand."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from pipeline.cli import FINDING, GOOD
from pipeline.commands._chaos.tampering import Spoilt
from pipeline.errors import ServerAway

PATIENCE = 1_800.0
POLL = 0.1
ITSELF = "audit"
SPOILT = "audit-spoilt"


class Audited(msgspec.Struct, frozen=True):
    """What an audit came to: its exit code and what it printed."""

    code: int
    text: str
    seconds: float

    @property
    def good(self) -> bool:
        return self.code == GOOD

    def names(self, spoilt: Spoilt) -> Iterator[str]:
        """What of the spoilt it does not say as it should: nothing when it found all."""
        if self.code != FINDING:
            yield f"its exit code is {self.code}, not {FINDING}"
        for thing in spoilt:
            found = [part.split() for part in self.text.split("\n\n") if part.startswith(f"{thing.heading}\n")]
            if not any(f" {thing.words}" in " ".join(words) for words in found):
                yield f"it does not name {thing.heading}: {thing.words.rstrip(',:')}"


class Audit:
    """Runs it on the settings of the run; what it prints stays in `folder`. `turn` is called while it works."""

    def __init__(self, settings: Path, since: datetime, environ: Mapping[str, str], turn: Callable[[], None]) -> None:
        self._settings = settings
        self._since = since
        self._environ = environ
        self._turn = turn

    def run(self, name: str, *options: str) -> Audited:
        """Raises ServerAway when it comes to no end."""
        output, begun = self._settings.with_name(f"{name}.txt"), time.monotonic()
        words = [sys.executable, "-P", "-m", "pipeline", "-c", str(self._settings), "audit", "--require-klines"]
        words += ["--from", f"{self._since:%Y-%m-%dT%H:%M:%SZ}", *options]
        with output.open("w") as written:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=written, stderr=written, cwd="/", env=dict(self._environ)
            )
            try:
                self._wait(process, begun + PATIENCE)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        return Audited(process.returncode, output.read_text(), time.monotonic() - begun)

    def _wait(self, process: "subprocess.Popen[bytes]", end: float) -> None:
        while process.poll() is None:
            if time.monotonic() > end:
                raise ServerAway(f"the audit came to no end within {PATIENCE:g} s")
            self._turn()
            time.sleep(POLL)
