"""An order book: two sides, each two parallel lists kept in order by bisect. Pure; knows no venue, no time of ours.

Levels stay as the venue spelt them, because checksums are made of the texts; prices are compared as exact decimals.
"""

from bisect import bisect_left
from collections.abc import Iterable
from decimal import Decimal

from normalize.mapper import BookUpdate, Level

UNTOUCHED = 1 << 30
"""The rank of a change that changed nothing: worse than any depth."""


class Side:
    """One side. `levels`: best first; `keys`: their prices beside them, rising (bids: negated).

    `bound` is the key beyond which levels are not known (null: all are); changes beyond it are not taken."""

    __slots__ = ("bid", "bound", "keys", "levels")

    def __init__(self, bid: bool) -> None:
        self.bid = bid
        self.keys: list[Decimal] = []
        self.levels: list[Level] = []
        self.bound: Decimal | None = None

    def put(self, level: Level) -> int:
        """As `apply`, of one level."""
        return self.apply((level,))

    def apply(self, changes: Iterable[Level]) -> int:
        """Sets levels, or deletes those whose quantity is zero, however spelt. Gives the best rank touched (0 is the
        best), UNTOUCHED where nothing changed. Deleting a level that is not there is normal on several venues. One
        long loop: it is most of what a book costs."""
        bid, bound, keys, levels = self.bid, self.bound, self.keys, self.levels
        touched = UNTOUCHED
        for level in changes:
            price, quantity = level
            # A unary minus would round to the context's precision.
            key = Decimal(price).copy_negate() if bid else Decimal(price)
            if bound is not None and key > bound:
                continue
            rank = bisect_left(keys, key)
            found = rank < len(keys) and keys[rank] == key
            if not quantity.strip("0."):
                if not found:
                    continue
                del keys[rank], levels[rank]
            elif not found:
                keys.insert(rank, key)
                levels.insert(rank, level)
            elif levels[rank] == level:
                continue
            else:
                levels[rank] = level
            if rank < touched:  # noqa: PLR1730 (each level: min() is slow)
                touched = rank
        return touched

    def fill(self, levels: Iterable[Level]) -> None:
        """Replaces the side; of a price that comes twice the later one counts."""
        found = {self.key(level[0]): level for level in levels}
        self.keys = sorted(key for key, level in found.items() if level[1].strip("0."))
        self.levels = [found[key] for key in self.keys]
        self.bound = None

    def cut(self, most: int, bounded: bool) -> None:
        """Drops the worst above `most` levels. `bounded`: what is worse than those left is unknown from then on."""
        if len(self.keys) > most:
            del self.keys[most:], self.levels[most:]
            if bounded:
                self.close_off()

    def close_off(self) -> None:
        """Levels worse than the present worst are unknown."""
        self.bound = self.keys[-1] if self.keys else None

    def copy(self) -> "Side":
        """A side of its own with the same levels."""
        other = Side(self.bid)
        other.keys, other.levels, other.bound = self.keys.copy(), self.levels.copy(), self.bound
        return other

    def key(self, price: str) -> Decimal:
        """Rises from the best price to the worst."""
        # A unary minus would round to the context's precision.
        return Decimal(price).copy_negate() if self.bid else Decimal(price)


class Book:
    """Both sides and where they stand: `sequence`, `time` (ns) of the last change, where the venue tells them.

    `sound`: nothing speaks against the levels being right at `sequence`; another chain may go on from them.
    `cut`: a channel of small snapshots told it, no change can be put on it."""

    __slots__ = ("asks", "bids", "cut", "sequence", "sound", "time")

    def __init__(self) -> None:
        self.bids, self.asks = Side(bid=True), Side(bid=False)
        self.sequence: int | None = None
        self.time: int | None = None
        self.sound = True
        self.cut = False

    @classmethod
    def of(cls, snapshot: BookUpdate, most: int, partial: bool) -> "Book":
        """The book of a snapshot. `partial`: a side of which not all levels came is known down to its worst only."""
        book = cls()
        for side, levels in ((book.bids, snapshot.bids), (book.asks, snapshot.asks)):
            side.fill(levels)
            if partial and snapshot.asked is not None and len(levels) >= snapshot.asked:
                side.close_off()
            side.cut(most, partial)
        book.sequence, book.time = snapshot.last, snapshot.time
        book.cut = snapshot.cut is not None
        return book

    def apply(self, update: BookUpdate, most: int, partial: bool) -> int:
        """Takes a change; gives the best rank it touched on either side, UNTOUCHED where it changed nothing."""
        touched = UNTOUCHED
        for side, levels in ((self.bids, update.bids), (self.asks, update.asks)):
            if not levels:
                continue
            touched = min(touched, side.apply(levels))
            # Not before the last level of the change is in: it may insert before it deletes.
            side.cut(most, partial)
        self.sequence = self.sequence if update.last is None else update.last
        self.time = self.time if update.time is None else update.time
        return touched

    @property
    def crossed(self) -> bool:
        """Best bid at or above best ask: no book of a market that trades."""
        bids, asks = self.bids.keys, self.asks.keys
        return bool(bids and asks) and bids[0].copy_negate() >= asks[0]

    def known(self) -> int | None:
        """How many levels are known of the shorter of the sides that are not known whole; null where both are."""
        if self.bids.bound is None and self.asks.bound is None:
            return None
        return min(len(side.keys) for side in (self.bids, self.asks) if side.bound is not None)

    def copy(self) -> "Book":
        """A book of its own with the same levels."""
        other = Book()
        other.bids, other.asks = self.bids.copy(), self.asks.copy()
        other.sequence, other.time, other.sound, other.cut = self.sequence, self.time, self.sound, self.cut
        return other
