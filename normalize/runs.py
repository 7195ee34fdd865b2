"""Runs of frames that say one trade each, the next one of its instrument: what a busy socket brings. A short way.

They are decoded together and written without a record between. Wherever a frame is of another sort, or its trade not
the one expected, the stage's own way decides on it alone, in its turn.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from normalize.mapper import Mapper, Prints
from normalize.outlet import Outlet
from normalize.shelf import Shelf
from normalize.state import State
from normalize.values import all_near
from pipeline.frames import Frame
from pipeline.records import Instrument, Trade, encode

FEWEST = 8
"""Frames of a run that is taken together: of fewer, each costs more so than alone."""


class Beginning(NamedTuple):
    """What the records of an instrument's trades begin with, up to their time; `symbol` as the stream shows it."""

    instrument: Instrument
    symbol: bytes
    text: str


class Runs:
    """Works on `state` as the stage does, and writes to `outlet`."""

    def __init__(self, mapper: Mapper, state: State, outlet: Outlet, shelf: Shelf) -> None:
        self._mapper = mapper
        self._state = state
        self._outlet = outlet
        self._shelf = shelf
        self._beginnings: dict[str, Beginning] = {}

    def take(self, frames: Sequence[Frame], otherwise: Callable[[Frame], None]) -> None:
        """All frames of an entry. What has no short way is given to `otherwise`."""
        for short, run in _runs(self._mapper.short(frames), frames):
            if short and len(run) >= FEWEST and self._follow(run, otherwise):
                continue
            for frame in run:
                otherwise(frame)

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
                otherwise(run[place])
            done = place + 1
        return True

    def _write(self, run: Sequence[Frame], arrivals: Sequence[int], prints: Prints) -> Iterator[int]:
        """Writes the trades. Yields where one is not the next of a covered instrument, and at the end; those before
        are written then."""
        state = self._state
        continuity, covers, changed = state.continuity, state.evidence.covers, state.changed_continuity
        offset, tails = state.evidence.offset, state.tails
        rows: list[tuple[bytes, bytes]] = []
        newest: dict[str, bytes] = {}
        # A hot loop: what it does not call, each trade does without.
        for place, (frame, at, instrument, spelt, number, time, price, size, side, contracts) in enumerate(
            zip(run, arrivals, *prints, strict=True)
        ):
            name = instrument.instrument
            seen, cover = continuity.get(name), covers.get(name)
            if (
                seen is None
                or cover is None
                or frame.conn not in cover.connections
                or name in tails
                or not seen.follows(number, time, instrument.listed)
            ):
                self._emit(rows, newest)
                yield place
                continue
            beginning = self._beginnings.get(name)
            if beginning is None or beginning.instrument is not instrument:
                beginning = self._beginnings[name] = _beginning(instrument)
            rest = _rest(seen.epoch, contracts) if seen.epoch or contracts is not None else ""
            data = (
                f'{beginning.text}{time},"received":{at},"id":"{spelt}","sequence":{spelt},"price":"{price}",'
                f'"size":"{size}","side":"{side}"{rest}}}'
            ).encode()
            rows.append((beginning.symbol, data))
            if time == seen.newest:
                newest[name] = data
            changed.add(name)
            # As Evidence.data, of an instrument that the connection covers.
            cover.message = at
            shown = time if offset is None else at + offset
            if shown > cover.shown:  # noqa: PLR1730 (each trade: max() is slow)
                cover.shown = shown
        self._emit(rows, newest)
        yield len(run)

    def _emit(self, rows: list[tuple[bytes, bytes]], newest: dict[str, bytes]) -> None:
        if rows:
            self._outlet.emit_encoded("trade", rows, newest)
            rows.clear()
            newest.clear()

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


def _beginning(instrument: Instrument) -> Beginning:
    trade = Trade(
        exchange=instrument.exchange,
        market=instrument.market,
        symbol=instrument.symbol,
        instrument=instrument.instrument,
        time=0,
        received=0,
        id="",
        sequence=0,
        price="",
        size="",
        side="buy",
    )
    # Inside a text a quote would be escaped: the first `"time":` is the field.
    before, field, _ = encode(trade).decode().partition('"time":')
    return Beginning(instrument, instrument.symbol.encode(), before + field)


def _rest(epoch: int, contracts: str | None) -> str:
    """The fields behind the side that do not stand at their defaults."""
    said = f',"epoch":{epoch}' if epoch else ""
    return said if contracts is None else f'{said},"contracts":"{contracts}"'
