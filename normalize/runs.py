"""Runs of frames that say one trade each, the next one of its instrument: what a busy socket brings. A short way.

They are decoded together and written without a record between. Wherever a frame is of another sort, or its trade not
the one expected, the stage's own way decides on it alone, in its turn.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from normalize.lanes import Lanes
from normalize.mapper import Mapper, Prints
from normalize.outlet import Outlet
from normalize.shelf import Shelf
from normalize.state import State
from normalize.values import all_near
from pipeline.frames import Frame

FEWEST = 8
"""Frames of a run that is taken together: of fewer, each costs more so than alone."""


class Runs:
    """Works on `state` as the stage does, and writes to `outlet`."""

    def __init__(self, mapper: Mapper, state: State, outlet: Outlet, shelf: Shelf) -> None:
        self._mapper = mapper
        self._state = state
        self._outlet = outlet
        self._shelf = shelf
        self._lanes = Lanes(state)

    def take(self, frames: Sequence[Frame], otherwise: Callable[[Frame], None]) -> None:
        """All frames of an entry. What has no short way is given to `otherwise`. The state is behind until `settle`."""
        for short, run in _runs(self._mapper.short(frames), frames):
            if short and len(run) >= FEWEST and self._follow(run, otherwise):
                continue
            self.settle()
            for frame in run:
                otherwise(frame)

    def settle(self) -> None:
        """Brings the state up to what was taken."""
        if newest := self._lanes.settle():
            self._outlet.emit_encoded("trade", (), newest)

    def _follow(self, run: Sequence[Frame], otherwise: Callable[[Frame], None]) -> bool:
        """Whether the run could be taken together."""
        arrivals = [frame.ts for frame in run if frame.ts is not None]
        if len(arrivals) < len(run) or not self._up({frame.conn for frame in run}):
            return False
        prints = self._mapper.prints(run, self._state.instruments)
        if prints is None or not all_near(prints.times, arrivals):
            return False
        done = 0
        for place in self._write(run, arrivals, prints):
            self._pass(run[done:place], arrivals[done:place])
            if place < len(run):
                self.settle()
                otherwise(run[place])
            done = place + 1
        return True

    def _write(self, run: Sequence[Frame], arrivals: Sequence[int], prints: Prints) -> Iterator[int]:
        """Writes the trades. Yields where one is not the next of a covered instrument, and at the end; those before
        are written then."""
        lanes, begun, timed = self._lanes, self._lanes.begun, self._state.evidence.offset is not None
        rows: list[tuple[bytes, bytes]] = []
        # A hot loop: what it does not call, each trade does without.
        for place, (frame, at, instrument, spelt, number, time, price, size, side, contracts) in enumerate(
            zip(run, arrivals, *prints, strict=True)
        ):
            lane = begun.get(instrument.instrument) or lanes.begin(instrument)
            if lane is None or number != lane.next or frame.conn not in lane.connections:
                self._emit(rows)
                yield place
                continue
            lane.next = number + 1
            lane.arrived = at
            latest = at if timed else time
            if latest > lane.latest:  # noqa: PLR1730 (each trade: max() is slow)
                lane.latest = latest
            rest = lane.said if contracts is None else f'{lane.said},"contracts":"{contracts}"'
            data = (
                f'{lane.text}{time},"received":{at},"id":"{spelt}","sequence":{spelt},"price":"{price}",'
                f'"size":"{size}","side":"{side}"{rest}}}'
            ).encode()
            rows.append((lane.symbol, data))
            if time >= lane.newest:
                lane.newest, lane.data = time, data
        self._emit(rows)
        yield len(run)

    def _emit(self, rows: list[tuple[bytes, bytes]]) -> None:
        if rows:
            self._outlet.emit_encoded("trade", rows, {})
            rows.clear()

    def _pass(self, frames: Sequence[Frame], arrivals: Sequence[int]) -> None:
        """What every frame does."""
        if not frames:
            return
        self._shelf.event += len(frames)
        self._state.stream.reach(max(arrivals))
        for name in {frame.conn for frame in frames}:
            last = max([at for frame, at in zip(frames, arrivals, strict=True) if frame.conn == name])
            self._state.evidence.heard(name, last)

    def _up(self, connections: set[str]) -> bool:
        """Whether they are known to be up, and time runs."""
        stream = self._state.stream
        known = connections <= self._state.evidence.connections.keys()
        return known and stream.received is not None and stream.closed.keys().isdisjoint(connections)


def _runs(marks: Sequence[bool], frames: Sequence[Frame]) -> Iterator[tuple[bool, Sequence[Frame]]]:
    """Frames that follow each other with the same mark."""
    if all(marks):
        yield True, frames
        return
    for mark, pairs in groupby(zip(marks, frames, strict=True), key=itemgetter(0)):
        yield mark, [frame for _, frame in pairs]
