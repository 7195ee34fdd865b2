"""The stage normalize over one partition: raw frames in, records and control records out. Pure."""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from normalize.catalogue import ended
from normalize.coverage import Change, Connection
from normalize.latest import Told, kind_of
from normalize.mapper import Reading, load
from normalize.outlet import Outlet
from normalize.repairs import Repairs
from normalize.report import describe
from normalize.rereading import Rereader
from normalize.runs import Runs
from normalize.shelf import Shelf
from normalize.state import State
from normalize.stream import Arrival, clock_of, count
from normalize.tails import Tails
from normalize.trades import Trades
from pipeline.errors import ContractBroken, DecodeError
from pipeline.exchanges import Exchange
from pipeline.frames import VERSION, Frame, RawEntry, RequestData, SubscriptionData, unpack
from pipeline.records import CandleSettings, Clock, Instrument, encode
from pipeline.steps import Entry, Found, Step, entries_of
from pipeline.streams import Keys
from pipeline.timeframes import DAY
from pipeline.wants import newest_of, trades_of

NAME = "normalize"
_SUBSCRIPTION = msgspec.json.Decoder(SubscriptionData)
_REQUEST = msgspec.json.Decoder(RequestData)


class Normalize:
    """See pipeline.steps.Stage. `candles` is for instruments of which no subscription frame tells settings:
    recordings."""

    name = NAME

    def __init__(self, keys: Keys, exchange: Exchange, candles: CandleSettings | None = None) -> None:
        self.source = keys.raw
        self._exchange = exchange.name
        self._mapper = load(exchange)
        self._candles = candles
        self._forgets = True
        self._outlet = Outlet(exchange.name, NAME, Step(keys, NAME))
        self._kinds: dict[str, Callable[[Frame, int], None]] = {
            "ws": self._socket,
            "rest": self._data,
            "open": self._open,
            "close": self._close,
            "clock": self._clock,
            "subscription": self._subscription,
            "request": self._request,
        }
        self.restore({})

    def restore(self, saved: Mapping[bytes, bytes]) -> None:
        """See Stage."""
        self._state = State(saved)
        self._trades = Trades(self._state, self._outlet, self._candles, self._mapper.lowest_number)
        self._repairs = Repairs(self._state, self._outlet)
        self._tails = Tails(self._state, self._outlet)
        self._shelf = Shelf(saved, self._mapper.book_rule, self._state.instruments, self._outlet, self._state.stream)
        self._runs = Runs(self._mapper, self._state, self._outlet, self._shelf)
        self._rereader: Rereader | None = None

    @property
    def reread_from(self) -> bytes | None:
        """See Rereading."""
        behind = self._shelf.behind
        return None if behind is None else behind.after.encode()

    def reread(self, entry: Entry) -> None:
        """See Rereading."""
        if self._rereader is None:
            behind = self._shelf.behind
            assert behind is not None
            self._rereader = Rereader(self._mapper, self._shelf, self._state.instruments, behind.stream())
        self._rereader.take(entry)

    def lack(self, oldest: bytes) -> None:
        """See Rereading."""
        self._shelf.lack(oldest)

    def faults(self) -> list[str]:
        """See Rereading."""
        self._rereader = None
        return self._shelf.caught_up()

    def save(self, step: Step) -> None:
        """See Stage."""
        self._state.save(step)
        self._shelf.save(step)

    def process(self, entry: Entry, step: Step) -> None:
        """See Stage. Raises ContractBroken only for entries of another version of this program."""
        self._take(entry, step)
        self._runs.settle()

    def process_many(self, found: Found, step: Step) -> int:
        """See TakingMany."""
        taken = 0
        for entry in entries_of(found):
            self._take(entry, step)
            taken += 1
            if step.full:
                break
        self._runs.settle()
        return taken

    def learn(self, instruments: Iterable[Instrument], step: Step) -> None:
        """Takes instruments that are not known yet, from lists that come later in a recording."""
        self._outlet.turn(step, self._state, b"")
        known = self._state.instruments
        self._list([found for found in instruments if found.instrument not in known], 0)
        # A recording may go back in time: a contract that has ended can be traded further on.
        self._forgets = False

    def finish(self, step: Step) -> None:
        """The stream ends (replay): connections close, young holes become gaps, held trades and books go."""
        self._outlet.turn(step, self._state, b"")
        stream = self._state.stream
        received = stream.received or 0
        self._trades.covered(self._state.evidence.close_all("end"), received)
        self._trades.give_up(received)
        self._trades.look_after(stream.now + DAY, received)
        self._shelf.finish()

    @property
    def last_data(self) -> int | None:
        """Host time of the newest frame with market data; None before the first."""
        trades = [cover.message for cover in self._state.evidence.covers.values()]
        times = [*trades, self._state.latest.last_message, self._shelf.last_message]
        return max((time for time in times if time is not None), default=None)

    def report(self) -> dict[str, object]:
        """See Stage; the fields are in docs/architecture.md."""
        return describe(self._state, self._shelf, self._repairs, self._tails)

    def _take(self, entry: Entry, step: Step) -> None:
        self._outlet.turn(step, self._state, entry.id)
        self._shelf.enter(self._state.stream)
        if (raw := self._unpacked(entry)) is not None:
            self._arrived(self._state.stream.admit(raw), raw)
        self._state.stream.entry = entry.id.decode()

    def _unpacked(self, entry: Entry) -> RawEntry | None:
        try:
            return unpack(entry.fields)
        except ContractBroken as error:
            if entry.fields.get(b"v") not in (None, b"%d" % VERSION):
                raise
            self._outlet.bury(DecodeError("entry is not ours", str(error)), repr(entry.fields), None, None)
            return None

    def _arrived(self, arrival: Arrival, raw: RawEntry) -> None:
        """A jump, or a writer that took over without a close, ends all coverage and breaks all books before the
        entry's frames."""
        stream, evidence = self._state.stream, self._state.evidence
        if arrival in ("repeated", "stale"):
            return
        if arrival in ("writer", "lost"):
            self._runs.settle()
            self._shelf.lost(arrival, stream.received or 0)
        if arrival == "writer":
            self._covered(evidence.close_all("writer"), stream.received or 0)
            self._tails.writer()
            stream.take_over()
        elif arrival == "lost":
            self._covered(evidence.lose("lost"), stream.received or 0)
            self._repairs.lost(stream.received or 0)
        self._runs.take(raw.frames, self._frame)
        if arrival == "lost":
            # How long the frames lost took, these ones tell.
            self._tails.lost()

    def _frame(self, frame: Frame) -> None:
        self._shelf.event += 1
        received = self._state.stream.advance(frame)
        try:
            self._kinds[frame.kind](frame, received)
        except DecodeError as error:
            self._outlet.bury(error, frame.data, received, frame.conn)
        except msgspec.DecodeError as error:
            fault = DecodeError(f"not a {frame.kind} frame of ours", str(error))
            self._outlet.bury(fault, frame.data, received, frame.conn)

    def _open(self, frame: Frame, received: int) -> None:
        self._covered(self._state.evidence.close(frame.conn, "reopened"), received)
        self._tails.closed(frame.conn)
        self._state.evidence.heard(frame.conn, received)
        self._state.stream.open(frame.conn)
        self._shelf.closed(frame.conn, "reopened", received)

    def _close(self, frame: Frame, received: int) -> None:
        self._covered(self._state.evidence.close(frame.conn, "closed"), received)
        self._tails.closed(frame.conn)
        self._state.stream.close(frame.conn)
        self._shelf.closed(frame.conn, "closed", received)

    def _subscription(self, frame: Frame, received: int) -> None:
        data = _SUBSCRIPTION.decode(frame.data)
        if self._state.stream.late(frame):
            return
        self._state.evidence.connection(frame.conn, received)
        if data.channel in self._mapper.trade_channels:
            self._covered(self._state.evidence.subscription(frame.conn, data, received), received)
            self._tails.subscription(frame.conn, data)
        if data.channel in self._mapper.book_channels:
            self._shelf.subscription(frame.conn, data, received)

    def _request(self, frame: Frame, received: int) -> None:
        data = _REQUEST.decode(frame.data)
        count(self._state.stream.control, f"request {data.state}")
        self._repairs.request(data)
        self._tails.request(data)
        self._shelf.request(data, received)

    def _clock(self, frame: Frame, received: int) -> None:
        data = clock_of(frame)
        stream, evidence = self._state.stream, self._state.evidence
        stream.offset = evidence.offset = data.offset
        stream.uncertainty = data.uncertainty
        stream.time = None if data.offset is None else received + data.offset
        for name, last in data.connections.items():
            if name in evidence.connections:
                evidence.heard(name, last)
        evidence.tidy(data.connections, received)
        self._trades.look_after(stream.now, received)
        self._repairs.look_after(received)
        self._tails.look_after(received)
        offset = data.offset
        clock = Clock(
            exchange=self._exchange,
            time=stream.time,
            received=received,
            uncertainty=data.uncertainty,
            connections={} if offset is None else {name: last + offset for name, last in data.connections.items()},
        )
        self._outlet.control("clock", encode(clock))
        self._shelf.clock(data, received)

    def _data(self, frame: Frame, received: int) -> None:
        state = self._state
        if frame.ts is None:
            frame = msgspec.structs.replace(frame, ts=received)
        late = state.stream.late(frame)
        connection = self._connection(frame, received) if frame.kind == "ws" and not late else None
        reading = self._read(frame)
        if reading.control is not None:
            count(state.stream.control, reading.control)
        self._outlet.bury_elements(reading.faults, frame.data, received, frame.conn)
        if reading.instruments:
            self._list(reading.instruments, received)
        self._take_trades(reading, frame, received, connection)
        self._tell_latest(reading)
        for update in reading.books:
            state.catalogue.know(update.instrument)
        if not late:
            # A chain would begin that nothing goes on with.
            self._shelf.take(reading.books, frame, received)

    def _socket(self, frame: Frame, received: int) -> None:
        """Most frames say one trade on a live connection. For those it does what `_data` would."""
        state, trade = self._state, None
        if frame.dir == "in" and frame.ts is not None and frame.conn not in state.stream.closed:
            trade = self._mapper.trade(frame, state.instruments)
        if trade is None:
            self._data(frame, received)
            return
        self._trades.take_one(trade, frame, received, state.evidence.heard(frame.conn, received))
        if state.tails:
            self._tails.came((trade,), live=True)

    def _read(self, frame: Frame) -> Reading:
        """What the frame says. Of a page of wanted trades, repairs hears what cannot be read."""
        key = trades_of(frame.key) if frame.kind == "rest" else None
        try:
            reading = self._mapper.read(frame, self._state.instruments)
            if key is not None and reading.faults:
                read = {trade.sequence for trade in reading.trades}
                self._repairs.unread(key, [number for number in self._mapper.numbers(frame) if number not in read])
        except DecodeError:
            if key is not None:
                self._repairs.unread(key, None)
            raise
        return reading

    def _take_trades(self, reading: Reading, frame: Frame, received: int, connection: Connection | None) -> None:
        """Trades by REST count only as the answer to a want: of others nobody knows where they belong."""
        if frame.kind != "rest":
            self._trades.take(reading.trades, frame, received, connection)
            self._tails.came(reading.trades, live=connection is not None)
        elif (key := trades_of(frame.key)) is not None:
            self._trades.fetched(reading.trades, key, frame, received)
        elif (key := newest_of(frame.key)) is not None:
            self._trades.newest(reading.trades, key, frame, received)
            self._tails.fetched(key)
        elif reading.trades:
            raise DecodeError("trades by REST that nobody asked for")

    def _covered(self, changes: Iterable[Change], received: int) -> None:
        """Coverage changed otherwise than by data."""
        changes = list(changes)
        self._trades.covered(changes, received)
        self._tails.broken(changes)

    def _tell_latest(self, reading: Reading) -> None:
        """Quotes, tickers and klines that say something new."""
        state = self._state
        told: tuple[Told, ...] = (*reading.quotes, *reading.tickers, *reading.klines)
        for record in told:
            state.catalogue.know(record)
            kind = kind_of(record)
            if state.latest.passes(kind, record, state.stream.now):
                self._outlet.emit(kind, record)

    def _connection(self, frame: Frame, received: int) -> Connection:
        """The frame's connection; only what came in proves that it lives."""
        evidence = self._state.evidence
        if frame.dir == "in":
            return evidence.heard(frame.conn, received)
        return evidence.connection(frame.conn, received)

    def _list(self, instruments: Iterable[Instrument], received: int) -> None:
        """Emits instruments at first sight and when something about them changed; old ones leave the state."""
        for instrument in instruments:
            if self._forgets and ended(instrument, received):
                continue
            if (record := self._state.catalogue.take(instrument)) is not None:
                self._outlet.emit("instrument", record)
            self._shelf.know(self._state.instruments[instrument.instrument])
        if self._forgets:
            for name in self._state.catalogue.gone(received):
                self._repairs.forget(name)
                self._tails.forget(name)
                self._trades.ended(name, received)
                self._state.forget(name)
                self._shelf.forget(name)
                self._outlet.forget(name)
