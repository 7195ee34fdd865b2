"""What is done to the running pipeline, and when: connections cut, processes killed with SIGKILL."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import TypeGuard

import msgspec
import psycopg
import redis.exceptions

from pipeline.commands._demo.market import Market
from pipeline.errors import ServerAway
from pipeline.probes import postgres as postgres_probe
from pipeline.probes import redis as redis_probe
from pipeline.reports import Report, read_all
from pipeline.settings import Settings
from pipeline.supervisor import Supervisor

CUT = "cut"
SUPERVISORD = "supervisord"
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
        settings: Settings,
        say: Callable[[str], None],
    ) -> None:
        self._planned = planned
        self._markets = markets
        self._supervisor = supervisor
        self._settings = settings
        self._say = say
        self._waiting: dict[str, tuple[int, float]] = {}
        self.kills = 0
        self.cuts = 0

    @property
    def done(self) -> bool:
        """Every blow was dealt, and who was killed works again."""
        return not self._planned and not self._waiting

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
        if not pid or (name.startswith("ingest-") and not self._writes(name, pid)):
            return False
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        self._waiting[name] = (pid, time.monotonic())
        self._say(f"kill -9 {name} (pid {pid})")
        return True

    def _writes(self, name: str, pid: int) -> bool:
        """Whether an ingest process hands its frames on. While Redis is away they are in its memory alone: killed
        then, it takes them along, and they would have to be fetched from the exchange again."""
        report = read_all(self._settings.heartbeat_dir).get(name)
        return "redis" not in self._waiting and _lives(report, pid) and report.waiting_for != "redis"

    def _pid(self, name: str) -> int:
        return self._supervisor.pid() if name == SUPERVISORD else self._supervisor.programs()[name].pid

    def _look_for_killed(self) -> None:
        if not self._waiting:
            return
        try:
            pids = {name: self._pid(name) for name in self._waiting}
        except ServerAway:
            return
        for name, (killed, since) in list(self._waiting.items()):
            if pids[name] not in (0, killed) and self._works(name, pids[name]):
                del self._waiting[name]
                self._say(f"{name} works again (pid {pids[name]}) after {time.monotonic() - since:.1f} s")

    def _works(self, name: str, pid: int) -> bool:
        match name:
            case "supervisord":
                return True
            case "redis":
                return _redis_answers(self._settings)
            case "postgres":
                return _postgres_answers(self._settings)
        return _lives(read_all(self._settings.heartbeat_dir).get(name), pid)


def _lives(report: Report | None, pid: int) -> TypeGuard[Report]:
    """Whether the report is of that process, not of one before, and it works."""
    return report is not None and report.pid == pid and report.status == "running"


def _redis_answers(settings: Settings) -> bool:
    client = redis_probe.connect(settings)
    try:
        redis_probe.call(client, "PING")
    except (redis.exceptions.RedisError, OSError):
        return False
    finally:
        client.close()
    return True


def _postgres_answers(settings: Settings) -> bool:
    try:
        with postgres_probe.connect(settings) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True
