"""The status document: what `status --json` and `health --json` print. [contract: docs/status.md] Pure.

The names of the fields are those of the seeds (`should_be_running`, `statistics.messages_received` …).
"""

from collections.abc import Mapping

from pipeline.demands import demands
from pipeline.errors import SettingsError
from pipeline.facts import Process, Snapshot
from pipeline.forecast import days_until_full, growth
from pipeline.health import ProcessVerdict, Verdict, of_exchange
from pipeline.liveness import beats
from pipeline.readers import reader_rows
from pipeline.reports import Report
from pipeline.rows import Document, budget_row, demand_row, subscription_row
from pipeline.rules import Reason
from pipeline.seen import budgets, clock_offset, connections, patterns
from pipeline.settings import Settings
from pipeline.spelling import advice
from pipeline.subscriptions import subscriptions
from pipeline.text import iso, seconds

HEALTH_FIELDS = (
    "name",
    "is_healthy",
    "issues",
    "status",
    "last_heartbeat",
    "last_data_received",
    "should_be_running",
    "is_running",
)
"""What `health NAME --json` prints of a process."""


def document(snapshot: Snapshot, verdict: Verdict, settings: Settings, version: str) -> Document:
    """Everything."""
    processes = {p.name: process(p, snapshot, verdict.processes[p.name], settings) for p in snapshot.processes}
    collectors = [row for row in processes.values() if row["should_be_running"]]
    errors = [p.report for p in snapshot.processes if p.report is not None and p.report.last_error]
    newest = max(errors, key=lambda report: report.last_error_at or 0, default=None)
    running = [p.started for p in snapshot.processes if p.started is not None and processes[p.name]["is_running"]]
    return {
        "schema": 1,
        "at": iso(snapshot.at),
        "status": verdict.status,
        "reason": verdict.reasons[0].code if verdict.reasons and verdict.status != "healthy" else None,
        "since": iso(verdict.since),
        "reasons": [_reason(reason) for reason in verdict.reasons],
        "version": version,
        "service_running": verdict.status != "stopped",
        "uptime_hours": round((snapshot.at - min(running)) / 3.6e12, 3) if running else 0.0,
        "collectors_total": len(collectors),
        "collectors_running": sum(row["is_running"] for row in collectors),
        "collectors_failed": sum(not row["is_healthy"] for row in collectors),
        "errors_count": sum(p.report.errors for p in snapshot.processes if p.report is not None),
        "last_error": newest.last_error if newest else None,
        "configuration": _configuration(settings),
        "processes": processes,
        "exchanges": {name: exchange(name, snapshot, verdict, settings) for name in settings.enabled_exchanges()},
        **_servers(snapshot, settings.file.retention.days.given()),
        "readers": reader_rows(snapshot),
    }


def of_name(whole: Document, name: str) -> Document:
    """The part about a process or an exchange. Raises SettingsError with the nearest name."""
    known = whole["processes"] | whole["exchanges"]
    if name not in known:
        raise SettingsError(f"no process or exchange {name!r}{advice(name, known)}")
    part: Document = known[name]
    return part


def process(facts: Process, snapshot: Snapshot, judged: ProcessVerdict, settings: Settings) -> Document:
    """One process."""
    report, now = facts.report, snapshot.at
    name = facts.name.partition("-")[2]
    of_exchange = name if name in settings.file.exchanges else None
    return {
        "name": facts.name,
        "exchange": of_exchange,
        **_health(judged, facts, now),
        "symbols": _symbols(settings, of_exchange),
        "data_types": _data_types(settings, of_exchange),
        "auto_restart": settings.file.collection_settings.auto_restart,
        "pid": facts.pid,
        "supervisor_state": facts.state,
        "waiting_for": report.waiting_for if report and beats(facts, now) else None,
        "health": {
            "time_since_heartbeat": seconds(report.beat if report else None, now),
            "time_since_data": seconds(report.last_data if report else None, now),
            "max_silence_duration": settings.file.collection_settings.max_silence_duration,
        },
        "statistics": _statistics(facts, now),
        "rates": report.rates if report else {},
        "lag": lag(facts.name, snapshot),
        **(_websocket(report, now) if facts.name.startswith("ingest-") else {}),
    }


def exchange(name: str, snapshot: Snapshot, verdict: Verdict, settings: Settings) -> Document:
    """One exchange: its ingest process under the seeds' names, every subscription, what is wanted and allowed."""
    facts = next(p for p in snapshot.processes if p.name == f"ingest-{name}")
    offset = clock_offset(facts.report)
    rows = [row for row in subscriptions(snapshot, settings) if row.exchange == name]
    return process(facts, snapshot, of_exchange(name, verdict, facts), settings) | {
        "clock_offset_ms": None if offset is None else round(offset / 1e6, 3),
        "subscriptions": [subscription_row(row, snapshot.at) for row in rows],
        "patterns": patterns(facts.report),
        "wants": [demand_row(demand, snapshot.at) for demand in demands(snapshot, name)],
        "budgets": {allowance: budget_row(budget) for allowance, budget in budgets(facts.report).items()},
    }


def lag(name: str, snapshot: Snapshot) -> int | None:
    """Stream entries a process has not read yet; None where the server cannot tell or it reads none."""
    stage, _, instance = name.partition("-")
    lags = [
        group.lag
        for stream in snapshot.redis.streams
        if stage in ("aggregate", "store") or stream.exchange == instance
        for group in stream.groups
        if group.name == stage
    ]
    known = [entries for entries in lags if entries is not None]
    return sum(known) if known else None


def issues(judged: ProcessVerdict) -> list[str]:
    """The reasons on one line each."""
    return [f"{reason.subject} {reason.text}" for reason in judged.reasons]


def _health(judged: ProcessVerdict, facts: Process, now: int) -> Document:
    report = facts.report
    alive = facts.state in ("RUNNING", "STARTING") if facts.state else beats(facts, now)
    return {
        "status": judged.status,
        "is_healthy": judged.level in ("healthy", "degraded"),
        "level": judged.level,
        "issues": issues(judged),
        "should_be_running": facts.expected,
        "is_running": alive,
        "last_heartbeat": iso(report.beat if report else None),
        "last_data_received": iso(report.last_data if report else None),
    }


def _statistics(facts: Process, now: int) -> Document:
    report = facts.report
    counters = report.counters if report else {}
    # ingest counts frames, the others stream entries; both once they are committed.
    processed = counters.get("written", counters.get("entries", 0))
    links = connections(report).values()
    opened = [link["opened"] for link in links if link.get("opened")]
    return {
        "messages_received": processed + counters.get("dropped", 0),
        "messages_processed": processed,
        "errors": report.errors if report else 0,
        "restarts": facts.restarts,
        "uptime_seconds": seconds(facts.started, now) if facts.started else None,
        "reconnect_attempts": sum(link.get("attempts", 0) for link in links),
        "last_message_time": iso(report.last_data if report else None),
        "connection_uptime": iso(min(opened, default=None)),
        "last_error": report.last_error if report else None,
        "last_error_time": iso(report.last_error_at if report else None),
        "last_restart_time": iso(facts.last_restart),
        "counters": counters,
    }


def _websocket(report: Report | None, now: int) -> Document:
    links = connections(report)
    states = {str(link.get("state", "unknown")) for link in links.values()}
    return {
        "messages_processed": report.counters.get("written", 0) if report else 0,
        "websocket_state": states.pop() if len(states) == 1 else "mixed" if states else None,
        "websocket_stats": {
            "reconnections": sum(link.get("reconnects", 0) for link in links.values()),
            "pings_sent": sum(link.get("pings", 0) for link in links.values()),
            "pongs_received": sum(link.get("pongs", 0) for link in links.values()),
        },
        "connections": [
            {
                "connection": name,
                "state": link.get("state"),
                "opened": iso(link.get("opened")),
                "last_frame": iso(link.get("last_frame")),
                "time_since_frame": seconds(link.get("last_frame"), now),
                "frames": link.get("frames", 0),
                "reconnects": link.get("reconnects", 0),
                "pings": link.get("pings", 0),
                "pongs": link.get("pongs", 0),
            }
            for name, link in links.items()
        ],
    }


def _retention(snapshot: Snapshot, days: Mapping[str, int]) -> Document:
    """What the process that drops says of it, since it started."""
    reports = [p.report for p in snapshot.processes if p.name == "store-0" and p.report is not None]
    told = reports[0].details.get("retention", {}) if reports else {}
    return {
        "days": dict(days),
        "dropped": told.get("dropped", 0),
        "last_dropped": iso(told.get("last_dropped")),
        "held": told.get("held", {}),
        "trouble": told.get("trouble"),
    }


def _servers(snapshot: Snapshot, days: Mapping[str, int]) -> Document:
    redis, postgres, now = snapshot.redis, snapshot.postgres, snapshot.at
    rate, left = growth(postgres.sizes), days_until_full(snapshot.data_free, postgres.sizes, days, now)
    return {
        "redis": {
            "error": redis.error,
            "version": redis.version,
            "used_bytes": redis.used_memory,
            "budget_bytes": redis.budget,
            "maxmemory_policy": redis.policy,
            "persistent": redis.persistent,
        },
        "postgres": {
            "error": postgres.error,
            "bytes": postgres.bytes,
            "newest": {table: iso(time) for table, time in postgres.newest.items()},
            "time_since_newest": {table: seconds(time, now) for table, time in postgres.newest.items()},
            "growth_bytes_per_day": None if rate is None else round(rate),
            "kept_since": {kind: iso(time) for kind, time in postgres.kept_since.items()},
            "dropped_bytes": postgres.freed,
        },
        "disk": {
            "free_bytes": snapshot.disk_free,
            "data_free_bytes": snapshot.data_free,
            "days_until_full": None if left is None else round(left, 1),
        },
        "retention": _retention(snapshot, days),
        "dead_letters": {
            "last_hour": redis.dead.count,
            "more": redis.dead.more,
            "reasons": redis.dead.reasons,
            "newest": iso(redis.dead.newest),
        },
    }


def _reason(reason: Reason) -> Document:
    return {
        "code": reason.code,
        "level": reason.level,
        "subject": reason.subject,
        "process": reason.process,
        "text": reason.text,
        "since": iso(reason.since),
    }


def _configuration(settings: Settings) -> Document:
    return {
        "config_file": str(settings.path),
        "state_dir": str(settings.state_dir),
        "namespace": settings.namespace,
        "simulated": settings.file.simulated,
        "exchanges_enabled": list(settings.enabled_exchanges()),
        "total_trading_pairs": sum(len(_symbols(settings, name)) for name in settings.enabled_exchanges()),
    }


def _symbols(settings: Settings, name: str | None) -> list[str]:
    if name is None:
        return []
    return [pair.symbol for pair in settings.file.exchanges[name].trading_pairs if pair.enabled]


def _data_types(settings: Settings, name: str | None) -> list[str]:
    if name is None:
        return []
    pairs = settings.file.exchanges[name].trading_pairs
    return list(dict.fromkeys(kind for pair in pairs if pair.enabled for kind in pair.data_types))
