"""What a venue's mapper gives to normalize: one frame in, records out. No I/O, no clock, no memory.

A further exchange is a further file `normalize/exchanges/<module>.py` with a class `Mapper`.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Literal, NamedTuple, Protocol

import msgspec

from pipeline.errors import DecodeError
from pipeline.exchanges import Exchange
from pipeline.frames import Frame
from pipeline.records import Instrument, Kline, Quote, Side, Ticker, Trade

Level = tuple[str, str]
"""(price, native quantity) as the venue spelt them, both checked to be plain decimals."""


class BookUpdate(msgspec.Struct, frozen=True, gc=False):
    """One change of one order book, in the venue's own words and units.

    `snapshot`: it replaces the book. `first` … `last` are the numbers of the changes in it, `previous` the number it
    follows; null where the venue does not tell. A quantity of zero, however spelt, deletes its level. `checksum` is
    the venue's own over the book after this change, null where there is none (or where it is dead). `asked` is how
    many levels a side were asked for, of a snapshot by REST: fewer in the answer mean that the book has no more.
    `cut` is how many levels a side a channel of nothing but snapshots has (OKX `books5`, Binance `depth20`), null for
    a full book: where one connection carries both, the small snapshots must not replace the full book.
    """

    instrument: Instrument
    snapshot: bool
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    first: int | None = None
    last: int | None = None
    previous: int | None = None
    time: int | None = None
    checksum: int | None = None
    asked: int | None = None
    cut: int | None = None


class BookRule(Protocol):
    """How a venue's order books are kept. Pure."""

    levels: int
    """Kept a side; the worst go when there are more."""
    by_request: bool
    """Whether the first snapshot has to be asked for (REST) or comes over the socket by itself."""
    shared: bool
    """Whether the numbers are the same on every connection, so that one chain can go on from another's book."""
    partial: bool
    """Whether a full snapshot leaves worse levels unknown which later changes may touch (Binance), or the venue
    keeps exactly `levels` for us (OKX)."""

    def link(self, last: int | None, joining: bool, update: BookUpdate) -> Literal["apply", "skip", "gap"]:
        """Whether a change (not a snapshot) follows a book that stands at `last`. `joining`: it would be the first
        after the snapshot."""

    def checksum(self, bids: Sequence[Level], asks: Sequence[Level]) -> int | None:
        """The venue's checksum of the book, best levels first; null where it has none to compare."""


class Reading(NamedTuple):
    """What one frame says. `control` names a frame that carries no market data (an acknowledgement, a
    pong …); `faults` are its elements that could not be used, beside the good ones."""

    trades: tuple[Trade, ...] = ()
    instruments: tuple[Instrument, ...] = ()
    books: tuple[BookUpdate, ...] = ()
    quotes: tuple[Quote, ...] = ()
    tickers: tuple[Ticker, ...] = ()
    klines: tuple[Kline, ...] = ()
    faults: tuple[DecodeError, ...] = ()
    control: str | None = None


class Prints(NamedTuple):
    """Trades as they were printed, in columns. Each says what a record of it would, whose `sequence` is in `numbers`
    and plainly spelt in `ids`; none covers several numbers or has a condition. `contracts` are null for spot. The
    texts need no escapes in JSON."""

    instruments: Sequence[Instrument]
    ids: Sequence[str]
    numbers: Sequence[int]
    times: Sequence[int]
    prices: Sequence[str]
    sizes: Sequence[str]
    sides: Sequence[Side]
    contracts: Sequence[str | None]


class Mapper(Protocol):
    """One venue's frames."""

    trade_channels: frozenset[str]
    """Channels that prove an instrument's trades are seen."""
    book_channels: frozenset[str]
    """Channels whose updates keep an order book."""
    book_rule: BookRule
    lowest_number: int
    """The lowest with which the venue may begin to number an instrument's trades, at a listing or another one."""

    def read(self, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
        """The records of a `ws` or `rest` frame whose `ts` is known. `instruments`: by the venue's id, what is
        known so far. Trades come in the venue's order (pages by REST too), of epoch 0. Raises DecodeError when the
        whole frame is of no use."""

    def trade(self, frame: Frame, instruments: Mapping[str, Instrument]) -> Trade | None:
        """As `read`, of a `ws` frame that came in: the trade, where the frame is the commonest there is and says one
        trade and nothing else. None for any other, which `read` has to judge. Cheaper, never different."""

    def short(self, frames: Sequence[Frame]) -> list[bool]:
        """Of each frame, whether `trade` or `prints` may know what it says."""

    def prints(self, frames: Sequence[Frame], instruments: Mapping[str, Instrument]) -> Prints | None:
        """As `trade`, of several `short` frames at once whose `ts` is known: a row for each. None where one of them has
        to be looked at alone. Cheaper, never different."""

    def numbers(self, frame: Frame) -> list[int]:
        """The numbers of the trades in a page by REST, of those too of which nothing else can be read. Raises
        DecodeError."""

    def time(self, frame: Frame) -> int | None:
        """The newest time (ns) the venue wrote into the frame, or None: the clock of recordings that kept none."""


def load(exchange: Exchange) -> Mapper:
    """The exchange's mapper, its module found by name."""
    mapper: Mapper = import_module(f"normalize.exchanges.{exchange.module}").Mapper()
    return mapper
