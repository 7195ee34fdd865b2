"""The order book of one instrument: what of it is shown and what is wanted for it. Pure.

A function of what it is told and nothing else: no clock, no randomness, no network.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from normalize.asking import SECOND, Asking
from normalize.chain import WAITING
from normalize.chains import Chains
from normalize.mapper import BookRule, BookUpdate
from normalize.output import Face, Output
from normalize.sizes import Sizes
from pipeline.frames import RequestData
from pipeline.records import Instrument, OrderBook
from pipeline.wants import Want


class Outcome(NamedTuple):
    """`records` to emit in order; `wants` set (or, null, cleared) by their keys."""

    records: tuple[OrderBook, ...]
    wants: Mapping[str, Want | None]


NOTHING = Outcome((), {})


SLIP = SECOND
"""Frames of several connections may stand in the stream out of the order of their times by so much; by more, the host's
clock stepped back."""


class InstrumentBook:
    """See the methods. `received` is the host's time (ns) of a frame; durations go by how far it advances, so that
    neither a host's clock that steps back nor frames out of order shorten any: `now` is that age.

    `turned`: whether the book is valid, and since when it is so or not. Saved (normalize/saving.py) between any
    two calls it goes on to the same outcomes."""

    def __init__(self, instrument: Instrument, rule: BookRule) -> None:
        self.instrument = instrument
        self.output = Output()
        self.chains = Chains(rule, self.output.depth)
        self.asking = Asking()
        self.now = 0
        self.received: int | None = None
        self.offset = 0
        self.last_message: int | None = None
        self.invalid = 0
        self.turned: tuple[bool, int] | None = None
        self._sizes = Sizes(instrument)
        self._faces: list[Face] = []

    @property
    def wants(self) -> dict[str, Want]:
        """What is wanted now."""
        want, key = self.asking.want, self.asking.key
        return {} if want is None or key is None else {key: want}

    def clock(self, received: int, offset: int | None, connections: Mapping[str, int] | None = None) -> Outcome:
        """A clock frame. `offset`: exchange's clock minus host's; `connections`: the host time of the last frame of
        any sort on each live one, without which quiet books have no grid points at full minutes."""
        self.offset = offset or 0
        self.chains.lived(connections or {})
        self._begin(received)
        chain = self.chains.shown
        if self._faces or self.output.changed or self.asking.key or (chain is not None and chain.crossed is not None):
            return self._end(received)
        # Time alone changes nothing else. Four times a second for each book there is.
        return NOTHING

    def settings(self, depth: int, interval: int, store_interval: int) -> None:
        """What the settings ask for: levels a side, ns, ns."""
        self.output.settings(min(depth, self.chains.rule.levels), interval, store_interval)
        self.chains.depth = self.output.depth

    def know(self, instrument: Instrument) -> None:
        """Facts of the instrument changed. What was shown is shown anew with the next frame."""
        if msgspec.structs.replace(instrument, received=self.instrument.received) != self.instrument:
            self.instrument, self._sizes = instrument, Sizes(instrument)
            self.output.forget()

    def opened(self, connection: str, received: int) -> Outcome:
        """The connection is subscribed: from here on it tells every change. Only so can a book that does not change be
        handed over to it, or be asked for before it does."""
        self._begin(received)
        self.chains.heard(connection, received)
        self.chains.choose(self.now)
        return self._end(received)

    def update(self, connection: str, update: BookUpdate, received: int) -> Outcome:
        """A frame of the socket."""
        chain = self.chains.heard(connection, received)
        self._begin(received)
        self.last_message = received
        if self.chains.take(chain, update, self.now):
            self.output.changed = True
        return self._end(received)

    def answer(self, snapshot: BookUpdate, received: int) -> Outcome:
        """A snapshot by REST. It heals what waits for one; where no chain is yet it is kept a while."""
        self._begin(received)
        self.chains.answer(snapshot, self.now)
        return self._end(received)

    def request(self, request: RequestData, received: int) -> Outcome:
        """What became of a want."""
        self._begin(received)
        wants: dict[str, Want | None] = {}
        if self.asking.told(request, self.now):
            wants[request.key] = None
            chain = self.chains.shown
            if chain is not None and not self.chains.rule.by_request:
                # Its connection is gone, or its subscription.
                self._drop(chain.connection, "closed")
        outcome = self._end(received)
        return outcome._replace(wants={**wants, **outcome.wants})

    def closed(self, connection: str, cause: str, received: int) -> Outcome:
        """The connection is gone, or its subscription."""
        self._begin(received)
        chain, want = self.chains.every.get(connection), self.asking.want
        if chain is not None and cause == "unsubscribed" and want is not None and want.connection == connection:
            # Our own resync: the subscription comes back, with a snapshot.
            chain.fail(chain.reason or want.reason)
        else:
            self._drop(connection, cause)
        return self._end(received)

    def lost(self, cause: str, received: int) -> Outcome:
        """Frames were lost on their way here, or another writer took over (`writer`: its connections are others)."""
        self._begin(received)
        self.chains.lose(cause, self.now)
        self.asking.doubt(self.now)
        return self._end(received)

    def end(self) -> Outcome:
        """The stream ends: a change that was held back for the interval is shown. The grid has nothing more to show:
        nobody knows whether the book stood so at its next point."""
        face = None
        if self.received is not None:
            at = self.received + self.offset
            face = self.output.change(self.chains.book, self.chains.flaw, at, self.now, last=True)
        return NOTHING if face is None or self.received is None else Outcome((self._record(face, self.received),), {})

    def report(self) -> dict[str, object]:
        """The fields are in docs/architecture.md."""
        book, flaw = self.chains.book, self.chains.flaw
        return {
            "symbol": self.instrument.symbol,
            "connection": self.chains.active,
            "valid": flaw is None,
            "reason": flaw,
            "since": None if self.turned is None else self.turned[1],
            "sequence": None if book is None else book.sequence,
            "last_message": self.last_message,
            "resyncs": self.asking.resyncs,
            "snapshots": self.asking.snapshots,
            "invalid": self.invalid,
            "chains": len(self.chains.every),
            "levels": [0, 0] if book is None else [len(book.bids.levels), len(book.asks.levels)],
        }

    def _begin(self, received: int) -> None:
        """Time goes on; the grid shows the book as it stood before the frame."""
        if self.received is not None and received > self.received:
            self.now += received - self.received
        if self.received is None or not 0 < self.received - received <= SLIP:
            self.received = received
        chain = self.chains.shown
        alive = None if chain is None or chain.alive is None else chain.alive + self.offset
        self._faces = self.output.mark(self.chains.book, received + self.offset, alive)

    def _end(self, received: int) -> Outcome:
        """What follows from the frame: records, then wants."""
        chains = self.chains
        if (turned := chains.turn()) is not None:
            self.output.turn(turned[0], numbered=turned[1])
        flaw, valid = chains.flaw, self.output.valid
        if self.turned is None or self.turned[0] != (flaw is None):
            self.turned = (flaw is None, received)
        face = self.output.change(chains.book, flaw, received + self.offset, self.now)
        if face is not None:
            self._faces.append(face)
            self.invalid += valid is True and flaw is not None
        need, chain = chains.need(self.now), chains.shown
        first = chain is not None and chain.reason == WAITING
        wants = self.asking.settle(need, self.instrument.instrument, first, self.now, received)
        if chain is not None and chain.live:
            chain.renew(need is not None and need.what == "snapshot")
        return Outcome(tuple([self._record(face, received) for face in self._faces]), wants)

    def _drop(self, connection: str, cause: str) -> None:
        if self.chains.drop(connection, cause, self.now):
            self.asking.turned()

    def _record(self, face: Face, received: int) -> OrderBook:
        instrument = self.instrument
        bids, asks = self._sizes.levels(face.bids, face.asks)
        return OrderBook(
            exchange=instrument.exchange,
            market=instrument.market,
            symbol=instrument.symbol,
            instrument=instrument.instrument,
            time=face.time,
            received=received,
            bids=bids,
            asks=asks,
            depth=self.output.depth,
            unit=self._sizes.unit,
            sequence=face.sequence,
            snapshot_time=face.snapshot_time,
            valid=face.reason is None,
            reason=face.reason,
        )
