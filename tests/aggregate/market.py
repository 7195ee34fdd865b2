"""A made market and what normalize would write of it: skipped, late and repaired trades, cuts, new epochs.

`truth` is every trade printed, `records` what reached aggregate. Written from the rules, not from the code.
"""

import random
from dataclasses import dataclass, field

import msgspec

from pipeline.records import Trade
from tests.aggregate.made import Record, at, clock, covered, gap, identity, trade, uncovered

PROVISIONAL = 2.0
"""Seconds after which a hole becomes a gap."""
LAGS = (0, 0, 0, 0, 0, 0.02, 0.2)
"""Seconds by which a trade's time is before its print."""


@dataclass
class Hole:
    lost: list[Trade]
    before: Trade
    after: Trade
    seen: float
    told: bool = False


@dataclass
class Line:
    """One instrument as the exchange and normalize see it."""

    name: str
    next: int = 1
    epoch: int = 0
    covered: bool = False
    last: Trade | None = None
    skipped: list[Trade] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    connection: int = 0


class Market:
    """Everything is drawn from `seed`. `pace` is the longest pause between two prints, in seconds."""

    def __init__(self, seed: int, frames: tuple[str, ...], *, quiet_from: str = "1m", pace: float = 2.0) -> None:
        self.random = random.Random(seed)
        self.frames = frames
        self.quiet_from = quiet_from
        self.pace = pace
        self.now = 0.0
        self.ticked = 0.0
        self.lines = [Line("BTC-USDT"), Line("ETH-USDT")]
        self.truth: list[Trade] = []
        self.passed: list[Trade] = []
        self.records: list[Record] = []

    def run(self, seconds: float) -> "Market":
        """Lets the market go on, then explains every hole and closes what can be closed."""
        until = self.now + seconds
        while self.now < until:
            self.sleep(self.random.choice((0.001, 0.05, 0.3, self.pace)))
            self.act(self.random.choice(self.lines))
        for line in self.lines:
            if not line.covered:
                self.join(line)
            self.deliver(line, self.print(line))
        self.sleep(PROVISIONAL + 1)
        return self

    def act(self, line: Line) -> None:
        chance = self.random.random()
        if not line.covered:
            if chance < 0.3:
                self.join(line)
            else:
                line.skipped.append(self.print(line))
        elif chance < 0.03 and not line.skipped:
            self.cut(line)
        elif chance < 0.08:
            line.skipped.append(self.print(line))
        elif chance < 0.12 and line.last is not None:
            self.repair(line)
        elif chance < 0.13 and not line.skipped:
            line.epoch, line.next = line.epoch + 1, 1
            self.deliver(line, self.print(line))
        else:
            self.deliver(line, self.print(line, 0 if line.skipped else self.random.choice(LAGS)))

    def sleep(self, seconds: float) -> None:
        """Time passes; the clock ticks and holes that are old enough become gaps."""
        until = self.now + seconds
        while self.ticked <= until:
            self.now = max(self.now, self.ticked)
            self.records.append(self._clock())
            for line in self.lines:
                for hole in line.holes:
                    if not hole.told and self.now - hole.seen >= PROVISIONAL and hole.lost:
                        hole.told = True
                        self._tell(line, hole, "opened")
            self.ticked = round(self.ticked + 0.25, 3)
        self.now = round(until, 3)

    def print(self, line: Line, lag: float = 0) -> Trade:
        """The exchange prints a trade. Where none is skipped beside it, its time may lag behind the one before."""
        made = trade(
            line.next,
            max(0.0, self.now - lag),
            f"{100 + self.random.randrange(400) / 10:.2f}",
            self.random.choice(("1", "0.10", "2.5", "0.00000001")),
            instrument=line.name,
            epoch=line.epoch,
            side=self.random.choice(("buy", "sell")),
            id=f"{line.epoch}.{line.next}",
            received=at(self.now),
        )
        line.next += 1
        self.truth.append(made)
        return made

    def deliver(self, line: Line, made: Trade) -> None:
        if line.last is not None and line.skipped:
            line.holes.append(Hole(line.skipped, line.last, made, self.now))
        line.skipped, line.last = [], made
        self._pass(made)

    def join(self, line: Line) -> None:
        """A new connection; coverage begins with its first trade, and is told after it."""
        line.connection += 1
        line.covered = True
        if not any(one.instrument == line.name for one in self.passed):
            line.skipped = []
        self.deliver(line, self.print(line))
        self.records.append(
            covered(self.now, self.frames, line.name, connection=self._name(line), quiet_from=self.quiet_from)
        )

    def cut(self, line: Line) -> None:
        line.covered = False
        self.records.append(uncovered(self.now, line.name))

    def repair(self, line: Line) -> None:
        """One of the trades missing comes late: reordering, or a repair."""
        for hole in line.holes:
            if hole.lost:
                found = hole.lost.pop(self.random.randrange(len(hole.lost)))
                self._pass(msgspec.structs.replace(found, received=at(self.now), repaired=hole.told))
                if hole.told:
                    self._tell(line, hole, "shrunk" if hole.lost else "closed")
                return

    def _pass(self, made: Trade) -> None:
        self.passed.append(made)
        self.records.append(made)

    def _name(self, line: Line) -> str:
        return f"wss://example#{line.name}{line.connection}"

    def _clock(self) -> Record:
        live = [line for line in self.lines if line.covered]
        heard = {self._name(line): at(self.now) - self.random.randrange(5) * 10**6 for line in live}
        return msgspec.structs.replace(clock(self.now), connections=heard, uncertainty=10**6)

    def _tell(self, line: Line, hole: Hole, state: str) -> None:
        first, last = hole.before.sequence + 1, hole.after.sequence - 1
        made = gap(state, first, last, 0, 0, self.now, epoch=hole.before.epoch)
        left = tuple((one.sequence, one.sequence) for one in hole.lost)
        times = {"from_time": hole.before.time, "to_time": hole.after.time}
        reason = "filled" if state == "closed" else None
        self.records.append(
            msgspec.structs.replace(made, **identity(line.name), **times, remaining=left, reason=reason)
        )
