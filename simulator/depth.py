"""A book as far as it was pushed: what a client that applied every push of one channel must have. Pure."""

import msgspec

from simulator.book import Book, Ladder, Level, Side


class Change(msgspec.Struct, frozen=True):
    """One push: levels changed after version `since` up to version `until`, best first; lots 0: gone."""

    since: int
    until: int
    bids: list[Level]
    asks: list[Level]


class Depth:
    """The best `limit` levels a side (all without it) of a book, at `version`: the last one told of.

    A level that better ones push out of the window is told as gone, as OKX does (recordings of full books never
    grow beyond 400 levels); one that comes (back) into the window is told though it did not change.
    """

    def __init__(self, book: Book, limit: int | None = None) -> None:
        self._book = book
        self._limit = limit
        self._bids = _copy(book.bids, limit)
        self._asks = _copy(book.asks, limit)
        self._seen = self.version = book.version

    def side(self, side: Side, depth: int | None = None) -> list[Level]:
        """The best `depth` levels of a side (all without it), best first."""
        return (self._bids if side == "bid" else self._asks).levels(depth)

    def push(self) -> Change | None:
        """What must be pushed now, counted as pushed; None when nothing changed within the window."""
        if self._seen == self._book.version:
            return None
        book = self._book
        changed = book.changed(self._seen) or (_all(self._bids, book.bids), _all(self._asks, book.asks))
        bids = self._tell(self._bids, book.bids, changed[0])
        asks = self._tell(self._asks, book.asks, changed[1])
        self._seen = self._book.version
        if not bids and not asks:
            return None
        since, self.version = self.version, self._seen
        return Change(since, self.version, bids, asks)

    def _tell(self, told: Ladder, true: Ladder, changed: list[Level]) -> list[Level]:
        """Bring `told` to where `true` is; gives what a client needs for it, best first."""
        sign = 1 if told is self._asks else -1
        size = len(true.keys) if self._limit is None else min(self._limit, len(true.keys))
        worst = true.keys[size - 1] if size else 0
        news: dict[int, int] = {}
        for ticks, lots in changed:
            key = sign * ticks
            kept = lots if key <= worst else 0
            if told.put(key, kept):
                news[key] = kept
        while told.keys and told.keys[-1] > worst:
            news[told.keys[-1]] = 0
            told.put(told.keys[-1], 0)
        for key in reversed(true.keys[:size]) if len(told.keys) < size else ():
            if told.put(key, true.lots[key]):
                news[key] = true.lots[key]
            if len(told.keys) == size:
                break
        return [(abs(key), news[key]) for key in sorted(news)]


def _copy(ladder: Ladder, limit: int | None) -> Ladder:
    copied = Ladder()
    copied.keys = ladder.keys[:limit]
    copied.lots = {key: ladder.lots[key] for key in copied.keys}
    return copied


def _all(told: Ladder, true: Ladder) -> list[Level]:
    """Every level of either: for a change of more levels than the book remembers."""
    return [(abs(key), true.lots.get(key, 0)) for key in sorted({*told.keys, *true.keys})]
