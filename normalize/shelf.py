"""The order books of one partition: each is told what concerns it, and what it answers is written. Pure.

After a restore every book stands where it was saved. Until `caught_up` the events are those that come again: each
book is told those it has not seen, and what it says to them was said before.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from normalize import saving
from normalize.checkpoints import Checkpoint, Checkpoints, Place
from normalize.demands import Demands
from normalize.mapper import BookRule, BookUpdate
from normalize.orderbooks import InstrumentBook, Outcome
from normalize.outlet import Outlet
from normalize.stream import Stream
from pipeline.errors import ContractBroken
from pipeline.frames import ClockData, Frame, RequestData, SubscriptionData
from pipeline.records import Instrument, OrderBook
from pipeline.steps import Step, stream_id
from pipeline.timeframes import SECOND
from pipeline.wants import Want

UNREADABLE = "what was saved of it cannot be read"


class Shelf:
    """`books` by instrument. `enter` begins a raw entry; `event` counts what is told of it (checkpoints.Position)."""

    def __init__(
        self,
        saved: Mapping[bytes, bytes],
        rule: BookRule,
        instruments: Mapping[str, Instrument],
        outlet: Outlet,
        stream: Stream,
    ) -> None:
        self._rule = rule
        self._instruments = instruments
        self._outlet = outlet
        self._stream = stream
        self._start = Place()
        self.event = 0
        self.books: dict[str, InstrumentBook] = {}
        self._names: list[str] = []
        self._demands = Demands(saved)
        self._checkpoints = Checkpoints(saved)
        self._behind: dict[str, Place] = {}
        self._anew = dict.fromkeys(self._checkpoints.unreadable, UNREADABLE)
        for name, checkpoint in self._checkpoints.found.items():
            self._restore(name, checkpoint)
        self._silent = bool(self._behind)

    # Restoring.

    @property
    def behind(self) -> Place | None:
        """Where the book stands that was saved first; null when none is left to be brought up to date."""
        return min(self._behind.values(), key=lambda place: place.position, default=None)

    def lack(self, oldest: bytes) -> None:
        """Raw before entry `oldest` is gone: books saved before it cannot be brought up to date."""
        for name, place in list(self._behind.items()):
            if place.position[0] < stream_id(oldest):
                self._anew[name] = f"raw frames between {place.after} and {oldest.decode()} are gone"
                del self._behind[name]
                self._remove(name)

    def caught_up(self) -> list[str]:
        """Raw was read again up to the cursor; what could not be restored, for people."""
        self._behind.clear()
        self._silent = False
        return [f"order book {name} starts anew: {why}" for name, why in sorted(self._anew.items())]

    # What the stage tells.

    def enter(self, stream: Stream) -> None:
        """The next entry of the raw stream begins."""
        self._stream, self._start, self.event = stream, Place.of(stream), 0
        if self._anew and not self._silent:
            for name in sorted(self._anew):
                self._start_anew(name)
            self._anew.clear()

    def lost(self, cause: str, received: int) -> None:
        """Frames were lost on their way here, or (`writer`) another writer took over."""
        self._each(lambda book: book.lost(cause, received))

    def clock(self, data: ClockData, received: int) -> None:
        """A clock frame."""
        self._each(lambda book: book.clock(received, data.offset, data.connections))

    def closed(self, connection: str, cause: str, received: int) -> None:
        """The connection is gone."""
        self._each(lambda book: book.closed(connection, cause, received))

    def subscription(self, connection: str, data: SubscriptionData, received: int) -> None:
        """The state of a subscription to an order book changed."""
        name = data.instrument
        if data.state in ("unsubscribed", "refused"):
            if (book := self._told(name)) is not None:
                self._take(book.closed(connection, data.state, received))
            return
        if not self._silent:
            self._demands.ask(data)
        if data.state == "subscribed" and name in self._instruments:
            self._open(self._instruments[name])
        if (book := self._told(name)) is not None:
            book.settings(data.depth, data.interval, data.store_interval)
            if data.state == "subscribed":
                self._take(book.opened(connection, received))

    def request(self, data: RequestData, received: int) -> None:
        """What became of a want."""
        name = data.key.split(" ")[1] if " " in data.key else ""
        if (book := self._told(name)) is not None:
            self._take(book.request(data, received))

    def take(self, updates: Iterable[BookUpdate], frame: Frame, received: int) -> None:
        """What one frame says of books: a change on its connection, or an answer by REST."""
        for update in updates:
            self._open(update.instrument)
            if (book := self._told(update.instrument.instrument)) is None:
                continue
            if frame.kind == "rest":
                self._take(book.answer(update, received))
            else:
                self._take(book.update(frame.conn, update, received))

    def know(self, instrument: Instrument) -> None:
        """The instrument was listed (again)."""
        if (book := self._told(instrument.instrument)) is not None:
            book.know(instrument)

    def forget(self, name: str) -> None:
        """The instrument is no more."""
        if name in self.books:
            self._remove(name)
            self._checkpoints.forget(name)
        self._take_back(name)
        self._demands.forget(name)

    def finish(self) -> None:
        """The stream ends (replay): what was held back is shown."""
        self._each(lambda book: book.end())

    def save(self, step: Step) -> None:
        """See Stage."""
        self._demands.save(step)
        self._checkpoints.save(step, self._stream, lambda name: saving.save(self.books[name]))

    @property
    def last_message(self) -> int | None:
        """When the newest frame of any book came in (host time)."""
        times = (book.last_message for book in self.books.values())
        return max((time for time in times if time is not None), default=None)

    @property
    def wants(self) -> Mapping[str, Want]:
        """What is wanted of ingest, by key."""
        return self._demands.wants

    def report(self) -> dict[str, dict[str, Any]]:
        """By instrument."""
        return {name: self.books[name].report() for name in self._names}

    # Inside.

    def _each(self, tell: Callable[[InstrumentBook], Outcome]) -> None:
        for name in self._names:
            if (book := self._told(name)) is not None:
                self._take(tell(book))

    def _told(self, name: str) -> InstrumentBook | None:
        """The instrument's book, if the event is one that it has not seen."""
        if (place := self._behind.get(name)) is not None:
            if place.position > (stream_id(self._start.after.encode()), self.event):
                return None
            del self._behind[name]
        return self.books.get(name)

    def _take(self, outcome: Outcome) -> None:
        if self._silent:
            return
        for record in outcome.records:
            self._outlet.emit("orderbook", record)
        for key, want in outcome.wants.items():
            self._outlet.want(key, want)
            self._demands.want(key, want)

    def _take_back(self, name: str) -> None:
        """Nothing is wanted for the instrument any more."""
        self._take(Outcome((), dict.fromkeys(self._demands.wanted_for(name))))

    def _open(self, instrument: Instrument) -> None:
        """A book of the instrument, where there is none; it counts from the present event."""
        name = instrument.instrument
        if name in self.books or self._silent:
            return
        self._begin(self._instruments.get(name, instrument), 0)

    def _start_anew(self, name: str) -> None:
        """The book could not be restored: nothing is known of it, and what it wanted is taken back."""
        self._take_back(name)
        if (instrument := self._instruments.get(name)) is None:
            self._checkpoints.forget(name)
            return
        received = self._stream.received or 0
        # The numbers it used are forgotten, but must only rise: no book wants something each second.
        self._begin(instrument, received // SECOND)
        self._outlet.emit("orderbook", unknown(instrument, self._demands.of(name).depth, received))

    def _begin(self, instrument: Instrument, number: int) -> None:
        """A new book, saved as it is before the present event."""
        name, asked = instrument.instrument, self._demands.of(instrument.instrument)
        book = InstrumentBook(instrument, self._rule)
        book.asking.number = number
        book.settings(asked.depth, asked.interval, asked.store_interval)
        place = msgspec.structs.replace(self._start, event=self.event)
        self._checkpoints.begin(name, place, self._stream.now, saving.save(book))
        self._put(name, book)

    def _restore(self, name: str, checkpoint: Checkpoint) -> None:
        try:
            self._put(name, saving.restore(checkpoint.book, self._rule))
        except (ContractBroken, ArithmeticError, ValueError):
            self._anew[name] = UNREADABLE
        else:
            self._behind[name] = checkpoint.place

    def _put(self, name: str, book: InstrumentBook) -> None:
        if name not in self.books:
            insort(self._names, name)
        self.books[name] = book

    def _remove(self, name: str) -> None:
        del self.books[name]
        self._names.remove(name)


def unknown(instrument: Instrument, depth: int, received: int) -> OrderBook:
    """The record of a book of which nothing is known."""
    return OrderBook(
        exchange=instrument.exchange,
        market=instrument.market,
        symbol=instrument.symbol,
        instrument=instrument.instrument,
        time=None,
        received=received,
        bids=(),
        asks=(),
        depth=depth,
        valid=False,
        reason="waiting",
    )
