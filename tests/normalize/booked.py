"""A market's one true book, told over connections that lag, break and lose, and by a REST that lags."""

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Any

from normalize.mapper import BookUpdate, Level
from pipeline.records import OrderBook
from tests.normalize.booking import MS, SPOT, Binance, Bybit, Okx, Play, Usdm, ns, texts

RULES: dict[str, Any] = {"okx": Okx(), "binance": Binance(), "usdm": Usdm(), "bybit": Bybit()}
DEPTH = 3
QUIET = ["advance"] * 4 + ["deliver"] * 6 + ["clock"]
HOSTILE = [*QUIET, "open", "lose", "repeat", "cut", "mislay", "replace", "serve", "serve", "unasked"]


class Market:
    """Versions 0 … n of a book; version k came of change k at k x 100 ms. Bids at 1 … 20, asks at 21 … 40."""

    def __init__(self, random: Random, venue: str, count: int) -> None:
        self.venue = venue
        self.changes: list[tuple[list[Level], list[Level]]] = [([], [])]
        self.sides: list[tuple[dict[int, str], dict[int, str]]] = [({10: "1", 9: "1"}, {21: "1", 22: "1"})]
        self.firsts, self.numbers = [0], [random.randrange(1, 50)]
        for _ in range(count):
            self._change(random)
            contiguous = venue != "usdm"
            self.firsts.append(self.numbers[-1] + (1 if contiguous else random.randrange(1, 5)))
            self.numbers.append(self.firsts[-1] + (0 if venue == "bybit" else random.randrange(4)))

    def _change(self, random: Random) -> None:
        sides, rows = (dict(self.sides[-1][0]), dict(self.sides[-1][1])), ([], [])  # type: ignore[var-annotated]
        for side, lowest in ((0, 1), (1, 21)):
            for price in random.sample(range(lowest, lowest + 20), random.choice((0, 1, 1, 2, 6))):
                quantity = random.choice(("0", "0.00", "1", "2", "3.0"))
                rows[side].append((str(price), quantity))
                if Decimal(quantity) == 0:
                    sides[side].pop(price, None)
                else:
                    sides[side][price] = quantity
        self.sides.append(sides)
        self.changes.append(rows)

    def frame(self, version: int) -> BookUpdate:
        """What a socket tells of a change."""
        bids, asks = self.changes[version]
        previous = self.numbers[version - 1] if self.venue in ("okx", "usdm") else None
        return BookUpdate(
            SPOT,
            False,
            tuple(bids),
            tuple(asks),
            first=self.firsts[version] if self.venue in ("binance", "usdm") else None,
            last=self.numbers[version],
            previous=previous,
            time=self.time(version),
        )

    def snapshot(self, version: int, asked: int | None) -> BookUpdate:
        """The whole book, or its best `asked` levels; only sockets tell a time."""
        bids, asks = self.ladders(version)
        time = self.time(version) if asked is None else None
        return BookUpdate(
            SPOT, True, bids[:asked], asks[:asked], last=self.numbers[version], time=time, asked=asked, previous=-1
        )

    def ladders(self, version: int) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """Both sides, best first."""
        bids, asks = self.sides[version]
        return _ladder(bids, best=max), _ladder(asks, best=min)

    def time(self, version: int) -> int:
        return ns(0) + version * 100 * MS

    def check(self, record: OrderBook) -> None:
        """A valid record is the best of the true book at its number."""
        version = self.numbers.index(record.sequence or -1)
        bids, asks = self.ladders(version)
        depth = record.depth
        assert (texts(record.bids), texts(record.asks)) == (texts(bids[:depth]), texts(asks[:depth]))
        assert record.time in (None, self.time(version))


def _ladder(side: dict[int, str], best: Any) -> tuple[Level, ...]:
    return tuple((str(price), side[price]) for price in sorted(side, reverse=best is max))


class Line:
    """A connection: it tells changes after `next`, in order; where snapshots come by themselves one comes first."""

    def __init__(self, name: str, version: int, *, first: bool) -> None:
        self.name = name
        self.next = version
        self.start = version
        self.first = first


class Run:
    """Plays a market into a book, by chance; checks every record."""

    def __init__(
        self,
        random: Random,
        venue: str,
        *,
        rule: Any = None,
        count: int = 25,
        asked: int = 1000,
        saving: bool = True,
    ) -> None:
        self.random = random
        self.market, self.most = Market(random, venue, count + 1), count
        self.rule = rule or RULES[venue]
        self.play = Play(self.rule, saving=saving)
        self.play.book.settings(DEPTH, 150 * MS, 1000 * MS)
        self.asked = asked
        self.version = 0
        self.ms = 0
        self.lines: list[Line] = []
        self.opened = 0
        self.seen = 0

    def suffer(self, events: int) -> None:
        """Anything, in any order."""
        self.step("open")
        for _ in range(events):
            self.step(self.random.choice(HOSTILE))

    def begin(self) -> None:
        """A first connection, until there is a book."""
        self.step("open")
        while not self.play.records:
            for what in ("advance", "deliver", "serve"):
                self.step(what)

    def rotate(self, events: int) -> None:
        """Connections are made before others are broken."""
        for _ in range(events):
            if len(self.lines) == 1 and self.random.random() < 0.1:
                self.step("open")
            elif len(self.lines) == 2 and self.random.random() < 0.2:
                old, new = self.lines
                # The old one has told what came before the new one was there; the new one its snapshot.
                if old.next >= new.start and not new.first:
                    self.step("cut")
            else:
                self.step(self.random.choice(QUIET))

    @property
    def at(self) -> float:
        return self.ms / 1000

    def step(self, what: str) -> None:
        """One event, some milliseconds after the one before."""
        self.ms = max(self.ms + self.random.choice((0, 1, 7, 40, 160)), self.version * 100)
        getattr(self, what)()
        self.check()

    def check(self) -> None:
        """Checks what came out since the last call."""
        records, self.seen = self.play.records[self.seen :], len(self.play.records)
        for record in records:
            if record.valid:
                self.market.check(record)

    def advance(self) -> None:
        """The market goes on."""
        if self.version < self.most:
            self.version += 1
            self.ms = max(self.ms, self.version * 100)

    def open(self) -> None:
        """Another connection, at most three at a time."""
        if len(self.lines) < 3:
            self.opened += 1
            self.lines.append(Line(f"wss://venue#{self.opened}", self.version, first=not self.rule.by_request))
            self.play.opened(self.at, self.lines[-1].name)

    def deliver(self) -> None:
        """The next frame of one of the connections."""
        if self.lines:
            self.tell(self.random.choice(self.lines))

    def tell(self, line: Line) -> bool:
        """The next frame of this one; False where it has told all."""
        if line.first:
            line.first = False
            self.play.update(self.market.snapshot(line.next, None), self.at, line.name)
        elif line.next < self.version:
            line.next += 1
            self.play.update(self.market.frame(line.next), self.at, line.name)
        else:
            return False
        return True

    def lose(self) -> None:
        """A frame that the venue never sent."""
        for line in self.lines[:1]:
            if line.next < self.version and not line.first:
                line.next += 1

    def repeat(self) -> None:
        """A frame that the venue sent twice."""
        for line in self.lines[:1]:
            if line.next > line.start and not line.first:
                self.play.update(self.market.frame(line.next), self.at, line.name)

    def cut(self) -> None:
        """The oldest connection is gone."""
        if self.lines:
            self.play.closed(self.at, self.lines.pop(0).name)

    def mislay(self) -> None:
        """Frames are lost between ingest and here."""
        for line in self.lines:
            line.next = self.random.randint(line.next, self.version)
            line.first = False
        self.play.lost(self.at)

    def replace(self) -> None:
        """Another writer takes over."""
        self.lines.clear()
        self.play.lost(self.at, "writer")

    def clock(self) -> None:
        """A clock frame."""
        self.play.keep(self.play.book.clock(ns(self.at), 0, {line.name: ns(self.at) for line in self.lines}))

    def unasked(self) -> None:
        """A snapshot that nobody asked for, as recordings have them."""
        if self.rule.by_request:
            self.play.answer(self.market.snapshot(self._lagging(), self.asked), self.at)

    def serve(self) -> None:
        """ingest does what is wanted, or fails."""
        for want in list(self.play.wants.values()):
            if self.random.random() < 0.2:
                self.play.request("refused", self.at, reason="429")
            elif want.what == "snapshot":
                self._snapshot()
            else:
                self._resync(want.connection or "")

    def _snapshot(self) -> None:
        self.play.request("asked", self.at)
        self.play.answer(self.market.snapshot(self._lagging(), self.asked), self.at)
        if self.play.wants:
            self.play.request("answered", self.at)

    def _resync(self, connection: str) -> None:
        lines: Sequence[Line] = [line for line in self.lines if line.name == connection]
        if not lines:
            self.play.request("refused", self.at, reason="gone", permanent=True)
            return
        self.play.request("asked", self.at)
        self.play.closed(self.at, connection, "unsubscribed")
        self.play.opened(self.at, connection)
        if self.play.wants:
            self.play.request("answered", self.at)
        lines[0].first, lines[0].next = True, self.version

    def _lagging(self) -> int:
        return max(0, self.version - self.random.choice((0, 0, 1, 3)))

    @property
    def settled(self) -> bool:
        return not self.play.wants and self.play.book.chains.flaw is None

    def settle(self) -> None:
        """All is told, nothing more goes wrong: the book has to become right."""
        if not self.lines:
            self.open()
        # What nothing follows cannot be missed.
        self.most += 1
        self.version = self.most
        self.ms = max(self.ms, self.version * 100)
        for _ in range(400):
            self.step("serve")
            for line in self.lines:
                while self.tell(line):
                    self.check()
            self.ms += 500
            self.step("clock")
            if self.settled:
                return
        raise AssertionError(self.play.book.report())


def in_order(records: list[OrderBook], interval: int) -> None:
    """Neither times nor numbers go back, and changes come no faster than the interval."""
    numbers = [record.sequence for record in records if record.sequence is not None]
    assert numbers == sorted(numbers)
    times = [record.time for record in records if record.time is not None]
    assert times == sorted(times)
    marks = [record.snapshot_time for record in records if record.snapshot_time is not None]
    assert marks == sorted(set(marks))
    valid, shown = None, None
    for record in records:
        if record.snapshot_time is None:
            if record.valid == valid and shown is not None:
                assert record.received - shown >= interval
            valid, shown = record.valid, record.received
