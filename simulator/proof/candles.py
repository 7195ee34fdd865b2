"""The verdict on candles: which windows must have one, and what it must say. Pure.

A window touched by a miss must be `partial` and equal the candle of the stored trades; every other one must
equal the candle of the printed trades. The first window of a collection and one still open have rules of their own.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

import msgspec

from simulator.proof.evidence import Candle, Evidence, Link, Trade, Values
from simulator.proof.fills import Account
from simulator.proof.windows import SECOND, WIDTHS, by_window, differences, is_empty_at, values, window

SLACK = SECOND
"""How far from a connection's end or from the first data of the next a window may still be called partial."""
MILLISECOND = 1_000_000


class Fault(msgspec.Struct, frozen=True):
    """A window that is not as it must be."""

    instrument: str
    timeframe: str
    open_time: int
    reason: str


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: the frames, from which one upwards windows without a trade have a candle, until when
    (`horizon`, ns) every window must be there, and when the rows were read (`read`, ns)."""

    timeframes: tuple[str, ...]
    quiet_from: str
    horizon: int
    read: int


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One window [start, end) of an instrument: its fills since collection began, and its row."""

    timeframe: str
    start: int
    end: int
    printed: Sequence[Trade]
    held: Sequence[Trade]
    missed: bool
    candle: Candle | None

    def overlaps(self, since: int, until: int) -> bool:
        return self.start < until and self.end > since

    def within(self, since: int, until: int) -> bool:
        return since <= self.start and self.end <= until


class CandleCheck:
    """The check of one instrument's candles. `whole` and `quiet` are the qualities of a window of which nothing is
    missing, with trades and without."""

    whole: tuple[str, ...] = ("complete",)
    quiet: tuple[str, ...] = ("quiet",)

    def __init__(self, evidence: Evidence, fills: Account, terms: Terms) -> None:
        self._evidence = evidence
        self._fills = fills
        self._terms = terms
        self._link = evidence.link or Link(terms.read)
        self._held = sorted(fills.kept, key=lambda trade: (trade.time, trade.number))
        self._printed = sorted([*fills.kept, *fills.missed, *fills.lost], key=lambda trade: (trade.time, trade.number))
        # Until its first live trade has come nothing proves that an instrument is seen: a replayed one proves it only
        # to those who know the exchange's clock by then.
        live = (trade.received for trade in fills.kept if self._seen_live(trade))
        self._proven = min(live, default=self._link.since) + SLACK
        self._first = min((trade.time for trade in self._held), default=self._link.since)
        self._dim = tuple(self.dim_spans())

    def run(self) -> tuple[int, list[Fault]]:
        """How many windows were judged, and those that are wrong."""
        checked, faults = 0, []
        for timeframe in self._terms.timeframes:
            for one in self._windows(timeframe):
                wrong = self._judge(one)
                if wrong is None and one.candle is None and not self._required(one):
                    continue
                checked += 1
                if wrong is not None:
                    faults.append(Fault(self._evidence.instrument, timeframe, one.start, wrong))
        return checked, faults

    def dim_spans(self) -> Iterator[tuple[int, int]]:
        """From the last trade before each connection's end to the first after the next began: the times between which
        fills may be missing, for all that the stored trades can tell. Here a window may be partial."""
        for border in self._link.borders:
            before = max((trade.time for trade in self._held if trade.received < border.begun), default=border.ended)
            after = min((trade.received for trade in self._held if trade.received >= border.begun), default=None)
            yield min(before, border.ended) - SLACK, (self._terms.read if after is None else after + SLACK)

    def _windows(self, timeframe: str) -> Iterator[Window]:
        width = WIDTHS[timeframe]
        printed, held = by_window(self._printed, width), by_window(self._held, width)
        missed = set(by_window(self._fills.missed, width))
        candles: dict[int, list[Candle]] = {}
        for candle in self._evidence.candles:
            if candle.timeframe == timeframe:
                candles.setdefault(candle.open_time, []).append(candle)
        starts = {*printed, *candles}
        if width >= WIDTHS[self._terms.quiet_from]:
            starts |= {*range(window(self._link.since, width), self._terms.horizon, width)}
        for start in sorted(starts):
            rows: list[Candle | None] = [*candles.get(start, ())]
            for row in rows or [None]:
                yield Window(
                    timeframe=timeframe,
                    start=start,
                    end=start + width,
                    printed=printed.get(start, ()),
                    held=held.get(start, ()),
                    missed=start in missed,
                    candle=row,
                )

    def _required(self, one: Window) -> bool:
        """Whether this window must have a row by now."""
        if one.end > self._terms.horizon or one.end <= self._link.since:
            return False
        if any(one.within(border.ended, border.begun) for border in self._link.borders):
            return False
        if one.start < self._proven:
            return any(self._seen_live(trade) for trade in one.held)
        if one.missed:
            return bool(one.held)
        return bool(one.printed) or (not self._is_dim(one) and self._may_be_quiet(one) and self._close(one) is not None)

    def _judge(self, one: Window) -> str | None:
        """What is wrong with the window, or None."""
        if one.candle is None:
            return "has no candle" if self._required(one) else None
        if one.start % WIDTHS[one.timeframe] or one.candle.close_time != one.end:
            return "is not a window of its time frame"
        if one.end > self._terms.read:
            return "was written before its end"
        if one.end <= self._link.since and not one.held:
            return "was written for a time before collection began"
        if one.start < self._proven:
            return self._judge_first(one, one.candle)
        if one.missed:
            return self._judge_missed(one, one.candle)
        return self._judge_traded(one, one.candle) if one.printed else self._judge_quiet(one, one.candle)

    def _judge_first(self, one: Window, candle: Candle) -> str | None:
        """Not proven to be seen from its beginning: partial, with the stored trades; those replayed from before the
        connection may be left out. What begins after the first stored trade may be complete: numbers prove it."""
        since = self._first if one.held else self._link.since
        if candle.quality != "partial" and one.start <= since:
            return f"is {candle.quality}, and collection began within it"
        live = [trade for trade in one.held if self._seen_live(trade)]
        choices = [values(trades) for trades in (live, one.held) if trades]
        if not choices:
            return None if is_empty_at(candle, self._closes(one)) else "tells of trades that are not stored"
        return None if any(not differences(candle, choice) for choice in choices) else _unlike(candle, choices[-1])

    def _judge_missed(self, one: Window, candle: Candle) -> str | None:
        if candle.quality != "partial":
            return f"is {candle.quality}, and fills of it were missed"
        if one.held:
            return _unlike(candle, values(one.held))
        return None if is_empty_at(candle, self._closes(one)) else "tells of trades that are not stored"

    def _judge_traded(self, one: Window, candle: Candle) -> str | None:
        allowed = ("complete", "partial", "repaired") if self._is_dim(one) else self.whole
        if candle.quality not in allowed:
            return f"is {candle.quality}, and nothing of it was missed"
        return _unlike(candle, values(one.printed)) or _wrongly_missing(candle)

    def _judge_quiet(self, one: Window, candle: Candle) -> str | None:
        if not is_empty_at(candle, self._closes(one)):
            return "tells of trades, or of a price, that were not there"
        if self._is_dim(one):
            return None if candle.quality in (*self.quiet, "partial") else f"is {candle.quality} without a trade"
        if candle.quality not in self.quiet or not self._may_be_quiet(one):
            return f"is {candle.quality} without a trade"
        return _wrongly_missing(candle)

    def _seen_live(self, trade: Trade) -> bool:
        """Printed since the first connection began (times of trades are whole milliseconds), not replayed by it."""
        return trade.time >= self._link.since - MILLISECOND

    def _is_dim(self, one: Window) -> bool:
        return any(one.overlaps(*span) for span in self._dim)

    def _may_be_quiet(self, one: Window) -> bool:
        return WIDTHS[one.timeframe] >= WIDTHS[self._terms.quiet_from]

    def _close(self, one: Window) -> Decimal | None:
        """The price of the last stored trade before the window."""
        place = bisect_left(self._held, one.start, key=lambda trade: trade.time)
        return self._held[place - 1].price if place else None

    def _closes(self, one: Window) -> Iterable[Decimal]:
        """What the close before the window may be: by what is stored, and by what was printed."""
        place = bisect_left(self._printed, one.start, key=lambda trade: trade.time)
        printed = {self._printed[place - 1].price} if place else set()
        stored = self._close(one)
        return printed if stored is None else {stored, *printed}


def _unlike(candle: Candle, expected: Values) -> str | None:
    fields = differences(candle, expected)
    if not fields:
        return None
    told = ", ".join(f"{name} {getattr(candle, name)} for {getattr(expected, name)}" for name in fields[:3])
    return f"says {told}"


def _wrongly_missing(candle: Candle) -> str | None:
    width = WIDTHS[candle.timeframe]
    if candle.quality == "partial":
        return None if 0 <= candle.missing <= width else f"misses {candle.missing} ns of {width}"
    return f"is {candle.quality} and misses {candle.missing} ns" if candle.missing else None
