"""What an audit found, as one JSON document. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pipeline import text
from pipeline.commands._audit.ledger import counts
from pipeline.commands._audit.numbers import Hole, Twice
from pipeline.commands._audit.page import plain
from pipeline.commands._audit.period import Period
from pipeline.commands._audit.result import BarFault, Bars, Result
from pipeline.commands._audit.windows import Fault
from pipeline.probes.postgres import nanoseconds

SCHEMA = 1


def document(results: Sequence[Result], period: Period, *, good: bool) -> dict[str, Any]:
    """The whole."""
    return {
        "schema": SCHEMA,
        "from": _iso(period.start),
        "to": _iso(period.end),
        "good": good,
        "trades": sum(one.trades for one in results),
        "missing": sum(one.missing() for one in results),
        "duplicates": sum(one.doubled for one in results),
        "candles": sum(sum(one.candles.values()) for one in results),
        "candles_wrong": sum(one.wrong_candles for one in results),
        "bars": sum(one.rest.compared + one.stored.compared for one in results),
        "bars_wrong": sum(one.rest.wrong + one.stored.wrong for one in results),
        "symbols": [_symbol(one) for one in results],
    }


def _symbol(one: Result) -> dict[str, Any]:
    return {
        "exchange": one.exchange,
        "symbol": one.symbol,
        "instrument": one.instrument,
        "good": one.good(),
        "first": one.runs[0].first if one.runs else None,
        "last": one.runs[-1].last if one.runs else None,
        "expected": one.present + one.missing(),
        "stored": one.present,
        "trades": one.trades,
        "digest": one.digest,
        "epochs": _epochs(one),
        "days": [
            {"day": d.name, "trades": d.trades, "first": d.first, "last": d.last, "digest": d.digest, "kept": d.kept}
            for d in one.days
        ],
        "not_kept": [{"kind": kind, "from": _iso(gone.start), "to": _iso(gone.end)} for kind, gone in one.not_kept],
        "missing": {state: one.missing(state) for state in ("open", "unrecoverable", "unexplained")},
        "holes": [_hole(hole) for hole in one.holes],
        "holes_cut": one.cut,
        "duplicates": one.doubled,
        "stored_twice": [_twice(twice) for twice in one.twice],
        "gaps": counts(one.ledger),
        "ledger_wrong": [
            {"epoch": entry.epoch, "from_sequence": entry.first, "to_sequence": entry.last, "stored": stored}
            for entry, stored in one.contradicted
        ],
        "candles": one.candles,
        "candles_wrong": one.wrong,
        "wrong_candles": [_fault(fault) for fault in one.faults],
        "bars_rest": _bars(one.rest),
        "bars_stored": _bars(one.stored),
        "wrong_bars": [_bar(fault) for fault in one.bar_faults],
    }


def _epochs(one: Result) -> list[dict[str, int]]:
    found = []
    for epoch in dict.fromkeys(run.epoch for run in one.runs):
        runs = [run for run in one.runs if run.epoch == epoch]
        stored = sum(run.last - run.first + 1 for run in runs)
        found.append({"epoch": epoch, "first": runs[0].first, "last": runs[-1].last, "stored": stored})
    return found


def _hole(hole: Hole) -> dict[str, Any]:
    return {
        "epoch": hole.epoch,
        "from_sequence": hole.first,
        "to_sequence": hole.last,
        "count": hole.count,
        "from_time": _iso(hole.from_time),
        "to_time": _iso(hole.to_time),
        "state": hole.state,
        "reason": hole.reason,
    }


def _twice(twice: Twice) -> dict[str, Any]:
    times = [_iso(time) for time in twice.times]
    return {"epoch": twice.epoch, "from_sequence": twice.first, "to_sequence": twice.last, "times": times}


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "timeframe": fault.timeframe,
        "open_time": _iso(fault.open_time),
        "kind": fault.kind,
        "reason": fault.reason,
        "fields": _fields(fault.fields, "stored", "expected"),
    }


def _bar(fault: BarFault) -> dict[str, Any]:
    return {
        "source": fault.source,
        "timeframe": fault.timeframe,
        "open_time": _iso(fault.open_time),
        "fields": _fields(fault.fields, "stored", "bar"),
    }


def _bars(bars: Bars) -> dict[str, Any]:
    return {"compared": bars.compared, "wrong": bars.wrong, "absent": bars.absent, "unasked": bars.unasked}


def _fields(fields: dict[str, tuple[Any, Any]], ours: str, theirs: str) -> dict[str, Any]:
    """Numbers as text, as in every record."""
    return {name: {ours: _value(first), theirs: _value(second)} for name, (first, second) in fields.items()}


def _value(value: Any) -> Any:
    return _iso(value) if isinstance(value, datetime) else plain(value)


def _iso(time: datetime) -> str | None:
    return text.iso(nanoseconds(time))
