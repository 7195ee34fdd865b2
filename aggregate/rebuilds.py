"""Which times of one instrument store has to compute candles for: those of windows that are no longer kept. Pure.

Bounded: spans that lie near each other become one, at the price of windows computed that need not be.
"""

from bisect import insort

from aggregate.saved import Header
from aggregate.unknown import Span
from pipeline.records import Rebuild

MOST_SPANS = 8


class Rebuilds:
    """The `spans` are sorted and disjoint; `frames` are the names of the time frames meant in any of them."""

    def __init__(self, spans: list[Span], frames: list[str]) -> None:
        self.spans = spans
        self.frames = frames

    def add(self, span: Span, frames: list[str]) -> None:
        """Windows of these frames at a time of the span (ns, inclusive) need another candle."""
        self.frames = [*self.frames, *(name for name in frames if name not in self.frames)]
        insort(self.spans, span)
        joined: list[Span] = []
        for low, high in self.spans:
            if joined and low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(joined[-1][1], high))
            else:
                joined.append((low, high))
        if len(joined) > MOST_SPANS:
            place = min(range(MOST_SPANS), key=lambda place: joined[place + 1][0] - joined[place][1])
            joined[place : place + 2] = [(joined[place][0], joined[place + 1][1])]
        self.spans = joined

    def cut(self, horizon: int) -> None:
        """Windows that end after the horizon are decided on here."""
        if self.spans and self.spans[-1][1] >= horizon:
            self.spans = [(low, min(high, horizon - 1)) for low, high in self.spans if low < horizon]
        if not self.spans:
            self.frames = []

    def take(self) -> tuple[list[Span], list[str]]:
        """What is wanted; afterwards nothing is."""
        taken = self.spans, self.frames
        self.spans, self.frames = [], []
        return taken


def rebuild(header: Header, span: Span, frames: tuple[str, ...], horizon: int, received: int) -> Rebuild:
    """The record that asks store for these frames' windows in the span; those after the horizon are decided on here."""
    assert header.candles is not None
    return Rebuild(
        exchange=header.exchange,
        market=header.market,
        symbol=header.symbol,
        instrument=header.instrument,
        time=horizon,
        received=received,
        from_time=span[0],
        to_time=span[1],
        timeframes=frames,
        quiet_from=header.candles.quiet_from,
    )
