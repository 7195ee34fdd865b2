"""The stages normalize and aggregate over one partition, joined in this process as Redis joins them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from pipeline.commands._replay.tally import Tally
from pipeline.commands._replay.target import Target
from pipeline.exchanges import Exchange
from pipeline.frames import Frame, RawEntry, SubscriptionData, pack
from pipeline.records import CandleSettings, Instrument, encode
from pipeline.steps import Command, Entry, Step
from pipeline.streams import Keys

SAVE_EVERY = 1_000
"""Entries after which the stages save, as live ones do: what they forget with it, these must forget as well."""

_SUBSCRIPTION = msgspec.json.Decoder(SubscriptionData)


class Asked:
    """What the command line asks of candles. `timeframes` given there go before those recorded; where the recording
    says nothing, they or the default hold."""

    def __init__(self, candles: CandleSettings, *, forced: bool) -> None:
        self.candles = candles
        self.forced = forced

    def put(self, frame: Frame) -> Frame:
        """A recorded subscription keeps its settings unless others are asked for."""
        if frame.kind != "subscription" or not self.forced:
            return frame
        try:
            data = _SUBSCRIPTION.decode(frame.data)
        except msgspec.DecodeError:
            return frame
        data = msgspec.structs.replace(data, timeframes=self.candles.timeframes, grace=self.candles.grace)
        return msgspec.structs.replace(frame, data=encode(data).decode())


class Chain:
    """One partition. What the stages want of ingest, and their own state, goes nowhere."""

    def __init__(
        self, exchange: Exchange, partition: str, candles: CandleSettings | None, target: Target, tally: Tally
    ) -> None:
        """`candles` is for instruments of which no subscription frame tells settings; None: they have none."""
        from aggregate.stage import Aggregate
        from normalize.stage import Normalize

        self.exchange = exchange.name
        self._keys = Keys(target.namespace, partition)
        self._target, self._tally = target, tally
        self._normalize = Normalize(self._keys, exchange, candles)
        self._aggregate = Aggregate(self._keys, exchange.name)
        self._entries = 0
        self._trades = 0
        self._newest = f"{target.namespace}:last:"

    def learn(self, instruments: Iterable[Instrument]) -> None:
        """Takes instruments known before the first frame."""
        self._in_step(self._normalize, lambda step: self._normalize.learn(instruments, step))

    def take(self, raw: RawEntry, entry_id: bytes | None = None) -> None:
        """One raw entry through both stages. `entry_id`: that of the live stream, which dead letters name."""
        self._entries += 1
        entry = Entry(entry_id or b"%d-0" % self._entries, pack(raw))
        self._in_step(self._normalize, lambda step: self._normalize.process(entry, step))
        if self._entries % SAVE_EVERY == 0:
            for stage in (self._normalize, self._aggregate):
                stage.save(Step(self._keys, stage.name))

    def finish(self) -> None:
        """The stream ends: young gaps are told, open candles written as partial."""
        self._in_step(self._normalize, self._normalize.finish)
        self._in_step(self._aggregate, self._aggregate.finish)

    def report(self) -> Mapping[str, Any]:
        """Normalize's own counts."""
        return self._normalize.report()

    def _in_step(self, stage: Any, work: Callable[[Step], None]) -> None:
        step = Step(self._keys, stage.name)
        work(step)
        for command in step.commands():
            if command[0] == "XADD" and command[1] != self._keys.request:
                self._append(command)
            elif command[0] == "HSET" and str(command[1]).startswith(self._newest):
                self._target.newest(self._keys, command)

    def _append(self, command: Command) -> None:
        """One XADD; what aggregate reads goes on to it at once."""
        stream, (label, value, _, data) = str(command[1]), command[-4:]
        kind = stream.removeprefix(f"{self._keys.namespace}:").removesuffix(f":{self._keys.tag}")
        assert isinstance(data, bytes)
        if label != b"control":
            self._tally.saw(kind, data)
        self._target.append(self._keys, kind, command)
        if stream == self._keys.trade:
            assert isinstance(label, bytes)
            assert isinstance(value, bytes)
            self._trades += 1
            entry = Entry(b"%d-0" % self._trades, {label: value, b"data": data})
            self._in_step(self._aggregate, lambda step: self._aggregate.process(entry, step))
