"""Frames on their way into one raw stream: numbered entries, a bound, and the last seconds kept for replay. Pure.

An entry gets its number when it is first sent or put on disk. Only what was neither can be dropped here, and a
drop always leaves a number out, so that the reader sees it. The order is: kept, unconfirmed, what is on disk
(ingest.spool), sealed, open.
"""

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from ingest.salvage import Salvage
from pipeline.frames import MOST_BYTES, MOST_FRAMES, Frame, RawEntry, split
from pipeline.segments import Position

OVERHEAD = 150
"""Bytes a frame costs in memory beside its text."""
BURST_ENTRIES = 64
BURST_BYTES = 1024 * 1024

Place = tuple[int, int]
"""(w, n): entries stand in this order in the stream."""


class Spooled(msgspec.Struct, frozen=True):
    """An entry read from disk, and up to where the disk may forget once it is done with."""

    entry: RawEntry
    position: Position


class _Sealed(msgspec.Struct, frozen=True):
    frames: tuple[Frame, ...]
    size: int


class _Sent(msgspec.Struct):
    """`waiting`: bytes of it that are neither confirmed nor on disk. `position`: where the disk has it, once read."""

    entry: RawEntry
    size: int
    waiting: int
    confirmed: int = 0
    on_disk: bool = False
    position: Position | None = None

    @property
    def place(self) -> Place:
        return self.entry.w, self.entry.n


class Buffer:
    """At most `capacity` bytes wait. What was confirmed is kept for `keep` ns more, at most `capacity` bytes of it."""

    def __init__(self, capacity: int, keep: int) -> None:
        self._capacity = capacity
        self._keep = keep
        self._open: list[Frame] = []
        self._open_size = 0
        self._sealed: deque[_Sealed] = deque()
        self._unconfirmed: deque[_Sent] = deque()
        self._kept: deque[_Sent] = deque()
        self._kept_bytes = 0
        self._saved = Salvage()
        self._dropped = False
        self._copied: list[_Sent] = []
        self._moved: list[_Sent] = []
        self.newest: Place = (0, 0)
        """All entries up to this one are in the stream or here, on their way."""
        self._writer = 0
        self._number = 0
        self._droppable: Position | None = None
        self.waiting_bytes = 0
        """Of frames that are in no other place than here."""
        self.safe_bytes = 0
        """Of frames that were confirmed, put on disk or dropped, since the start."""

    @property
    def empty(self) -> bool:
        """Whether every frame that is here is confirmed; there may be more on disk."""
        return not (self._open or self._sealed or self._unconfirmed or self._dropped or self._moved)

    @property
    def numbering(self) -> bool:
        """Whether it is known as whom to write: entries get numbers since."""
        return self._writer > 0

    @property
    def sending(self) -> bool:
        """Whether entries that have left the queue, or the disk, are not confirmed yet."""
        return bool(self._unconfirmed)

    @property
    def spooling(self) -> bool:
        """Whether entries are being put on disk."""
        return bool(self._copied or self._moved)

    def append(self, frame: Frame) -> int:
        """Takes a frame; the answer is how many older ones were lost for it."""
        size = len(frame.data) + OVERHEAD
        self._open.append(frame)
        self._open_size += size
        self.waiting_bytes += size
        if len(self._open) >= MOST_FRAMES or self._open_size >= MOST_BYTES:
            self._seal()
        return self._overflow() if self.waiting_bytes > self._capacity else 0

    def extend(self, frames: Sequence[Frame]) -> int:
        """Takes frames in a row, to the same entries as if they came one by one."""
        taken = lost = 0
        while taken < len(frames):
            piece = frames[taken : taken + MOST_FRAMES - len(self._open)]
            taken += len(piece)
            size = sum([len(frame.data) for frame in piece]) + OVERHEAD * len(piece)
            if self._open_size + size >= MOST_BYTES or self.waiting_bytes + size > self._capacity:
                lost += sum(map(self.append, piece))
                continue
            self._open += piece
            self._open_size += size
            self.waiting_bytes += size
            if len(self._open) == MOST_FRAMES:
                self._seal()
        return lost

    def resume(self, writer: int, last: Place | None, now: int) -> None:
        """Goes on as `writer` after `last`, the (w, n) of the stream's last entry, read at `now` (monotonic ns).

        What the stream turned out to have is confirmed; what it lost of the kept entries is sent again.
        """
        self._writer = writer
        reached = last or (0, 0)
        self.newest = max(self.newest, reached)
        lost = [sent for sent in self._kept if sent.place > reached]
        held = [*lost, *self._unconfirmed]
        self._kept = deque(sent for sent in self._kept if sent.place <= reached)
        self._kept_bytes -= sum(sent.size for sent in lost)
        for sent in lost:
            if not sent.on_disk:
                sent.waiting = sent.size
                self.waiting_bytes += sent.size
                self.safe_bytes -= sent.size
        self._unconfirmed = deque(held)
        self.confirm(sum(sent.place <= reached for sent in held), now)

    def burst(self, *, fresh: bool = True) -> list[RawEntry]:
        """The next entries to write, in order; empty when there is nothing. Asked again it gives the same ones.
        Without `fresh`, or while entries go to disk, none that was not sent before: others come first."""
        if not self._unconfirmed and fresh and not self.spooling:
            self._seal()
            for sent in self._number_more():
                self._send(sent)
        entries: list[RawEntry] = []
        size = 0
        for sent in self._unconfirmed:
            if entries and (len(entries) == BURST_ENTRIES or size + sent.size > BURST_BYTES):
                break
            entries.append(sent.entry)
            size += sent.size
        return entries

    def confirm(self, count: int, now: int) -> None:
        """The first `count` entries of the burst are in the stream, seen at `now` (monotonic ns)."""
        for _ in range(count):
            sent = self._unconfirmed.popleft()
            self._keep_sent(sent, now)
        self._forget(now)

    def spool(self) -> list[RawEntry]:
        """What goes to disk, in order, numbered: all that waits, after copies of what is kept or unconfirmed, so that
        the disk alone is enough. Then `spooled` must be called before it is asked again."""
        self._seal()
        if not (self._sealed or self._dropped or any(not sent.on_disk for sent in self._unconfirmed)):
            return []
        self._copied = [sent for sent in (*self._kept, *self._unconfirmed) if not sent.on_disk]
        self._moved = self._number_more(bounded=False)
        return [sent.entry for sent in (*self._copied, *self._moved)]

    def spooled(self, count: int, *, doubt: bool = False) -> int:
        """The first `count` of those entries are on disk; the others wait here again. In `doubt` of whether some of
        them are there too, their numbers are not used again. The answer is how many frames are lost."""
        copied = min(count, len(self._copied))
        for sent in (*self._copied[:copied], *self._moved[: count - copied]):
            self.waiting_bytes -= sent.waiting
            self.safe_bytes += sent.waiting
            sent.waiting, sent.on_disk = 0, True
        rest = self._moved[count - copied :]
        self._copied, self._moved = [], []
        if rest and not doubt:
            self._number = rest[0].entry.n - 1
        back = [_Sealed(sent.entry.frames, sent.size) for sent in rest]
        if self._dropped:
            return self._lose_before(back)
        self._sealed.extendleft(reversed(back))
        return 0

    def load(self, spooled: Iterable[Spooled], now: int) -> None:
        """Takes the oldest entries on disk, to be sent next. Those that were sent, by us or by the process before us,
        are kept like others that were: until then the disk must not forget them."""
        known = {sent.place: sent for sent in (*self._kept, *self._unconfirmed)}
        for each in spooled:
            place = (each.entry.w, each.entry.n)
            if (sent := known.get(place)) is not None:
                sent.position = each.position
                continue
            size = sum(len(frame.data) + OVERHEAD for frame in each.entry.frames)
            sent = _Sent(each.entry, size, 0, on_disk=True, position=each.position)
            if place > self.newest:
                self._send(sent)
            elif not self._unconfirmed and (not self._kept or self._kept[-1].place < place):
                self._keep_sent(sent, now)
            else:
                self._droppable = each.position
        self._forget(now)

    def take_droppable(self) -> Position | None:
        """Up to where the disk may forget, if that is news."""
        position, self._droppable = self._droppable, None
        return position

    def _keep_sent(self, sent: _Sent, now: int) -> None:
        sent.confirmed = now
        self._kept.append(sent)
        self._kept_bytes += sent.size
        self.waiting_bytes -= sent.waiting
        self.safe_bytes += sent.waiting
        sent.waiting = 0

    def _forget(self, now: int) -> None:
        while self._kept and (self._kept[0].confirmed < now - self._keep or self._kept_bytes > self._capacity):
            sent = self._kept.popleft()
            self._kept_bytes -= sent.size
            self._droppable = sent.position or self._droppable

    def _seal(self) -> None:
        if 0 < self._open_size <= MOST_BYTES:
            # By far the most are one entry as they are.
            self._sealed.append(_Sealed(tuple(self._open), self._open_size))
        else:
            for group in split(self._open):
                self._sealed.append(_Sealed(group, sum(len(frame.data) + OVERHEAD for frame in group)))
        self._open, self._open_size = [], 0

    def _number_more(self, *, bounded: bool = True) -> list[_Sent]:
        """Numbers sealed entries, up to a burst's size or all; after a drop one number stays out."""
        numbered: list[_Sent] = []
        if self._dropped:
            self._number += 1
            self._dropped = False
            for group in split(self._saved.take()):
                size = sum(len(frame.data) + OVERHEAD for frame in group)
                self.waiting_bytes += size
                numbered.append(self._numbered(group, size))
        size = 0
        while self._sealed and (not bounded or (len(numbered) < BURST_ENTRIES and size < BURST_BYTES)):
            sealed = self._sealed.popleft()
            size += sealed.size
            numbered.append(self._numbered(sealed.frames, sealed.size))
        return numbered

    def _numbered(self, frames: tuple[Frame, ...], size: int) -> _Sent:
        self._number += 1
        return _Sent(RawEntry(self._writer, self._number, frames), size, size)

    def _send(self, sent: _Sent) -> None:
        self._unconfirmed.append(sent)
        self.newest = sent.place

    def _lose_before(self, older: list[_Sealed]) -> int:
        """Drops entries that are older than what was dropped already: there is one hole, not one further on."""
        saved, self._saved = self._saved, Salvage()
        lost = sum(map(self._lose, older))
        for frame in saved.take():
            self._saved.save(frame)
        return lost

    def _lose(self, sealed: _Sealed) -> int:
        self.waiting_bytes -= sealed.size
        self.safe_bytes += sealed.size
        self._dropped = True
        return len(sealed.frames) - sum(self._saved.save(frame) for frame in sealed.frames)

    def _overflow(self) -> int:
        """Drops the oldest unsent entries until the rest fits; what the reader must know is saved of them."""
        lost = 0
        while self._sealed and self.waiting_bytes > self._capacity:
            lost += self._lose(self._sealed.popleft())
        return lost
