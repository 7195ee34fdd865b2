"""What a namespace is told of an exchange before its first frame: streams, number of partitions, live or not."""

from collections.abc import Iterable

import msgspec

from ingest.feed import Feed
from pipeline.errors import SettingsError
from pipeline.records import SCHEMA_VERSION
from pipeline.settings import Settings, TradingPair
from pipeline.steps import Command
from pipeline.streams import READERS, Keys, index_key, meta_key
from pipeline.wire import Wire, check


async def register(wire: Wire, settings: Settings, exchange: str, feed: Feed) -> None:
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
    index: list[str | bytes] = [part for pair in _streams(settings, exchange, feed).items() for part in pair]
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


def _streams(settings: Settings, exchange: str, feed: Feed) -> dict[str, bytes]:
    """Stream name to its line in the index."""
    pairs = [pair for pair in settings.file.exchanges[exchange].trading_pairs if pair.enabled]
    partitions = settings.partitions(exchange)
    return {
        Keys(settings.namespace, partition).stream(kind): msgspec.json.encode(
            {"kind": kind, "exchange": exchange, "partition": partition, "partitions": len(partitions)}
        )
        for partition in partitions
        for kind in _kinds(pairs, feed)
    }


def _kinds(pairs: Iterable[TradingPair], feed: Feed) -> list[str]:
    """The kinds of streams that the pairs ask for, in the order of READERS."""
    wanted = {"raw", "instrument", "dead"}
    for pair in pairs:
        if not {"trade", "candle"}.isdisjoint(pair.data_types):
            wanted |= {"trade", "gap", *(f"candle:{timeframe}" for timeframe in pair.timeframes)}
        if "kline" in pair.data_types:
            wanted |= {f"kline:{timeframe}" for timeframe in pair.timeframes if feed.channels("kline", (timeframe,))}
        wanted |= {"quote", "orderbook", "ticker"} & set(pair.data_types)
    return [kind for kind in READERS if kind in wanted]
