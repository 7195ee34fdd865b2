"""Aggregated trades: the fills of one taker order at one price under one number. Pure.

Numbers are consecutive from 0 and tile the fills' own: each begins after the last fill of the one before.
"""

import bisect
from collections import deque
from itertools import groupby, islice

import msgspec

from simulator.market import Fill, Order

KEPT = 200_000


class Aggregate(msgspec.Struct, frozen=True, gc=False):
    """Fills `first` to `last`: one price (`ticks`), `lots` in all, one side, one `time` (ns)."""

    number: int
    first: int
    last: int
    time: int
    ticks: int
    lots: int
    side: str


class Aggregates:
    """The aggregated trades of one instrument, newest last; the oldest are forgotten beyond `kept`."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept: deque[Aggregate] = deque(maxlen=kept)
        self._next = 0
        self._epoch: int | None = None

    def add(self, order: Order) -> list[Aggregate]:
        """Take note of one order; gives its aggregates. A new listing begins again at 0."""
        if order[0].epoch != self._epoch:
            self._epoch, self._next = order[0].epoch, 0
            self._kept.clear()
        made = []
        for ticks, group in groupby(order, key=lambda fill: fill.ticks):
            made.append(self._aggregate(ticks, list(group)))
        self._kept += made
        return made

    def since(self, number: int, limit: int) -> list[Aggregate]:
        """At most `limit` from `number` on."""
        return self._page(bisect.bisect_left(self._kept, number, key=lambda one: one.number), limit)

    def after(self, time: int, limit: int) -> list[Aggregate]:
        """At most `limit` of `time` (ns) or later."""
        return self._page(bisect.bisect_left(self._kept, time, key=lambda one: one.time), limit)

    def newest(self, limit: int) -> list[Aggregate]:
        """The last `limit`."""
        return self._page(max(0, len(self._kept) - limit), limit)

    def _page(self, start: int, limit: int) -> list[Aggregate]:
        return list(islice(self._kept, start, start + limit))

    def _aggregate(self, ticks: int, fills: list[Fill]) -> Aggregate:
        number, self._next = self._next, self._next + 1
        first, last = fills[0], fills[-1]
        lots = sum(fill.lots for fill in fills)
        return Aggregate(number, first.sequence, last.sequence, first.time, ticks, lots, first.side)
