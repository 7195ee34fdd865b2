"""aggregate alone: `pipeline run aggregate-0` over a trade stream that normalize filled; candles of eleven time frames,
and of 1s alone in the same rounds."""

from collections.abc import Iterator, Sequence

import msgspec

from bench.filling import entries_read, fill, normalized, nothing_dead
from bench.frames import Market
from bench.instance import Instance
from bench.observation import Observation, observe
from bench.part import Figures, Terms, expect, medians, ratio
from pipeline.probes.redis import call
from pipeline.records import Candle
from pipeline.timeframes import TIMEFRAMES

NAME = "aggregate"
SUMMARY = "trades to candles"
PROCESS = "aggregate-0"
KEYS = {
    "aggregate.trades_per_s": "trades a second, candles of eleven time frames",
    "aggregate.cpu_us_per_trade": "µs of CPU of its process for a trade, eleven time frames",
    "aggregate.redis_us_per_trade": "µs of CPU of Redis for a trade read and the candles written",
    "aggregate.one_frame_trades_per_s": "trades a second, candles of 1s alone",
    "aggregate.one_frame_cpu_us_per_trade": "µs of CPU of its process for a trade, 1s alone",
    "aggregate.cost_of_eleven_frames": "its CPU for eleven time frames, for one of 1s alone",
}

_CANDLE = msgspec.json.Decoder(Candle)


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS."""
    return medians(_rounds(terms, instance))


def _rounds(terms: Terms, instance: Instance) -> Iterator[Figures]:
    trades = terms.size(300_000, 20_000)
    for _ in range(terms.rounds):
        eleven, one = (_run(terms, instance, trades, timeframes) for timeframes in (TIMEFRAMES, ("1s",)))
        yield {
            "aggregate.trades_per_s": eleven.per_second,
            "aggregate.cpu_us_per_trade": eleven.microseconds(PROCESS),
            "aggregate.redis_us_per_trade": eleven.microseconds("redis"),
            "aggregate.one_frame_trades_per_s": one.per_second,
            "aggregate.one_frame_cpu_us_per_trade": one.microseconds(PROCESS),
            "aggregate.cost_of_eleven_frames": ratio(eleven.microseconds(PROCESS), one.microseconds(PROCESS)),
        }


def _run(terms: Terms, instance: Instance, trades: int, timeframes: Sequence[str]) -> Observation:
    """One run; the candles of 1s must hold every trade once."""
    instance.reset()
    fill(instance, Market("okx", terms.seed), trades, timeframes)
    normalized(instance, "okx", trades)
    entries = int(call(instance.redis, "XLEN", instance.keys("okx").trade))
    with instance.running(PROCESS):
        read = entries_read(instance, "okx", "aggregate")
        found = observe(instance, PROCESS, lambda: trades * read() / entries, trades)
    expect("trades in candles of 1s", _trades_in_candles(instance), trades)
    nothing_dead(instance, "okx")
    return found


def _trades_in_candles(instance: Instance) -> int:
    """Of the newest revision of each window."""
    counts: dict[tuple[str, int], int] = {}
    for _, fields in call(instance.redis, "XRANGE", instance.keys("okx").stream("candle:1s"), "-", "+"):
        candle = _CANDLE.decode(fields[b"data"])
        counts[candle.instrument, candle.open_time] = candle.trades_count
    return sum(counts.values())
