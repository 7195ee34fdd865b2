"""The whole input as one stream: each partition's frames through stages of its own, into one target."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.commands._replay.chain import Asked, Chain
from pipeline.commands._replay.lines import Line, Survey, exchange_of, lines
from pipeline.commands._replay.pace import Pace
from pipeline.commands._replay.tally import Tally
from pipeline.commands._replay.target import Target
from pipeline.errors import DecodeError
from pipeline.exchanges import Exchange
from pipeline.frames import Frame, RawEntry
from pipeline.recordings import RecordedFrame
from pipeline.records import encode
from pipeline.steps import dead_letter

STAGE = "replay"


class Options(NamedTuple):
    """`default`: the exchange where nothing tells. `open_end`: the stream is left as it stands at the last frame."""

    default: Exchange | None
    asked: Asked
    open_end: bool
    pace: Pace


class Plain:
    """A recording by others: the writer, the numbers and, where it brings none, the clock are made up for it."""

    def __init__(self, exchange: Exchange, survey: Survey, options: Options, target: Target, tally: Tally) -> None:
        from normalize.mapper import load
        from normalize.recording import Recording

        self.chain = Chain(exchange, exchange.name, options.asked.candles, target, tally)
        self._options = options
        self._own_clock = survey.own_clock
        self._recording = Recording(load(exchange), survey.start.get(exchange.name, 0))
        self._number = 0
        self.chain.learn(survey.instruments[exchange.name].values())

    def feed(self, line: Line, frame: RecordedFrame) -> None:
        """One recorded frame."""
        asked = self._options.asked.put(frame.frame)
        for written in self._recording.follow(asked, str(line.path), own_clock=line.path in self._own_clock):
            self._take(written.writer, written.frame)

    def end(self) -> None:
        """No more frames."""
        if not self._options.open_end:
            for written in self._recording.end():
                self._take(written.writer, written.frame)
            self.chain.finish()

    def _take(self, writer: int, frame: Frame) -> None:
        self._number += 1
        self.chain.take(RawEntry(writer, self._number, (frame,)))


class Recorded:
    """A partition that `record` wrote: its own raw entries again, with their writer, numbers and clocks."""

    def __init__(
        self, exchange: Exchange, partition: str, survey: Survey, options: Options, target: Target, tally: Tally
    ) -> None:
        whole = partition in survey.whole
        # From the first entry on, live knew no more than we do: what the frames do not tell, it did not know either.
        candles = options.asked.candles if options.asked.forced or not whole else None
        self.chain = Chain(exchange, partition, candles, target, tally)
        self._options, self._tally = options, tally
        self._place = ""
        self._at: tuple[str | None, int, int] | None = None
        self._frames: list[Frame] = []
        if not whole:
            self.chain.learn(survey.instruments[exchange.name].values())

    def feed(self, line: Line, frame: RecordedFrame) -> None:
        """One recorded frame; the entry before is played when another one begins."""
        at = (frame.entry, frame.w or 0, frame.n or 0)
        if at != self._at:
            self._play()
            self._at, self._place = at, line.place
        self._frames.append(self._options.asked.put(frame.frame))

    def end(self) -> None:
        """No more frames."""
        self._play()
        if not self._options.open_end:
            self.chain.finish()

    def _play(self) -> None:
        if self._at is None:
            return
        entry_id, writer, number = self._at
        here, self._tally.place = self._tally.place, self._place
        self.chain.take(RawEntry(writer, number, tuple(self._frames)), entry_id.encode() if entry_id else None)
        self._tally.place = here
        self._at, self._frames = None, []


class Player:
    """Plays every line of every file, in order."""

    def __init__(self, paths: Sequence[Path], survey: Survey, options: Options, target: Target) -> None:
        self._paths = paths
        self._survey = survey
        self._options = options
        self._target = target
        self._tally = Tally()
        self._plain: dict[str, Plain] = {}
        self._recorded: dict[str, Recorded] = {}

    def run(self, advance: Callable[[], None]) -> dict[str, Any]:
        """Plays, `advance` after each line; the summary."""
        pace = self._options.pace
        for line in lines(self._paths):
            self._tally.place = line.place
            if line.frame is None:
                self._refuse(line)
            else:
                if pace.waits:
                    self._target.flush()
                    pace.wait(line.frame.ts)
                self._tally.frames += 1
                self._play(line, line.frame)
            advance()
        for part in self._parts():
            part.end()
        self._target.flush()
        reports = [(part.chain.exchange, part.chain.report()) for part in self._parts()]
        return {"files": len(self._paths), **self._tally.summary(reports)}

    def _parts(self) -> list[Plain | Recorded]:
        plain = [self._plain[name] for name in sorted(self._plain)]
        return [*plain, *(self._recorded[name] for name in sorted(self._recorded))]

    def _play(self, line: Line, frame: RecordedFrame) -> None:
        exchange = exchange_of(frame, self._options.default) or self._of_file(line, frame)
        if exchange is None:
            what, name = ("partition", frame.partition) if frame.partition else ("connection", frame.conn)
            self._refuse(line._replace(fault=DecodeError(f"no exchange is known for the {what}", name or "")))
        elif frame.partition is not None:
            self._recorded_of(exchange, frame.partition).feed(line, frame)
        else:
            self._plain_of(exchange).feed(line, frame)

    def _recorded_of(self, exchange: Exchange, partition: str) -> Recorded:
        if partition not in self._recorded:
            self._recorded[partition] = Recorded(
                exchange, partition, self._survey, self._options, self._target, self._tally
            )
        return self._recorded[partition]

    def _plain_of(self, exchange: Exchange) -> Plain:
        if exchange.name not in self._plain:
            self._plain[exchange.name] = Plain(exchange, self._survey, self._options, self._target, self._tally)
        return self._plain[exchange.name]

    def _refuse(self, line: Line) -> None:
        """A dead letter for what belongs to no exchange, or is no frame at all."""
        fault = line.fault or DecodeError("line is not a frame")
        default = self._options.default
        letter = dead_letter(
            default.name if default else "",
            STAGE,
            fault.reason,
            fault.detail,
            line.place.encode(),
            line.text.decode(errors="replace"),
            line.frame.ts if line.frame else None,
            line.frame.conn if line.frame else None,
        )
        self._tally.failed(fault.reason)
        self._target.refused(encode(letter))

    def _of_file(self, line: Line, frame: RecordedFrame) -> Exchange | None:
        """Clock frames name no host: theirs is the exchange of the other frames of the file."""
        return self._survey.exchanges.get(line.path) if frame.kind == "clock" else None
