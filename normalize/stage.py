"""The stage normalize over one partition: raw frames in, records and control records out. Pure.

Order inside `md:trade:{p}` is the law for aggregate: trades as they came, the coverage they prove
behind them, gaps before the clock that found them.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from normalize import ledger
from normalize.continuity import Continuity, Outcome
from normalize.coverage import Change, Connection
from normalize.mapper import load
from normalize.state import State, count
from pipeline.errors import ContractBroken, DecodeError
from pipeline.exchanges import Exchange
from pipeline.frames import VERSION, ClockData, Frame, SubscriptionData, unpack
from pipeline.records import CandleSettings, Clock, Gap, Instrument, encode
from pipeline.steps import Entry, Step, dead_letter
from pipeline.streams import Keys
from pipeline.timeframes import DAY

NAME = "normalize"
_CLOCK = msgspec.json.Decoder(ClockData)
_SUBSCRIPTION = msgspec.json.Decoder(SubscriptionData)


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
        self._state = State({})
        self._entry = b""
        self._step = Step(keys, NAME)
        self._kinds: dict[str, Callable[[Frame, int], None]] = {
            "ws": self._data,
            "rest": self._data,
            "open": self._open,
            "close": self._close,
            "clock": self._clock,
            "subscription": self._subscription,
            "request": self._request,
        }

    def restore(self, saved: Mapping[bytes, bytes]) -> None:
        """See Stage."""
        self._state = State(saved)

    def save(self, step: Step) -> None:
        """See Stage."""
        self._state.save(step)

    def process(self, entry: Entry, step: Step) -> None:
        """See Stage. Raises ContractBroken only for entries of another version of this program."""
        self._step, self._entry = step, entry.id
        try:
            raw = unpack(entry.fields)
        except ContractBroken as error:
            if entry.fields.get(b"v") not in (None, b"%d" % VERSION):
                raise
            self._bury(DecodeError("entry is not ours", str(error)), repr(entry.fields), None, None)
            return
        if self._in_order(raw.w, raw.n):
            for frame in raw.frames:
                self._frame(frame)

    def learn(self, instruments: Iterable[Instrument], step: Step) -> None:
        """Takes instruments that are not known yet, from lists that come later in a recording."""
        self._step = step
        known = self._state.instruments
        self._list([found for found in instruments if found.instrument not in known], 0)
        # A recording may go back in time: a contract that has ended can be traded further on.
        self._forgets = False

    def finish(self, step: Step) -> None:
        """The stream ends (replay): connections close, young holes become gaps, held trades go."""
        self._step = step
        stream = self._state.stream
        self._covered(self._state.evidence.close_all("end"), stream.received or 0)
        for name in sorted(self._state.busy):
            self._took(name, self._state.continuity[name].give_up(), stream.received or 0, None)
        self._look_after(stream.now + DAY, stream.received or 0)

    @property
    def last_data(self) -> int | None:
        """Host time of the newest trade frame; None before the first."""
        covers = self._state.evidence.covers.values()
        return max((cover.message for cover in covers if cover.message is not None), default=None)

    def report(self) -> dict[str, object]:
        """See Stage; the fields are in docs/architecture.md."""
        state, stream = self._state, self._state.stream
        names = sorted({*state.evidence.covers, *state.continuity})
        return {
            "subscriptions": {name: self._described(name) for name in names},
            "dead": dict(stream.dead),
            "control": dict(stream.control),
            "writer": stream.writer,
            "stream_time": stream.received,
            "repeated": stream.repeated,
            "stale": stream.stale,
            "breaks": stream.breaks,
            "instruments": len(state.instruments),
        }

    def _described(self, name: str) -> dict[str, object]:
        cover, seen = self._state.evidence.covers.get(name), self._state.continuity.get(name, Continuity())
        instrument = self._state.instruments.get(name)
        return {
            "symbol": instrument.symbol if instrument else name,
            "kind": "trade",
            "connection": cover.active if cover else None,
            "covered": bool(cover and cover.active),
            "since": seen.complete_since if cover and cover.active else None,
            "last_message": cover.message if cover else None,
            "last_trade": seen.newest,
            "epoch": seen.epoch,
            "trades": seen.trades,
            "duplicates": seen.duplicates,
            "overlaps": seen.overlaps,
            "reordered": seen.reordered,
            "refused": seen.refused,
            "held": len(seen.held),
            "open_gaps": seen.open_gaps,
            "missing": seen.missing,
        }

    def _in_order(self, writer: int, number: int) -> bool:
        """Whether the entry is new. A jump, or a writer that took over without a close, ends all coverage."""
        stream, evidence = self._state.stream, self._state.evidence
        if stream.writer is not None and writer < stream.writer:
            stream.stale += 1
            return False
        if writer == stream.writer and number <= stream.number:
            stream.repeated += 1
            return False
        if stream.writer is not None and writer > stream.writer:
            self._covered(evidence.close_all("writer"), stream.received or 0)
            # Another host's clock: durations go on from its first frame.
            stream.received = None
        elif stream.writer is not None and number > stream.number + 1:
            stream.breaks += 1
            self._covered(evidence.lose("lost"), stream.received or 0)
        stream.writer, stream.number = writer, number
        return True

    def _frame(self, frame: Frame) -> None:
        stream = self._state.stream
        received = stream.received or 0 if frame.ts is None else frame.ts
        stream.now += max(0, received - (received if stream.received is None else stream.received))
        stream.received = max(received, stream.received or 0)
        try:
            self._kinds[frame.kind](frame, received)
        except DecodeError as error:
            self._bury(error, frame.data, received, frame.conn)
        except msgspec.DecodeError as error:
            self._bury(DecodeError(f"not a {frame.kind} frame of ours", str(error)), frame.data, received, frame.conn)

    def _open(self, frame: Frame, received: int) -> None:
        self._covered(self._state.evidence.close(frame.conn, "reopened"), received)
        self._state.evidence.heard(frame.conn, received)

    def _close(self, frame: Frame, received: int) -> None:
        self._covered(self._state.evidence.close(frame.conn, "closed"), received)

    def _subscription(self, frame: Frame, received: int) -> None:
        data = _SUBSCRIPTION.decode(frame.data)
        self._state.evidence.connection(frame.conn, received)
        if data.channel in self._mapper.trade_channels:
            self._covered(self._state.evidence.subscription(frame.conn, data, received), received)

    def _request(self, frame: Frame, received: int) -> None:
        count(self._state.stream.control, "request")

    def _clock(self, frame: Frame, received: int) -> None:
        data = _CLOCK.decode(frame.data)
        stream, evidence = self._state.stream, self._state.evidence
        stream.offset = evidence.offset = data.offset
        stream.uncertainty = data.uncertainty
        stream.time = None if data.offset is None else received + data.offset
        for name, last in data.connections.items():
            if name in evidence.connections:
                evidence.heard(name, last)
        self._look_after(stream.now, received)
        offset = data.offset
        clock = Clock(
            exchange=self._exchange,
            time=stream.time,
            received=received,
            uncertainty=data.uncertainty,
            connections={} if offset is None else {name: last + offset for name, last in data.connections.items()},
        )
        self._step.control("clock", encode(clock))

    def _look_after(self, now: int, received: int) -> None:
        """What only time does: young holes become gaps, the ledger hears of fills, held trades expire."""
        state = self._state
        for name in sorted(state.busy):
            seen = state.continuity[name]
            held = len(seen.held)
            expired = seen.expire(now)
            if len(seen.held) != held:
                self._took(name, expired, received, None)
            for hole in seen.changed_holes(now):
                self._tell(ledger.gap(state.instruments[name], hole, state.stream.time, received))
                state.changed_continuity.add(name)
            if not seen.busy:
                state.busy.discard(name)

    def _data(self, frame: Frame, received: int) -> None:
        state = self._state
        if frame.ts is None:
            frame = msgspec.structs.replace(frame, ts=received)
        connection = self._connection(frame, received) if frame.kind == "ws" else None
        reading = self._mapper.read(frame, state.instruments)
        if reading.control is not None:
            count(state.stream.control, reading.control)
        for fault in reading.faults:
            self._bury(fault, frame.data, received, frame.conn)
        if reading.instruments:
            self._list(reading.instruments, received)
        newest: dict[str, int] = {}
        for trade in reading.trades:
            name = trade.instrument
            state.catalogue.know(trade)
            seen = state.continuity.setdefault(name, Continuity())
            listed = state.instruments[name].listed
            opened = self._opened(connection, seen) if connection else received
            self._took(name, seen.take(trade, state.stream.now, opened, listed), received, frame.conn)
            newest[name] = max(newest.get(name, 0), trade.time or received)
        for name, time in newest.items():
            begun = state.continuity[name].next is not None
            change = state.evidence.data(frame.conn, name, received, time, begun) if connection else None
            self._covered([change] if change else [], received)

    def _opened(self, connection: Connection, seen: Continuity) -> int:
        """The exchange's time at which the connection opened. While the difference of the clocks is not known, a host
        ahead would take live trades for replayed ones for as long: only the first may be one."""
        evidence = self._state.evidence
        return 0 if evidence.offset is None and seen.early else evidence.exchange_time(connection.opened)

    def _connection(self, frame: Frame, received: int) -> Connection:
        """The frame's connection; only what came in proves that it lives."""
        evidence = self._state.evidence
        if frame.dir == "in":
            return evidence.heard(frame.conn, received)
        return evidence.connection(frame.conn, received)

    def _took(self, name: str, outcome: Outcome, received: int, connection: str | None) -> None:
        """Writes what continuity decided."""
        seen = self._state.continuity[name]
        self._state.changed_continuity.add(name)
        if outcome.epoch is not None:
            instrument, time = self._state.instruments[name], self._state.stream.time
            self._tell(ledger.epoch(instrument, outcome.epoch, time, received))
        for trade in outcome.passed:
            self._step.emit("trade", trade, newest=trade.epoch == seen.epoch and trade.time == seen.newest)
        for reason, trade in outcome.buried:
            self._bury(DecodeError(reason, trade.id), encode(trade).decode(), trade.received, connection)
        if seen.busy:
            self._state.busy.add(name)

    def _list(self, instruments: Iterable[Instrument], received: int) -> None:
        """Emits instruments at first sight and when something about them changed; old ones leave the state."""
        for instrument in instruments:
            if (record := self._state.catalogue.take(instrument)) is not None:
                self._step.emit("instrument", record)
        if self._forgets:
            for name in self._state.catalogue.gone(received):
                self._state.forget(name)

    def _covered(self, changes: Iterable[Change], received: int) -> None:
        for change in changes:
            instrument = self._state.instruments.get(change.instrument)
            if instrument is None:
                continue
            candles = self._state.evidence.covers[change.instrument].candles or self._candles
            self._step.control("coverage", encode(ledger.coverage(instrument, change, candles, received)))

    def _tell(self, gap: Gap) -> None:
        self._step.control("gap", encode(gap))
        self._step.emit("gap", gap)

    def _bury(self, error: DecodeError, data: str, received: int | None, connection: str | None) -> None:
        count(self._state.stream.dead, error.reason)
        self._step.bury(
            dead_letter(self._exchange, NAME, error.reason, error.detail, self._entry, data, received, connection)
        )
