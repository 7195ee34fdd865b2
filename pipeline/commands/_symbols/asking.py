"""Lists of instruments asked of the exchange itself: its feed says where, its mapper reads the answer."""

import random

import msgspec

from pipeline.exchanges import Exchange
from pipeline.frames import Frame
from pipeline.records import Instrument
from pipeline.timeframes import SECOND

TRIES = 2
PATIENCE = 5 * SECOND


async def ask(exchange: Exchange, rest_url: str, pattern: str | None) -> list[Instrument]:
    """The instruments of every list that may have the pattern; `received` is now. Raises ExchangeError, DecodeError."""
    import importlib

    from ingest.clock import HostClock
    from ingest.rest import Rest
    from ingest.timing import Timing
    from normalize.mapper import load

    feed = importlib.import_module(f"ingest.exchanges.{exchange.module}").Feed()
    mapper, clock = load(exchange), HostClock()
    found: dict[str, Instrument] = {}
    async with Rest(rest_url, feed, clock, Timing(rest_timeout=PATIENCE), random.random) as rest:
        for request in feed.listings([feed.native(pattern) if pattern else "*"]):
            answer = await rest.get(request, tries=TRIES)
            frame = Frame(clock.now(), rest.url, "in", "rest", answer.body, answer.url)
            for record in mapper.read(frame, found).instruments:
                found[record.instrument] = _alone(record, found)
    return list(found.values())


def _alone(record: Instrument, found: dict[str, Instrument]) -> Instrument:
    """A symbol is unique: who comes second keeps the exchange's own name, as in the streams."""
    taken = any(other.symbol == record.symbol for other in found.values() if other.instrument != record.instrument)
    return msgspec.structs.replace(record, symbol=record.instrument) if taken else record
