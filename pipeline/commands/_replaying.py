"""Recorded frames through the stages of one process: normalize and aggregate, no server, one file per kind."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import msgspec

from pipeline.errors import DecodeError
from pipeline.exchanges import EXCHANGES, Exchange, exchange_of_connection
from pipeline.frames import Frame, RawEntry, SubscriptionData, from_line, pack, read_lines
from pipeline.records import CandleSettings, DeadLetter, Instrument, Trade, encode
from pipeline.steps import Command, Entry, Step, dead_letter
from pipeline.streams import Keys

STAGE = "replay"
KINDS = ("trade", "candle", "instrument", "gap", "coverage", "dead")
SAVE_EVERY = 1_000

_TRADE = msgspec.json.Decoder(Trade)
_DEAD = msgspec.json.Decoder(DeadLetter)
_SUBSCRIPTION = msgspec.json.Decoder(SubscriptionData)


class Line(NamedTuple):
    """One line of a recording: its frame, or what is wrong with it. `text` is empty where a file breaks off."""

    path: Path
    number: int
    text: bytes
    frame: Frame | None
    fault: DecodeError | None


class Survey(NamedTuple):
    """What must be known before the first frame: the number of lines, which files bring clocks and of which exchange
    they are, the first known time per exchange, and the instruments of every list given."""

    lines: int
    own_clock: frozenset[Path]
    exchanges: dict[Path, Exchange]
    start: dict[str, int]
    instruments: dict[str, dict[str, Instrument]]


def lines(paths: Sequence[Path]) -> Iterator[Line]:
    """Every line of every file. A file that breaks off (a torn gzip tail) ends with a line that says so."""
    for path in paths:
        number = 0
        try:
            for number, text in read_lines(path):
                try:
                    yield Line(path, number, text, from_line(text), None)
                except DecodeError as error:
                    yield Line(path, number, text, None, error)
        except (EOFError, OSError, zlib.error) as error:
            yield Line(path, number + 1, b"", None, DecodeError("file breaks off", str(error)))


class Outputs:
    """DIR/<kind>.jsonl, all of them open from the start and closed in any case."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, BinaryIO] = {}
        self._stack = ExitStack()
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            self._files[kind] = self._stack.enter_context((self._directory / f"{kind}.jsonl").open("wb"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, kind: str, data: bytes) -> None:
        """Adds one record."""
        self.counts[kind] += 1
        self._files[kind].write(data + b"\n")


class Tally:
    """What was met on the way."""

    def __init__(self) -> None:
        self.frames = 0
        self.fills = 0
        self.place = ""
        self.undecoded: dict[str, dict[str, Any]] = {}

    def failed(self, reason: str) -> None:
        """One more that could not be used, at the present place."""
        found = self.undecoded.setdefault(reason, {"count": 0, "first": self.place})
        found["count"] += 1


class ExchangeReplay:
    """One exchange's recording, normalize and aggregate, joined as Redis joins them."""

    def __init__(
        self, exchange: Exchange, survey: Survey, candles: CandleSettings, forced: bool, outputs: Outputs, tally: Tally
    ) -> None:
        from aggregate.stage import Aggregate
        from normalize.mapper import load
        from normalize.recording import Recording
        from normalize.stage import Normalize

        self._keys = Keys("replay", exchange.name)
        self._candles, self._forced = candles, forced
        self._outputs, self._tally = outputs, tally
        self._own_clock = survey.own_clock
        self._recording = Recording(load(exchange), survey.start.get(exchange.name, 0))
        self._normalize = Normalize(self._keys, exchange, candles)
        self._aggregate = Aggregate(self._keys, exchange.name)
        self._number = 0
        self._in_step(
            self._normalize, lambda step: self._normalize.learn(survey.instruments[exchange.name].values(), step)
        )

    def feed(self, line: Line, frame: Frame) -> None:
        """One recorded frame."""
        own_clock = line.path in self._own_clock
        for written in self._recording.follow(self._asked(frame), str(line.path), own_clock=own_clock):
            self._take(written.writer, written.frame)

    def end(self) -> None:
        """No more frames: young gaps are told, open candles written as partial."""
        for written in self._recording.end():
            self._take(written.writer, written.frame)
        self._in_step(self._normalize, self._normalize.finish)
        self._in_step(self._aggregate, self._aggregate.finish)

    def report(self) -> Mapping[str, Any]:
        """Normalize's own counts."""
        return self._normalize.report()

    def _asked(self, frame: Frame) -> Frame:
        """A recorded subscription keeps its settings unless the command line asks for others."""
        if frame.kind != "subscription" or not self._forced:
            return frame
        try:
            data = _SUBSCRIPTION.decode(frame.data)
        except msgspec.DecodeError:
            return frame
        data = msgspec.structs.replace(data, timeframes=self._candles.timeframes, grace=self._candles.grace)
        return msgspec.structs.replace(frame, data=encode(data).decode())

    def _take(self, writer: int, frame: Frame) -> None:
        self._number += 1
        entry = Entry(b"%d-0" % self._number, pack(RawEntry(writer, self._number, (frame,))))
        self._in_step(self._normalize, lambda step: self._normalize.process(entry, step))
        if self._number % SAVE_EVERY == 0:
            # What a live stage forgets when it has saved, this one must forget as well.
            for stage in (self._normalize, self._aggregate):
                stage.save(Step(self._keys, stage.name))

    def _in_step(self, stage: Any, work: Callable[[Step], None]) -> None:
        step = Step(self._keys, stage.name)
        work(step)
        for command in step.commands():
            if command[0] == "XADD":
                self._append(command)

    def _append(self, command: Command) -> None:
        """What one XADD would have appended goes to its file, and on to aggregate when it is its input."""
        stream, fields = command[1], command[command.index("*") + 1 :]
        data = fields[-1]
        assert isinstance(data, bytes)
        if stream == self._keys.trade:
            label, value = fields[0], fields[1]
            assert isinstance(label, bytes)
            assert isinstance(value, bytes)
            self._write_trade(label, value, data)
            entry = Entry(b"%d-0" % self._number, {label: value, b"data": data})
            self._in_step(self._aggregate, lambda step: self._aggregate.process(entry, step))
        elif stream == self._keys.dead:
            self._tally.failed(_DEAD.decode(data).reason)
            self._outputs.write("dead", data)
        else:
            self._outputs.write(str(stream).split(":")[1], data)

    def _write_trade(self, label: bytes, value: bytes, data: bytes) -> None:
        if label == b"symbol":
            self._tally.fills += _TRADE.decode(data).fills
            self._outputs.write("trade", data)
        elif value == b"coverage":
            self._outputs.write("coverage", data)


class Replay:
    """The whole input as one stream, each exchange's frames through stages of its own."""

    def __init__(
        self, paths: Sequence[Path], default: Exchange | None, candles: CandleSettings, forced: bool, outputs: Outputs
    ) -> None:
        self._paths = paths
        self._default = default
        self._candles, self._forced = candles, forced
        self._outputs = outputs
        self._tally = Tally()
        self._lines: dict[str, ExchangeReplay] = {}
        self._survey = Survey(0, frozenset(), {}, {}, {})

    def survey(self) -> int:
        """Looks ahead over all files; the number of their lines."""
        from normalize.mapper import load

        mappers = {name: load(exchange) for name, exchange in EXCHANGES.items()}
        listed: dict[str, dict[str, Instrument]] = {name: {} for name in EXCHANGES}
        total, own_clock = 0, set()
        exchanges: dict[Path, Exchange] = {}
        start: dict[str, int] = {}
        for line in lines(self._paths):
            total, frame = total + 1, line.frame
            if frame is None:
                continue
            if frame.kind == "clock":
                own_clock.add(line.path)
            exchange = exchange_of_connection(frame.conn) or self._default
            if exchange is None:
                continue
            exchanges.setdefault(line.path, exchange)
            mapper = mappers[exchange.name]
            if exchange.name not in start and (time := frame.ts or mapper.time(frame)) is not None:
                start[exchange.name] = time
            if frame.kind == "rest":
                for instrument in _listed(mapper, frame, start.get(exchange.name, 0)):
                    listed[exchange.name].setdefault(instrument.instrument, instrument)
        self._survey = Survey(total, frozenset(own_clock), exchanges, start, listed)
        return total

    def run(self, advance: Callable[[], None]) -> dict[str, Any]:
        """Plays every line, `advance` after each; the summary."""
        for line in lines(self._paths):
            self._tally.place = f"{line.path}:{line.number}"
            if line.frame is None:
                self._refuse(line)
            else:
                self._tally.frames += 1
                self._play(line, line.frame)
            advance()
        for name in sorted(self._lines):
            self._lines[name].end()
        return self._summary()

    def _play(self, line: Line, frame: Frame) -> None:
        exchange = exchange_of_connection(frame.conn) or self._default or self._of_file(line, frame)
        if exchange is None:
            fault = DecodeError("no exchange is known for the connection", frame.conn)
            self._refuse(line._replace(fault=fault))
            return
        if exchange.name not in self._lines:
            self._lines[exchange.name] = ExchangeReplay(
                exchange, self._survey, self._candles, self._forced, self._outputs, self._tally
            )
        self._lines[exchange.name].feed(line, frame)

    def _refuse(self, line: Line) -> None:
        fault = line.fault or DecodeError("line is not a frame")
        self._tally.failed(fault.reason)
        letter = dead_letter(
            self._default.name if self._default else "",
            STAGE,
            fault.reason,
            fault.detail,
            self._tally.place.encode(),
            line.text.decode(errors="replace"),
            line.frame.ts if line.frame else None,
            line.frame.conn if line.frame else None,
        )
        self._outputs.write("dead", encode(letter))

    def _of_file(self, line: Line, frame: Frame) -> Exchange | None:
        """Clock frames name no host: theirs is the exchange of the other frames of the file."""
        return self._survey.exchanges.get(line.path) if frame.kind == "clock" else None

    def _summary(self) -> dict[str, Any]:
        reports = [line.report() for line in self._lines.values()]
        rows = [row for report in reports for row in report["subscriptions"].values()]
        control: Counter[str] = sum((Counter(report["control"]) for report in reports), Counter())
        counts = self._outputs.counts
        return {
            "files": len(self._paths),
            "frames": self._tally.frames,
            "trades": counts["trade"],
            "fills": self._tally.fills,
            "duplicates": sum(row["duplicates"] for row in rows),
            "overlaps": sum(row["overlaps"] for row in rows),
            "reordered": sum(row["reordered"] for row in rows),
            "gaps": sum(row["open_gaps"] for row in rows),
            "missing": sum(row["missing"] for row in rows),
            "instruments": counts["instrument"],
            "candles": counts["candle"],
            "control": dict(sorted(control.items())),
            "undecoded": dict(sorted(self._tally.undecoded.items())),
        }


def _listed(mapper: Any, frame: Frame, start: int) -> Sequence[Instrument]:
    """The instruments of a REST reply; none when it is something else (told when its turn comes)."""
    try:
        read: Sequence[Instrument] = mapper.read(msgspec.structs.replace(frame, ts=frame.ts or start), {}).instruments
    except DecodeError:
        return ()
    return read
