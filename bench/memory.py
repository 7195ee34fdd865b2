"""How many bytes of Redis a trade takes: in the raw stream as a frame, in the trade stream as a record."""

from bench.filling import fill, normalized
from bench.frames import Market
from bench.instance import Instance
from bench.part import Figure, Figures, Terms, medians
from pipeline.probes.redis import call

NAME = "memory"
SUMMARY = "bytes of Redis for each trade"
KEYS = {
    "memory.bytes_per_trade": "bytes: one entry of the trade stream, all its overhead included",
    "memory.bytes_per_raw_frame": "bytes: one trade frame in the raw stream, 64 to an entry",
}


def measure(terms: Terms, instance: Instance) -> Figures:
    """See KEYS. What Redis says (MEMORY USAGE) is the same in every round, so there is one."""
    trades = terms.size(100_000, 5_000)
    fill(instance, Market("okx", terms.seed), trades)
    normalized(instance, "okx", trades)
    keys = instance.keys("okx")
    figures: dict[str, Figure] = {}
    for key, stream in (("memory.bytes_per_trade", keys.trade), ("memory.bytes_per_raw_frame", keys.raw)):
        used: int = call(instance.redis, "MEMORY", "USAGE", stream, "SAMPLES", "0")
        figures[key] = used / trades
    return medians([figures])
