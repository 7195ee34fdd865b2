"""What a namespace is told of an exchange before its first frame: streams, number of partitions, live or not."""

import msgspec

from pipeline.errors import SettingsError
from pipeline.records import SCHEMA_VERSION
from pipeline.settings import Settings
from pipeline.steps import Command
from pipeline.streams import Keys, index_key, meta_key
from pipeline.timeframes import WIDTHS
from pipeline.wire import Wire, check


async def register(wire: Wire, settings: Settings, exchange: str) -> None:
    """Idempotent. Raises SettingsError where the namespace was used in another way, ServerAway."""
    meta = meta_key(settings.namespace)
    fixed = {
        "schema": str(SCHEMA_VERSION),
        "mode": "simulated" if settings.file.simulated else "live",
        f"partitions:{exchange}": str(len(settings.partitions(exchange))),
    }
    commands: list[Command] = [("HSETNX", meta, field, value) for field, value in fixed.items()]
    replies = await wire.call(*commands, ("HMGET", meta, *fixed))
    found = [value.decode() for value in [check(reply) for reply in replies][-1]]
    for (field, value), there in zip(fixed.items(), found, strict=True):
        if there != value:
            raise SettingsError(_refusal(settings, field, there, value))
    index: list[str | bytes] = [part for pair in _streams(settings, exchange).items() for part in pair]
    check((await wire.call(("HSET", index_key(settings.namespace), *index)))[0])


def _refusal(settings: Settings, field: str, there: str, value: str) -> str:
    where = f"namespace {settings.namespace!r}"
    if field == "mode":
        return f"{where} holds {there} data, these settings are {value}: give redis.namespace another name"
    if field == "schema":
        return (
            f"{where} was written with schema {there}, this program writes {value}: give redis.namespace another name"
        )
    exchange = field.partition(":")[2]
    return (
        f"{where} has {there} partitions of {exchange}, not {value}: the number is fixed when a namespace is first used"
    )


def _streams(settings: Settings, exchange: str) -> dict[str, bytes]:
    """Stream name to its line in the index."""
    pairs = settings.file.exchanges[exchange].trading_pairs
    timeframes = {timeframe for pair in pairs if pair.enabled for timeframe in pair.timeframes}
    candles = [f"candle:{timeframe}" for timeframe in WIDTHS if timeframe in timeframes]
    partitions = settings.partitions(exchange)
    return {
        Keys(settings.namespace, partition).stream(kind): msgspec.json.encode(
            {"kind": kind, "exchange": exchange, "partition": partition, "partitions": len(partitions)}
        )
        for partition in partitions
        for kind in ("raw", "trade", *candles, "instrument", "gap", "dead")
    }
