"""Recorded frames, completed with the clock that ingest would have written between them. Pure, no clock of its own.

A recording has no `clock` frames: `ts` is the clock, and without `ts` the exchange's own times are.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from normalize.mapper import Mapper
from pipeline.frames import ClockData, CloseData, Frame
from pipeline.timeframes import MINUTE, SECOND

TICK = SECOND // 4
SILENCE = 10 * MINUTE
"""A recording silent for longer was interrupted."""
SILENCE_BETWEEN_FILES = MINUTE
BACKWARDS = MINUTE
"""Times that go back by more begin another recording."""


class Written(NamedTuple):
    """A frame of the raw stream and its writer: each uninterrupted recording is a writer of its own."""

    writer: int
    frame: Frame


class Recording:
    """The raw stream of one exchange, made of recorded frames in their order."""

    def __init__(self, mapper: Mapper, start: int) -> None:
        """`start` (ns): received time of frames before any known time."""
        self._mapper = mapper
        self._writer = 1
        self._last: int | None = None
        self._start = start
        self._tick: int | None = None
        self._connections: dict[str, int] = {}
        self._source: str | None = None

    def follow(self, frame: Frame, source: str, *, own_clock: bool) -> Iterator[Written]:
        """What the raw stream holds up to and with this frame. `source` names its file; `own_clock`: that file
        brings `clock` frames of its own."""
        time = self._time(frame)
        if self._interrupted(time, source):
            yield from self._interrupt()
        self._source = source
        if not own_clock:
            yield from self._ticks(time)
        self._last = time if self._last is None else max(self._last, time)
        if frame.kind == "close":
            self._connections.pop(frame.conn, None)
        elif frame.kind == "ws" and (frame.dir == "in" or frame.conn not in self._connections):
            self._connections[frame.conn] = time
        if frame.ts is None:
            frame = msgspec.structs.replace(frame, ts=time)
        yield Written(self._writer, frame)

    def end(self) -> Iterator[Written]:
        """A last clock at the last frame, where the recording brought none itself."""
        if self._last is not None and self._tick is not None:
            yield self._clock(self._last)

    def _time(self, frame: Frame) -> int:
        if frame.ts is not None:
            return frame.ts
        known = self._mapper.time(frame)
        if known is None:
            return self._start if self._last is None else self._last
        if self._last is not None and self._last - BACKWARDS <= known <= self._last:
            return self._last
        return known

    def _interrupted(self, time: int, source: str) -> bool:
        if self._last is None:
            return False
        silence = SILENCE if source == self._source else SILENCE_BETWEEN_FILES
        return not self._last - BACKWARDS <= time <= self._last + silence

    def _interrupt(self) -> Iterator[Written]:
        assert self._last is not None
        data = msgspec.json.encode(CloseData(reason="recording interrupted")).decode()
        for name in sorted(self._connections):
            yield Written(self._writer, Frame(self._last, name, "in", "close", data))
        self._connections.clear()
        self._writer += 1
        self._last = self._tick = None

    def _ticks(self, time: int) -> Iterator[Written]:
        """One clock where a recording begins, then one at each quarter of a second."""
        if self._tick is None:
            yield self._clock(time)
            self._tick = (time // TICK + 1) * TICK
        while self._tick <= time:
            yield self._clock(self._tick)
            self._tick += TICK

    def _clock(self, time: int) -> Written:
        data = msgspec.json.encode(ClockData(connections=dict(self._connections), offset=0)).decode()
        return Written(self._writer, Frame(time, "clock", "in", "clock", data))
