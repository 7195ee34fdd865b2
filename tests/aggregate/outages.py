"""A made market with outages of minutes and hours, what comes of them later page by page, and what must follow.

Written from the rules, not from the code. Times are in the order of the numbers, but for trades that the venue dates
back where none is missing beside them. One instrument; seconds since START.
"""

import itertools
import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec

from pipeline.records import Candle, Gap, Rebuild, Trade
from pipeline.timeframes import WIDTHS
from tests.aggregate.made import START, Record, at, clock, covered, gap, naive, trade, uncovered

NAME = "BTC-USDT"
PROVISIONAL = 2.0
PAUSES = (0.0, 0.2, 1.5, 20.0, 90.0)
OUTAGES = (0.4, 30.0, 1_200.0, 8_000.0, 60_000.0)
Window = tuple[str, int]


@dataclass
class Hole:
    """Numbers jumped over; `open` are those that may still come."""

    first: int
    last: int
    seen: float
    open: set[int]
    told: bool = False


class Known:
    """What can be known at one moment: trades that passed, and of numbers that did not the times they span."""

    def __init__(self, trades: list[Trade], unknown: list[tuple[int, int]]) -> None:
        self.trades = sorted(trades, key=lambda one: (one.time or 0, one.sequence))
        self.times = [one.time or 0 for one in self.trades]
        self.unknown = unknown
        self.ends = [end for _, end in unknown]

    def inside(self, start: int, end: int) -> list[Trade]:
        return self.trades[bisect_left(self.times, start) : bisect_left(self.times, end)]

    def before(self, time: int) -> Trade | None:
        place = bisect_left(self.times, time)
        return self.trades[place - 1] if place else None

    def missing(self, start: int, end: int) -> int:
        """ns of the window that the spans (in order, both ends inclusive) cover."""
        total = 0
        for low, high in self.unknown[bisect_left(self.ends, start) :]:
            if low >= end:
                break
            total += min(high + 1, end) - max(low, start)
            start = max(start, high + 1)
        return total


@dataclass
class Outages:
    """Everything is drawn from `seed`. `truth` is what was printed, `records` what reached aggregate. With `jitter` any
    trade may be dated before the one before it; then everything comes in the end. With `late` gaps may close long after
    their windows, and because no trade ever had what is missing."""

    seed: int
    frames: tuple[str, ...]
    quiet_from: str
    longest: float
    jitter: bool = False
    late: bool = False
    records: list[Record] = field(default_factory=list)
    truth: list[Trade] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    now: float = 0.0

    def run(self, events: int) -> "Outages":
        self.random = random.Random(self.seed)
        self.skipped: list[int] = []
        self.passed: set[int] = set()
        self.connection = 0
        self.is_covered = False
        self.join()
        for _ in range(events):
            self.act()
        if not self.is_covered:
            self.join()
        self.deliver()
        self.sleep(3)
        for _ in range(self.random.choice((0, 40, 200)) if self.late else 0):
            self.sleep(self.random.choice((5, 30)))
            self.deliver()
        while self.told_holes():
            self.repair(self.random.choice(self.told_holes()))
        for _ in range(40):
            self.sleep(1)
        return self

    def act(self) -> None:
        chance = self.random.random()
        if chance < 0.25:
            self.sleep(self.random.choice(PAUSES))
        if chance < 0.03 and self.is_covered:
            self.deliver()
            self._pass(self.print(lag=self.random.choice((0.2, 100.0, 3_000.0))))
            self.deliver()
        elif chance < 0.55:
            self.deliver() if self.is_covered else self.skip()
        elif chance < 0.62:
            # The connection seems to live and carries nothing, or there is none.
            self.outage(cut=self.random.random() < 0.5)
        elif chance < 0.7:
            self.skip()
        elif holes := self.told_holes():
            self.repair(self.random.choice(holes))
        elif not self.is_covered:
            self.join()

    def outage(self, *, cut: bool) -> None:
        if cut and self.is_covered:
            self.is_covered = False
            self.records.append(uncovered(self.now, NAME))
        left = min(self.longest, self.random.choice(OUTAGES)) * self.random.random()
        while left > 0:
            pause = min(left, self.random.choice((0.1, 5.0, 400.0, 20_000.0)))
            self.sleep(pause)
            left -= pause
            if self.random.random() < 0.7:
                self.skip()
        if cut:
            self.join()

    def join(self) -> None:
        self.connection += 1
        self.is_covered = True
        self.deliver()
        name = f"wss://example#{self.connection}"
        self.records.append(covered(self.now, self.frames, NAME, connection=name, quiet_from=self.quiet_from))

    def print(self, lag: float = 0.0) -> Trade:
        number = len(self.truth) + 1
        if self.jitter and not lag:
            lag = self.random.choice((0.0, 0.0, 0.05, 0.2, 0.6))
        price = f"{100 + self.random.randrange(400) / 10:.2f}"
        side = self.random.choice(("buy", "sell"))
        size = self.random.choice(("1", "0.10", "2.5"))
        self.truth.append(trade(number, max(0.0, self.now - lag), price, size, side=side, received=at(self.now)))
        return self.truth[-1]

    def skip(self) -> None:
        self.skipped.append(self.print().sequence)

    def deliver(self) -> None:
        made = self.print()
        if self.skipped and self.passed:
            self.holes.append(Hole(self.skipped[0], self.skipped[-1], self.now, set(self.skipped)))
        self.skipped = []
        self._pass(made)

    def sleep(self, seconds: float) -> None:
        """Time passes in steps, each with a clock; what it finds stands before it."""
        until = round(self.now + seconds, 3)
        while self.now < until:
            self.now = min(until, round(self.now + self.random.choice((0.25, 3.0, 60.0)), 3))
            for hole in self.holes:
                if not hole.told and hole.open and self.now - hole.seen >= PROVISIONAL:
                    hole.told = True
                    self._tell(hole, "opened")
            self.tick()

    def tick(self) -> None:
        name = f"wss://example#{self.connection}"
        heard = {name: at(self.now)} if self.is_covered else {}
        self.records.append(msgspec.structs.replace(clock(self.now), connections=heard))

    def told_holes(self) -> list[Hole]:
        return [hole for hole in self.holes if hole.told and hole.open]

    def repair(self, hole: Hole) -> None:
        """A page of the hole: from its newest or oldest end or its middle, in any order and in pieces; or its end."""
        left = sorted(hole.open)
        if self.random.random() < 0.06 and not self.jitter:
            self.lost |= hole.open
            self._tell(hole, "closed")
            hole.open.clear()
        elif self.late and self.random.random() < 0.1:
            hole.open.clear()
            self._tell(hole, "closed")
        else:
            size = self.random.choice((1, 2, 5, 40))
            begin = self.random.choice((0, max(0, len(left) - size), self.random.randrange(len(left))))
            page = left[begin : begin + size]
            self.random.choice((list.reverse, list.sort, self.random.shuffle))(page)
            for number in page:
                hole.open.discard(number)
                found = self.truth[number - 1]
                self._pass(msgspec.structs.replace(found, received=at(self.now), repaired=True))
                if self.random.random() < 0.1:
                    self.tick()
            self._tell(hole, "shrunk" if hole.open else "closed")
        if self.random.random() < 0.5:
            self.sleep(self.random.choice((0.3, 1.1)))

    def _pass(self, made: Trade) -> None:
        self.passed.add(made.sequence)
        self.records.append(made)

    def _tell(self, hole: Hole, state: str) -> None:
        before, after = self.truth[hole.first - 2], self.truth[hole.last]
        times = {"from_time": before.time, "to_time": after.time}
        told = gap(state, hole.first, hole.last, 0, 0, self.now, remaining=tuple((n, n) for n in sorted(hole.open)))
        repaired = hole.last - hole.first + 1 - len(hole.open)
        self.records.append(msgspec.structs.replace(told, repaired=repaired, **times))


def known(records: Iterable[Record]) -> Known:
    """What these records let one know, worked out number by number. What a closed gap does not name is not missing."""
    records = list(records)
    closed = [one for one in records if isinstance(one, Gap) and one.state == "closed" and not one.remaining]
    explained = {number for one in closed for number in range(one.from_sequence, one.to_sequence + 1)}
    trades = sorted((one for one in records if isinstance(one, Trade)), key=lambda one: one.sequence)
    spans = [
        (min(before.time or 0, after.time or 0), max(before.time or 0, after.time or 0))
        for before, after in itertools.pairwise(trades)
        if any(number not in explained for number in range(before.sequence + 1, after.sequence))
    ]
    return Known(trades, [(0, trades[0].time or 0), *sorted(spans)])


def judged(known: Known, frame: str, start: int, quiet_from: str, before: Candle | None) -> Candle | None:
    """The window's candle as it should be when it was `before`; None where there is none."""
    end = start + WIDTHS[frame]
    missing = known.missing(start, end)
    inside = known.inside(start, end)
    if not inside:
        return _empty(known, frame, start, missing, quiet_from, before)
    repaired = any(one.repaired for one in inside) or (before is not None and before.quality in ("partial", "repaired"))
    values = {name: str(value) for name, value in (naive(inside, frame, start) or {}).items()}
    return _candle(frame, start, "partial" if missing else "repaired" if repaired else "complete", missing, values)


def _empty(known: Known, frame: str, start: int, missing: int, quiet_from: str, before: Candle | None) -> Candle | None:
    previous = known.before(start)
    if previous is None or (before is None and (missing or WIDTHS[frame] < WIDTHS[quiet_from])):
        return None
    price = before.close if missing and before is not None else previous.price
    values = dict.fromkeys(("open", "high", "low", "close"), price) | {"trades_count": "0"}
    values |= dict.fromkeys(("volume", "quote_volume", "buy_volume", "buy_quote_volume"), "0")
    return _candle(frame, start, "partial" if missing else "quiet", missing, values)


def _candle(frame: str, start: int, quality: str, missing: int, values: dict[str, str]) -> Candle:
    end = start + WIDTHS[frame]
    given = {"exchange": "okx", "market": "spot", "symbol": NAME, "instrument": NAME, "received": 0, "timeframe": frame}
    window = {"time": end, "open_time": start, "close_time": end, "quality": quality, "missing": missing}
    return msgspec.convert(given | window | values, Candle, strict=False)


def windows(rebuild: Rebuild) -> Iterator[Window]:
    """Those that are meant."""
    for frame in rebuild.timeframes:
        width = WIDTHS[frame]
        for start in range(rebuild.from_time - rebuild.from_time % width, rebuild.to_time + 1, width):
            if start + width <= (rebuild.time or 0):
                yield frame, start


def all_windows(known: Known, frame: str, quiet_from: str, until: int) -> set[int]:
    """Opens of the windows that may have a candle and end by `until`."""
    width = WIDTHS[frame]
    if width >= WIDTHS[quiet_from]:
        return set(range(START, until - width + 1, width))
    return {time - time % width for time in known.times if time - time % width + width <= until}


def same(row: Candle, wanted: Candle) -> bool:
    """Whether they say the same, revisions and spelling apart."""
    names = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume")
    numbers = all(Decimal(getattr(row, name)) == Decimal(getattr(wanted, name)) for name in names)
    others = ("trades_count", "first_id", "last_id", "quality", "missing", "open_time", "close_time")
    return numbers and all(getattr(row, name) == getattr(wanted, name) for name in others)
