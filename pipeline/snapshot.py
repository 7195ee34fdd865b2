"""Gathers the facts of an instance, all sources at once, each with a hard limit: it returns in time whoever hangs.

Also keeps the last verdict in `run/verdict`, so that "since when" outlives a command. Never changes anything else.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import ServerAway
from pipeline.facts import Postgres, Process, Redis, Snapshot
from pipeline.health import Verdict, judge
from pipeline.probes import postgres, redis
from pipeline.reports import Report, read_all
from pipeline.settings import Settings
from pipeline.supervisor import SOCKET_NAME, UP, Fault, Program, Supervisor
from pipeline.timeframes import SECOND

ANSWER = 0.5
"""Seconds within which supervisord has to answer."""
LIMIT = 0.8
"""Seconds after which a source that has not answered is left behind."""


def look(settings: Settings) -> tuple[Snapshot, Verdict]:
    """The facts and the verdict as of now; the verdict is remembered."""
    snapshot = gather(settings)
    verdict = judge(snapshot, settings, recall(settings))
    remember(settings, verdict)
    return snapshot, verdict


def gather(settings: Settings, *, limit: float = LIMIT) -> Snapshot:
    """The facts of this moment. Takes at most about `limit` seconds."""
    late = f"no answer within {limit:g} s"
    found = at_once(
        {
            "supervisor": lambda: _programs(settings),
            "redis": lambda: redis.read(settings),
            "postgres": lambda: postgres.read(settings),
        },
        limit,
    )
    programs, trouble = found.get("supervisor", ({}, late))
    facts: Redis = found.get("redis", Redis(error=late))
    reports = facts.reports | read_all(settings.heartbeat_dir)
    return Snapshot(
        at=time.time_ns(),
        supervisor_error=trouble,
        processes=_processes(settings, programs, reports),
        redis=facts,
        postgres=found.get("postgres", Postgres(error=late)),
        disk_free=_disk_free(settings.state_dir),
        data_free=_disk_free((settings.state_dir / "postgres").resolve()) if settings.database_url is None else None,
    )


def recall(settings: Settings) -> Verdict | None:
    """The last verdict of this instance; None where there is none, or one of another version."""
    try:
        return _VERDICT.decode(_verdict_file(settings).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def remember(settings: Settings, verdict: Verdict) -> None:
    """Keeps the verdict for the next look, where the instance has been started and we may write."""
    target = _verdict_file(settings)
    if os.access(target.parent, os.W_OK):
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(verdict))
        os.replace(fresh, target)


def at_once(sources: Mapping[str, Callable[[], Any]], limit: float) -> dict[str, Any]:
    """Runs all sources in threads and returns the answers that came within `limit` seconds.

    The threads are daemons: one that hangs in a stopped server holds up neither us nor the end of the
    process. What a source raises is raised here.
    """
    answers: dict[str, Any] = {}
    faults: list[BaseException] = []

    def answer(name: str, source: Callable[[], Any]) -> None:
        try:
            answers[name] = source()
        except BaseException as fault:  # noqa: BLE001 - carried over to the caller's thread
            faults.append(fault)

    threads = [threading.Thread(target=answer, args=item, daemon=True) for item in sources.items()]
    end = time.monotonic() + limit
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if faults:
        raise faults[0]
    return dict(answers)


_VERDICT = msgspec.json.Decoder(Verdict)


def _verdict_file(settings: Settings) -> Path:
    return settings.run_dir / "verdict"


def _programs(settings: Settings) -> tuple[dict[str, Program], str | None]:
    """What supervisord runs, and why that is not known."""
    path = settings.run_dir / SOCKET_NAME
    if not path.exists():
        return {}, "supervisord is not running"
    try:
        return Supervisor(path, timeout=ANSWER).programs(), None
    except ServerAway as error:
        # A socket that nobody listens on is what a killed supervisord leaves behind.
        refused = isinstance(error.__cause__, ConnectionRefusedError)
        return {}, "supervisord is not running" if refused else str(error)
    except Fault as fault:
        return {}, f"supervisord refuses: {fault.faultString}"


def _processes(settings: Settings, programs: dict[str, Program], reports: dict[str, Report]) -> tuple[Process, ...]:
    """Those the settings ask for, in their order, then others that run or have run."""
    expected = (*settings.processes(), "watchdog")
    others = [name for name, program in programs.items() if program.state != "STOPPED" or program.start]
    watch = reports.get("watchdog")
    counts: dict[str, Any] = (watch.details.get("processes") or {}) if watch else {}
    names = dict.fromkeys((*expected, *others, *reports))
    return tuple(
        _process(name, name in expected, programs.get(name), reports.get(name), counts.get(name) or {})
        for name in names
    )


def _process(
    name: str,
    expected: bool,
    program: Program | None,
    report: Report | None,
    count: Mapping[str, Any],
) -> Process:
    up = program is not None and program.state in UP
    return Process(
        name=name,
        expected=expected,
        state=program.state if program else None,
        pid=program.pid or None if program else report.pid if report else None,
        started=program.start * SECOND or None if program else report.started if report else None,
        stopped=program.stop * SECOND or None if program and not up else None,
        detail=_detail(program) or count.get("reason") or "",
        restarts=count.get("restarts", 0),
        attempts=count.get("attempts", 0),
        last_restart=count.get("last_restart"),
        parked=bool(count.get("parked")),
        report=report,
    )


def _detail(program: Program | None) -> str:
    """Why it does not run, in supervisord's words."""
    if program is None or program.state in UP:
        return ""
    ended = program.state in ("EXITED", "BACKOFF") and program.stop
    return program.error or (f"exited with {program.exit_status}" if ended else "")


def _disk_free(folder: Path) -> int | None:
    """Bytes free for the folder, or for where it will be made."""
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
    return shutil.disk_usage(there).free if there else None
