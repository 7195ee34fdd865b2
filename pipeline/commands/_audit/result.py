"""What an audit found of one instrument. Pure."""

from datetime import datetime
from typing import Any

import msgspec

from pipeline.commands._audit.ledger import Entry
from pipeline.commands._audit.numbers import Hole, Run, State, Twice
from pipeline.commands._audit.period import Period
from pipeline.commands._audit.statements import MODULUS
from pipeline.commands._audit.windows import Fault

MOST_KEPT = 1_000
"""Faults of a kind that are kept word for word; the others are counted."""


class Day(msgspec.Struct, frozen=True):
    """The trades of a part of the range that lies within one UTC day; null where there are none. `kept`: they were
    not dropped, so that something is proven."""

    name: str
    trades: int
    first: int | None
    last: int | None
    digest: str | None
    kept: bool = True


class BarFault(msgspec.Struct, frozen=True):
    """A window of which the exchange's own bar says something else. `source`: rest or stored."""

    source: str
    timeframe: str
    open_time: datetime
    fields: dict[str, tuple[Any, Any]]


class Bars(msgspec.Struct):
    """Bars compared, by source. `absent`: windows of ours that the exchange gave no bar of; `unasked`: why none."""

    compared: int = 0
    wrong: int = 0
    absent: int = 0
    unasked: str | None = None


class Result(msgspec.Struct):
    """Filled while the instrument is examined."""

    exchange: str
    symbol: str
    instrument: str
    days: list[Day] = []
    not_kept: list[tuple[str, Period]] = []
    """Kind, and the part of the range of which its rows were dropped."""
    runs: list[Run] = []
    holes: list[Hole] = []
    twice: list[Twice] = []
    doubled: int = 0
    cut: bool = False
    """Whether a day has more holes than are told apart."""
    ledger: list[Entry] = []
    contradicted: list[tuple[Entry, int]] = []
    candles: dict[str, int] = {}
    wrong: dict[str, int] = {}
    faults: list[Fault] = []
    rest: Bars = msgspec.field(default_factory=Bars)
    stored: Bars = msgspec.field(default_factory=Bars)
    bar_faults: list[BarFault] = []

    @property
    def trades(self) -> int:
        """Rows."""
        return sum(day.trades for day in self.days)

    @property
    def present(self) -> int:
        """Different numbers in the range."""
        return sum(run.last - run.first + 1 for run in self.runs)

    @property
    def proves(self) -> bool:
        """Whether of any day of the range trades are kept. Beside dropped days one without trades proves nothing: it
        may be from before collecting began."""
        kept = [day for day in self.days if day.kept]
        return any(day.trades for day in kept) or (bool(kept) and len(kept) == len(self.days))

    def missing(self, state: State | None = None) -> int:
        """Numbers that are not stored: all of them, or those of a state."""
        return sum(hole.count for hole in self.holes if state in (None, hole.state))

    @property
    def digest(self) -> str | None:
        """That of the whole range: those of its days added up."""
        found = [int(day.digest, 16) for day in self.days if day.digest is not None]
        return f"{sum(found) % MODULUS:015x}" if found else None

    @property
    def wrong_candles(self) -> int:
        return sum(self.wrong.values())

    def add(self, fault: Fault) -> None:
        """Counts a fault of a candle, and keeps it while there is room."""
        self.wrong[fault.timeframe] = self.wrong.get(fault.timeframe, 0) + 1
        if len(self.faults) < MOST_KEPT:
            self.faults.append(fault)

    def add_bar(self, fault: BarFault) -> None:
        """As `add`, of a bar."""
        bars = self.rest if fault.source == "rest" else self.stored
        bars.wrong += 1
        if len(self.bar_faults) < MOST_KEPT:
            self.bar_faults.append(fault)

    def good(self, *, accept_unrecoverable: bool = False) -> bool:
        """Whether nothing is missing or wrong."""
        missing = self.missing() - (self.missing("unrecoverable") if accept_unrecoverable else 0)
        wrong = self.wrong_candles + self.rest.wrong + self.stored.wrong
        return not (missing or wrong or self.doubled or self.contradicted or self.cut)
