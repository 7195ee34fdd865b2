"""What an audit found, for people: a table, then what is wrong, at most so many lines of each instrument. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipeline import text
from pipeline.commands._audit.ledger import counts
from pipeline.commands._audit.numbers import Hole, Twice
from pipeline.commands._audit.result import BarFault, Result
from pipeline.commands._audit.windows import Fault
from pipeline.timeframes import TIMEFRAMES

_HEADER = ("SYMBOL", "TRADES", "MISSING", "TWICE", "CANDLES", "WRONG", "DIGEST")


def page(results: Sequence[Result], period: str, most: int) -> list[str]:
    """Every line."""
    rows = [
        (
            f"{one.exchange} {one.symbol}",
            text.number(one.trades),
            text.number(one.missing()),
            text.number(one.doubled),
            text.number(sum(one.candles.values())),
            text.number(one.wrong_candles),
            one.digest or text.NOTHING,
        )
        for one in results
    ]
    lines = text.table(_HEADER, rows)
    for one in results:
        if found := [*_findings(one)]:
            lines += ["", f"{one.exchange} {one.symbol}"]
            lines += [line for finding in found[:most] for line in text.paragraph(*finding, indent=11)]
            if (more := _count(one) - min(most, len(found))) > 0:
                lines.append(f"  and {more} more (-n shows more, --json all)")
    lines.append("")
    lines += [line for said in _sums(results, period) for line in text.paragraph(*said)]
    return lines


def _findings(one: Result) -> Iterator[tuple[str, str]]:
    """(label, words) of everything that is kept of what is wrong, the worst first."""
    order = ("unexplained", "open", "unrecoverable")
    for hole in sorted(one.holes, key=lambda each: order.index(each.state)):
        yield "  missing", hole_text(hole)
    if one.cut:
        yield "  missing", "so many holes that not all of them are told"
    for twice in one.twice:
        yield "  twice", twice_text(twice)
    for entry, stored in one.contradicted:
        yield "  ledger", f"names {stored} numbers of {entry.first}-{entry.last} as missing that are stored"
    for fault in sorted(one.faults, key=lambda each: (TIMEFRAMES.index(each.timeframe), each.open_time)):
        yield "  candle", fault_text(fault)
    for bar in one.bar_faults:
        yield "  bar", bar_text(bar)


def _count(one: Result) -> int:
    """How many findings there are, those too that are not kept."""
    bars = one.rest.wrong + one.stored.wrong
    return len(one.holes) + one.cut + len(one.twice) + len(one.contradicted) + one.wrong_candles + bars


def hole_text(hole: Hole) -> str:
    """`trade 123 (2026-11-20 12:00:00.1 … 12:00:00.3): not in the ledger`."""
    which = f"trade {hole.first}" if hole.count == 1 else f"trades {hole.first}-{hole.last} ({hole.count})"
    epoch = f" of epoch {hole.epoch}" if hole.epoch else ""
    said = {"open": "still missing", "unrecoverable": "lost for good", "unexplained": "not in the ledger"}[hole.state]
    reason = f": {hole.reason}" if hole.reason else ""
    return f"{which}{epoch}, between {moment(hole.from_time)} and {moment(hole.to_time)}: {said}{reason}"


def twice_text(twice: Twice) -> str:
    which = f"trade {twice.first}" if twice.first == twice.last else f"trades {twice.first}-{twice.last}"
    epoch = f" of epoch {twice.epoch}" if twice.epoch else ""
    return f"{which}{epoch} stored more than once: at {' and '.join(map(moment, twice.times))}"


def fault_text(fault: Fault) -> str:
    return f"{fault.timeframe} {moment(fault.open_time)}: {fault.reason}"


def bar_text(fault: BarFault) -> str:
    told = ", ".join(f"{name} {plain(ours)} for {plain(theirs)}" for name, (ours, theirs) in fault.fields.items())
    where = "the exchange's" if fault.source == "rest" else "the stored one of the exchange"
    return f"{fault.timeframe} {moment(fault.open_time)} is not {where}: {told}"


def moment(time: datetime) -> str:
    """UTC, microseconds where there are any."""
    return time.isoformat(sep=" ", timespec="auto").removesuffix("+00:00")


def plain(value: Any) -> Any:
    """Decimals in plain notation."""
    return format(value, "f") if isinstance(value, Decimal) else value


def _sums(results: Sequence[Result], period: str) -> Iterator[tuple[str, str]]:
    trades, candles = sum(one.trades for one in results), sum(sum(one.candles.values()) for one in results)
    yield "audited", f"{period} UTC: {len(results)} instruments, {trades} trades, {candles} candles"
    parts = {state: sum(one.missing(state) for one in results) for state in ("unexplained", "open", "unrecoverable")}
    words = {"unexplained": "not in the ledger", "open": "still open", "unrecoverable": "lost for good"}
    told = ", ".join(f"{number} {words[state]}" for state, number in parts.items() if number)
    yield "missing", told or "nothing"
    gaps = counts(entry for one in results for entry in one.ledger)
    yield "ledger", ", ".join(f"{number} {name}" for name, number in gaps.items() if number) or "no entries"
    if begun := gaps["epoch"]:
        yield "unknown", f"the last trades before numbers began again ({begun} times): no number tells of them"
    for kind, gone in dict.fromkeys(part for one in results for part in one.not_kept):
        yield "not kept", f"{kind}: {gone.name}; dropped, so nothing is said of it"
    if not any(one.proves for one in results):
        yield "proven", "nothing: no day of this is kept"
    yield "bars", _bars(results)


def _bars(results: Sequence[Result]) -> str:
    said = []
    for source, every in (("by REST", [one.rest for one in results]), ("stored", [one.stored for one in results])):
        if compared := sum(bars.compared for bars in every):
            wrong, absent = sum(bars.wrong for bars in every), sum(bars.absent for bars in every)
            lacking = f", {absent} not given" if absent else ""
            said.append(f"{compared} {source}: {compared - wrong} equal, {wrong} not{lacking}")
    reasons = dict.fromkeys(bars.unasked for bars in (one.rest for one in results) if bars.unasked)
    said += [f"not asked: {reason}" for reason in reasons]
    return "; ".join(said) or "none compared"
