"""The instruments normalize has read from earlier lists: what to go by while the exchange gives none. Reads only."""

from collections.abc import Iterator

import msgspec

from ingest.feed import Feed, Listed
from pipeline.exchanges import EXCHANGES
from pipeline.records import Instrument
from pipeline.streams import Keys
from pipeline.wire import Wire, check

_INSTRUMENT = msgspec.json.Decoder(Instrument)


async def remembered(wire: Wire, keys: Keys, feed: Feed, now: int) -> list[Listed]:
    """The newest record of each instrument that has not expired `now` (ns UTC); every partition has them all.
    Raises ServerAway."""
    fields = check((await wire.call(("HVALS", keys.last("instrument"))))[0])
    return list(_read(fields, EXCHANGES[feed.name].traded, now))


def _read(texts: list[bytes], traded: str, now: int) -> Iterator[Listed]:
    """What cannot be read is left out: a list will come."""
    for text in texts:
        try:
            record = _INSTRUMENT.decode(text)
        except msgspec.DecodeError:
            continue
        if record.expiry is None or record.expiry > now:
            yield Listed(record.instrument, record.symbol, record.status == traded)
