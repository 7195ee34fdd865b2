"""One row for each subscription the settings ask for, put together from what ingest and normalize report. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pipeline.facts import Snapshot
from pipeline.reports import Report
from pipeline.settings import Settings


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: missing (ingest does not know it), requested, subscribed, refused or unsubscribed. `complete_since`
    is when the present unbroken run of trade numbers began. Times in ns UTC."""

    exchange: str
    symbol: str
    kind: str
    state: str
    reason: str | None = None
    instrument: str | None = None
    connection: str | None = None
    covered: bool = False
    last_message: int | None = None
    last_trade: int | None = None
    rate: float | None = None
    trades: int = 0
    duplicates: int = 0
    reordered: int = 0
    open_gaps: int = 0
    missing: int = 0
    complete_since: int | None = None


def subscriptions(snapshot: Snapshot, settings: Settings) -> tuple[Subscription, ...]:
    """The subscriptions of every enabled exchange, in the order of the settings."""
    reports = {process.name: process.report for process in snapshot.processes if process.report is not None}
    rows: list[Subscription] = []
    for exchange, wanted in settings.enabled_exchanges().items():
        asked = _asked(reports.get(f"ingest-{exchange}"))
        seen = _seen(reports.get(f"normalize-{exchange}"))
        for pair in wanted.trading_pairs:
            if pair.enabled:
                rows.append(_row(exchange, pair.symbol, asked, seen, snapshot))
    return tuple(rows)


def connections(report: Report | None) -> dict[str, Mapping[str, Any]]:
    """What an ingest process says of each of its connections."""
    return dict((report.details.get("connections") or {}) if report else {})


def clock_offset(report: Report | None) -> int | None:
    """Exchange clock minus ours (ns) as ingest measured it, or None."""
    offset = report.details.get("clock_offset") if report else None
    return offset if isinstance(offset, int) else None


def _asked(report: Report | None) -> list[Mapping[str, Any]]:
    return list((report.details.get("subscriptions") or {}).values()) if report else []


def _seen(report: Report | None) -> dict[str, Mapping[str, Any]]:
    """Instrument to what normalize knows of it, over all partitions."""
    partitions = (report.details.get("partitions") or {}) if report else {}
    return {
        instrument: facts
        for partition in partitions.values()
        for instrument, facts in (partition.get("subscriptions") or {}).items()
    }


def _row(
    exchange: str, wanted: str, asked: list[Mapping[str, Any]], seen: dict[str, Mapping[str, Any]], snapshot: Snapshot
) -> Subscription:
    spelling = wanted.upper()
    instrument, facts = next(
        ((name, row) for name, row in seen.items() if spelling in _spellings(name, row.get("symbol"))), (None, {})
    )
    names = set(_spellings(instrument, facts.get("symbol"))) | {spelling}
    request = next((row for row in asked if names & set(_spellings(row.get("instrument"), row.get("symbol")))), {})
    symbol = facts.get("symbol") or request.get("symbol") or wanted
    ledger = snapshot.postgres.open_gaps.get((exchange, symbol), 0)
    return Subscription(
        exchange=exchange,
        symbol=symbol,
        kind=facts.get("kind", "trade"),
        state=request.get("state", "missing"),
        reason=request.get("reason"),
        instrument=instrument or request.get("instrument"),
        connection=facts.get("connection") or request.get("conn"),
        covered=bool(facts.get("covered")),
        last_message=facts.get("last_message"),
        last_trade=facts.get("last_trade"),
        rate=_rate(exchange, symbol, snapshot),
        trades=facts.get("trades", 0),
        duplicates=facts.get("duplicates", 0),
        reordered=facts.get("reordered", 0),
        open_gaps=max(facts.get("open_gaps", 0), ledger),
        missing=facts.get("missing", 0),
        complete_since=facts.get("since"),
    )


def _spellings(*names: object) -> Iterator[str]:
    return (name.upper() for name in names if isinstance(name, str))


def _rate(exchange: str, symbol: str, snapshot: Snapshot) -> float | None:
    if snapshot.redis.error is not None:
        return None
    return snapshot.redis.rates.get((exchange, symbol), 0.0)
