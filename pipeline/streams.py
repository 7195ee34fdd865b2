"""Names of every stream and key, and who reads what. [contract]

The partition stands in a hash tag, so all its keys share one Redis Cluster slot.
"""

from typing import NamedTuple

from pipeline.timeframes import TIMEFRAMES

READERS: dict[str, tuple[str, ...]] = {
    "raw": ("normalize",),
    "trade": ("aggregate", "store"),
    "instrument": ("store",),
    "gap": ("store",),
    "quote": ("store",),
    "orderbook": ("store",),
    "ticker": ("store",),
    **{f"candle:{timeframe}": ("store",) for timeframe in TIMEFRAMES},
    **{f"kline:{timeframe}": ("store",) for timeframe in TIMEFRAMES},
    "rebuild": ("store",),
    "dead": (),
}
"""Stream kind to the stages that must have read an entry before it may be trimmed."""


class Keys(NamedTuple):
    """The keys of one partition in one namespace: `Keys("md", "okx").raw == "md:raw:{okx}"`."""

    namespace: str
    partition: str

    @property
    def tag(self) -> str:
        return "{" + self.partition + "}"

    def stream(self, kind: str) -> str:
        """`kind` is a key of READERS: raw, trade, orderbook, candle:1m, kline:1m, dead …."""
        return f"{self.namespace}:{kind}:{{{self.partition}}}"

    @property
    def raw(self) -> str:
        return self.stream("raw")

    @property
    def trade(self) -> str:
        return self.stream("trade")

    @property
    def dead(self) -> str:
        return self.stream("dead")

    def state(self, stage: str) -> str:
        """Hash: field `cursor` and the stage's saved state."""
        return f"{self.namespace}:state:{stage}:{self.tag}"

    def lease(self, stage: str) -> str:
        """String: token of the process that works on this partition now. Saves work, proves nothing."""
        return f"{self.namespace}:lease:{stage}:{self.tag}"

    def last(self, kind: str) -> str:
        """Hash: instrument to its newest record. `kind` as in `stream`."""
        return f"{self.namespace}:last:{kind}:{self.tag}"

    @property
    def want(self) -> str:
        """Hash: key of a want to the want (pipeline/wants.py): what normalize wants of ingest now."""
        return f"{self.namespace}:want:{self.tag}"

    @property
    def request(self) -> str:
        """Stream: the wake-up for `want`, capped; an entry has the field `key`."""
        return f"{self.namespace}:request:{self.tag}"

    @property
    def floor(self) -> str:
        """Hash: stream to the newest id that the trimmer may have removed; it never goes back."""
        return f"{self.namespace}:floor:{self.tag}"

    @property
    def lost(self) -> str:
        """Hash: `<stream> <group>` to what a consumer group of others lost by trimming (pipeline/losses.py)."""
        return f"{self.namespace}:lost:{self.tag}"


def index_key(namespace: str) -> str:
    """Hash: stream name to JSON {kind, exchange, partition, partitions}. Readers find streams here."""
    return f"{namespace}:index"


def meta_key(namespace: str) -> str:
    """Hash: schema version, number of partitions per exchange, simulated or live."""
    return f"{namespace}:meta"


def ready_key(namespace: str) -> str:
    """String: run id of the Redis whose append-only file was rewritten since it started."""
    return f"{namespace}:ready"


def progress_key(namespace: str) -> str:
    """Hash: process name to its report (JSON), for readers on other machines."""
    return f"{namespace}:progress"


def partitions(exchange: str, count: int) -> tuple[str, ...]:
    """`okx` for one partition; `okx.0`, `okx.1` … for several."""
    return (exchange,) if count == 1 else tuple(f"{exchange}.{number}" for number in range(count))
