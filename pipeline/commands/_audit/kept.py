"""What retention dropped, so that it is not taken for missing. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from pipeline.commands._audit.period import Period
from pipeline.timeframes import MINUTE, WIDTHS

TRADES = "trade"
SLACK = timedelta(seconds=1)
"""At a midnight numbers and times need not have the same order."""


class Dropped(msgspec.Struct, frozen=True):
    """Kind to the times of which its rows were dropped: whole UTC days or months."""

    times: dict[str, tuple[Period, ...]] = {}

    def has(self, kind: str, day: Period) -> bool:
        """Whether the rows of a part of one UTC day were dropped."""
        return any(gone.start <= day.start < gone.end for gone in self.times.get(kind, ()))

    def parts(self, period: Period) -> Iterator[tuple[str, Period]]:
        """What of a period was dropped, by kind."""
        for kind, times in self.times.items():
            for gone in times:
                if gone.start < period.end and gone.end > period.start:
                    yield kind, Period(max(gone.start, period.start), min(gone.end, period.end))

    def between(self, first: datetime, last: datetime) -> bool:
        """Whether trades between two trades were dropped."""
        return any(gone.start - SLACK <= last and gone.end + SLACK >= first for gone in self.times.get(TRADES, ()))

    def covers(self, first: datetime, last: datetime) -> bool:
        """Whether all trades between two were dropped."""
        low, high = sorted((first, last))
        return any(gone.start <= low and high < gone.end for gone in self.times.get(TRADES, ()))


def dropped(rows: Iterable[Mapping[str, Any]]) -> Dropped:
    """Of rows of `statements.dropped`."""
    times: dict[str, tuple[Period, ...]] = {}
    for row in rows:
        times[row["kind"]] = (*times.get(row["kind"], ()), Period(row["from_time"], row["to_time"]))
    return Dropped(times)


def candle_kind(timeframe: str) -> str:
    """The kind by which candles of a time frame are kept."""
    return "candle_seconds" if WIDTHS[timeframe] < MINUTE else "candle"
