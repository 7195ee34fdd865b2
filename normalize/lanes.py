"""What the trades of busy instruments change, kept at hand while nothing but such trades comes. Pure.

A lane stands for the state of its instrument until `settle` writes it back: whoever else is to see or change the state
has to settle first.
"""

from typing import NamedTuple

from normalize.continuity import Continuity
from normalize.coverage import Cover
from normalize.state import State
from pipeline.records import Instrument, Trade, encode


class Beginning(NamedTuple):
    """What the records of an instrument's trades begin with, up to their time; `symbol` as the stream shows it."""

    instrument: Instrument
    symbol: bytes
    text: str


class Lane:
    """Of one instrument: `next` and `newest` as in Continuity, `connections` of its cover. `arrived` is the host time
    of its last trade, `latest` the largest host time of its trades, or the largest of their own while the exchange's
    clock is not known; `data` is the record of the newest. `text` begins each record, `said` ends it, behind the
    side."""

    __slots__ = (
        "arrived", "connections", "cover", "data", "instrument", "latest", "newest", "next", "said", "seen", "symbol",
        "text",
    )  # fmt: skip

    def __init__(self, seen: Continuity, expected: tuple[int, int], cover: Cover, beginning: Beginning) -> None:
        self.seen, self.cover = seen, cover
        self.next, self.newest = expected
        self.connections = cover.connections
        self.instrument, self.symbol, self.text = beginning
        self.said = f',"epoch":{seen.epoch}' if seen.epoch else ""
        self.arrived: int | None = None
        self.latest = 0
        self.data: bytes | None = None

    def settle(self, offset: int | None) -> bool:
        """The state is as if each trade had been taken by itself; whether there was any. `offset` as in Evidence."""
        if self.arrived is None:
            return False
        self.seen.followed(self.next, self.newest, self.instrument.listed)
        # As Evidence.data, of an instrument that the connection covers.
        self.cover.message = self.arrived
        self.cover.shown = max(self.cover.shown, self.latest + (offset or 0))
        return True


class Lanes:
    """`begun`: those there are, by the instrument's name."""

    def __init__(self, state: State) -> None:
        self.begun: dict[str, Lane] = {}
        self._state = state
        self._beginnings: dict[str, Beginning] = {}

    def begin(self, instrument: Instrument) -> Lane | None:
        """A new lane. None where each trade has to be looked at: none was seen yet, nothing shows the channel's data,
        some wait for proof, or it is in doubt which was the last one."""
        name = instrument.instrument
        seen, cover = self._state.continuity.get(name), self._state.evidence.covers.get(name)
        if seen is None or cover is None or name in self._state.tails or (expected := seen.expected()) is None:
            return None
        beginning = self._beginnings.get(name)
        if beginning is None or beginning.instrument is not instrument:
            beginning = self._beginnings[name] = _beginning(instrument)
        lane = self.begun[name] = Lane(seen, expected, cover, beginning)
        return lane

    def settle(self) -> dict[str, bytes]:
        """Ends all lanes. Of each instrument with trades not older than those before, the newest's record."""
        offset, changed = self._state.evidence.offset, self._state.changed_continuity
        changed.update([name for name, lane in self.begun.items() if lane.settle(offset)])
        newest = {name: lane.data for name, lane in self.begun.items() if lane.data is not None}
        self.begun.clear()
        return newest


def _beginning(instrument: Instrument) -> Beginning:
    trade = Trade(
        exchange=instrument.exchange,
        market=instrument.market,
        symbol=instrument.symbol,
        instrument=instrument.instrument,
        time=0,
        received=0,
        id="",
        sequence=0,
        price="",
        size="",
        side="buy",
    )
    # Inside a text a quote would be escaped: the first `"time":` is the field.
    before, field, _ = encode(trade).decode().partition('"time":')
    return Beginning(instrument, instrument.symbol.encode(), before + field)
