"""`pipeline run ingest-okx` under a flood of trades from the bench's own exchange: from its socket to the raw stream.

The process is up and subscribed when the flood begins. The ids of the first and the last entry with a trade say, by the
clock of Redis, how long it took.
"""

import msgspec

from bench.exchange import Exchange
from bench.filling import LONG, Count
from bench.frames import SYMBOLS
from bench.instance import Instance
from bench.observation import Observation
from bench.part import Terms, expect
from pipeline.settings import ExchangeSettings, SettingsFile, TradingPair
from pipeline.steps import stream_id

PROCESS = "ingest-okx"
IN_FLIGHT = 16_000
"""Frames sent that are not in the stream yet. ingest never makes an exchange wait: what it reads faster than Redis
takes it would go to disk."""
EVERY = 0.01


def flood(terms: Terms, instance: Instance, frames: int) -> Observation:
    """Every frame printed must be in the raw stream once."""
    before = instance.settings.file
    with Exchange(SYMBOLS, terms.seed) as exchange:
        instance.reset()
        instance.change(lambda file: _collecting(file, exchange))
        try:
            with instance.running(PROCESS):
                instance.until(lambda: exchange.told().subscribed == SYMBOLS, "every subscription")
                return _observe(instance, exchange, frames)
        finally:
            instance.change(lambda _: before)


def _observe(instance: Instance, exchange: Exchange, frames: int) -> Observation:
    count, before = Count(instance), instance.cpu()

    def all_there() -> bool:
        exchange.allow(count.more() + IN_FLIGHT)
        return count.frames >= frames

    exchange.print(frames)
    instance.until(all_there, "all frames in the raw stream", LONG, EVERY)
    after = instance.cpu()
    expect("frames in the raw stream", count.more(), exchange.told().printed)
    seconds = (stream_id(count.last)[0] - stream_id(count.first)[0]) / 1000
    return Observation(frames, seconds, {name: after[name] - before[name] for name in before})


def _collecting(file: SettingsFile, exchange: Exchange) -> SettingsFile:
    pairs = tuple(TradingPair(symbol=name) for name in exchange.names)
    ours = ExchangeSettings(trading_pairs=pairs, ws_url=exchange.ws_url, rest_url=exchange.rest_url)
    return msgspec.structs.replace(file, exchanges={"okx": ours})
