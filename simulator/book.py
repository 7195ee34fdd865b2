"""One instrument's order book in whole ticks and lots: it gives way to the prints and stirs by itself. Pure.

Seeded, and the same however time is sliced. Never crossed, but by `cross` (a fault).
"""

import random
from bisect import bisect_left, insort
from collections import deque
from itertools import islice
from typing import Literal

import msgspec

from simulator.listings import Listing

SECOND = 1_000_000_000
KEPT = 20_000
"""Level changes remembered for `changed`."""
ADDED, REMOVED = 0.2, 0.35
SLACK = 20
STEP = 2.5e-5
"""Distance of levels as a share of the price: half of what a print moves it, so that prints take few levels."""
FOLLOWING = 4

Side = Literal["bid", "ask"]
Level = tuple[int, int]
"""(ticks, lots); lots 0: the level is gone."""


class Snapshot(msgspec.Struct, frozen=True):
    """A whole book, best first, as of `version`."""

    version: int
    bids: list[Level]
    asks: list[Level]


class Ladder:
    """One side. Its keys are ticks (asks) or minus ticks (bids): the best key is always the least."""

    __slots__ = ("keys", "lots")

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.lots: dict[int, int] = {}

    def put(self, key: int, lots: int) -> bool:
        """Set a level, or take it away (0); whether anything changed."""
        if self.lots.get(key, 0) == lots:
            return False
        if not lots:
            del self.lots[key]
            del self.keys[bisect_left(self.keys, key)]
            return True
        if key not in self.lots:
            insort(self.keys, key)
        self.lots[key] = lots
        return True

    def levels(self, depth: int | None = None) -> list[Level]:
        """The best `depth` levels (all without it), best first."""
        return [(abs(key), self.lots[key]) for key in self.keys[:depth]]


class Book:
    """`version` rises by one with each level that changes, from 0 for the book as it starts. `bids` and `asks` are
    for reading.

    `rate` is how many levels change in a second by themselves (0: only prints and `stir` change it).
    """

    def __init__(self, rng: random.Random, listing: Listing, start: int, rate: float) -> None:
        self._rng = rng
        self._target = listing.levels
        self._least = int(listing.minimum / listing.lot)
        self._ticks = int(listing.price / listing.tick)
        self._step = max(1, round(self._ticks * STEP))
        self._rate = rate
        self.version = 0
        self.bids, self.asks = Ladder(), Ladder()
        self._journal: deque[int] = deque(maxlen=KEPT)
        self._crossing: tuple[int, int] | None = None
        self._frozen: tuple[int, Snapshot] | None = None
        self._fill(self.bids, -self._ticks)
        self._fill(self.asks, self._ticks)
        self._next = start + self._interval() if rate else None

    def side(self, side: Side, depth: int | None = None) -> list[Level]:
        """The best `depth` levels of a side (all without it), best first."""
        return self._ladder(side).levels(depth)

    def changed(self, since: int) -> tuple[list[Level], list[Level]] | None:
        """Bids and asks that changed after version `since`, as they are now, best first; None: too long ago."""
        count = self.version - since
        if not 0 <= count <= len(self._journal):
            return None
        keys = sorted(set(islice(reversed(self._journal), count)))
        bids = [(-key, self.bids.lots.get(key, 0)) for key in keys if key < 0]
        return bids, [(key, self.asks.lots.get(key, 0)) for key in keys if key > 0]

    def snapshot(self, now: int, depth: int | None = None) -> Snapshot:
        """What a REST request at `now` (ns) is told: the book as it is, or as it was frozen."""
        if self._frozen is not None and now < self._frozen[0]:
            old = self._frozen[1]
            return Snapshot(old.version, old.bids[:depth], old.asks[:depth])
        return Snapshot(self.version, self.side("bid", depth), self.side("ask", depth))

    def freeze(self, until: int) -> None:
        """Let `snapshot` tell of the book as it is now until `until` (ns): a stale cache."""
        self._frozen = (until, Snapshot(self.version, self.side("bid"), self.side("ask")))

    def cross(self, until: int) -> None:
        """Let the best bid lie above the best ask until `until` (ns)."""
        self._lift()
        self._crossing = (0, until)
        self._place_crossing()

    def clear(self) -> None:
        """End `freeze` and `cross`."""
        self._frozen = None
        self._lift()
        self._crossing = None

    def advance(self, until: int) -> None:
        """Let the changes happen that are due up to and including `until` (ns)."""
        while self._next is not None and self._next <= until:
            self._heal(self._next)
            self.stir()
            self._next += self._interval()
        self._heal(until)

    def skip(self, until: int) -> None:
        """Let time pass to `until` (ns) without a change of its own."""
        if self._next is not None and self._next <= until:
            self._next = until + self._interval()
        self._heal(until)

    def stir(self, changes: int = 1) -> None:
        """Change levels now, nearly always one each time."""
        for _ in range(changes):
            ladder = self.asks if self._rng.random() < 0.5 else self.bids
            chance = self._rng.random()
            if self._crossing is not None or not (ladder.keys or chance < ADDED):
                self._resize(ladder)
            elif chance < ADDED:
                self._add(ladder)
            elif chance < REMOVED and len(ladder.keys) > self._target // 2:
                self._set(ladder, ladder.keys[self._index(ladder)], 0)
            else:
                self._resize(ladder)

    def trade(self, side: Literal["buy", "sell"], ticks: int, lots: int) -> None:
        """Give way to a fill: what was better than its price is gone, what lies at it is less by `lots`."""
        self._lift()
        taken, other = (self.asks, self.bids) if side == "buy" else (self.bids, self.asks)
        key = ticks if side == "buy" else -ticks
        while taken.keys and taken.keys[0] < key:
            self._set(taken, taken.keys[0], 0)
        if key in taken.lots:
            self._set(taken, key, max(0, taken.lots[key] - lots))
        while other.keys and other.keys[0] <= -key:
            self._set(other, other.keys[0], 0)
        self._ticks = ticks
        self._follow(taken, key)
        self._follow(other, -key)
        self._place_crossing()

    def _fill(self, ladder: Ladder, place: int) -> None:
        for _ in range(self._target):
            place += self._rng.randint(1, 2 * self._step)
            if self._fits(ladder, place):
                ladder.put(place, self._draw())

    def _follow(self, ladder: Ladder, key: int) -> None:
        """New levels between the price and what is left of a side, so that it does not stay behind."""
        best = ladder.keys[0] if ladder.keys else None
        place = key
        for _ in range(FOLLOWING):
            place += self._rng.randint(1, 2 * self._step)
            if best is not None and place >= best:
                return
            if self._fits(ladder, place):
                self._set(ladder, place, self._draw())

    def _add(self, ladder: Ladder) -> None:
        """A level near the best, or at the far end of a side that has too few; the worst goes from one too long."""
        other = self.bids if ladder is self.asks else self.asks
        if len(ladder.keys) > self._target + SLACK:
            self._set(ladder, ladder.keys[-1], 0)
            return
        nearest = 1 - other.keys[0] if other.keys else (self._ticks if ladder is self.asks else -self._ticks)
        if ladder.keys and len(ladder.keys) < self._target:
            place = ladder.keys[-1] + self._rng.randint(1, 2 * self._step)
        else:
            best = ladder.keys[0] if ladder.keys else nearest
            best += int(self._rng.expovariate(1 / (8 * self._step))) - self._rng.randint(0, self._step)
            place = max(nearest, best)
        if self._fits(ladder, place):
            self._set(ladder, place, self._draw())

    def _resize(self, ladder: Ladder) -> None:
        if ladder.keys:
            self._set(ladder, ladder.keys[self._index(ladder)], self._draw())

    def _place_crossing(self) -> None:
        if self._crossing is not None and self.asks.keys:
            key = -(self.asks.keys[0] + self._step)
            self._crossing = (key, self._crossing[1])
            self._set(self.bids, key, self._draw())

    def _lift(self) -> None:
        if self._crossing is not None and self._crossing[0] in self.bids.lots:
            self._set(self.bids, self._crossing[0], 0)

    def _heal(self, time: int) -> None:
        if self._crossing is not None and self._crossing[1] <= time:
            self._lift()
            self._crossing = None

    def _set(self, ladder: Ladder, key: int, lots: int) -> None:
        if ladder.put(key, lots):
            self.version += 1
            self._journal.append(key)

    def _fits(self, ladder: Ladder, key: int) -> bool:
        """No price is 0 or below."""
        return key > 0 if ladder is self.asks else key < 0

    def _index(self, ladder: Ladder) -> int:
        """Most change is near the best price."""
        deep = self._rng.random() < 0.1
        place = self._rng.randrange(len(ladder.keys)) if deep else int(self._rng.expovariate(1 / 15))
        return min(place, len(ladder.keys) - 1)

    def _draw(self) -> int:
        return self._least + int(self._rng.expovariate(1 / (60 * self._least)))

    def _interval(self) -> int:
        return int(self._rng.expovariate(self._rate) * SECOND)

    def _ladder(self, side: Side) -> Ladder:
        return self.bids if side == "bid" else self.asks
