"""The trades of one partition: passed once each, with the coverage and the gaps that aggregate needs beside them.

Order inside `md:trade:{p}` is the law for aggregate: trades as they came, the coverage they prove
behind them, gaps before the clock that found them.
"""

from collections.abc import Iterable, Sequence

import msgspec

from normalize import ledger
from normalize.continuity import Continuity
from normalize.coverage import Change, Connection
from normalize.holes import due
from normalize.outcome import Outcome
from normalize.outlet import Outlet
from normalize.spans import span_of
from normalize.state import State
from pipeline.errors import DecodeError
from pipeline.frames import Frame
from pipeline.records import CandleSettings, Trade, encode
from pipeline.wants import TradesKey


class Trades:
    """Decides over `state`, writes to `outlet`. `candles` is for instruments of which no subscription frame tells
    settings: recordings; `lowest` is the number with which the exchange may begin."""

    def __init__(self, state: State, outlet: Outlet, candles: CandleSettings | None, lowest: int) -> None:
        self._state = state
        self._outlet = outlet
        self._candles = candles
        self._lowest = lowest
        self._due: dict[str, int] = {}
        """Ages before which the ledger lacks nothing of an instrument whose holes stay as they are."""

    def take(self, trades: Sequence[Trade], frame: Frame, received: int, connection: Connection | None) -> None:
        """The trades of one frame; `connection` is the one that proves they are seen, none for an answer by REST."""
        state = self._state
        newest: dict[str, int] = {}
        for trade in trades:
            name = trade.instrument
            state.catalogue.know(trade)
            seen = state.continuity.get(name)
            if seen is None:
                seen = state.continuity[name] = Continuity()
            listed = state.instruments[name].listed
            opened = self._opened(connection, seen) if connection else received
            taken = seen.take(trade, state.stream.now, opened, listed, self._lowest)
            self._took(name, taken, received, frame.conn)
            newest[name] = max(newest.get(name, 0), trade.time or received)
        for name, time in newest.items():
            begun = state.continuity[name].next is not None
            change = state.evidence.data(frame.conn, name, received, time, begun) if connection else None
            self.covered([change] if change else [], received)

    def take_one(self, trade: Trade, frame: Frame, received: int, connection: Connection) -> None:
        """As `take` for a frame with one trade. Its next number of a known instrument needs no detour."""
        state, name = self._state, trade.instrument
        seen, instrument = state.continuity.get(name), state.instruments.get(name)
        if seen is None or instrument is None or (passed := seen.follow(trade, instrument.listed)) is None:
            self.take((trade,), frame, received, connection)
            return
        state.changed_continuity.add(name)
        self._outlet.emit("trade", passed, newest=passed.time == seen.newest)
        change = state.evidence.data(frame.conn, name, received, passed.time or received, True)
        if change is not None:
            self.covered((change,), received)

    def fetched(self, trades: Sequence[Trade], key: TradesKey, frame: Frame, received: int) -> None:
        """The trades of a page that was wanted: they prove nothing but themselves."""
        seen = self._state.continuity.get(key.instrument)
        for trade in trades:
            if seen is None or trade.instrument != key.instrument:
                self._bury("trade of another instrument than was asked for", trade, frame.conn)
            else:
                self._took(key.instrument, seen.repair(trade, key.epoch), received, frame.conn)

    def newest(self, trades: Sequence[Trade], key: TradesKey, frame: Frame, received: int) -> None:
        """The trades of a page of the newest ones: those that are new count as if a socket had brought them, but prove
        no coverage."""
        seen = self._state.continuity.get(key.instrument)
        listed = self._state.instruments[key.instrument].listed if seen is not None else None
        for trade in sorted(trades, key=span_of):
            if seen is None or seen.next is None or trade.instrument != key.instrument:
                self._bury("trade of another instrument than was asked for", trade, frame.conn)
            elif seen.epoch != key.epoch or span_of(trade)[0] < seen.next:
                seen.repair_overlaps += 1
                self._state.changed_continuity.add(key.instrument)
            else:
                new = msgspec.structs.replace(trade, repaired=True)
                taken = seen.take(new, self._state.stream.now, received, listed, self._lowest)
                seen.repaired += len(taken.passed)
                self._took(key.instrument, taken, received, frame.conn)

    def look_after(self, now: int, received: int) -> None:
        """What only time does: young holes become gaps, the ledger hears of fills, held trades expire."""
        state = self._state
        for name in sorted(state.busy):
            seen = state.continuity[name]
            held = len(seen.held)
            expired = seen.expire(now)
            if len(seen.held) != held:
                self._took(name, expired, received, None)
            if seen.given_up or now >= self._due.get(name, now):
                self.tell(name, now, received)
                self._due[name] = due(seen.old_holes, seen.holes)
            if not seen.busy:
                state.busy.discard(name)
                self._due.pop(name, None)

    def tell(self, name: str, now: int, received: int) -> None:
        """The ledger hears what it lacks of the instrument."""
        state = self._state
        for hole in state.continuity[name].changed_holes(now):
            self._outlet.tell(ledger.gap(state.instruments[name], hole, state.stream.time, received))
            state.changed_continuity.add(name)

    def give_up(self, received: int) -> None:
        """No frame will come any more: held trades go."""
        for name in sorted(self._state.busy):
            self._took(name, self._state.continuity[name].give_up(), received, None)

    def covered(self, changes: Iterable[Change], received: int) -> None:
        """Writes what is covered from now on, and what not."""
        for change in changes:
            instrument = self._state.instruments.get(change.instrument)
            if instrument is None:
                continue
            cover = self._state.evidence.covers.get(change.instrument)
            candles = (cover and cover.candles) or self._candles
            self._outlet.control("coverage", encode(ledger.coverage(instrument, change, candles, received)))

    def ended(self, name: str, received: int) -> None:
        """The contract is no more: the ledger hears the last of it, and aggregate need not keep it either."""
        if name in self._state.continuity:
            self.tell(name, self._state.stream.now, received)
        if name in self._state.continuity or name in self._state.evidence.covers:
            self.covered([self._state.evidence.ended(name, received)], received)

    def _opened(self, connection: Connection, seen: Continuity) -> int:
        """The exchange's time at which the connection opened. While the difference of the clocks is not known, a host
        ahead would take live trades for replayed ones for as long: only the first may be one."""
        evidence = self._state.evidence
        return 0 if evidence.offset is None and seen.early else evidence.exchange_time(connection.opened)

    def _took(self, name: str, outcome: Outcome, received: int, connection: str | None) -> None:
        """Writes what continuity decided."""
        seen = self._state.continuity[name]
        self._state.changed_continuity.add(name)
        if outcome.epoch is not None:
            instrument, time = self._state.instruments[name], self._state.stream.time
            self._outlet.tell(ledger.epoch(instrument, outcome.epoch, time, received))
        for trade in outcome.passed:
            # What fills a gap may be as new as what came after it.
            last = not trade.repaired or trade.sequence + 1 == seen.next
            newest = trade.epoch == seen.epoch and trade.time == seen.newest and last
            self._outlet.emit("trade", trade, newest=newest)
        for reason, trade in outcome.buried:
            self._bury(reason, trade, connection)
        if seen.touched:
            self._due.pop(name, None)
        if seen.busy:
            self._state.busy.add(name)

    def _bury(self, reason: str, trade: Trade, connection: str | None) -> None:
        self._outlet.bury(DecodeError(reason, trade.id), encode(trade).decode(), trade.received, connection)
