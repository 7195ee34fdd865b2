"""One batch of stream entries: decoded, judged and turned into rows. Pure: reads no clock, knows no server.

What cannot be stored for a reason in the entry itself becomes a dead letter, never a changed record.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from pipeline.errors import DecodeError
from pipeline.records import Candle, Clock, Coverage, DeadLetter, Gap, Instrument, Record, Trade
from pipeline.steps import Entry, dead_letter
from pipeline.timeframes import DAY, MINUTE, SECOND, WIDTHS
from store.copytext import LAST_SECOND

OLDEST = 400 * DAY
"""A time further before its arrival is an error of somebody's: it would make partitions without end."""
NEWEST = DAY

STAGE = "store"

R_co = TypeVar("R_co", bound=Record, covariant=True)

InstrumentKey = tuple[str, str]
"""(exchange, the exchange's own id)."""


class Found(NamedTuple, Generic[R_co]):
    """A record and the stream entry it came in."""

    record: R_co
    entry: Entry

    @property
    def key(self) -> InstrumentKey:
        return self.record.exchange, self.record.instrument


class Moved(NamedTuple):
    """How far a batch moves one stream's cursor: from `old` to `new` over `entries` entries."""

    old: str
    new: str
    entries: int


class Partition(NamedTuple):
    """A partition that must be there: the table it belongs to and a time (ns) inside of it."""

    parent: str
    at: int


class Batch:
    """What one read brought, by table. `letters` are the entries that cannot be stored."""

    def __init__(self, partition: str) -> None:
        self.partition = partition
        self.trades: list[Found[Trade]] = []
        self.candles: list[Found[Candle]] = []
        self.instruments: list[Found[Instrument]] = []
        self.gaps: list[Found[Gap]] = []
        self.coverage: list[Found[Coverage]] = []
        self.clock: tuple[Clock, Entry] | None = None
        self.letters: list[DeadLetter] = []
        self.moves: dict[str, Moved] = {}
        self.ignored = 0

    @property
    def entries(self) -> int:
        return sum(move.entries for move in self.moves.values())

    @property
    def holds_rows(self) -> bool:
        """Whether there is more in it than the clock."""
        return any((self.trades, self.candles, self.instruments, self.gaps, self.coverage, self.letters))

    def take(self, kind: str, stream: str, old: str, entries: Sequence[Entry]) -> None:
        """Adds entries of one stream, in order, read after `old`. `kind` as in streams.READERS."""
        for entry in entries:
            self._take(kind, entry)
        known = self.moves.get(stream)
        start, count = (known.old, known.entries) if known else (old, 0)
        self.moves[stream] = Moved(start, entries[-1].id.decode(), count + len(entries))

    def headers(self) -> dict[InstrumentKey, Record]:
        """Every instrument the rows name, with a record that carries its symbol and market."""
        found: tuple[Found[Record], ...] = (*self.instruments, *self.coverage, *self.gaps, *self.candles, *self.trades)
        return {item.key: item.record for item in found}

    def partitions(self) -> set[Partition]:
        """The partitions the rows need, each by the start of its day (months are cut by the server)."""
        needed = {Partition("trades", _day(item.record.time or 0)) for item in self.trades}
        for item in self.candles:
            parent = "candles_seconds" if WIDTHS[item.record.timeframe] < MINUTE else "candles_minutes"
            needed.add(Partition(parent, _day(item.record.open_time)))
        return needed

    def bury(self, found: Found[Record], reason: str, detail: str) -> None:
        """Makes a dead letter of an entry."""
        self.letters.append(letter(found.record.exchange, found.record.received, found.entry, reason, detail))

    def _take(self, kind: str, entry: Entry) -> None:
        control = entry.fields.get(b"control", b"").decode()
        try:
            if control == "clock":
                clock = _decode(_CLOCK, entry)
                self.clock = (clock, entry) if clock.time is not None else self.clock
            elif control == "coverage":
                self.coverage.append(Found(_decode(_COVERAGE, entry), entry))
            elif control:
                # Gaps stand in their own stream as well; what a newer version may add is not ours to know.
                self.ignored += 1
            elif kind == "trade":
                self.trades.append(Found(_sound_time(_decode(_TRADE, entry)), entry))
            elif kind.startswith("candle:"):
                self.candles.append(Found(_sound_window(_decode(_CANDLE, entry)), entry))
            elif kind == "instrument":
                self.instruments.append(Found(_decode(_INSTRUMENT, entry), entry))
            else:
                self.gaps.append(Found(_decode(_GAP, entry), entry))
        except DecodeError as error:
            exchange = self.partition.partition(".")[0]
            self.letters.append(letter(exchange, None, entry, error.reason, error.detail))


_TRADE = msgspec.json.Decoder(Trade)
_CANDLE = msgspec.json.Decoder(Candle)
_INSTRUMENT = msgspec.json.Decoder(Instrument)
_GAP = msgspec.json.Decoder(Gap)
_COVERAGE = msgspec.json.Decoder(Coverage)
_CLOCK = msgspec.json.Decoder(Clock)

S = TypeVar("S", bound=msgspec.Struct)


def letter(exchange: str, received: int | None, entry: Entry, reason: str, detail: str) -> DeadLetter:
    """The dead letter of a stream entry."""
    frame = entry.fields.get(b"data", b"").decode(errors="replace")
    return dead_letter(exchange, STAGE, reason, detail, entry.id, frame, received, None)


def latest_candles(found: Sequence[Found[Candle]]) -> list[Found[Candle]]:
    """Of candles in stream order the last one of each window: one statement may write a row once only."""
    newest: dict[tuple[str, str, str, int], Found[Candle]] = {}
    for item in found:
        record = item.record
        newest[record.exchange, record.instrument, record.timeframe, record.open_time] = item
    return list(newest.values())


def latest_gaps(found: Sequence[Found[Gap]]) -> list[Found[Gap]]:
    """Of gap records in stream order the last one of each gap."""
    newest: dict[tuple[str, str, int, int], Found[Gap]] = {}
    for item in found:
        record = item.record
        newest[record.exchange, record.instrument, record.epoch, record.from_sequence] = item
    return list(newest.values())


def rounds(found: Sequence[Found[Instrument]]) -> list[list[Found[Instrument]]]:
    """Instrument records split so that each list holds an instrument once, in order."""
    split: list[list[Found[Instrument]]] = []
    seen: dict[InstrumentKey, int] = {}
    for item in found:
        turn = seen[item.key] = seen.get(item.key, -1) + 1
        if turn == len(split):
            split.append([])
        split[turn].append(item)
    return split


def _decode(decoder: msgspec.json.Decoder[S], entry: Entry) -> S:
    data = entry.fields.get(b"data")
    if data is None:
        raise DecodeError("entry has no data")
    if b"\\u0000" in data:
        raise DecodeError("text holds a NUL, which Postgres cannot keep")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError("not a record", str(error)) from error


def _sound_time(trade: Trade) -> Trade:
    if trade.time is None:
        raise DecodeError("trade has no time")
    _check(trade.time, trade.received)
    return trade


def _sound_window(candle: Candle) -> Candle:
    if candle.timeframe not in WIDTHS:
        raise DecodeError("candle of an unknown time frame", candle.timeframe)
    _check(candle.open_time, candle.received)
    return candle


def _check(time: int, received: int) -> None:
    if not (0 <= time <= LAST_SECOND * SECOND and received - OLDEST <= time <= received + NEWEST):
        raise DecodeError("time out of range", f"time {time}, received {received}")


def _day(time: int) -> int:
    return time - time % DAY
