"""The stage over one partition: trades and control records in, candles out. Pure.

The output follows from the stream alone: not from where a batch ends, nor from a restart.
"""

from collections.abc import Callable, Mapping

import msgspec

from aggregate.columns import columns
from aggregate.frame import Window
from aggregate.instrument import Instrument, ahead
from aggregate.run import Run
from aggregate.saved import Header, SavedPartition, SavedTally, SavedWindow, tally_field, window_field
from pipeline.errors import DecodeError
from pipeline.records import ENDED, Candle, Clock, Coverage, Gap, Rebuild, Trade
from pipeline.steps import Entry, Found, Step, dead_letter, entries_of
from pipeline.streams import Keys

MOST_CANDLES = 1_000
"""A clock record gives about so many candles at most; the next one goes on."""

SHORTEST = 50
"""Trades in a row from which on they are taken together …"""
FEWEST = 8
"""… when an instrument has so many of them on average: each has a fixed cost."""

_TRADE = msgspec.json.Decoder(Trade)
_CLOCK = msgspec.json.Decoder(Clock)
_COVERAGE = msgspec.json.Decoder(Coverage)
_GAP = msgspec.json.Decoder(Gap)
_HEADER = msgspec.msgpack.Decoder(Header)
_WINDOW = msgspec.msgpack.Decoder(SavedWindow)
_TALLY = msgspec.msgpack.Decoder(SavedTally)
_PARTITION = msgspec.msgpack.Decoder(SavedPartition)
_ENCODER = msgspec.msgpack.Encoder()


class Aggregate:
    """Implements `pipeline.steps.Stage` over `md:trade:{p}`."""

    name = "aggregate"

    def __init__(self, keys: Keys, exchange: str) -> None:
        self._exchange = exchange
        self.source = keys.trade
        self._step: Step | None = None
        self._controls: dict[bytes, Callable[[bytes], None]] = {
            b"clock": self._clock,
            b"coverage": self._coverage,
            b"gap": self._gap,
        }
        self.restore({})

    def restore(self, saved: Mapping[bytes, bytes]) -> None:
        """Forgets everything and starts from the saved state."""
        self._instruments: dict[str, Instrument] = {}
        self._touched: dict[str, Instrument] = {}
        partition = saved.get(b"partition")
        counted = SavedPartition(None, 0, 0, 0) if partition is None else _PARTITION.decode(partition)
        self._newest_clock, self._received = counted.clock, counted.received
        self._ahead = ahead(counted.clock)
        self._candles, self._late, self._rebuilds = counted.candles, counted.late, counted.rebuilds
        self._partition_changed = False
        self._gone: list[str] = []
        headers = [_HEADER.decode(value) for field, value in saved.items() if field.startswith(b"i|")]
        for header in sorted(headers, key=lambda header: header.place):
            self._instruments[header.instrument] = Instrument(header, self._issue, self._ask)
        for field, value in saved.items():
            if field.startswith(b"w|"):
                self._restore_window(field.decode(), _WINDOW.decode(value))
        for name, instrument in self._instruments.items():
            instrument.windows.sort()
            if (tally := saved.get(tally_field(name).encode())) is not None:
                taken = _TALLY.decode(tally)
                instrument.resume(taken)
                self._received = max(self._received, taken.received)
            instrument.changed = False

    def process(self, entry: Entry, step: Step) -> None:
        """Takes one trade or control record."""
        self._step = step
        fields = entry.fields
        control = fields.get(b"control")
        try:
            if control is None:
                trade = _TRADE.decode(fields.get(b"data", b""))
                instrument = self._instruments.get(trade.instrument)
                if instrument is None or not instrument.tally.take(trade, self._ahead):
                    instrument = self._trade(trade)
                self._touched[trade.instrument] = instrument
                if trade.received > self._received:  # noqa: PLR1730 - max() is slower, and this is run for every trade
                    self._received = trade.received
            elif (take := self._controls.get(control)) is not None:
                take(fields.get(b"data", b""))
        except (DecodeError, UnicodeDecodeError, msgspec.MsgspecError) as error:
            self._bury(error, entry, step)

    def process_many(self, found: Found, step: Step) -> int:
        """Takes entries until the step is full; the effect is that of `process` for each."""
        if len(found) < SHORTEST:
            return self._process_each(found, step)
        trades = [len(flat) == 4 and flat[0] == b"symbol" and flat[2] == b"data" for _, flat in found]
        trades.append(False)
        place = 0
        while place < len(found) and not step.full:
            end = trades.index(False, place)
            taken = self._process_run(found[place:end], step)
            place += taken or self._process_each(found[place : max(end, place + 1)], step)
        return place

    def save(self, step: Step) -> None:
        """Adds what changed: headers, windows, and the fields of what is gone."""
        for field in self._gone:
            step.save(field, None)
        self._gone.clear()
        for name, instrument in self._touched.items():
            self._save_instrument(name, instrument, step)
        self._touched.clear()
        if self._partition_changed:
            counts = self._candles, self._late, self._rebuilds
            counted = SavedPartition(self._newest_clock, self._received, *counts)
            step.save("partition", _ENCODER.encode(counted))
            self._partition_changed = False

    def finish(self, step: Step) -> None:
        """The stream has ended, as a replay does: every window with trades is written as it is."""
        self._step = step
        self._touched |= self._instruments
        for instrument in self._instruments.values():
            instrument.finish(self._newest_clock, self._received)

    @property
    def last_data(self) -> int:
        """The newest `received` of a trade or clock record; 0 before the first."""
        return self._received

    def report(self) -> dict[str, object]:
        """How many instruments and windows are kept, candles issued, trades that came for windows no longer kept, and
        requests to store to compute such."""
        windows = [len(f.windows) for i in self._instruments.values() for f in i.windows.frames]
        return {
            "instruments": len(self._instruments),
            "windows": sum(windows),
            "candles": self._candles,
            "late": self._late,
            "rebuilds": self._rebuilds,
        }

    def _process_each(self, found: Found, step: Step) -> int:
        for taken, entry in enumerate(entries_of(found), start=1):
            self.process(entry, step)
            if step.full:
                return taken
        return len(found)

    def _process_run(self, found: Found, step: Step) -> int:
        """Takes trades until the step is full; 0, and nothing is done, when each has to be looked at by itself."""
        if len(found) < SHORTEST or len(found) < FEWEST * self._most_instruments(found):
            return 0
        try:
            trades = list(map(_TRADE.decode, [flat[3] for _, flat in found]))
        except (UnicodeDecodeError, msgspec.MsgspecError):
            return 0
        table = columns(trades, self._ahead)
        if table is None or not self._instruments.keys() >= table.instruments.keys():
            return 0
        touched = {name: self._instruments[name] for name in table.instruments}
        self._touched |= touched

        def process_alone(place: int) -> bool:
            self._process_each(found[place : place + 1], step)
            return not step.full

        taken = Run(table, [instrument.tally for instrument in touched.values()]).take(process_alone)
        newest = max([trade.received for trade in trades[:taken]])
        self._received = max(self._received, newest)
        return taken

    def _most_instruments(self, found: Found) -> int:
        """At least as many as the trades are of: to count them costs something, and most often there are enough."""
        known = len(self._instruments)
        return known if len(found) >= FEWEST * known else len({flat[1] for _, flat in found})

    def _trade(self, trade: Trade) -> Instrument:
        instrument = self._instruments.get(trade.instrument) or self._meet(trade)
        # Also of a trade that is refused.
        self._touched[trade.instrument] = instrument
        self._partition_changed, self._received = True, max(self._received, trade.received)
        if not instrument.trade(trade, self._ahead):
            self._late += 1
        return instrument

    def _clock(self, data: bytes) -> None:
        clock = _CLOCK.decode(data)
        self._newest_clock, self._ahead, self._partition_changed = clock, ahead(clock), True
        self._touched |= self._instruments
        self._received = max(self._received, clock.received)
        left = MOST_CANDLES
        for instrument in self._instruments.values():
            left -= instrument.clock(clock)
            if left <= 0:
                return

    def _coverage(self, data: bytes) -> None:
        record = _COVERAGE.decode(data)
        if record.cause == ENDED:
            self._forget(record.instrument)
            return
        instrument = self._instruments.get(record.instrument) or self._meet(record)
        self._touched[record.instrument] = instrument
        if not instrument.coverage(record, self._newest_clock):
            self._late += 1
            self._partition_changed = True

    def _gap(self, data: bytes) -> None:
        record = _GAP.decode(data)
        if (instrument := self._instruments.get(record.instrument)) is not None:
            self._touched[record.instrument] = instrument
            instrument.gap(record)

    def _meet(self, record: Trade | Coverage) -> Instrument:
        last = next(reversed(self._instruments.values()), None)
        header = Header(
            place=0 if last is None else last.header.place + 1,
            exchange=record.exchange,
            market=record.market,
            symbol=record.symbol,
            instrument=record.instrument,
        )
        instrument = self._instruments[record.instrument] = Instrument(header, self._issue, self._ask)
        return instrument

    def _forget(self, name: str) -> None:
        """The contract is no more: its last windows are written as they are."""
        if (instrument := self._instruments.get(name)) is None:
            return
        instrument.finish(self._newest_clock, self._received)
        windows = [window for frame in instrument.windows.frames for window in frame.windows.values()]
        self._gone += [f"i|{name}", tally_field(name)]
        self._gone += [
            window_field(name, window.frame.name, window.open) for window in (*windows, *instrument.windows.changed)
        ]
        del self._instruments[name]
        self._touched.pop(name, None)

    def _issue(self, record: Candle, newest: bool) -> None:
        assert self._step is not None
        self._step.emit(f"candle:{record.timeframe}", record, newest=newest)
        self._candles += 1
        self._partition_changed = True

    def _ask(self, record: Rebuild) -> None:
        assert self._step is not None
        self._step.emit("rebuild", record, newest=False)
        self._rebuilds += 1
        self._partition_changed = True

    def _bury(self, error: Exception, entry: Entry, step: Step) -> None:
        reason = error.reason if isinstance(error, DecodeError) else "record not understood"
        text = entry.fields.get(b"data", b"").decode(errors="replace")
        step.bury(dead_letter(self._exchange, self.name, reason, str(error), entry.id, text, None, None))

    def _save_instrument(self, name: str, instrument: Instrument, step: Step) -> None:
        tally = instrument.tally
        if tally.changed:
            if (taken := tally.saved(self._received)) is not None:
                step.save(tally_field(name), _ENCODER.encode(taken))
            elif tally.kept:
                step.save(tally_field(name), None)
                # Until now the newest `received` may have been in the tally alone.
                self._partition_changed = True
            tally.kept, tally.changed = taken is not None, False
        if instrument.changed:
            step.save(f"i|{name}", _ENCODER.encode(instrument.saved()))
            instrument.changed = False
        if instrument.windows.changed:
            for window in instrument.windows.changed:
                step.save(window_field(name, window.frame.name, window.open), _saved(window))
            instrument.windows.changed.clear()

    def _restore_window(self, field: str, saved: SavedWindow) -> None:
        _, name, start, instrument = field.split("|", 3)
        for frame in self._instruments[instrument].windows.frames:
            if frame.name == name:
                window = frame.windows[int(start)] = Window(frame, int(start))
                window.summary = saved.summary
                window.revision, window.quality, window.missing = saved.revision, saved.quality, saved.missing
                window.price, window.stale = saved.price, saved.stale


def _saved(window: Window) -> bytes | None:
    if window.dropped:
        return None
    return _ENCODER.encode(
        SavedWindow(window.summary, window.revision, window.quality, window.missing, window.price, window.stale)
    )
