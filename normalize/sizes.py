"""The published levels of one instrument: native quantities to base units, where no price is needed for it. Pure."""

from typing import Literal

from normalize.mapper import Level
from pipeline.instruments import base_size
from pipeline.records import Instrument


class Sizes:
    """`unit` of the sizes that `levels` gives: contracts where base units would depend on the price (inverse), or where
    the contract's value is not known."""

    def __init__(self, instrument: Instrument) -> None:
        native = instrument.contract == "inverse" or instrument.contract_value is None
        self.unit: Literal["base", "contracts"] = "contracts" if native and instrument.market != "spot" else "base"
        self._instrument = instrument
        self._asis = instrument.market == "spot" or native
        self._known: dict[Level, Level] = {}

    def levels(self, bids: tuple[Level, ...], asks: tuple[Level, ...]) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """Both sides, exact. Most levels are those of the record before: they are not computed again."""
        if self._asis:
            return bids, asks
        known = self._known
        self._known = {level: known.get(level) or self._base(level) for level in (*bids, *asks)}
        return tuple(self._known[level] for level in bids), tuple(self._known[level] for level in asks)

    def _base(self, level: Level) -> Level:
        return level[0], base_size(self._instrument, level[1], level[0])
