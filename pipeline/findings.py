"""What can be found wrong with a running instance: facts to reasons, by the table of rules. Pure."""

from collections.abc import Callable, Iterator

from pipeline.collected import of_exchanges
from pipeline.facts import Process, Snapshot
from pipeline.forecast import days_until_full, growth
from pipeline.liveness import START_GRACE, beats
from pipeline.memory import INGEST_STOPS
from pipeline.readers import of_readers
from pipeline.rules import RULES, Reason
from pipeline.settings import Settings
from pipeline.subscriptions import Subscription, subscriptions
from pipeline.text import size, span
from pipeline.timeframes import SECOND

DISK_FREE = 2 * 1024**3
DISK_DAYS = 7
OLDEST_REDIS = 7
SERVERS = ("redis", "postgres")
"""Processes that are not ours and write no report."""


def find(snapshot: Snapshot, settings: Settings) -> list[Reason]:
    """Every finding. When nothing runs, that is the only one."""
    rows = subscriptions(snapshot, settings)
    return _stopped(snapshot) or [reason for check in _CHECKS for reason in check(snapshot, settings, rows)]


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
        if process.report and process.report.stalled is not None and beats(process, snapshot.at):
            yield _about(process, "stalled", process.report.stalled_why or "does nothing", process.report.stalled)
        yield from _spills(process, snapshot.at)


def _spills(process: Process, now: int) -> Iterator[Reason]:
    """Of each partition whose disk takes no more."""
    if process.report is not None and beats(process, now):
        for partition, row in process.report.details.get("spill", {}).items():
            if row.get("trouble"):
                yield _about(process, "spill_full", f"{partition}: {row['trouble']}")


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


def _redis(snapshot: Snapshot, settings: Settings, rows: tuple[Subscription, ...]) -> Iterator[Reason]:
    redis = snapshot.redis
    if redis.error is not None:
        yield _server("redis", "redis_away", redis.error)
        return
    if redis.used_memory and redis.budget and redis.used_memory > INGEST_STOPS * redis.budget:
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
    sizes, days = snapshot.postgres.sizes, settings.file.retention.days.given()
    left = days_until_full(snapshot.data_free, sizes, days, snapshot.at)
    if left is not None and left < DISK_DAYS:
        text = f"full in {span(left * 86_400)}: the database grows by {size(round(growth(sizes) or 0))} a day"
        yield Reason(code="disk_forecast", subject="disk", text=text)


def _server(name: str, code: str, text: str) -> Reason:
    return Reason(code=code, subject=name, text=text, process=name)


_CHECKS: tuple[Check, ...] = (_whole, _processes, of_exchanges, of_readers, _redis, _postgres, _disk)
