"""One batch of stream entries: decoded, judged and sorted by table. Pure: reads no clock, knows no server.

What cannot be stored for a reason in the entry itself becomes a dead letter, never a changed record.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from pipeline.errors import DecodeError
from pipeline.records import (
    Candle,
    Clock,
    Coverage,
    DeadLetter,
    Gap,
    Instrument,
    Kline,
    OrderBook,
    Quote,
    Rebuild,
    Record,
    Ticker,
)
from pipeline.steps import Entry, dead_letter
from pipeline.timeframes import DAY, MINUTE, WIDTHS
from store import entries as decode
from store.arrived import Arrived
from store.found import Found, InstrumentKey
from store.trades import Trades

STAGE = "store"

R = TypeVar("R", bound=Record)

Validity = tuple[bool, str | None]
"""Whether a book is to be relied on, and why not."""


class Cursor(NamedTuple):
    """How far a stream is stored: the last entry's id and how many entries that were."""

    id: str
    entries: int


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
    """What one read brought, by table. `letters` are the entries that cannot be stored, `skipped` counts the order
    books that need not be.

    `books` holds the points of the grid, each change of validity, and of each instrument the first record besides:
    only the table knows whether that one is a change (`changed_books`).
    """

    def __init__(self, partition: str) -> None:
        self.partition = partition
        self.trades = Trades()
        self.candles: list[Found[Candle]] = []
        self.klines: list[Found[Kline]] = []
        self.quotes: list[Found[Quote]] = []
        self.tickers: list[Found[Ticker]] = []
        self.books: list[Found[OrderBook]] = []
        self.instruments: list[Found[Instrument]] = []
        self.gaps: list[Found[Gap]] = []
        self.coverage: list[Found[Coverage]] = []
        self.rebuilds: list[Found[Rebuild]] = []
        self.clock: tuple[Clock, Entry] | None = None
        self.letters: list[DeadLetter] = []
        self.moves: dict[str, Moved] = {}
        self.ignored = 0
        self.skipped = 0
        self._validity: dict[InstrumentKey, Validity] = {}

    @property
    def entries(self) -> int:
        return sum(move.entries for move in self.moves.values())

    @property
    def holds_rows(self) -> bool:
        """Whether there is more in it than clocks and books that may not be stored."""
        return (
            bool(self.letters or self.trades)
            or any(self._rows())
            or any(found.record.snapshot_time for found in self.books)
        )

    def take(self, kind: str, stream: str, old: str, entries: Sequence[Entry]) -> None:
        """Adds entries of one stream, in order, read after `old`. `kind` as in streams.READERS."""
        take = self._taking(kind)
        controls = self.trades.take(entries) if kind == "trade" and isinstance(entries, Arrived) else None
        for entry in entries if controls is None else controls:
            try:
                if control := entry.fields.get(b"control"):
                    self._take_control(control.decode(errors="replace"), entry)
                else:
                    take(entry)
            except DecodeError as error:
                exchange = self.partition.partition(".")[0]
                self.letters.append(letter(exchange, None, entry, error.reason, error.detail))
        known = self.moves.get(stream)
        start, count = (known.old, known.entries) if known else (old, 0)
        self.moves[stream] = Moved(start, entries[-1].id.decode(), count + len(entries))

    def headers(self) -> dict[InstrumentKey, Record]:
        """Every instrument the rows name, with a record that carries its symbol and market."""
        books = {item.key: item.record for item in self.books}
        return {item.key: item.record for found in self._rows() for item in found} | self.trades.headers() | books

    def partitions(self) -> set[Partition]:
        """The partitions the rows need, each by the start of its day (months are cut by the server)."""
        days = {
            "trades": self.trades.days(),
            "orderbooks": {decode.at(item.record) // DAY for item in self.books},
            "quotes": {item.record.received // DAY for item in self.quotes},
            "tickers": {item.record.received // DAY for item in self.tickers},
        }
        needed = {Partition(table, day * DAY) for table, those in days.items() for day in those}
        needed |= {Partition(_of_width("candles", item.record), _day(item.record.open_time)) for item in self.candles}
        return needed | {
            Partition(_of_width("klines", item.record), _day(item.record.open_time)) for item in self.klines
        }

    def _rows(self) -> tuple[Sequence[Found[Record]], ...]:
        """All but the trades and the books. A header of the instrument's list is as good as any other."""
        return (
            self.instruments, self.coverage, self.gaps, self.rebuilds, self.klines, self.candles, self.tickers,
            self.quotes,
        )  # fmt: skip

    def _taking(self, kind: str) -> Callable[[Entry], None]:
        """What to do with an entry of this kind."""
        taking: dict[str, Callable[[Entry], None]] = {
            "trade": self._take_trade,
            "orderbook": self._take_book,
            "quote": _into(self.quotes, decode.quote),
            "ticker": _into(self.tickers, decode.ticker),
            "candle": _into(self.candles, decode.candle),
            "kline": _into(self.klines, decode.kline),
            "instrument": _into(self.instruments, decode.instrument),
            "gap": _into(self.gaps, decode.gap),
            "rebuild": _into(self.rebuilds, decode.rebuild),
        }
        return taking[kind.partition(":")[0]]

    def _take_trade(self, entry: Entry) -> None:
        self.trades.append(Found(decode.trade(entry), entry))

    def _take_control(self, control: str, entry: Entry) -> None:
        if control == "clock":
            clock = decode.clock(entry)
            self.clock = (clock, entry) if clock.time is not None else self.clock
        elif control == "coverage":
            self.coverage.append(Found(decode.coverage(entry), entry))
        else:
            # Gaps stand in their own stream as well; what a newer version may add is not ours to know.
            self.ignored += 1

    def _take_book(self, entry: Entry) -> None:
        head = decode.book_head(entry)
        key, validity = (head.exchange, head.instrument), (head.valid, head.reason)
        if head.snapshot_time is None and self._validity.get(key) == validity:
            self.skipped += 1
            return
        self.books.append(Found(decode.orderbook(entry), entry))
        self._validity[key] = validity


def _into(found: list[Found[R]], decoded: Callable[[Entry], R]) -> Callable[[Entry], None]:
    def take(entry: Entry) -> None:
        found.append(Found(decoded(entry), entry))

    return take


def letter(exchange: str, received: int | None, entry: Entry, reason: str, detail: str) -> DeadLetter:
    """The dead letter of a stream entry."""
    frame = entry.fields.get(b"data", b"").decode(errors="replace")
    return dead_letter(exchange, STAGE, reason, detail, entry.id, frame, received, None)


def latest(found: Sequence[Found[R]], name: Callable[[R], tuple[str | int, ...]]) -> list[Found[R]]:
    """Of records in stream order the last one of each name within its instrument: one statement may write a row once
    only."""
    return list({(*item.key, *name(item.record)): item for item in found}.values())


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


def changed_books(
    books: Sequence[Found[OrderBook]], known: dict[InstrumentKey, Validity]
) -> tuple[list[Found[OrderBook]], dict[InstrumentKey, Validity]]:
    """The books to store, and what they leave known: those of the grid, and those whose validity is not what was known
    before them in the stream. `known` is what the newest rows say."""
    now = dict(known)
    kept = []
    for found in books:
        validity = (found.record.valid, found.record.reason)
        if found.record.snapshot_time is not None or now.get(found.key) != validity:
            kept.append(found)
        now[found.key] = validity
    return kept, now


def _of_width(table: str, bar: Candle | Kline) -> str:
    return f"{table}_seconds" if WIDTHS[bar.timeframe] < MINUTE else f"{table}_minutes"


def _day(time: int) -> int:
    return time - time % DAY
