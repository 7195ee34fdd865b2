"""What is done to the running pipeline, and when: connections cut, processes killed with SIGKILL."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pipeline.commands._demo.market import Market
from pipeline.errors import ServerAway
from pipeline.reports import read_all
from pipeline.supervisor import Supervisor

CUT = "cut"
SUPERVISORD = "supervisord"
SERVERS = ("redis", "postgres")
ROUND = 8
"""Blows in one round."""
BEGIN, END = 0.08, 0.85
"""Shares of the time between which blows fall: what comes after is for recovery in view."""
LONGEST_PAUSE = 30.0


class Blow(msgspec.Struct, frozen=True):
    """`what` is CUT or the process to kill, `at` in seconds from the start."""

    at: float
    what: str


def rounds(exchanges: Sequence[str]) -> tuple[str, ...]:
    """As many rounds as there are exchanges, each hitting others of their processes; a long demo begins again."""
    return tuple(
        what
        for normalizer, ingester in zip(exchanges, (*exchanges[1:], exchanges[0]), strict=True)
        for what in (
            *(CUT, "store-0", f"normalize-{normalizer}", "redis", "postgres"),
            *(CUT, "aggregate-0", f"ingest-{ingester}"),
        )
    )


def known(exchanges: Sequence[str]) -> tuple[str, ...]:
    """What can be dealt."""
    return (*dict.fromkeys(rounds(exchanges)), "watchdog", SUPERVISORD)


def plan(duration: float, rng: random.Random, turns: Sequence[str], least: int = ROUND) -> list[Blow]:
    """At least `least` blows, however short; a blow each 30 s or oftener. Each falls a little early or late."""
    span = (END - BEGIN) * duration
    count = max(least, int(span / LONGEST_PAUSE))
    step = span / count
    return [
        Blow(BEGIN * duration + (number + rng.uniform(0, 0.5)) * step, turns[number % len(turns)])
        for number in range(count)
    ]


class Blows:
    """Deals what is due and remembers it. `say` is told of each blow and of each recovery."""

    def __init__(
        self,
        planned: list[Blow],
        markets: Sequence[Market],
        supervisor: Supervisor,
        heartbeats: Path,
        say: Callable[[str], None],
    ) -> None:
        self._planned = planned
        self._markets = markets
        self._supervisor = supervisor
        self._heartbeats = heartbeats
        self._say = say
        self._waiting: dict[str, tuple[int, float]] = {}
        self.kills = 0
        self.cuts = 0

    def turn(self, elapsed: float) -> None:
        """Deals the next blow when it is due, as soon as there is something to hit; looks whether those killed are
        back."""
        if self._planned and self._planned[0].at <= elapsed:
            what = self._planned[0].what
            if self._cut() if what == CUT else self._kill(what):
                del self._planned[0]
        self._look_for_killed()

    def _cut(self) -> bool:
        cut = sum(market.cut() for market in self._markets)
        if cut:
            self.cuts += 1
            self._say(f"cut the connections to the exchanges ({cut} sockets)")
        return cut > 0

    def _kill(self, name: str) -> bool:
        pid = self._pid(name)
        if pid:
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
            self._waiting[name] = (pid, time.monotonic())
            self._say(f"kill -9 {name} (pid {pid})")
        return pid > 0

    def _pid(self, name: str) -> int:
        return self._supervisor.pid() if name == SUPERVISORD else self._supervisor.programs()[name].pid

    def _look_for_killed(self) -> None:
        if not self._waiting:
            return
        try:
            pids = {name: self._pid(name) for name in self._waiting}
        except ServerAway:
            return
        reports = read_all(self._heartbeats)
        for name, (killed, since) in list(self._waiting.items()):
            pid, report = pids[name], reports.get(name)
            # Servers write no report; whether they answer is seen from those that work with them.
            works = name in (*SERVERS, SUPERVISORD) or (
                report is not None and report.pid == pid and report.status == "running"
            )
            if pid not in (0, killed) and works:
                del self._waiting[name]
                self._say(f"{name} works again (pid {pid}) after {time.monotonic() - since:.1f} s")
