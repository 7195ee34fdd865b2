"""What a venue's mapper gives to normalize: one frame in, records out. No I/O, no clock, no memory.

A further exchange is a further file `normalize/exchanges/<module>.py` with a class `Mapper`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple, Protocol

from pipeline.errors import DecodeError
from pipeline.exchanges import Exchange
from pipeline.frames import Frame
from pipeline.records import Instrument, Trade


class Reading(NamedTuple):
    """What one frame says. `control` names a frame that carries no market data (an acknowledgement, a
    pong …); `faults` are its elements that could not be used, beside the good ones."""

    trades: tuple[Trade, ...] = ()
    instruments: tuple[Instrument, ...] = ()
    faults: tuple[DecodeError, ...] = ()
    control: str | None = None


class Mapper(Protocol):
    """One venue's frames."""

    trade_channels: frozenset[str]
    """Channels that prove an instrument's trades are seen."""

    def read(self, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
        """The records of a `ws` or `rest` frame whose `ts` is known. `instruments`: by the venue's id, what is
        known so far. Trades come in the venue's order, of epoch 0. Raises DecodeError when the whole frame is
        of no use."""

    def time(self, frame: Frame) -> int | None:
        """The newest time (ns) the venue wrote into the frame, or None: the clock of recordings that kept none."""


def load(exchange: Exchange) -> Mapper:
    """The exchange's mapper, its module found by name."""
    mapper: Mapper = import_module(f"normalize.exchanges.{exchange.module}").Mapper()
    return mapper
