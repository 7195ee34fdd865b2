"""The watchdog: starts in order what the settings enable, then looks at every process once a second.

It judges by `judgement`, acts through supervisord and reports by its own heartbeat. It touches no data.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipeline import reports
from pipeline.errors import DecodeError, ServerAway
from pipeline.heartbeat import Heartbeat
from pipeline.judgement import BLIND, Do, Life, Policy, Seen, Verdict, after_blindness, judge
from pipeline.pause import pause
from pipeline.readiness import Readiness
from pipeline.settings import Settings
from pipeline.supervisor import Fault, Program, Supervisor

INTERVAL = 1.0
ANSWER = 2.0
"""Seconds within which a server has to answer."""
SERVERS = ("redis", "postgres")
POSTGRES_HELLO = bytes.fromhex("0000000804d2162f")
"""SSLRequest: every Postgres answers it with one byte, before it asks who we are, and logs nothing."""

log = logging.getLogger(__name__)


class Watchdog:
    """Watches the processes of one instance."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        readiness: Readiness,
        heartbeat: Heartbeat,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._readiness = readiness
        self._heartbeat = heartbeat
        self._clock = clock
        self._wall = wall
        collection = settings.file.collection_settings
        self._policy = Policy(auto_restart=collection.auto_restart, attempts=collection.max_restart_attempts)
        self._lives: dict[str, Life] = {}
        self._programs: dict[str, Program] = {}
        self._supervisor_pid = 0
        self._looked = self._summed_up = clock()
        # Read before our own heartbeat replaces it.
        self._predecessor = _read(settings.heartbeat_dir / "watchdog")
        heartbeat.describe("", self.describe)

    async def run(self, stop: asyncio.Event) -> None:
        """Looks once a second until `stop`."""
        getting_ready = asyncio.create_task(self._readiness.run())
        try:
            while not stop.is_set():
                try:
                    await self.look()
                except ServerAway as error:
                    self._heartbeat.error(str(error))
                self._heartbeat.waiting_for = self._readiness.waiting_for()
                self._heartbeat.status = "running"
                if getting_ready.done():
                    getting_ready.result()
                await pause(INTERVAL, stop)
        finally:
            getting_ready.cancel()
            await asyncio.gather(getting_ready, return_exceptions=True)

    async def look(self) -> None:
        """One look at every process, and what follows from it. Raises ServerAway."""
        if not await asyncio.to_thread(self._supervisor.running):
            return
        if not self._supervisor_pid:
            self._supervisor_pid = await asyncio.to_thread(self._supervisor.pid)
            self._remember()
        answers = await self._ask_servers()
        self._programs = await asyncio.to_thread(self._supervisor.programs)
        now = self._clock()
        blind, self._looked = now - self._looked > BLIND, now
        restarted = False
        for name in self._settings.processes():
            verdict = self._judge(name, now, answers.get(name), blind)
            if verdict is None:
                continue
            again = self._lives.get(name, Life()).pid != 0
            if restarted and again and set(verdict.do) & {Do.START, Do.KILL}:
                # One restart a second: not all connections at once. This one's turn comes with the next look.
                continue
            restarted = restarted or (again and bool(set(verdict.do) & {Do.START, Do.KILL}))
            self._lives[name] = verdict.life
            await self._act(name, verdict)
        if now - self._summed_up >= self._settings.file.collection_settings.health_check_interval:
            self._summed_up = now
            self._sum_up()

    def describe(self) -> Mapping[str, Any]:
        """The watchdog's report: times in ns UTC."""
        return {
            "supervisor": self._supervisor_pid,
            "processes": {name: self._describe(name, life) for name, life in self._lives.items()},
        }

    def _sum_up(self) -> None:
        """The line that a log of quiet days consists of."""
        names = self._settings.processes()
        running = [name for name in names if name in self._programs and self._programs[name].state == "RUNNING"]
        restarts = sum(life.restarts for life in self._lives.values())
        log.info("%d of %d processes run; %d restarts so far", len(running), len(names), restarts)

    def _judge(self, name: str, now: float, answers: bool | None, blind: bool) -> Verdict | None:
        program, life = self._programs.get(name), self._lives.get(name, Life())
        if program is None:
            text = "supervisord.conf has no such program"
            self._lives[name] = msgspec.structs.replace(life, reason=text)
            return None
        if program.state == "STOPPED" and not program.start and not self._readiness.may_start(name):
            return None
        if blind:
            life = after_blindness(life, now)
        return judge(self._seen(program, answers), life, now, self._policy)

    def _seen(self, program: Program, answers: bool | None) -> Seen:
        beats = stalled = None
        if program.name not in SERVERS:
            path = self._settings.heartbeat_dir / program.name
            report = _read(path)
            if report and report.pid == program.pid:
                beats = path.stat().st_mtime_ns
                stalled = report.stalled_why if report.waiting_for is None else None
        return Seen(
            name=program.name,
            state=program.state,
            pid=program.pid,
            start=program.start,
            error=program.error,
            beats=beats,
            answers=answers,
            stalled=stalled,
        )

    async def _act(self, name: str, verdict: Verdict) -> None:
        if verdict.loud:
            await self._say_loud(name, verdict.life)
        for do in verdict.do:
            log.info("%s: %s%s", name, do.value, f" ({verdict.life.reason})" if verdict.life.reason else "")
            try:
                await asyncio.to_thread(self._do, name, do)
            except Fault as fault:
                self._heartbeat.error(f"{name}: supervisord refused to {do.value} it: {fault.faultString}")

    def _do(self, name: str, do: Do) -> None:
        if do is Do.START:
            self._supervisor.start(name)
        elif do is Do.KILL:
            self._supervisor.signal(name, "KILL")
        else:
            self._supervisor.autorestart(name, do is Do.UNPARK)

    async def _say_loud(self, name: str, life: Life) -> None:
        text = f"{name}: {life.reason}"
        if life.attempts > self._policy.attempts:
            text += f"; restarted {life.attempts} times in a row, from now on more slowly: see `pipeline logs {name}`"
        self._heartbeat.error(text)
        try:
            await asyncio.to_thread(self._supervisor.say, text)
        except Fault as fault:
            log.warning("supervisord has no interface of ours: %s", fault.faultString)

    async def _ask_servers(self) -> dict[str, bool]:
        """Whether each private server answers."""
        postgres = self._settings.run_dir / "postgres" / f".s.PGSQL.{self._settings.file.postgres.port}"
        asked = {"redis": (self._settings.run_dir / "redis.sock", b"PING\r\n"), "postgres": (postgres, POSTGRES_HELLO)}
        ours = [name for name in SERVERS if name in self._settings.processes()]
        found = await asyncio.gather(*(_answers(*asked[name]) for name in ours))
        return dict(zip(ours, found, strict=True))

    def _describe(self, name: str, life: Life) -> dict[str, Any]:
        program = self._programs.get(name)
        return {
            "state": program.state if program else None,
            "pid": program.pid or None if program else None,
            "started": program.start * 1_000_000_000 if program and program.pid else None,
            "restarts": life.restarts,
            "attempts": life.attempts,
            "last_restart": self._time(life.last_restart),
            "reason": life.reason,
            "next_start": self._time(life.next_start),
            "parked": life.attempts > self._policy.attempts,
            "silences": life.silences,
            "last_silence": self._time(life.last_silence),
        }

    def _time(self, moment: float | None) -> int | None:
        """A moment of the monotonic clock in ns UTC."""
        return None if moment is None else self._wall() + round((moment - self._clock()) * 1e9)

    def _moment(self, at: int | None) -> float | None:
        """A time (ns UTC) on the monotonic clock."""
        return None if at is None else self._clock() - (self._wall() - at) / 1e9

    def _remember(self) -> None:
        """Takes up the counts of the watchdog before us, if it worked for the same supervisord."""
        report = self._predecessor
        if report is None or report.details.get("supervisor") != self._supervisor_pid:
            return
        now = self._clock()
        for name, was in report.details.get("processes", {}).items():
            self._lives[name] = Life(
                pid=was["pid"] or 0,
                since=now,
                progress=now,
                restarts=was["restarts"],
                attempts=was["attempts"],
                parked=was["parked"],
                reason=was["reason"],
                silences=was.get("silences", 0),
                last_silence=self._moment(was.get("last_silence")),
            )


async def _answers(path: Path, hello: bytes) -> bool:
    """Whether anything comes back from the socket."""
    try:
        async with asyncio.timeout(ANSWER):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(hello)
                return bool(await reader.read(1))
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _read(path: Path) -> reports.Report | None:
    try:
        return reports.read(path)
    except (FileNotFoundError, DecodeError):
        return None
