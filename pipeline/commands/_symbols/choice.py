"""Which instruments of a list are meant: a symbol, a pattern, a market, traded or not. Pure."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from pipeline.exchanges import Exchange
from pipeline.records import Instrument


class Choice(NamedTuple):
    """`pattern` against canonical symbol and native id, in either case, as in the settings; None: all. `everything`:
    those too that are not being traded."""

    pattern: str | None
    market: str | None
    everything: bool

    def of(self, instruments: Iterable[Instrument], exchange: Exchange) -> list[Instrument]:
        """What is chosen, by symbol."""
        found = [record for record in instruments if self._fits(record, exchange)]
        return sorted(found, key=lambda record: (record.symbol, record.instrument))

    def _fits(self, record: Instrument, exchange: Exchange) -> bool:
        if self.market is not None and record.market != self.market:
            return False
        if not self.everything and record.status != exchange.traded:
            return False
        wanted = (self.pattern or "*").upper()
        return any(fnmatchcase(name.upper(), wanted) for name in (record.symbol, record.instrument))
