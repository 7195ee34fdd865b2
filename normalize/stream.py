"""Where a raw stream stands: which of its entries are new, and what time it is in it. Pure."""

from typing import Literal

import msgspec

from normalize.values import NEWEST, OLDEST
from pipeline.frames import ClockData, Frame, RawEntry
from pipeline.timeframes import MINUTE

LATE = 10 * MINUTE
"""How long after its end frames of a connection may come."""
MOST_CLOSED = 64
MOST_REASONS = 200
"""Counters by reason or name are kept for so many; further ones count as `other`."""

Arrival = Literal["next", "lost", "writer", "stale", "repeated"]
"""What an entry is: the next one, the first after some that were lost, another writer's first; or not new."""


class Stream(msgspec.Struct):
    """`entry`: id of the last entry of the stream that was looked at; `writer`, `number`: `w` and `n` of the last one
    that was new. `now` is stream time: it moves with the frames' own times, only forwards; `received` is the last of
    them. `time`, `offset`: the exchange's clock at the last clock frame, and minus the host's.
    `closed`: connections that ended of late, and the stream's age then.
    """

    entry: str = "0-0"
    writer: int | None = None
    number: int = 0
    now: int = 0
    received: int | None = None
    time: int | None = None
    offset: int | None = None
    uncertainty: int = 0
    closed: dict[str, int] = {}
    repeated: int = 0
    stale: int = 0
    breaks: int = 0
    dead: dict[str, int] = {}
    control: dict[str, int] = {}

    def admit(self, raw: RawEntry) -> Arrival:
        """Takes the entry's place in the order of its writer."""
        if self.writer is not None and raw.w < self.writer:
            self.stale += 1
            return "stale"
        if raw.w == self.writer and raw.n <= self.number:
            self.repeated += 1
            return "repeated"
        arrival: Arrival = "next"
        if self.writer is not None and raw.w > self.writer:
            arrival = "writer"
            self.closed.clear()
        elif self.writer is not None and raw.n > self.number + 1:
            self.breaks += 1
            arrival = "lost"
        self.writer, self.number = raw.w, raw.n
        return arrival

    def take_over(self) -> None:
        """Another host's clock: durations go on from its first frame."""
        self.received = None

    def open(self, connection: str) -> None:
        """It is up, perhaps again."""
        self.closed.pop(connection, None)

    def close(self, connection: str) -> None:
        """It is gone. Frames of it may still come: they are used, but prove nothing, and nothing goes on with them."""
        self.closed = {name: age for name, age in self.closed.items() if self.now - age <= LATE}
        self.closed[connection] = self.now
        if len(self.closed) > MOST_CLOSED:
            del self.closed[min(self.closed, key=lambda name: (self.closed[name], name))]

    def late(self, frame: Frame) -> bool:
        """Whether the frame's connection is gone."""
        return self.now - self.closed.get(frame.conn, self.now - LATE - 1) <= LATE

    def advance(self, frame: Frame) -> int:
        """Moves stream time to the frame; the host's time at which it came in."""
        received = self.received or 0 if frame.ts is None else frame.ts
        self.reach(received)
        return received

    def reach(self, received: int) -> None:
        """Moves stream time to this time of the host."""
        last = self.received
        if last is None:
            self.received = max(received, 0)
        elif received > last:
            self.now += received - last
            self.received = received


_CLOCK = msgspec.json.Decoder(ClockData)


def clock_of(frame: Frame) -> ClockData:
    """What a clock frame says. Clocks so far apart that every time of the exchange would be refused (values.near) are
    a wrong answer of its, or a host whose clock is not set yet: the exchange's counts as unknown. Raises
    msgspec.DecodeError."""
    data = _CLOCK.decode(frame.data)
    if data.offset is None or -OLDEST <= data.offset <= NEWEST:
        return data
    return msgspec.structs.replace(data, offset=None)


def count(counters: dict[str, int], name: str, more: int = 1) -> None:
    """So many more of `name`, or of `other` when there are too many names."""
    if name not in counters and len(counters) >= MOST_REASONS:
        name = "other"
    if more:
        counters[name] = counters.get(name, 0) + more
