"""The instruments of one partition: what is known of each, and whose a symbol is. Pure."""

import msgspec

from pipeline.records import Instrument, Record
from pipeline.timeframes import DAY

GONE_AFTER = 7 * DAY
"""A dated contract is forgotten so long after its expiry: its id never comes again."""
UNLISTED = "not listed yet"


class Catalogue:
    """`instruments` by the venue's id; `changed` are the ids whose saved state is out of date."""

    def __init__(self, instruments: dict[str, Instrument]) -> None:
        self.instruments = instruments
        self.changed: set[str] = set()
        self._owners = {record.symbol: name for name, record in instruments.items()}

    def take(self, instrument: Instrument) -> Instrument | None:
        """The record to emit, or None when nothing about the instrument is new but the time it was received."""
        known = self.instruments.get(instrument.instrument)
        owner = self._owners.get(instrument.symbol, instrument.instrument)
        if known is not None:
            instrument = msgspec.structs.replace(instrument, symbol=known.symbol)
        elif owner != instrument.instrument:
            # A symbol is unique for good: who comes second keeps the venue's own name.
            instrument = msgspec.structs.replace(instrument, symbol=instrument.instrument)
        if known is not None and msgspec.structs.replace(instrument, received=known.received) == known:
            return None
        self._keep(instrument)
        return instrument

    def know(self, found: Record) -> None:
        """A spot pair met before any list named it: what the mapper says of it (an instrument, or what a record's
        canonical symbol tells) is kept, but is not the venue's word."""
        if found.instrument in self.instruments:
            return
        if isinstance(found, Instrument):
            self._keep(msgspec.structs.replace(found, status=UNLISTED))
            return
        base, _, quote = found.symbol.partition("-")
        self._keep(
            Instrument(
                exchange=found.exchange,
                market=found.market,
                symbol=found.symbol,
                instrument=found.instrument,
                time=None,
                received=found.received,
                base=base,
                quote=quote,
                status=UNLISTED,
            )
        )

    def gone(self, now: int) -> list[str]:
        """Dated contracts that ended long before host time `now`."""
        return sorted(name for name, instrument in self.instruments.items() if ended(instrument, now))

    def forget(self, name: str) -> None:
        """Drops the instrument and frees its symbol."""
        self._owners.pop(self.instruments.pop(name).symbol, None)
        self.changed.add(name)

    def _keep(self, instrument: Instrument) -> None:
        self._owners[instrument.symbol] = instrument.instrument
        self.instruments[instrument.instrument] = instrument
        self.changed.add(instrument.instrument)


def ended(instrument: Instrument, now: int) -> bool:
    """Whether it is a dated contract that ended long before host time `now`. Some venues list those for months."""
    dated = instrument.market in ("future", "option") and instrument.expiry is not None
    return dated and (instrument.expiry or 0) + GONE_AFTER < now
