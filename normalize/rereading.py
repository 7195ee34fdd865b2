"""Raw read again at a restore: only the order books learn from it, and only what they do not know yet. Pure.

Every rule here is that of stage.py for the same frame; what could not be used there cannot be used here.
"""

from collections.abc import Callable, Mapping

import msgspec

from normalize.mapper import Mapper
from normalize.shelf import Shelf
from normalize.stream import Stream, clock_of
from pipeline.errors import ContractBroken, DecodeError
from pipeline.frames import Frame, RequestData, SubscriptionData, unpack
from pipeline.records import Instrument
from pipeline.steps import Entry

_SUBSCRIPTION = msgspec.json.Decoder(SubscriptionData)
_REQUEST = msgspec.json.Decoder(RequestData)


class Rereader:
    """`stream`: where raw stood behind the entry after which it is read again. `instruments`: what is known now."""

    def __init__(self, mapper: Mapper, shelf: Shelf, instruments: Mapping[str, Instrument], stream: Stream) -> None:
        self._mapper = mapper
        self._shelf = shelf
        self._instruments = instruments
        self._stream = stream
        self._kinds: dict[str, Callable[[Frame, int], None]] = {
            "ws": self._data,
            "rest": self._data,
            "open": self._open,
            "close": self._close,
            "clock": lambda frame, received: shelf.clock(clock_of(frame), received),
            "subscription": self._subscription,
            "request": lambda frame, received: shelf.request(_REQUEST.decode(frame.data), received),
        }

    def take(self, entry: Entry) -> None:
        """The next entry."""
        stream = self._stream
        self._shelf.enter(stream)
        try:
            raw = unpack(entry.fields)
        except ContractBroken:
            stream.entry = entry.id.decode()
            return
        arrival = stream.admit(raw)
        if arrival in ("writer", "lost"):
            self._shelf.lost(arrival, stream.received or 0)
        if arrival == "writer":
            stream.take_over()
        if arrival not in ("repeated", "stale"):
            for frame in raw.frames:
                self._frame(frame)
        stream.entry = entry.id.decode()

    def _frame(self, frame: Frame) -> None:
        self._shelf.event += 1
        received = self._stream.advance(frame)
        try:
            self._kinds[frame.kind](frame, received)
        except (DecodeError, msgspec.DecodeError):
            # It became a dead letter when it came first.
            return

    def _data(self, frame: Frame, received: int) -> None:
        if frame.ts is None:
            frame = msgspec.structs.replace(frame, ts=received)
        reading = self._mapper.read(frame, self._instruments)
        for instrument in reading.instruments:
            if (known := self._instruments.get(instrument.instrument)) is not None:
                self._shelf.know(msgspec.structs.replace(instrument, symbol=known.symbol))
        if not self._stream.late(frame):
            self._shelf.take(reading.books, frame, received)

    def _open(self, frame: Frame, received: int) -> None:
        self._stream.open(frame.conn)
        self._shelf.closed(frame.conn, "reopened", received)

    def _close(self, frame: Frame, received: int) -> None:
        self._stream.close(frame.conn)
        self._shelf.closed(frame.conn, "closed", received)

    def _subscription(self, frame: Frame, received: int) -> None:
        data = _SUBSCRIPTION.decode(frame.data)
        if data.channel in self._mapper.book_channels and not self._stream.late(frame):
            self._shelf.subscription(frame.conn, data, received)
