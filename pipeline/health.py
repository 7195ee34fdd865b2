"""What "healthy" means: facts of one moment to a verdict with reasons. Pure; the CLI, the web and the watchdog call it.

The whole is `stopped` when nothing runs, else as bad as its worst reason; so is each process. The rules are in
`rules.RULES`; a `notice` is shown and changes nothing.
"""

import msgspec

from pipeline.facts import Process, Snapshot
from pipeline.findings import find
from pipeline.rules import LEVELS, RULES, Level, Reason
from pipeline.settings import Settings


class ProcessVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: starting, running, degraded, stopped, error or parked."""

    level: Level
    status: str
    reasons: tuple[Reason, ...]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: healthy, degraded, unhealthy or stopped, `since` (ns) as far as is known; judged `at`."""

    status: Level
    since: int
    at: int
    reasons: tuple[Reason, ...]
    processes: dict[str, ProcessVerdict]


def judge(snapshot: Snapshot, settings: Settings, previous: Verdict | None = None) -> Verdict:
    """The verdict. `previous` is the last one of this instance: it carries since when a finding stands."""
    reasons = tuple(
        sorted(
            (_dated(reason, snapshot.at, previous) for reason in find(snapshot, settings)),
            key=lambda r: -LEVELS.index(r.level),
        )
    )
    status = _worst([reason.level for reason in reasons])
    return Verdict(
        status=status,
        since=_since(status, reasons, snapshot.at, previous),
        at=snapshot.at,
        reasons=reasons,
        processes={process.name: _process_verdict(process, reasons) for process in snapshot.processes},
    )


def of_exchange(name: str, verdict: Verdict, process: Process) -> ProcessVerdict:
    """An exchange: its ingest `process`, and whatever was found of its subscriptions by whichever process."""
    judged = verdict.processes[process.name]
    own = tuple(
        reason
        for reason in verdict.reasons
        if reason in judged.reasons or reason.subject == name or reason.subject.startswith(f"{name} ")
    )
    level = _worst([judged.level, *(RULES[reason.code].process for reason in own)])
    status = "degraded" if judged.status == "running" and level != "healthy" else judged.status
    return ProcessVerdict(level=level, status=status, reasons=own)


def _worst(levels: list[Level]) -> Level:
    worst = LEVELS[max(map(LEVELS.index, levels), default=0)]
    return "healthy" if worst == "notice" else worst


def _dated(reason: Reason, now: int, previous: Verdict | None) -> Reason:
    if reason.since is not None:
        return reason
    known = next(
        (
            old.since
            for old in (previous.reasons if previous else ())
            if (old.code, old.subject) == (reason.code, reason.subject)
        ),
        None,
    )
    return msgspec.structs.replace(reason, since=now if known is None else known)


def _since(status: Level, reasons: tuple[Reason, ...], now: int, previous: Verdict | None) -> int:
    """As before while the status stays; else the beginning of its oldest reason, but not before the last look."""
    if previous is not None and previous.status == status:
        return previous.since
    began = min((r.since for r in reasons if r.level == status and r.since is not None), default=now)
    return max(began, previous.at) if previous is not None else began


def _process_verdict(process: Process, reasons: tuple[Reason, ...]) -> ProcessVerdict:
    own = tuple(reason for reason in reasons if reason.process == process.name)
    level = _worst([RULES[reason.code].process for reason in own])
    codes = {reason.code for reason in own}
    if reasons and reasons[0].code == "service_stopped":
        return ProcessVerdict(level="stopped", status="stopped", reasons=reasons)
    return ProcessVerdict(level=level, status=_status(process, level, codes), reasons=own)


def _status(process: Process, level: Level, codes: set[str]) -> str:
    if "parked" in codes:
        return "parked"
    if codes & {"failing", "hung"}:
        return "error"
    if "not_running" in codes or process.state in ("STOPPED", "STOPPING"):
        return "stopped"
    if "starting" in codes:
        return "starting"
    return "running" if level == "healthy" else "degraded"
