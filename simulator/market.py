"""One seeded synthetic market: who trades what, when, at which price. Pure: time and randomness are arguments.

It knows no exchange and sends nothing; what it prints is the truth the product is measured against.
"""

import bisect
import itertools
import random
from collections import deque
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from simulator.book import SECOND, Book
from simulator.listings import Listing

__all__ = ["MILLISECOND", "SECOND", "Fill", "Market", "Order", "Pit", "spell"]

MILLISECOND = 1_000_000
SEVERAL_FILLS = 0.25
FILLS = (2, 6)
FILLS_PER_ORDER = 1 - SEVERAL_FILLS + SEVERAL_FILLS * sum(FILLS) / 2
CHANGES_PER_FILL = 6
"""Levels of the book that change by themselves for each fill printed."""


class Fill(msgspec.Struct, frozen=True, gc=False):
    """One printed fill. `sequence` is its number, consecutive within (`symbol`, `epoch`); `time` (ns) is a whole
    millisecond. `ticks` x tick and `lots` x lot are `price` and `size` (native units) as exact integers."""

    symbol: str
    sequence: int
    epoch: int
    time: int
    ticks: int
    lots: int
    price: str
    size: str
    side: Literal["buy", "sell"]


Order = tuple[Fill, ...]
"""The fills of one taker order: one instrument, one side, one millisecond, consecutive numbers."""


def spell(units: int, step: Decimal) -> str:
    """`units` steps in plain notation without needless zeros, as exchanges write numbers."""
    text = format(step * units, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Pit:
    """Where one instrument trades: its price, its book, its next number and the fills it remembers (newest last)."""

    def __init__(self, listing: Listing, sequence: int, kept: int, book: Book) -> None:
        self.listing = listing
        self.book = book
        self.listed = listing.listed
        self.ticks = int(listing.price / listing.tick)
        self.sequence = sequence
        self.epoch = 0
        self.printed = 0
        self.history = 0
        self.fills: deque[Fill] = deque(maxlen=kept)

    def print(self, time: int, ticks: int, lots: int, side: Literal["buy", "sell"]) -> Fill:
        """The next fill, at `time` (ns, cut to the millisecond)."""
        fill = Fill(
            symbol=self.listing.symbol,
            sequence=self.sequence,
            epoch=self.epoch,
            time=time - time % MILLISECOND,
            ticks=ticks,
            lots=lots,
            price=spell(ticks, self.listing.tick),
            size=spell(lots, self.listing.lot),
            side=side,
        )
        self.ticks = ticks
        self.sequence += 1
        self.printed += 1
        self.fills.append(fill)
        return fill


class Market:
    """The whole market. The same seed, listings, start and calls give the same fills, however time is sliced.

    `rate` is fills per second over all instruments (0: only orders asked for). `history` fills an instrument are
    printed before `start`, minutes to hours old. At most `kept` fills an instrument stay readable.
    """

    def __init__(
        self,
        rng: random.Random,
        listings: Sequence[Listing],
        start: int,
        rate: float,
        history: int = 3,
        kept: int = 200_000,
    ) -> None:
        self._rng = rng
        self.start = start
        self._per_second = rate / FILLS_PER_ORDER
        books = _books(rng, listings, start, rate)
        self.pits = {
            listing.symbol: Pit(listing, rng.randrange(10**6, 10**9), kept, books[listing.symbol])
            for listing in listings
        }
        self._cumulative = list(itertools.accumulate(listing.weight for listing in listings))
        self._symbols = [listing.symbol for listing in listings]
        for pit in self.pits.values():
            self._print_history(pit, history)
        self._time = start
        self._next = start + self._interval() if rate else None

    @property
    def history(self) -> Iterable[Fill]:
        """What was printed before `start`; complete only until orders begin to push it out."""
        return (fill for pit in self.pits.values() for fill in pit.fills if fill.time < self.start)

    def advance(self, until: int) -> list[Order]:
        """The orders that arrive up to and including `until` (ns), in order of time."""
        orders: list[Order] = []
        while self._next is not None and self._next <= until:
            place = bisect.bisect(self._cumulative, self._rng.random() * self._cumulative[-1])
            orders.append(self.order(self._symbols[min(place, len(self._symbols) - 1)], self._next))
            self._next += self._interval()
        for pit in self.pits.values():
            pit.book.advance(until)
        self._time = max(self._time, until)
        return orders

    def skip(self, until: int) -> None:
        """Let time pass to `until` (ns) without an order."""
        if self._next is not None and self._next <= until:
            self._next = until + self._interval()
        for pit in self.pits.values():
            pit.book.skip(until)
        self._time = max(self._time, until)

    def order(self, symbol: str, time: int, fills: int | None = None) -> Order:
        """One taker order at `time` (ns, never before the market's own time): `fills` of them, else drawn."""
        pit = self.pits[symbol]
        time = max(time, self._time)
        self._time = time
        pit.book.advance(time)
        side: Literal["buy", "sell"] = "buy" if self._rng.random() < 0.5 else "sell"
        if fills is None:
            fills = self._rng.randint(*FILLS) if self._rng.random() < SEVERAL_FILLS else 1
        ticks = max(10, pit.ticks + round(self._rng.gauss(0, max(1.0, pit.ticks * 5e-5))))
        printed = []
        for _ in range(fills):
            fill = pit.print(time, ticks, self._lots(pit), side)
            pit.book.trade(side, fill.ticks, fill.lots)
            printed.append(fill)
            ticks = max(1, ticks + (1 if side == "buy" else -1) * self._rng.randint(0, 2))
        return tuple(printed)

    def relist(self, symbol: str, time: int) -> None:
        """List the instrument anew at `time`: its numbers begin again at 1 and what it printed is forgotten."""
        pit = self.pits[symbol]
        pit.sequence = 1
        pit.epoch += 1
        pit.listed = time - time % MILLISECOND
        pit.fills.clear()

    def forget(self, symbol: str, before: int) -> None:
        """Forget what the instrument printed before the time (ns), but for the newest fill."""
        fills = self.pits[symbol].fills
        while len(fills) > 1 and fills[0].time < before:
            fills.popleft()

    def jump(self, symbol: str, by: int) -> None:
        """Leave out `by` numbers: no fill ever had them."""
        self.pits[symbol].sequence += by

    def _interval(self) -> int:
        return int(self._rng.expovariate(self._per_second) * SECOND)

    def _lots(self, pit: Pit) -> int:
        least = int(pit.listing.minimum / pit.listing.lot)
        return least + int(self._rng.expovariate(1 / (30 * least)))

    def _print_history(self, pit: Pit, fills: int) -> None:
        hours = 6 if pit.listing.weight < 0.1 else 0.02
        age = int(hours * 3600 * SECOND * (0.5 + self._rng.random()))
        for number in range(fills):
            pit.print(self.start - age - (fills - number) * SECOND, pit.ticks, self._lots(pit), "buy")
        pit.history = fills


def _books(rng: random.Random, listings: Sequence[Listing], start: int, rate: float) -> dict[str, Book]:
    """A book for each listing, with randomness of its own: books leave the fills of a seed as they are."""
    twin = random.Random()
    twin.setstate(rng.getstate())
    seed = twin.getrandbits(64)
    total = sum(listing.weight for listing in listings)
    return {
        listing.symbol: Book(
            random.Random(f"{seed} {listing.symbol}"), listing, start, CHANGES_PER_FILL * rate * listing.weight / total
        )
        for listing in listings
    }
