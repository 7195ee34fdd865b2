"""The order book of one instrument as one connection tells it: waiting for a book, live, or broken. Pure.

Decides by the venue's rule alone; never asks for anything and never shows anything.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from normalize.book import UNTOUCHED, Book
from normalize.mapper import BookRule, BookUpdate

WAITING = "waiting"
MOST_HELD = 1000
MOST_HELD_LEVELS = 10_000
"""Of changes held for a chain without a book: 100 s of a venue that pushes each 100 ms, about 250 kB."""
LATER = 1_000_000_000
"""A change of a lower number, yet later than the book by so much (ns), is not an old one: the numbers began anew."""


class Chain:
    """`reason` says why there is no valid book: waiting, gap, checksum, lost …; null while it is live.

    `born` orders the chains of an instrument by their beginning. `alive` is the host time (ns) of the last
    frame of any sort on the connection. `fresh` is whether `book` came from elsewhere and
    no change was applied to it yet. `renewing`: a live chain holds its changes too, for the snapshot that is on its
    way. `crossed` is the stream's age at which the book became crossed. `owing`: a change of the full channel came, but
    no full book yet that it could be put on.
    """

    def __init__(self, connection: str, born: int) -> None:
        self.connection = connection
        self.born = born
        self.reason: str | None = WAITING
        self.book: Book | None = None
        self.fresh = True
        self.renewing = False
        self.owing = False
        self.held: deque[BookUpdate] = deque()
        self.held_levels = 0
        self.crossed: int | None = None
        self.alive: int | None = None

    @property
    def live(self) -> bool:
        """Whether `book` is what the venue has, as far as this connection has told."""
        return self.reason is None

    @property
    def cut(self) -> bool:
        """Whether small snapshots are all that was had so far (OKX `books5`, Binance `depth20`)."""
        return self.book is not None and self.book.cut

    @property
    def whole(self) -> bool:
        """Whether a full book was had, still right or not: small snapshots are not looked at any more."""
        return self.book is not None and not self.book.cut

    @property
    def sequence(self) -> int | None:
        """The number at which the chain stands."""
        return None if self.book is None else self.book.sequence

    @property
    def waits(self) -> bool:
        """Whether a full book from elsewhere is of use. Not where nothing tells what would change in it."""
        return self.owing if self.cut else not self.live or self.renewing

    def take(self, update: BookUpdate, rule: BookRule, now: int) -> int:
        """One update of the connection; gives the best rank that changed."""
        if update.snapshot:
            return UNTOUCHED if update.cut is not None and self.whole else self._replace(update, rule, now)
        self.owing = self.owing or not self.whole
        if self.reason == WAITING and not rule.by_request:
            # The snapshot that comes by itself would have come before any change.
            self.reason = "gap"
        if self.reason is not None or self.renewing or self.cut:
            self._hold(update, rule)
        return self._follow(update, rule, now) if self.live and self.whole else UNTOUCHED

    def meets(self, book: Book, rule: BookRule) -> bool:
        """Whether the changes held so far link to another chain's book."""
        found = self._meeting(book, rule)
        if found is None or found[1] or book.time is None:
            return found is not None
        # Numbers that began anew (OKX after maintenance) look old: but what is newer in time is not behind the book.
        time = book.time
        return all(update.time is None or update.time <= time for update in islice(self.held, found[0]))

    def join(self, base: Book, rule: BookRule, now: int) -> bool:
        """Goes on from `base` (taken over, not copied), if it meets the changes held so far. What is held before the
        base is dropped; when they do not meet all stays as it was."""
        found = self._meeting(base, rule)
        if found is None:
            return False
        held = list(islice(self.held, found[0], None))
        self._begin(base, now)
        self.fresh = not found[1]
        for position, update in enumerate(held):
            self._follow(update, rule, now)
            if self.reason is not None:
                for later in held[position + 1 :]:
                    self._hold(later, rule)
                break
        return True

    def fail(self, reason: str, *, sound: bool = True) -> None:
        """The chain is broken. `sound`: its book was right where it stands."""
        self.reason = reason
        self.crossed = None
        if self.book is not None:
            self.book.sound = self.book.sound and sound

    def hold(self, updates: Iterable[BookUpdate]) -> None:
        """Takes back what was held when the chain was saved."""
        self.held.extend(updates)
        self.held_levels = sum(map(_count, self.held))

    def renew(self, renewing: bool) -> None:
        """Holds changes of a live chain for a snapshot to come, or no longer."""
        if renewing != self.renewing and not self.cut:
            self.renewing = renewing
            if self.live:
                self._forget()

    def _replace(self, snapshot: BookUpdate, rule: BookRule, now: int) -> int:
        self._begin(Book.of(snapshot, rule.levels, rule.partial), now)
        self._check(snapshot, rule)
        return 0

    def _begin(self, book: Book, now: int) -> None:
        self.book, self.reason, self.fresh = book, None, True
        self.crossed = now if book.crossed else None
        if not book.cut:
            self.renewing = self.owing = False
            self._forget()

    def _follow(self, update: BookUpdate, rule: BookRule, now: int) -> int:
        book = self.book
        assert book is not None
        verdict = rule.link(book.sequence, self.fresh, update)
        if verdict == "skip" and not _anew(update, book.sequence, book.time):
            if book.time is None and update.last is not None and update.last == book.sequence:
                # A snapshot without a time of its own (Binance) stands at this change.
                book.time = update.time
            return UNTOUCHED
        if verdict != "apply":
            self.fail("gap")
            self._forget()
            self._hold(update, rule)
            return UNTOUCHED
        self.fresh = False
        touched = book.apply(update, rule.levels, rule.partial)
        self._check(update, rule)
        if touched == 0:
            self.crossed = None if not book.crossed else self.crossed if self.crossed is not None else now
        return touched

    def _check(self, update: BookUpdate, rule: BookRule) -> None:
        if update.checksum is None or self.book is None:
            return
        ours = rule.checksum(self.book.bids.levels, self.book.asks.levels)
        if ours is not None and ours != update.checksum:
            self.fail("checksum", sound=False)

    def _hold(self, update: BookUpdate, rule: BookRule) -> None:
        """Keeps a change for the book to come; those held are always one unbroken run."""
        if not (rule.by_request or rule.shared):
            return
        if self.held:
            last = self.held[-1]
            verdict = rule.link(last.last, False, update)
            if verdict == "gap" or (verdict == "skip" and _anew(update, last.last, last.time)):
                self._forget()
        self.held.append(update)
        self.held_levels += _count(update)
        while len(self.held) > MOST_HELD or self.held_levels > MOST_HELD_LEVELS:
            self.held_levels -= _count(self.held.popleft())

    def _forget(self) -> None:
        self.held.clear()
        self.held_levels = 0

    def _meeting(self, base: Book, rule: BookRule) -> tuple[int, bool] | None:
        """The position from which on the held changes go on from `base`, and whether the one before it ends at the
        very same number; null where they do not meet."""
        if base.sequence is None:
            return None
        if not self.held:
            # A snapshot may be from before what was told already; then nothing held would bring it up to date.
            return None if self.whole and _older(base.sequence, self.sequence) else (0, False)
        for position, update in enumerate(self.held):
            if update.last == base.sequence:
                return position + 1, True
        for position, update in enumerate(self.held):
            verdict = rule.link(base.sequence, True, update)
            if verdict != "skip":
                return (position, False) if verdict == "apply" else None
        return len(self.held), False


def _older(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one < other


def _anew(update: BookUpdate, sequence: int | None, time: int | None) -> bool:
    return _older(update.last, sequence) and update.time is not None and time is not None and update.time > time + LATER


def _count(update: BookUpdate) -> int:
    return len(update.bids) + len(update.asks)
