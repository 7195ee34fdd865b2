"""The examination of one instrument: its numbers, its candles, the exchange's bars, day by day."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pipeline.commands._audit import frames, kept, ledger, numbers, statements, windows
from pipeline.commands._audit.asking import Unasked, Venues
from pipeline.commands._audit.bars import Bar, bar_of, differences
from pipeline.commands._audit.database import Database, Row
from pipeline.commands._audit.ledger import Entry
from pipeline.commands._audit.numbers import Run, Twice
from pipeline.commands._audit.pages import Listing
from pipeline.commands._audit.period import Period
from pipeline.commands._audit.result import BarFault, Day, Result
from pipeline.timeframes import TIMEFRAMES, WIDTHS

SETTLED = timedelta(seconds=15)
"""So long after its end by the stream's clock a window's candle must be stored: a grace, and the way through Redis."""
ALWAYS = datetime.max.replace(tzinfo=UTC)

DONE = ""
Step = Callable[[str], None]
"""Is told what comes next, and DONE after each day."""


class Collection(NamedTuple):
    """What is known of the instrument beside its trades. `begun`: epoch and number with which its collection began."""

    begun: tuple[int, int] | None
    first_time: datetime | None
    newest: datetime | None
    settled: datetime
    made: dict[str, list[frames.Made]]


class Asked(NamedTuple):
    """What to compare with bars: the time frame, and whom to ask (None: nobody)."""

    timeframe: str
    venues: Venues | None


class Examination:
    """One instrument over one period."""

    def __init__(self, database: Database, row: Row, period: Period, asked: Asked, step: Step) -> None:
        self._database = database
        self._id: int = row["id"]
        self._listing = Listing(row["instrument"], row["market"], row["contract"])
        self._period = period
        self._asked = asked
        self._say = step
        self._result = Result(row["exchange"], row["symbol"], row["instrument"])
        self._dropped = kept.Dropped()

    def run(self) -> Result:
        """Everything. Raises psycopg.Error."""
        result = self._result
        with self._database.snapshot():
            collection = self._collection()
            entries = ledger.entries(self._database.all(statements.ledger(self._id, self._period)))
        found: list[Run] = []
        for place, day in enumerate(self._period.days()):
            with self._database.snapshot():
                self._dropped = self._look_for_dropped()
                found += self._numbers(day, place)
                for timeframe in TIMEFRAMES:
                    self._candles(day, timeframe, collection, entries)
                    self._stored_bars(day, timeframe)
                wanted = self._comparable(day) if self._asked.venues is not None else {}
            if wanted and self._asked.venues is not None:
                self._bars(self._asked.venues, day, wanted)
            self._say(DONE)
        with self._database.snapshot():
            self._dropped = self._look_for_dropped()
            around = [
                _run(row, row["side"], -1) for row in self._database.all(statements.around(self._id, self._period))
            ]
        self._judge_numbers([*found, *around], entries, collection.begun)
        result.not_kept = list(self._dropped.parts(self._period))
        return result

    def _step(self, what: str, day: Period) -> None:
        self._say(f"{self._result.exchange} {self._result.symbol} {day.name} {what}")

    def _look_for_dropped(self) -> kept.Dropped:
        return kept.dropped(self._database.all(statements.dropped()))

    def _collection(self) -> Collection:
        row = self._database.one(statements.collection(self._id)) or {}
        rows = self._database.all(statements.frames(self._id))
        # Without the exchange's clock only a later trade closes a window.
        clock = row.get("clock") or row.get("newest")
        begun = (row["epoch"], row["first"]) if row.get("first") is not None else None
        settled = ALWAYS if clock is None else clock - SETTLED
        made = frames.made((one["time"], one["timeframes"]) for one in rows)
        return Collection(begun, row.get("first_time"), row.get("newest"), settled, made)

    def _numbers(self, day: Period, place: int) -> list[Run]:
        self._step("numbers", day)
        result, row = self._result, self._database.one(statements.digest(self._id, day))
        assert row is not None
        whole = not self._dropped.has(kept.TRADES, day)
        result.days.append(Day(day.name, row["trades"], row["first"], row["last"], row["digest"], whole))
        if not whole:
            return []
        rows = self._database.all(statements.runs(self._id, day))
        result.cut = result.cut or len(rows) > statements.MOST_RUNS
        if doubled := sum(one["doubled"] for one in rows):
            result.doubled += doubled
            for one in self._database.all(statements.doubled(self._id, day)):
                result.twice.append(Twice(one["epoch"], one["sequence"], one["sequence"], tuple(one["times"])))
        if len({one["epoch"] for one in rows}) > 1:
            self._renamed(day)
        return [_run(one, 0, place) for one in rows[: statements.MOST_RUNS]]

    def _renamed(self, day: Period) -> None:
        """Of several epochs no two may tell the same trade."""
        for one in self._database.each(statements.renamed(self._id, day)):
            self._result.doubled += 1
            if len(self._result.twice) < statements.MOST_TOLD:
                self._result.twice.append(Twice(one["epoch"], one["sequence"], one["sequence"], tuple(one["times"])))

    def _judge_numbers(self, found: list[Run], entries: list[Entry], begun: tuple[int, int] | None) -> None:
        result = self._result
        merged, twice = numbers.merged(found)
        result.twice += twice
        result.doubled += sum(one.last - one.first + 1 for one in twice)
        result.holes = numbers.missing(merged, entries, begun, self._dropped)
        result.ledger = entries
        result.runs, _ = numbers.merged(run for run in found if run.side == 0)
        result.contradicted = numbers.contradicted(result.runs, entries)

    def _candles(self, day: Period, timeframe: str, collection: Collection, entries: list[Entry]) -> None:
        if any(self._dropped.has(kind, day) for kind in (kept.TRADES, kept.candle_kind(timeframe))):
            return
        counted = self._database.one(statements.count(self._id, timeframe, day))
        stored = counted["candles"] if counted else 0
        spans = collection.made.get(timeframe, [])
        made = any(span.start < day.end and (span.end is None or span.end > day.start) for span in spans)
        judged = Period(day.start, min(day.end, collection.settled))
        if not (stored or made) or judged.start >= judged.end:
            return
        self._step(timeframe, day)
        self._result.candles[timeframe] = self._result.candles.get(timeframe, 0) + stored
        width = timedelta(microseconds=WIDTHS[timeframe] // 1_000)
        known = windows.terms(collection.settled, collection.first_time, collection.newest, entries, spans)
        for row in self._database.each(statements.windows(self._id, timeframe, judged)):
            if fault := windows.judged(row, timeframe, width, known):
                self._result.add(fault)

    def _stored_bars(self, day: Period, timeframe: str) -> None:
        for row in self._database.each(statements.stored_bars(self._id, timeframe, day)):
            self._result.stored.compared += 1
            self._compare("stored", timeframe, row, bar_of(row))

    def _comparable(self, day: Period) -> dict[datetime, Row]:
        """Our candles of a day that the exchange's bars must equal. A day of seconds is the most."""
        rows = self._database.each(statements.candles(self._id, self._asked.timeframe, day))
        return {row["open_time"]: row for row in rows}

    def _bars(self, venues: Venues, day: Period, candles: dict[datetime, Row]) -> None:
        """Only from the first to the last of ours: the pages before and after would be for nothing."""
        self._step("bars by REST", day)
        timeframe, bars = self._asked.timeframe, self._result.rest
        last = max(candles) + timedelta(microseconds=WIDTHS[timeframe] // 1_000)
        try:
            for bar in self._given(venues, Period(min(candles), last)):
                if (candle := candles.pop(bar.open_time, None)) is not None:
                    bars.compared += 1
                    self._compare("rest", timeframe, candle, bar)
        except Unasked as error:
            bars.unasked = error.reason
        else:
            bars.absent += len(candles)

    def _given(self, venues: Venues, period: Period) -> Iterator[Bar]:
        return venues.bars(self._result.exchange, self._listing, self._asked.timeframe, period)

    def _compare(self, source: str, timeframe: str, candle: Row, bar: Bar) -> None:
        fields: dict[str, tuple[Any, Any]] = differences(candle, bar, inverse=self._listing.contract == "inverse")
        if fields:
            self._result.add_bar(BarFault(source, timeframe, bar.open_time, fields))


def _run(row: Row, side: int, day: int) -> Run:
    """A run of the range, or one trade beside it."""
    times = (row["from_time"], row["to_time"]) if side == 0 else (row["time"], row["time"])
    return Run(row["epoch"], row["first"], row["last"], row.get("trades", 1), *times, side, day)
