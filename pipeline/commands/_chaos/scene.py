"""Where it all happens: the venues and the lines to them, the product's processes and servers, and how it is."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import psycopg
import redis.exceptions

from pipeline.commands._chaos.plan import SUPERVISORD
from pipeline.commands._chaos.proxy import Proxy
from pipeline.commands._chaos.slowdisk import SlowDisk
from pipeline.commands._demo.settling import open_gaps
from pipeline.commands._demo.venue import Venue
from pipeline.errors import ServerAway
from pipeline.parent import command_of
from pipeline.probes import postgres as postgres_probe
from pipeline.probes import redis as redis_probe
from pipeline.reports import read_all
from pipeline.settings import Settings
from pipeline.supervisor import Supervisor


class Line(NamedTuple):
    """The way to one exchange: a proxy each for its WebSocket and its REST port."""

    ws: Proxy
    rest: Proxy

    @property
    def proxies(self) -> tuple[Proxy, Proxy]:
        return self.ws, self.rest


class Scene:
    """What faults act on. `gaps_stay`: open gaps are no sign that the product has not recovered."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        venues: Mapping[str, Venue],
        lines: Mapping[str, Line],
        disk: SlowDisk,
        *,
        gaps_stay: bool,
    ) -> None:
        self.settings = settings
        self.supervisor = supervisor
        self.venues = venues
        self.lines = lines
        self.disk = disk
        self._gaps_stay = gaps_stay
        self._retired: list[tuple[float, Proxy]] = []

    def pid(self, name: str) -> int:
        """0 when it does not run. Raises ServerAway."""
        if name == SUPERVISORD:
            return self.supervisor.pid()
        programs = self.supervisor.programs()
        return programs[name].pid if name in programs else 0

    def tree(self, name: str) -> list[int]:
        """The process, and of a server its children too: Postgres works in them. Raises ServerAway."""
        pid = self.pid(name)
        return [] if not pid else [pid, *(_children(pid) if name in ("redis", "postgres") else ())]

    @contextlib.contextmanager
    def redis(self) -> Iterator[redis_probe.Client]:
        """A connection of our own. Raises ServerAway for whatever goes wrong with it."""
        client = redis_probe.connect(self.settings, timeout=2.0)
        try:
            yield client
        except (redis.exceptions.RedisError, OSError) as error:
            raise ServerAway(f"redis: {error}") from error
        finally:
            client.close()

    @contextlib.contextmanager
    def postgres(self) -> Iterator[postgres_probe.Connection]:
        """As `redis`."""
        try:
            with postgres_probe.connect(self.settings, timeout_ms=2_000) as connection:
                yield connection
        except psycopg.Error as error:
            raise ServerAway(f"postgres: {postgres_probe.short(error)}") from error

    def recovered(self) -> bool:
        """Whether every process works, everything is subscribed and, where gaps are repaired, none is open. Raises
        ServerAway."""
        programs, reports = self.supervisor.programs(), read_all(self.settings.heartbeat_dir)
        for name in self.settings.processes():
            if name not in programs or programs[name].state != "RUNNING":
                return False
            report = reports.get(name)
            if name not in ("redis", "postgres") and (report is None or report.pid != programs[name].pid):
                return False
            if report is not None and (report.waiting_for is not None or report.status != "running"):
                return False
            rows = (report.details.get("subscriptions") or {}) if report is not None else {}
            if any(row["state"] != "subscribed" for row in rows.values()):
                return False
        return self._gaps_stay or self.open_gaps() == 0

    def open_gaps(self) -> int:
        """Open gaps in the ledger. Raises ServerAway."""
        try:
            return open_gaps(self.settings)
        except psycopg.Error as error:
            raise ServerAway(f"postgres: {postgres_probe.short(error)}") from error

    def retire(self, proxy: Proxy, after: float) -> None:
        """Closes the proxy in so many seconds: what it holds is passed on first."""
        self._retired.append((time.monotonic() + after, proxy))

    def turn(self, *, all_now: bool = False) -> None:
        """Closes what was retired and is due."""
        for entry in [entry for entry in self._retired if all_now or entry[0] <= time.monotonic()]:
            self._retired.remove(entry)
            entry[1].close()


def signalled(pids: list[tuple[int, str]], number: signal.Signals) -> None:
    """Signals those that are still what they were: (pid, command line)."""
    for pid, command in pids:
        if command_of(pid) == command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _children(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
    pairs = (line.split() for line in listing.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]
