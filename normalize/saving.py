"""An order book as bytes and back: what is saved beside the raw entry it stands at. Pure.

Versioned: what another version of the program saved is refused, never half understood. Fields with a default came
later within the version: bytes without them are those of a book that had no use for them.
"""

from decimal import Decimal

import msgspec

from normalize.asking import Asking
from normalize.book import Book, Side
from normalize.chain import Chain
from normalize.mapper import BookRule, BookUpdate, Level
from normalize.orderbooks import InstrumentBook
from normalize.output import Output
from pipeline.errors import ContractBroken
from pipeline.records import Instrument

VERSION = 1


class SavedUpdate(msgspec.Struct, frozen=True, array_like=True):
    """A BookUpdate without its instrument."""

    snapshot: bool
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    first: int | None
    last: int | None
    previous: int | None
    time: int | None
    checksum: int | None
    asked: int | None
    cut: int | None = None


class SavedBook(msgspec.Struct, frozen=True, array_like=True):
    """A Book; the bounds are those of its sides (keys)."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    bids_bound: str | None
    asks_bound: str | None
    sequence: int | None
    time: int | None
    sound: bool
    cut: bool = False


class SavedChain(msgspec.Struct, frozen=True, array_like=True):
    """A Chain; `book` null where it is the one shown, which is saved once."""

    connection: str
    born: int
    reason: str | None
    shown: bool
    book: SavedBook | None
    fresh: bool
    renewing: bool
    held: tuple[SavedUpdate, ...]
    crossed: int | None
    alive: int | None
    owing: bool = False


class Saved(msgspec.Struct, frozen=True):
    """An InstrumentBook."""

    version: int
    instrument: Instrument
    output: Output
    asking: Asking
    chains: tuple[SavedChain, ...]
    active: str | None
    book: SavedBook | None
    shown_on: str | None
    cause: str | None
    kept: tuple[int, SavedUpdate] | None
    born: int
    now: int
    received: int | None
    offset: int
    last_message: int | None
    invalid: int
    turned: tuple[bool, int] | None = None


class _Version(msgspec.Struct, frozen=True):
    version: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Saved)
_VERSION = msgspec.msgpack.Decoder(_Version)


def save(book: InstrumentBook) -> bytes:
    """All that the book remembers. The same history gives the same bytes."""
    chains = book.chains
    return _ENCODER.encode(
        Saved(
            version=VERSION,
            instrument=book.instrument,
            output=book.output,
            asking=book.asking,
            chains=tuple(_chain(chain, chains.book) for chain in chains.every.values()),
            active=chains.active,
            book=_book(chains.book),
            shown_on=chains.shown_on,
            cause=chains.cause,
            kept=None if chains.kept is None else (chains.kept[0], _update(chains.kept[1])),
            born=chains.born,
            now=book.now,
            received=book.received,
            offset=book.offset,
            last_message=book.last_message,
            invalid=book.invalid,
            turned=book.turned,
        )
    )


def restore(data: bytes, rule: BookRule) -> InstrumentBook:
    """The book behind the bytes. Raises ContractBroken for bytes of another version of this program."""
    try:
        if (version := _VERSION.decode(data).version) != VERSION:
            raise ContractBroken(f"order book of version {version}, this program reads {VERSION}")
        saved = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise ContractBroken(f"order book is not ours: {error}") from error
    book = InstrumentBook(saved.instrument, rule)
    book.output, book.asking = saved.output, saved.asking
    book.now, book.received, book.offset = saved.now, saved.received, saved.offset
    book.last_message, book.invalid, book.turned = saved.last_message, saved.invalid, saved.turned
    chains = book.chains
    chains.depth = saved.output.depth
    chains.book = _book_of(saved.book)
    chains.every = {chain.connection: _chain_of(chain, chains.book, saved.instrument) for chain in saved.chains}
    chains.active, chains.shown_on, chains.cause, chains.born = saved.active, saved.shown_on, saved.cause, saved.born
    chains.kept = None if saved.kept is None else (saved.kept[0], _update_of(saved.kept[1], saved.instrument))
    return book


def _update(update: BookUpdate) -> SavedUpdate:
    return SavedUpdate(
        update.snapshot,
        update.bids,
        update.asks,
        update.first,
        update.last,
        update.previous,
        update.time,
        update.checksum,
        update.asked,
        update.cut,
    )


def _update_of(saved: SavedUpdate, instrument: Instrument) -> BookUpdate:
    return BookUpdate(instrument=instrument, **msgspec.structs.asdict(saved))


def _book(book: Book | None) -> SavedBook | None:
    if book is None:
        return None
    bids, asks = book.bids, book.asks
    bounds = [None if side.bound is None else str(side.bound) for side in (bids, asks)]
    return SavedBook(
        tuple(bids.levels), tuple(asks.levels), bounds[0], bounds[1], book.sequence, book.time, book.sound, book.cut
    )


def _book_of(saved: SavedBook | None) -> Book | None:
    if saved is None:
        return None
    book = Book()
    book.sequence, book.time, book.sound, book.cut = saved.sequence, saved.time, saved.sound, saved.cut
    _side_of(book.bids, saved.bids, saved.bids_bound)
    _side_of(book.asks, saved.asks, saved.asks_bound)
    return book


def _side_of(side: Side, levels: tuple[Level, ...], bound: str | None) -> None:
    side.levels, side.keys = list(levels), [side.key(price) for price, _ in levels]
    side.bound = None if bound is None else Decimal(bound)


def _chain(chain: Chain, shown: Book | None) -> SavedChain:
    return SavedChain(
        chain.connection,
        chain.born,
        chain.reason,
        chain.book is not None and chain.book is shown,
        None if chain.book is shown else _book(chain.book),
        chain.fresh,
        chain.renewing,
        tuple(_update(update) for update in chain.held),
        chain.crossed,
        chain.alive,
        chain.owing,
    )


def _chain_of(saved: SavedChain, shown: Book | None, instrument: Instrument) -> Chain:
    chain = Chain(saved.connection, saved.born)
    chain.book = shown if saved.shown else _book_of(saved.book)
    chain.reason, chain.fresh, chain.renewing = saved.reason, saved.fresh, saved.renewing
    chain.hold(_update_of(update, instrument) for update in saved.held)
    chain.crossed, chain.alive, chain.owing = saved.crossed, saved.alive, saved.owing
    return chain
