"""Which order books are saved when, and where in the raw stream each saved one stands. Pure.

A book changes too often to be saved in each step. What came since it was saved is read again at a restore.
"""

from collections.abc import Callable, Mapping

import msgspec

from normalize.stream import Stream
from pipeline.steps import REREAD_FROM, Step, stream_id
from pipeline.timeframes import SECOND

EVERY = 10 * SECOND
MOST_BYTES = 256 * 1024
"""Of books in one step; one that is larger is saved alone."""
FIELD = "book:"

Position = tuple[tuple[int, int], int]
"""An entry of the raw stream, and how many events of the entry behind it came before. Event 0 is what the entry itself
tells (frames were lost, another writer), event 1 its first frame."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Everything up to entry `after` and the next entry's events below `event` came before it. The rest is where the
    stream stood after `after`."""

    after: str = "0-0"
    event: int = 0
    writer: int | None = None
    number: int = 0
    now: int = 0
    received: int | None = None
    closed: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, stream: Stream) -> "Place":
        """After the last entry of the stream that was looked at."""
        closed = tuple(stream.closed.items())
        return cls(stream.entry, 0, stream.writer, stream.number, stream.now, stream.received, closed)

    def stream(self) -> Stream:
        """The stream as it stood there."""
        return Stream(
            entry=self.after,
            writer=self.writer,
            number=self.number,
            now=self.now,
            received=self.received,
            closed=dict(self.closed),
        )

    @property
    def position(self) -> Position:
        """What places are ordered by."""
        return stream_id(self.after.encode()), self.event


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """A saved book: `book` is what it made of itself at `place`, stream time `since`."""

    place: Place
    since: int
    book: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Checkpoint)


class Checkpoints:
    """What is saved of each book. `found`: as it was at the restore, by instrument; `unreadable`: the instruments of
    those that could not be read."""

    def __init__(self, saved: Mapping[bytes, bytes]) -> None:
        self.found: dict[str, Checkpoint] = {}
        self.unreadable: list[str] = []
        for field, value in sorted(saved.items()):
            if field.startswith(FIELD.encode()):
                self._read(field.decode().removeprefix(FIELD), value)
        self._places = {name: (found.place, found.since) for name, found in self.found.items()}
        self._new: dict[str, Checkpoint] = {}
        self._gone: set[str] = set()
        self._from = saved.get(REREAD_FROM.encode())
        self._next = min((since for _, since in self._places.values()), default=0) + EVERY

    def begin(self, name: str, place: Place, since: int, book: bytes) -> None:
        """A book that was never saved: what it is before its first frame goes into the next step."""
        self._new[name] = Checkpoint(place, since, book)
        self._gone.discard(name)

    def forget(self, name: str) -> None:
        """The book is no more."""
        self._new.pop(name, None)
        self._places.pop(name, None)
        self._gone.add(name)

    def save(self, step: Step, stream: Stream, book: Callable[[str], bytes]) -> None:
        """Saves what is new, and of what is due as much as goes into one step; the oldest first. `book`: what an
        instrument's book makes of itself now."""
        if not self._gone and not self._new and stream.now < self._next:
            return
        for name in sorted(self._gone):
            step.save(FIELD + name, None)
        for name, checkpoint in self._new.items():
            self._put(step, name, checkpoint)
        self._gone.clear()
        self._new.clear()
        self._save_due(step, stream, book)
        self._next = min((since for _, since in self._places.values()), default=0) + EVERY
        oldest = min((place for place, _ in self._places.values()), key=lambda place: place.position, default=None)
        begin = None if oldest is None else oldest.after.encode()
        if begin != self._from:
            step.save(REREAD_FROM, begin)
            self._from = begin

    def _save_due(self, step: Step, stream: Stream, book: Callable[[str], bytes]) -> None:
        place, size = Place.of(stream), 0
        due = [(at.position, name) for name, (at, since) in self._places.items() if stream.now - since >= EVERY]
        for _, name in sorted(due):
            data = book(name)
            if size and size + len(data) > MOST_BYTES:
                break
            size += len(data)
            self._put(step, name, Checkpoint(place, stream.now, data))

    def _put(self, step: Step, name: str, checkpoint: Checkpoint) -> None:
        step.save(FIELD + name, _ENCODER.encode(checkpoint))
        self._places[name] = checkpoint.place, checkpoint.since

    def _read(self, name: str, value: bytes) -> None:
        try:
            self.found[name] = _DECODER.decode(value)
        except msgspec.DecodeError:
            self.unreadable.append(name)
