"""What is done to the running pipeline, and when: connections cut, processes killed with SIGKILL."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from pipeline.commands._demo.market import Market
from pipeline.errors import ServerAway
from pipeline.reports import read_all
from pipeline.supervisor import Supervisor

CUT = "cut"
SERVERS = ("redis", "postgres")
ROUND = (CUT, "store-0", "normalize-okx", "redis", "postgres", CUT, "aggregate-0", "ingest-okx")
"""One of each; a long demo begins again."""
BEGIN, END = 0.08, 0.85
"""Shares of the time between which blows fall: what comes after is for recovery in view."""
LONGEST_PAUSE = 30.0


class Blow(msgspec.Struct, frozen=True):
    """`what` is CUT or the process to kill, `at` in seconds from the start."""

    at: float
    what: str


def plan(duration: float, rng: random.Random) -> list[Blow]:
    """At least one full round, however short; a blow each 30 s or oftener. Each falls a little early or late."""
    span = (END - BEGIN) * duration
    count = max(len(ROUND), int(span / LONGEST_PAUSE))
    step = span / count
    return [
        Blow(BEGIN * duration + (number + rng.uniform(0, 0.5)) * step, ROUND[number % len(ROUND)])
        for number in range(count)
    ]


class Blows:
    """Deals what is due and remembers it. `say` is told of each blow and of each recovery."""

    def __init__(
        self,
        planned: list[Blow],
        market: Market,
        supervisor: Supervisor,
        heartbeats: Path,
        say: Callable[[str], None],
    ) -> None:
        self._planned = planned
        self._market = market
        self._supervisor = supervisor
        self._heartbeats = heartbeats
        self._say = say
        self._waiting: dict[str, tuple[int, float]] = {}
        self.kills = 0
        self.cuts = 0

    def turn(self, elapsed: float) -> None:
        """Deals the next blow when it is due; looks whether those killed are back."""
        if self._planned and self._planned[0].at <= elapsed:
            blow = self._planned.pop(0)
            if blow.what == CUT:
                self._cut()
            else:
                self._kill(blow.what)
        self._look_for_killed()

    def _cut(self) -> None:
        cut = self._market.cut()
        self.cuts += 1 if cut else 0
        self._say(f"cut the connection to the exchange ({cut} sockets)")

    def _kill(self, name: str) -> None:
        program = self._supervisor.programs()[name]
        if not program.pid:
            self._say(f"{name} is {program.state.lower()}: nothing to kill")
            return
        os.kill(program.pid, signal.SIGKILL)
        self.kills += 1
        self._waiting[name] = (program.pid, time.monotonic())
        self._say(f"kill -9 {name} (pid {program.pid})")

    def _look_for_killed(self) -> None:
        if not self._waiting:
            return
        try:
            programs = self._supervisor.programs()
        except ServerAway:
            return
        reports = read_all(self._heartbeats)
        for name, (killed, since) in list(self._waiting.items()):
            pid, report = programs[name].pid, reports.get(name)
            # Servers write no report; whether they answer is seen from those that work with them.
            works = name in SERVERS or (report is not None and report.pid == pid and report.status == "running")
            if pid not in (0, killed) and works:
                del self._waiting[name]
                self._say(f"{name} works again (pid {pid}) after {time.monotonic() - since:.1f} s")
