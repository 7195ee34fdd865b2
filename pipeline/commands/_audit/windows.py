"""The judgement on one candle: what it says against what the stored trades make of it. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import msgspec

from pipeline.commands._audit.frames import Made
from pipeline.commands._audit.ledger import Entry
from pipeline.commands._audit.statements import VALUES

SLACK = timedelta(seconds=1)
"""Collection begins with a message; the times of its trades lie a moment before it."""
PRICES = ("open", "high", "low", "close")
AMOUNTS = ("volume", "quote_volume", "buy_volume", "buy_quote_volume")

Kind = Literal["missing_candle", "wrong_candle", "wrong_quality"]


class Fault(msgspec.Struct, frozen=True):
    """A window whose candle is not as it must be. `fields`: name to (what it says, what it should say)."""

    kind: Kind
    timeframe: str
    open_time: datetime
    reason: str
    fields: dict[str, tuple[Any, Any]] = {}


class Terms(msgspec.Struct, frozen=True):
    """What is known of the instrument. `settled`: windows that end later may still be on their way. `first_time`: the
    first trade since the beginning, `newest` the last one. `made`: spans of the time frame."""

    settled: datetime
    first_time: datetime | None
    newest: datetime | None
    epochs: tuple[tuple[datetime, datetime], ...]
    made: tuple[Made, ...]


def terms(
    settled: datetime,
    first_time: datetime | None,
    newest: datetime | None,
    ledger: Iterable[Entry],
    made: Iterable[Made],
) -> Terms:
    """The terms of one time frame."""
    epochs = tuple((entry.from_time, entry.to_time) for entry in ledger if entry.outcome == "epoch")
    return Terms(settled, first_time, newest, epochs, tuple(made))


def judged(row: Mapping[str, Any], timeframe: str, width: timedelta, known: Terms) -> Fault | None:
    """None where nothing is wrong, or nothing can be said yet. `row`: see `statements.windows`."""
    start = row["open_time"]
    end = start + width
    # The first window of a time frame that was added later holds only the trades since.
    if end > known.settled or any(not span.first and start < span.start < end for span in known.made):
        return None
    if not row["stored"]:
        required = any(end > span.start + SLACK and (span.end is None or start < span.end) for span in known.made)
        count = row["made_trades_count"]
        required = required and (count > 0 or not _doubtful(start, end, known))
        what = f"no candle, and {count} trades are stored" if count else "no candle, and surely there was no trade"
        return Fault("missing_candle", timeframe, start, what) if required else None
    if row["close_time"] != end:
        fields = {"close_time": (row["close_time"], end)}
        return Fault("wrong_candle", timeframe, start, "not a window of its time frame", fields)
    fault = _values(row, timeframe) if row["made"] else _alone(row, timeframe)
    return fault or _quality(row, timeframe, end, known)


def _values(row: Mapping[str, Any], timeframe: str) -> Fault | None:
    fields = {
        name: (row[name], row[f"made_{name}"])
        for name in VALUES
        if row[name] != row[f"made_{name}"] and not (name == "contracts" and _nothing(row))
    }
    if not fields:
        return None
    said = ", ".join(f"{name} {_text(ours)} for {_text(theirs)}" for name, (ours, theirs) in fields.items())
    return Fault("wrong_candle", timeframe, row["open_time"], said, fields)


def _nothing(row: Mapping[str, Any]) -> bool:
    """Without trades no contracts are as good as none told."""
    return not row["trades_count"] and not row["made_trades_count"] and not row["contracts"]


def _alone(row: Mapping[str, Any], timeframe: str) -> Fault | None:
    """A candle of a window without a stored trade, of which nobody knows whether there were any."""
    if row["trades_count"] or any(row[name] for name in AMOUNTS):
        fields = {name: (row[name], 0) for name in ("trades_count", *AMOUNTS)}
        what = f"tells of {row['trades_count']} trades, none of which is stored"
        return Fault("wrong_candle", timeframe, row["open_time"], what, fields)
    wrong = {name: (row[name], row["before"]) for name in PRICES if row[name] != row["before"]}
    # Without a trade before it (there was none, or it was dropped), nobody can tell.
    if wrong and row["before"] is not None:
        what = f"without trades, and not at the close before, {_text(row['before'])}"
        return Fault("wrong_candle", timeframe, row["open_time"], what, wrong)
    return None


def _quality(row: Mapping[str, Any], timeframe: str, end: datetime, known: Terms) -> Fault | None:
    quality, start = row["quality"], row["open_time"]
    if (quality == "partial") != (row["missing"] > 0):
        return Fault("wrong_quality", timeframe, start, f"{quality}, and misses {row['missing']} ns")
    expected = row["made_quality"] if row["made"] else "partial"
    if (quality == "quiet") != (row["trades_count"] == 0 and quality != "partial"):
        fields = {"quality": (quality, expected)}
        return Fault("wrong_quality", timeframe, start, f"{quality} with {row['trades_count']} trades", fields)
    if (quality == "partial") == (expected == "partial") or row["forgotten"] or _doubtful(start, end, known):
        return None
    what = "may lack trades" if expected == "partial" else "lacks no trade"
    return Fault("wrong_quality", timeframe, start, f"{quality}, but {what}", {"quality": (quality, expected)})


def _doubtful(start: datetime, end: datetime, known: Terms) -> bool:
    """Whether only the stream could tell if the window is whole: at the beginning of the collection, after the last
    trade, and where numbers began again."""
    if known.first_time is None or start <= known.first_time or known.newest is None or end > known.newest:
        return True
    return any(low < end and high >= start for low, high in known.epochs)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return format(value, "f") if isinstance(value, Decimal) else str(value)
