"""The heartbeat of a process: its counters, its report each second, and its dead-man's timer.

It awaits nothing but the clock: a process that waits for Redis or Postgres is alive. A loop that is
stuck for `DEADLINE` seconds prints its stacks and ends the process, which supervisord starts again.
"""

import asyncio
import contextlib
import faulthandler
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.reports import Report, write

DEADLINE = 20.0
INTERVAL = 1.0
RATE_SAMPLES = 6
"""Rates are over the last five intervals."""

log = logging.getLogger(__name__)


class Heartbeat:
    """Counters and state of one process, written to `directory/name` once a second."""

    def __init__(self, name: str, directory: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.name = name
        self.counters: Counter[str] = Counter()
        self.waiting_for: str | None = None
        self.status = "starting"
        self.last_data: int | None = None
        self.stalls: dict[str, tuple[int, str]] = {}
        """What of the process does nothing although it should and could, to since when (ns UTC), and why we say so."""
        self._directory = directory
        self._clock = clock
        self._started = clock()
        self._loops = 0
        self._errors = 0
        self._last_error: tuple[str, int] | None = None
        self._samples: deque[tuple[int, dict[str, int]]] = deque(maxlen=RATE_SAMPLES)
        self._details: dict[str, Callable[[], Mapping[str, Any]]] = {}

    def error(self, text: str) -> None:
        """Counts an error, keeps it as the last one and logs it."""
        self._errors += 1
        self._last_error = (text, self._clock())
        log.warning("%s", text)

    def describe(self, key: str, source: Callable[[], Mapping[str, Any]]) -> None:
        """Adds `details[key]` (or, with an empty key, the mapping's own keys) to every report."""
        self._details[key] = source

    def report(self) -> Report:
        """The report as of now."""
        now = self._clock()
        details: dict[str, Any] = {}
        for key, source in self._details.items():
            details.update({key: dict(source())} if key else source())
        text, at = self._last_error or (None, None)
        stalled, why = min(self.stalls.values(), default=(None, None))
        return Report(
            name=self.name,
            pid=os.getpid(),
            started=self._started,
            beat=now,
            loops=self._loops,
            status=self.status,
            waiting_for=self.waiting_for,
            counters=dict(self.counters),
            rates=self._rates(now),
            last_data=self.last_data,
            stalled=stalled,
            stalled_why=why,
            errors=self._errors,
            last_error=text,
            last_error_at=at,
            details=details,
        )

    async def run(self) -> None:
        """Beats until cancelled; the last report says `stopped`."""
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            while True:
                faulthandler.dump_traceback_later(DEADLINE, exit=True)
                self._loops += 1
                self._samples.append((self._clock(), dict(self.counters)))
                self._write()
                await asyncio.sleep(INTERVAL)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.status = "stopped"
            self._write()

    def _write(self) -> None:
        """On a full disk the old report is touched instead: its time, not its text, is the proof of life."""
        try:
            write(self._directory, self.report())
        except OSError as error:
            self.error(f"cannot write the heartbeat: {error.strerror}")
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._directory / self.name)

    def _rates(self, now: int) -> dict[str, float]:
        if not self._samples:
            return {}
        then, before = self._samples[0]
        seconds = (now - then) / 1e9
        if seconds <= 0:
            return {}
        return {name: round((count - before.get(name, 0)) / seconds, 1) for name, count in self.counters.items()}
