"""normalize alone: `pipeline run normalize-<exchange>` over a raw stream that is full, from frames to records in Redis.

Yardstick: cryptofeed on the same frames, with its Redis stream backend and with nothing behind it.
"""

from collections.abc import Iterator

from bench.filling import entries_read, fill, nothing_dead, trades_in
from bench.frames import Market
from bench.instance import Instance
from bench.observation import Observation, observe
from bench.part import Figures, Terms, expect, medians, ratio
from bench.yardsticks.rival import Rival

NAME = "normalize"
SUMMARY = "frames of the raw stream to records"
KEYS = {
    "normalize.trades_per_s": "trades a second, frames of OKX",
    "normalize.cpu_us_per_trade": "µs of CPU of its process for a trade",
    "normalize.redis_us_per_trade": "µs of CPU of Redis for a trade, read and written",
    "normalize.binance_trades_per_s": "trades a second, frames of Binance",
    "normalize.binance_cpu_us_per_trade": "µs of CPU of its process for a trade of Binance",
    "normalize.ratio_to_cryptofeed_redis": "our trades a second for one of cryptofeed into its Redis stream backend",
    "normalize.cpu_ratio_to_cryptofeed_redis": "CPU of our process for a trade, as a share of cryptofeed's so",
    "normalize.ratio_to_cryptofeed_noop": "our trades a second for one of cryptofeed that keeps nothing",
    "yardstick.cryptofeed_redis.trades_per_s": "trades a second of cryptofeed into its Redis stream backend",
    "yardstick.cryptofeed_redis.cpu_us_per_trade": "µs of CPU of that process for a trade",
    "yardstick.cryptofeed_noop.trades_per_s": "trades a second of cryptofeed with a callback that does nothing",
}
MOST = 100_000
"""Trades. Their frames and their records together stay below the 64 MB at which Redis rewrites its file."""


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS."""
    return medians(_rounds(terms, instance))


def _rounds(terms: Terms, instance: Instance) -> Iterator[Figures]:
    trades = terms.size(MOST, 20_000)
    rival = Rival(terms, instance, trades)
    for _ in range(terms.rounds):
        okx, binance = (_run(terms, instance, exchange, trades) for exchange in ("okx", "binance"))
        instance.reset()
        noop, redis = rival.run("noop"), rival.run("redis")
        yield {
            "normalize.trades_per_s": okx.per_second,
            "normalize.cpu_us_per_trade": okx.microseconds("normalize-okx"),
            "normalize.redis_us_per_trade": okx.microseconds("redis"),
            "normalize.binance_trades_per_s": binance.per_second,
            "normalize.binance_cpu_us_per_trade": binance.microseconds("normalize-binance"),
            "normalize.ratio_to_cryptofeed_redis": ratio(okx.per_second, redis.per_second),
            "normalize.cpu_ratio_to_cryptofeed_redis": ratio(okx.microseconds("normalize-okx"), redis.microseconds),
            "normalize.ratio_to_cryptofeed_noop": ratio(okx.per_second, noop.per_second),
            "yardstick.cryptofeed_redis.trades_per_s": redis.per_second,
            "yardstick.cryptofeed_redis.cpu_us_per_trade": redis.microseconds,
            "yardstick.cryptofeed_noop.trades_per_s": noop.per_second,
        }


def _run(terms: Terms, instance: Instance, exchange: str, trades: int) -> Observation:
    """One run over a stream of its own; every trade must be in the trade stream once, in order."""
    instance.reset()
    entries = fill(instance, Market(exchange, terms.seed), trades)
    process = f"normalize-{exchange}"
    with instance.running(process):
        read = entries_read(instance, exchange, "normalize")
        # Entries hold equally many trades each, but for the last few.
        found = observe(instance, process, lambda: trades * read() / entries, trades)
    expect(f"{process}: trades in its stream", trades_in(instance, exchange), trades)
    nothing_dead(instance, exchange)
    return found
