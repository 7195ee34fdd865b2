"""The lines of recordings, one after the other, and what must be known of all of them before the first is played."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pipeline.errors import DecodeError
from pipeline.exchanges import EXCHANGES, Exchange, exchange_of_connection
from pipeline.frames import Frame, read_lines
from pipeline.recordings import RecordedFrame, exchange_of_partition, read_line
from pipeline.records import Instrument


class Line(NamedTuple):
    """One line of a recording: its frame, or what is wrong with it. `text` is empty where a file breaks off."""

    path: Path
    number: int
    text: bytes
    frame: RecordedFrame | None
    fault: DecodeError | None

    @property
    def place(self) -> str:
        """`okx.jsonl:17`."""
        return f"{self.path}:{self.number}"


class Survey(NamedTuple):
    """`lines` in all; the files that bring clocks; the exchange of each file; the first known time and the instruments
    of every list by exchange; the partitions by exchange (recordings by others are one); and those that `record` wrote
    from the first entry of a raw stream on, so that the live stages knew no more at that point than we do."""

    lines: int
    own_clock: frozenset[Path]
    exchanges: dict[Path, Exchange]
    start: dict[str, int]
    instruments: dict[str, dict[str, Instrument]]
    partitions: dict[str, tuple[str, ...]]
    whole: frozenset[str]


def lines(paths: Sequence[Path]) -> Iterator[Line]:
    """Every line of every file. A file that breaks off (a torn gzip tail) ends with a line that says so."""
    for path in paths:
        number = 0
        try:
            for number, text in read_lines(path):
                try:
                    yield Line(path, number, text, read_line(text), None)
                except DecodeError as error:
                    yield Line(path, number, text, None, error)
        except (EOFError, OSError, zlib.error) as error:
            yield Line(path, number + 1, b"", None, DecodeError("file breaks off", str(error)))


def survey(paths: Sequence[Path], default: Exchange | None) -> Survey:
    """Looks over all files. `default` is the exchange where neither partition nor connection tells."""
    from normalize.mapper import load

    mappers = {name: load(exchange) for name, exchange in EXCHANGES.items()}
    listed: dict[str, dict[str, Instrument]] = {name: {} for name in EXCHANGES}
    total, own_clock = 0, set()
    exchanges: dict[Path, Exchange] = {}
    start: dict[str, int] = {}
    whole: dict[str, bool] = {}
    partitions: dict[str, set[str]] = {}
    for line in lines(paths):
        total, frame = total + 1, line.frame
        if frame is None:
            continue
        if frame.kind == "clock":
            own_clock.add(line.path)
        if frame.partition is not None:
            whole.setdefault(frame.partition, frame.n == 1)
        exchange = exchange_of(frame, default)
        if exchange is None:
            continue
        exchanges.setdefault(line.path, exchange)
        partitions.setdefault(exchange.name, set()).add(frame.partition or exchange.name)
        mapper, known = mappers[exchange.name], listed[exchange.name]
        if exchange.name not in start and (time := frame.ts or mapper.time(frame)) is not None:
            start[exchange.name] = time
        for instrument in (*frame.instruments, *_listed(mapper, frame, start.get(exchange.name, 0))):
            known.setdefault(instrument.instrument, instrument)
    return Survey(
        lines=total,
        own_clock=frozenset(own_clock),
        exchanges=exchanges,
        start=start,
        instruments=listed,
        partitions={name: tuple(sorted(found)) for name, found in partitions.items()},
        whole=frozenset(name for name, beginning in whole.items() if beginning),
    )


def exchange_of(frame: RecordedFrame, default: Exchange | None) -> Exchange | None:
    """The exchange a frame comes from: its partition says, else its connection."""
    if frame.partition is not None:
        return exchange_of_partition(frame.partition)
    return exchange_of_connection(frame.conn) or default


def _listed(mapper: Any, frame: Frame, start: int) -> Sequence[Instrument]:
    """The instruments of a REST reply; none when it is something else (told when its turn comes)."""
    if frame.kind != "rest":
        return ()
    try:
        read: Sequence[Instrument] = mapper.read(msgspec.structs.replace(frame, ts=frame.ts or start), {}).instruments
    except DecodeError:
        return ()
    return read
