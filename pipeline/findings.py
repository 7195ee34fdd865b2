"""What can be found wrong with a running instance: the table of rules, and facts to reasons. Pure.

Each rule has two levels, one for the process it concerns and one for the whole; docs/status.md carries the table.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import msgspec

from pipeline.facts import Process, Snapshot
from pipeline.settings import Settings
from pipeline.subscriptions import Subscription, clock_offset, connections, subscriptions
from pipeline.timeframes import SECOND

Level = Literal["healthy", "notice", "degraded", "unhealthy", "stopped"]
LEVELS: tuple[Level, ...] = ("healthy", "notice", "degraded", "unhealthy", "stopped")

HEARTBEAT_LATE = 10 * SECOND
"""A loop that beats each second and is this late is stuck or stopped."""
START_GRACE = 30 * SECOND
"""How long a process may run before its report and its subscriptions have to be there."""
CLOCK_SKEW = SECOND // 2
REDIS_MARK = 0.6
"""The share of the budget at which ingest begins to spool to disk."""
DISK_FREE = 2 * 1024**3
OLDEST_REDIS = 7
SERVERS = ("redis", "postgres")
"""Processes that are not ours and write no report."""


class Rule(NamedTuple):
    """`process` and `overall` are the levels a finding gives to its process and to the whole."""

    process: Level
    overall: Level
    when: str


RULES: dict[str, Rule] = {
    "service_stopped": Rule("stopped", "stopped", "supervisord does not answer and no process beats"),
    "too_many_failed_collectors": Rule("unhealthy", "unhealthy", "more than half of the expected processes failed"),
    "nothing_collected": Rule("unhealthy", "unhealthy", "every ingest process failed"),
    "supervisor_away": Rule("degraded", "degraded", "processes beat but supervisord does not answer"),
    "not_running": Rule("unhealthy", "degraded", "an expected process is stopped or has exited"),
    "failing": Rule("unhealthy", "degraded", "a process ends again and again (BACKOFF, FATAL)"),
    "parked": Rule("unhealthy", "degraded", "the watchdog gave up restarting it quickly"),
    "hung": Rule("unhealthy", "degraded", "no heartbeat for 10 s from a running process"),
    "starting": Rule("degraded", "degraded", "a process has just been started"),
    "stopping": Rule("degraded", "degraded", "a process is being stopped"),
    "restarts": Rule("degraded", "degraded", "restarted max_restart_attempts times in a row or more"),
    "waiting": Rule("degraded", "degraded", "a process waits for a server, an exchange or a lease"),
    "reconnecting": Rule("degraded", "degraded", "a connection failed max_reconnect_attempts times in a row"),
    "no_data": Rule("unhealthy", "unhealthy", "every subscription of an exchange is silent"),
    "silent": Rule("degraded", "degraded", "no data for max_silence_duration on one subscription"),
    "refused": Rule("degraded", "degraded", "the exchange refused a subscription"),
    "not_subscribed": Rule("degraded", "degraded", "a pair of the settings is not subscribed 30 s after the start"),
    "open_gaps": Rule("degraded", "degraded", "trades known by number to be missing"),
    "clock_skew": Rule("degraded", "degraded", "this host's clock is over 500 ms from the exchange's"),
    "dead_letters": Rule("degraded", "degraded", "frames in the last hour that could not be decoded"),
    "redis_away": Rule("unhealthy", "unhealthy", "Redis does not answer"),
    "redis_memory": Rule("degraded", "degraded", "Redis uses over 60 % of its budget"),
    "redis_evicts": Rule("degraded", "degraded", "Redis may evict entries (maxmemory-policy is not noeviction)"),
    "redis_version": Rule("degraded", "degraded", "Redis is older than 7.0"),
    "redis_volatile": Rule("notice", "notice", "Redis writes nothing to disk: its crash loses what is not yet stored"),
    "postgres_away": Rule("unhealthy", "degraded", "Postgres does not answer"),
    "disk": Rule("degraded", "degraded", "less than 2 GiB of disk free for the state folder"),
    "unexpected": Rule("notice", "notice", "a process runs that the settings do not ask for"),
}


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One finding. `subject` is what it is about, `process` the process it belongs to (None: the whole), `since`
    (ns) when it began or was first seen."""

    code: str
    subject: str
    text: str
    process: str | None = None
    since: int | None = None

    @property
    def level(self) -> Level:
        """What it does to the whole."""
        return RULES[self.code].overall


def find(snapshot: Snapshot, settings: Settings) -> list[Reason]:
    """Every finding. When nothing runs, that is the only one."""
    rows = subscriptions(snapshot, settings)
    return _stopped(snapshot) or [reason for check in _CHECKS for reason in check(snapshot, settings, rows)]


def beats(process: Process, now: int) -> bool:
    """Whether its loop is alive: it wrote a report lately, and not its last one."""
    report = process.report
    return report is not None and report.status != "stopped" and now - report.beat <= HEARTBEAT_LATE


def _stopped(snapshot: Snapshot) -> list[Reason]:
    """Nothing runs: then nothing else is worth a reason."""
    if snapshot.supervisor_error is None or any(beats(process, snapshot.at) for process in snapshot.processes):
        return []
    ended = [p.report.beat for p in snapshot.processes if p.report is not None]
    text = f"nothing is running ({snapshot.supervisor_error})"
    return [Reason(code="service_stopped", subject="service", text=text, since=max(ended, default=None))]


Check = Callable[[Snapshot, Settings, tuple[Subscription, ...]], Iterator[Reason]]


def _processes(snapshot: Snapshot, settings: Settings, rows: tuple[Subscription, ...]) -> Iterator[Reason]:
    for process in snapshot.processes:
        if not process.expected:
            if process.state == "RUNNING" or beats(process, snapshot.at):
                yield _about(process, "unexpected", "runs although the settings do not ask for it")
            continue
        yield from _state(process, snapshot)
        if process.attempts >= settings.file.collection_settings.max_restart_attempts:
            text = f"restarted {process.attempts} times in a row"
            yield _about(process, "restarts", text, process.last_restart)
        if process.report and process.report.waiting_for and beats(process, snapshot.at):
            yield _about(process, "waiting", f"waits for {process.report.waiting_for}")


def _state(process: Process, snapshot: Snapshot) -> Iterator[Reason]:
    """At most one finding on whether it runs."""
    if process.parked:
        yield _about(process, "parked", process.detail or "restarted too often", process.last_restart)
    elif process.state in ("BACKOFF", "FATAL"):
        yield _about(process, "failing", f"{process.state}: {process.detail or 'ends at once'}", process.stopped)
    elif process.state in ("STOPPED", "EXITED", "UNKNOWN"):
        yield _about(process, "not_running", process.detail or process.state.lower(), process.stopped)
    elif process.state == "STOPPING":
        yield _about(process, "stopping", "is being stopped")
    elif process.name not in SERVERS:
        yield from _heartbeat(process, snapshot.at)
    elif process.state == "STARTING":
        yield _about(process, "starting", "is starting", process.started)


def _heartbeat(process: Process, now: int) -> Iterator[Reason]:
    report = process.report
    if beats(process, now):
        assert report is not None
        if process.state == "STARTING" or (report.status == "starting" and report.waiting_for is None):
            yield _about(process, "starting", "is starting", report.started)
    elif process.state is None:
        yield _about(process, "not_running", "no heartbeat", report.beat if report else None)
    elif process.started is None or now - process.started <= START_GRACE:
        yield _about(process, "starting", "is starting", process.started)
    else:
        last = report.beat if report else process.started
        yield _about(process, "hung", f"no heartbeat for {(now - last) // SECOND} s", last)


def _about(process: Process, code: str, text: str, since: int | None = None) -> Reason:
    return Reason(code=code, subject=process.name, text=text, process=process.name, since=since)


def _whole(snapshot: Snapshot, settings: Settings, rows: tuple[Subscription, ...]) -> Iterator[Reason]:
    expected = [process for process in snapshot.processes if process.expected]
    failed = [p for p in expected if any(_failure(reason) for reason in _state(p, snapshot))]
    if len(failed) * 2 > len(expected):
        text = f"{len(failed)} of {len(expected)} processes failed"
        yield Reason(code="too_many_failed_collectors", subject="service", text=text)
    collecting = [process for process in expected if process.name.startswith("ingest-")]
    if collecting and all(process in failed for process in collecting):
        yield Reason(code="nothing_collected", subject="service", text="no ingest process runs")
    if snapshot.supervisor_error is not None:
        yield Reason(code="supervisor_away", subject="supervisord", text=snapshot.supervisor_error)


def _failure(reason: Reason) -> bool:
    return RULES[reason.code].process == "unhealthy"


def _exchanges(snapshot: Snapshot, settings: Settings, rows: tuple[Subscription, ...]) -> Iterator[Reason]:
    for exchange in settings.enabled_exchanges():
        ingest = next((p for p in snapshot.processes if p.name == f"ingest-{exchange}"), None)
        own = [row for row in rows if row.exchange == exchange]
        limit = settings.file.collection_settings.max_silence_duration * SECOND
        quiet = [row for row in own if _silent(row, ingest, snapshot.at, limit)]
        if own and len(quiet) == len(own):
            newest = max((row.last_message for row in quiet if row.last_message is not None), default=None)
            text = f"no data on any of {len(own)} subscriptions"
            yield Reason(code="no_data", subject=exchange, text=text, process=f"ingest-{exchange}", since=newest)
        else:
            yield from (_of(row, "silent", "no data", row.last_message) for row in quiet)
        yield from (reason for row in own for reason in _subscription(row, ingest, snapshot.at))
        if ingest is not None and ingest.report is not None:
            yield from _connections(exchange, ingest, settings)


def _silent(row: Subscription, ingest: Process | None, now: int, limit: float) -> bool:
    """Whether data should have come by now. What was refused or never asked for has a reason of its own."""
    if row.state in ("refused", "missing", "unsubscribed"):
        return False
    heard = row.last_message
    if heard is None:
        heard = ingest.report.started if ingest and ingest.report else now
    return now - heard > limit


def _subscription(row: Subscription, ingest: Process | None, now: int) -> Iterator[Reason]:
    if row.state == "refused":
        yield _of(row, "refused", f"refused: {row.reason or 'no reason given'}")
    elif row.state in ("missing", "unsubscribed") and ingest and beats(ingest, now):
        assert ingest.report is not None
        if now - ingest.report.started > START_GRACE:
            yield _of(row, "not_subscribed", "is not subscribed")
    if row.open_gaps:
        numbers = f", {row.missing} trades" if row.missing else ""
        gaps = f"{row.open_gaps} open gap{'s' if row.open_gaps > 1 else ''}{numbers}"
        yield msgspec.structs.replace(_of(row, "open_gaps", gaps), process=f"normalize-{row.exchange}")


def _of(row: Subscription, code: str, text: str, since: int | None = None) -> Reason:
    subject = f"{row.exchange} {row.symbol}"
    return Reason(code=code, subject=subject, text=text, process=f"ingest-{row.exchange}", since=since)


def _connections(exchange: str, ingest: Process, settings: Settings) -> Iterator[Reason]:
    most = settings.file.collection_settings.max_reconnect_attempts
    for name, facts in connections(ingest.report).items():
        if facts.get("attempts", 0) >= most:
            text = f"{facts['attempts']} attempts to connect failed"
            yield Reason(code="reconnecting", subject=name, text=text, process=ingest.name)
    offset = clock_offset(ingest.report)
    if offset is not None and abs(offset) > CLOCK_SKEW:
        ahead = "behind" if offset > 0 else "ahead of"
        text = f"this host's clock is {abs(offset) // 1_000_000} ms {ahead} the exchange's"
        yield Reason(code="clock_skew", subject=exchange, text=text, process=ingest.name)


def _redis(snapshot: Snapshot, settings: Settings, rows: tuple[Subscription, ...]) -> Iterator[Reason]:
    redis = snapshot.redis
    if redis.error is not None:
        yield _server("redis", "redis_away", redis.error)
        return
    if redis.used_memory and redis.budget and redis.used_memory > REDIS_MARK * redis.budget:
        share = 100 * redis.used_memory // redis.budget
        yield _server("redis", "redis_memory", f"uses {share} % of its memory budget")
    if redis.policy not in (None, "noeviction") and not settings.file.redis.accept_eviction:
        yield _server("redis", "redis_evicts", f"maxmemory-policy is {redis.policy}, should be noeviction")
    if redis.version and int(redis.version.split(".")[0]) < OLDEST_REDIS:
        yield _server("redis", "redis_version", f"version {redis.version}, should be {OLDEST_REDIS}.0 or newer")
    if redis.persistent is False:
        yield _server("redis", "redis_volatile", "writes nothing to disk (appendonly and save are off)")
    if redis.dead.count:
        reason, count = max(redis.dead.reasons.items(), key=lambda item: item[1])
        number = f"{'over ' if redis.dead.more else ''}{redis.dead.count}"
        text = f"{number} in the last hour, most ({count}) for: {reason}"
        yield Reason(code="dead_letters", subject="dead letters", text=text)


def _postgres(snapshot: Snapshot, settings: Settings, rows: tuple[Subscription, ...]) -> Iterator[Reason]:
    if snapshot.postgres.error is not None:
        yield _server("postgres", "postgres_away", snapshot.postgres.error)


def _disk(snapshot: Snapshot, settings: Settings, rows: tuple[Subscription, ...]) -> Iterator[Reason]:
    if snapshot.disk_free is not None and snapshot.disk_free < DISK_FREE:
        text = f"{snapshot.disk_free // 1024**2} MiB free at {settings.state_dir}"
        yield Reason(code="disk", subject="disk", text=text)


def _server(name: str, code: str, text: str) -> Reason:
    return Reason(code=code, subject=name, text=text, process=name)


_CHECKS: tuple[Check, ...] = (_whole, _processes, _exchanges, _redis, _postgres, _disk)
