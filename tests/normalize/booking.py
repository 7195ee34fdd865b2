"""Order books by hand: rules modelled on five venues, and updates in their words."""

import zlib
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, Literal

from normalize.mapper import BookUpdate, Level
from normalize.orderbooks import InstrumentBook, Outcome
from normalize.saving import restore, save
from pipeline.frames import RequestData
from pipeline.records import Instrument, OrderBook
from pipeline.wants import Want

SECOND = 1_000_000_000
MS = 1_000_000
T0 = 1_790_000_000 * SECOND
A, B, C = "wss://venue/ws#1", "wss://venue/ws#2", "wss://venue/ws#3"
Verdict = Literal["apply", "skip", "gap"]

SPOT = Instrument(
    exchange="okx",
    market="spot",
    symbol="BTC-USDT",
    instrument="BTC-USDT",
    time=None,
    received=T0,
    base="BTC",
    quote="USDT",
    status="live",
)
LINEAR = Instrument(
    exchange="okx",
    market="perpetual",
    symbol="BTC-USDT-PERP",
    instrument="BTC-USDT-SWAP",
    time=None,
    received=T0,
    base="BTC",
    quote="USDT",
    status="live",
    contract="linear",
    contract_value="0.01",
)
INVERSE = Instrument(
    exchange="okx",
    market="perpetual",
    symbol="BTC-USD-PERP",
    instrument="BTC-USD-SWAP",
    time=None,
    received=T0,
    base="BTC",
    quote="USD",
    status="live",
    contract="inverse",
    contract_value="100",
)


class Rule:
    """What the rules share; no checksum."""

    levels = 400
    by_request = False
    shared = True
    partial = False

    def link(self, last: int | None, joining: bool, update: BookUpdate) -> Verdict:
        raise NotImplementedError

    def checksum(self, bids: Sequence[Level], asks: Sequence[Level]) -> int | None:
        return None


class Okx(Rule):
    """Snapshots over the socket, then each change names the one before; CRC32 of the best 25 in old recordings."""

    def link(self, last: int | None, joining: bool, update: BookUpdate) -> Verdict:
        if update.last is None or update.previous is None or update.previous == last:
            return "apply"
        if last is None:
            return "gap"
        if update.last <= last:
            return "skip" if joining or update.previous < update.last else "gap"
        return "apply" if joining and update.previous <= last else "gap"

    def checksum(self, bids: Sequence[Level], asks: Sequence[Level]) -> int | None:
        pairs = zip_longest(bids[:25], asks[:25], fillvalue=())
        text = ":".join(chain.from_iterable(chain.from_iterable(pairs)))
        found = zlib.crc32(text.encode())
        return found - (1 << 32) if found >= 1 << 31 else found


class Binance(Rule):
    """Spot: a snapshot by request, then U … u without a hole."""

    levels = 1000
    by_request = True
    partial = True

    def link(self, last: int | None, joining: bool, update: BookUpdate) -> Verdict:
        assert last is not None
        assert update.last is not None
        assert update.first is not None
        if update.last <= last:
            return "skip"
        return "gap" if update.first > last + 1 else "apply"


class Usdm(Rule):
    """USD-M: a snapshot by request; each change names the one before, U is not contiguous."""

    levels = 1000
    by_request = True
    partial = True

    def link(self, last: int | None, joining: bool, update: BookUpdate) -> Verdict:
        assert last is not None
        assert update.last is not None
        assert update.first is not None
        if update.last < last or (update.last == last and not joining):
            return "skip"
        if update.previous == last or (joining and update.first <= last):
            return "apply"
        return "gap"


class Bybit(Rule):
    """Snapshots over the socket at any time, then u + 1."""

    shared = False
    levels = 200

    def link(self, last: int | None, joining: bool, update: BookUpdate) -> Verdict:
        assert last is not None
        assert update.last is not None
        return "skip" if update.last <= last else "apply" if update.last == last + 1 else "gap"


class Kraken(Rule):
    """No numbers: the checksum decides."""

    shared = False
    levels = 10

    def link(self, last: int | None, joining: bool, update: BookUpdate) -> Verdict:
        return "apply"

    def checksum(self, bids: Sequence[Level], asks: Sequence[Level]) -> int | None:
        return Okx().checksum(bids[:10], asks[:10])


def levels(*rows: str) -> tuple[Level, ...]:
    """`"100@2"`: quantity 2 at 100."""
    return tuple((price, quantity) for price, quantity in (row.split("@") for row in rows))


def change(bids: str = "", asks: str = "", **fields: Any) -> BookUpdate:
    """A change: `"100@2 99@0"`."""
    return BookUpdate(
        instrument=fields.pop("instrument", SPOT),
        snapshot=fields.pop("snapshot", False),
        bids=levels(*bids.split()),
        asks=levels(*asks.split()),
        **fields,
    )


def snapshot(bids: str = "100@1 99@1", asks: str = "101@1 102@1", **fields: Any) -> BookUpdate:
    """A snapshot."""
    return change(bids, asks, snapshot=True, **fields)


class Play:
    """An InstrumentBook, told in seconds after T0; keeps what came out."""

    def __init__(self, rule: Any, instrument: Instrument = SPOT, *, saving: bool = True) -> None:
        self.rule = rule
        self.book = InstrumentBook(instrument, rule)
        self.records: list[OrderBook] = []
        self.wants: dict[str, Want] = {}
        self.asked: list[Want] = []
        self.saving = saving

    def update(self, update: BookUpdate, at: float, conn: str = A) -> Outcome:
        return self.keep(self.book.update(conn, update, ns(at)))

    def answer(self, update: BookUpdate, at: float) -> Outcome:
        return self.keep(self.book.answer(update, ns(at)))

    def clock(self, at: float, offset: int | None = 0, **alive: float) -> Outcome:
        """`a=1.5`: connection A was heard at 1.5."""
        heard = {{"a": A, "b": B, "c": C}[name]: ns(last) for name, last in alive.items()}
        return self.keep(self.book.clock(ns(at), offset, heard))

    def clocks(self, begin: float, end: float, step: float = 0.25) -> None:
        for tick in range(round((end - begin) / step) + 1):
            self.clock(begin + tick * step)

    def opened(self, at: float, conn: str = A) -> Outcome:
        return self.keep(self.book.opened(conn, ns(at)))

    def closed(self, at: float, conn: str = A, cause: str = "closed") -> Outcome:
        return self.keep(self.book.closed(conn, cause, ns(at)))

    def lost(self, at: float, cause: str = "lost") -> Outcome:
        return self.keep(self.book.lost(cause, ns(at)))

    def request(self, state: Any, at: float, number: int | None = None, **fields: Any) -> Outcome:
        """What became of the one want there is."""
        ((key, want),) = self.wants.items()
        data = RequestData(key=key, number=want.number if number is None else number, state=state, **fields)
        return self.keep(self.book.request(data, ns(at)))

    def keep(self, outcome: Outcome) -> Outcome:
        self.records += outcome.records
        for key, want in outcome.wants.items():
            if want is None:
                del self.wants[key]
            else:
                self.wants[key] = want
                self.asked.append(want)
        assert self.wants == self.book.wants
        if self.saving:
            # Any step may be the last before a restart.
            saved = save(self.book)
            self.book = restore(saved, self.rule)
            assert save(self.book) == saved
        return outcome

    @property
    def last(self) -> OrderBook:
        return self.records[-1]

    def shown(self) -> list[tuple[int | None, str | None]]:
        """(sequence, reason) of each record that is not the grid's."""
        return [(record.sequence, record.reason) for record in self.records if record.snapshot_time is None]


def ns(at: float) -> int:
    return T0 + round(at * SECOND)


def texts(side: Iterable[Level]) -> str:
    """`"100@2 99@1"`."""
    return " ".join(f"{price}@{quantity}" for price, quantity in side)
