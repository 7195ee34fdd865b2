"""Frames on their way into one raw stream: numbered entries, a bound, and the last seconds kept for replay. Pure.

An entry gets its number when it is first sent. Only what was never sent can be dropped, and a drop
always leaves a number out, so that the reader sees it.
"""

from collections import deque

import msgspec

from pipeline.frames import MOST_BYTES, MOST_FRAMES, Frame, RawEntry, split

OVERHEAD = 150
"""Bytes a frame costs in memory beside its text."""
BURST_ENTRIES = 64
BURST_BYTES = 1024 * 1024


class _Sealed(msgspec.Struct, frozen=True):
    frames: tuple[Frame, ...]
    size: int


class _Sent(msgspec.Struct):
    entry: RawEntry
    size: int
    confirmed: int = 0


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
        self._writer = 0
        self._number = 0
        self.waiting_bytes = 0

    @property
    def empty(self) -> bool:
        """Whether every frame is confirmed."""
        return not (self._open or self._sealed or self._unconfirmed or self._dropped)

    def append(self, frame: Frame) -> int:
        """Takes a frame; the answer is how many older ones were lost for it."""
        size = len(frame.data) + OVERHEAD
        self._open.append(frame)
        self._open_size += size
        self.waiting_bytes += size
        if len(self._open) >= MOST_FRAMES or self._open_size >= MOST_BYTES:
            self._seal()
        return self._overflow() if self.waiting_bytes > self._capacity else 0

    def resume(self, writer: int, last: tuple[int, int] | None, now: int) -> None:
        """Goes on as `writer` after `last`, the (w, n) of the stream's last entry, read at `now` (monotonic ns).

        What the stream turned out to have is confirmed; what it lost of the kept entries is sent again.
        """
        self._writer = writer
        reached = last[1] if last is not None and last[0] == writer else 0
        lost = [sent for sent in self._kept if sent.entry.n > reached]
        held = [*lost, *self._unconfirmed]
        self._kept = deque(sent for sent in self._kept if sent.entry.n <= reached)
        self._kept_bytes -= sum(sent.size for sent in lost)
        self.waiting_bytes += sum(sent.size for sent in lost)
        self._unconfirmed = deque(held)
        self.confirm(sum(sent.entry.n <= reached for sent in held), now)

    def burst(self) -> list[RawEntry]:
        """The next entries to write, in order; empty when there is nothing. Asked again it gives the same ones."""
        if not self._unconfirmed:
            self._seal()
            self._number_more()
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
            sent.confirmed = now
            self._kept.append(sent)
            self._kept_bytes += sent.size
            self.waiting_bytes -= sent.size
        while self._kept and (self._kept[0].confirmed < now - self._keep or self._kept_bytes > self._capacity):
            self._kept_bytes -= self._kept.popleft().size

    def _seal(self) -> None:
        for group in split(self._open):
            self._sealed.append(_Sealed(group, sum(len(frame.data) + OVERHEAD for frame in group)))
        self._open, self._open_size = [], 0

    def _number_more(self) -> None:
        """Numbers sealed entries up to a burst's size; after a drop one number stays out."""
        if self._dropped:
            self._number += 1
            self._dropped = False
            for group in split(self._saved.take()):
                size = sum(len(frame.data) + OVERHEAD for frame in group)
                self.waiting_bytes += size
                self._send(group, size)
        size = 0
        while self._sealed and len(self._unconfirmed) < BURST_ENTRIES and size < BURST_BYTES:
            sealed = self._sealed.popleft()
            size += sealed.size
            self._send(sealed.frames, sealed.size)

    def _send(self, frames: tuple[Frame, ...], size: int) -> None:
        self._number += 1
        self._unconfirmed.append(_Sent(RawEntry(self._writer, self._number, frames), size))

    def _overflow(self) -> int:
        """Drops the oldest unsent entries until the rest fits; what the reader must know is saved of them."""
        lost = 0
        while self._sealed and self.waiting_bytes > self._capacity:
            sealed = self._sealed.popleft()
            self.waiting_bytes -= sealed.size
            lost += len(sealed.frames) - sum(self._saved.save(frame) for frame in sealed.frames)
            self._dropped = True
        return lost


class Salvage:
    """What outlives a dropped entry, because all later frames are read by it: connections opening and closing,
    subscriptions, lists of instruments. Of a connection that is gone, at most its end is kept."""

    def __init__(self) -> None:
        self._frames: dict[tuple[str, ...], Frame] = {}

    def save(self, frame: Frame) -> bool:
        """Whether the frame is (or was, until its connection closed) worth keeping."""
        if frame.kind == "rest":
            if frame.key is not None:
                # The answer to a want: after a loss the want is renewed.
                return False
            self._put(("rest", frame.url or frame.conn), frame)
        elif frame.kind == "open":
            self._put((frame.conn, "open"), frame)
        elif frame.kind == "subscription":
            self._put((frame.conn, "subscription", frame.data), frame)
        elif frame.kind == "close":
            self._close(frame)
        else:
            return False
        return True

    def take(self) -> list[Frame]:
        """The frames in order; none are left."""
        frames = list(self._frames.values())
        self._frames.clear()
        return frames

    def _put(self, key: tuple[str, ...], frame: Frame) -> None:
        self._frames.pop(key, None)
        self._frames[key] = frame

    def _close(self, frame: Frame) -> None:
        opened = (frame.conn, "open") in self._frames
        for key in [key for key in self._frames if key[0] == frame.conn]:
            del self._frames[key]
        if not opened:
            self._put((frame.conn, "close"), frame)
