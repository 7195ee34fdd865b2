"""What of one order book is shown, and when: at most one change in an interval, validity at once, a regular grid.

Pure. Nothing shown ever goes back in time.
"""

from typing import NamedTuple

import msgspec

from normalize.book import Book
from normalize.mapper import Level

MINUTE = 60_000_000_000
AHEAD = 10_000_000_000
"""A time so far ahead of the exchange's clock, as estimated, is a slip: what comes after it is not held back for it."""


class Face(NamedTuple):
    """A book as it is to be shown, in the venue's own units."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    sequence: int | None
    time: int | None
    reason: str | None
    snapshot_time: int | None = None


class Output(msgspec.Struct):
    """`depth` levels a side, `interval` and `step` (the grid's) in ns: the settings.

    `bids`, `asks`, `sequence`, `time`, `reason` are as last shown, `valid` null before anything was; `shown` is the
    stream's age at the last change shown. `changed`: something within `depth` may differ from what was shown;
    `afresh`: it is to be shown even if not. `floor`: the chain that is shown now stands behind what was shown, nothing
    is shown of it below this sequence, unless it is later than `latest`, the time that the one shown last has at most.
    `next` is the next time of the grid, `minute` a full one that waits for proof
    that the connection lived at it, `marked` what the grid showed last.
    """

    depth: int = 20
    interval: int = 100_000_000
    step: int = 1_000_000_000
    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()
    sequence: int | None = None
    time: int | None = None
    valid: bool | None = None
    reason: str | None = None
    shown: int | None = None
    changed: bool = False
    afresh: bool = False
    floor: int | None = None
    latest: int | None = None
    next: int | None = None
    minute: int | None = None
    marked: tuple[bool, tuple[Level, ...], tuple[Level, ...]] | None = None

    def settings(self, depth: int, interval: int, step: int) -> None:
        """Other settings, from here on."""
        if (depth, interval, step) != (self.depth, self.interval, self.step):
            self.changed = self.changed or depth != self.depth
            self.next = None if step != self.step else self.next
            self.depth, self.interval, self.step = depth, interval, step

    def turn(self, book: Book, *, numbered: bool) -> None:
        """Another chain's book is shown from here on. `numbered`: its numbers can be compared with those shown."""
        self.changed, self.minute = True, None
        behind = book.sequence is not None and self.sequence is not None and book.sequence < self.sequence
        if numbered:
            self.floor = self.sequence if behind else None
        elif not book.cut:
            # The next of many small snapshots says nothing new of the numbers.
            self.floor = None

    def forget(self) -> None:
        """What was shown is to be shown anew: facts of the instrument changed."""
        self.changed = self.afresh = True
        self.marked = None

    def change(self, book: Book | None, reason: str | None, at: int, now: int, *, last: bool = False) -> Face | None:
        """What is to be shown after a frame. `reason`: why the book is not valid; `at`: the exchange's time; `last`:
        nothing comes any more, what was held back for the interval is shown."""
        if book is None or (self.valid is None and reason is not None):
            return None
        turned = self.valid is None or self.valid != (reason is None)
        if not turned and not (self.changed and (last or self._may(now))):
            return None
        if self._behind(book, at):
            # That it is not valid is said at once, of what was shown last.
            return self._again(reason, at) if turned and reason is not None else None
        face = self._face(book, reason)
        if not turned and not self.afresh and (face.bids, face.asks) == (self.bids, self.asks):
            self.changed = False
            return None
        if self.next is None and self.step > 0:
            self.next = self._following(at)
        self.shown = now
        return self._show(face, at)

    def mark(self, book: Book | None, at: int, alive: int | None) -> list[Face]:
        """What the grid has to show before a frame at the exchange's time `at`, at which the connection is known to
        have lived until `alive`."""
        if alive is None:
            self.minute = None
        if book is None or self.valid is None or self.step <= 0:
            return []
        if self.next is None:
            self.next = self._following(at)
        faces: list[Face] = []
        if at < self.next - self.step - MINUTE:
            # The estimate of the exchange's clock was wrong by more than any latency.
            self.next, self.minute = self._following(at), None
        elif at >= self.next:
            self._pass(book, at, faces)
        if self.minute is not None and alive is not None and alive >= self.minute:
            if not self._behind(book, at):
                faces.append(self._mark(self._face(book, self.reason), self.minute, at))
            self.minute = None
        return faces

    def _pass(self, book: Book, at: int, faces: list[Face]) -> None:
        assert self.next is not None
        mark, self.next = self.next, self._following(at)
        done = None
        if not self._behind(book, at):
            face = self._face(book, self.reason)
            if self.marked != (self.reason is None, face.bids, face.asks):
                faces.append(self._mark(face, mark, at))
                done = mark
        minute = at - at % MINUTE
        if minute >= mark and minute != done:
            self.minute = minute

    def _following(self, at: int) -> int:
        step = self.step
        return min(at - at % step + step, at - at % MINUTE + MINUTE)

    def _mark(self, face: Face, mark: int, at: int) -> Face:
        self.marked = (face.reason is None, face.bids, face.asks)
        return self._show(face._replace(snapshot_time=mark), at)

    def _show(self, face: Face, at: int) -> Face:
        self.bids, self.asks, self.sequence = face.bids, face.asks, face.sequence
        self.latest = at + AHEAD if face.time is None else min(face.time, at + AHEAD)
        self.time = self.time if face.time is None else self.latest
        self.reason, self.valid = face.reason, face.reason is None
        self.changed = self.afresh = False
        return face

    def _again(self, reason: str, at: int) -> Face:
        changed, latest = self.changed, self.latest
        face = self._show(Face(self.bids, self.asks, self.sequence, self.time, reason), at)
        self.changed, self.latest = changed, latest
        return face

    def _face(self, book: Book, reason: str | None) -> Face:
        depth = self.depth
        bids, asks = tuple(book.bids.levels[:depth]), tuple(book.asks.levels[:depth])
        return Face(bids, asks, book.sequence, book.time, reason)

    def _may(self, now: int) -> bool:
        return self.shown is None or now - self.shown >= self.interval

    def _behind(self, book: Book, at: int) -> bool:
        if self.time is not None and self.time > at + AHEAD:
            # Not the book but the stream went back: an earlier recording follows a later one.
            self.time = self.floor = self.latest = None
        if book.time is not None and self.time is not None and book.time < self.time:
            return True
        if self.floor is None:
            return False
        latest = self.time if self.latest is None else self.latest
        newer = book.time is not None and latest is not None and book.time > latest
        if newer or book.sequence is None or book.sequence >= self.floor:
            self.floor = None
        return self.floor is not None
