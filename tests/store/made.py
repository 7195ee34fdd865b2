"""Made records for the tests of store, and the streams they come on."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from pipeline.heartbeat import Heartbeat
from pipeline.records import (
    Candle,
    CandleSettings,
    Clock,
    Coverage,
    Gap,
    Instrument,
    Kline,
    OrderBook,
    Quote,
    Record,
    Ticker,
    Trade,
    encode,
)
from pipeline.steps import Command, Entry
from pipeline.streams import Keys
from pipeline.wire import Wire, check
from store.batch import Batch
from store.postgres import Database
from store.prepare import prepare
from store.progress import Progress
from store.spill import Spill
from store.spilling import AWAY
from store.stage import store_partition

SECOND = 1_000_000_000
NOON = 1_760_000_400 * SECOND
"""2025-10-09 09:00 UTC."""
KEYS = Keys("test", "okx")
BTC = {"exchange": "okx", "market": "spot", "symbol": "BTC-USDT", "instrument": "BTC-USDT"}


def trade(sequence: int, **fields: Any) -> Trade:
    time = NOON + sequence % 10_000_000 * SECOND // 10
    made = {
        "exchange": "okx",
        "market": "spot",
        "symbol": "BTC-USDT",
        "instrument": "BTC-USDT",
        "time": time,
        "received": time + 5_000_123,
        "id": str(sequence),
        "sequence": sequence,
        "price": "64000.10",
        "size": "0.5",
        "side": "buy",
    }
    return msgspec.convert(made | fields, Trade)


def candle(number: int, timeframe: str = "1m", **fields: Any) -> Candle:
    width = {"1s": SECOND, "1m": 60 * SECOND}[timeframe]
    open_time = NOON + number * width
    made = {
        "exchange": "okx",
        "market": "spot",
        "symbol": "BTC-USDT",
        "instrument": "BTC-USDT",
        "time": open_time + width,
        "received": open_time + width + SECOND,
        "timeframe": timeframe,
        "open_time": open_time,
        "close_time": open_time + width,
        "open": "64000.10",
        "high": "64001",
        "low": "64000",
        "close": "64000.5",
        "volume": "2.5",
        "quote_volume": "160001",
        "buy_volume": "1",
        "buy_quote_volume": "64000",
        "trades_count": 5,
        "quality": "complete",
    }
    return msgspec.convert(made | fields, Candle)


def kline(number: int, timeframe: str = "1m", **fields: Any) -> Kline:
    width = {"1s": SECOND, "1m": 60 * SECOND}[timeframe]
    open_time = NOON + number * width
    bar = {"timeframe": timeframe, "open_time": open_time, "close_time": open_time + width}
    prices = {"open": "64000.10", "high": "64001", "low": "64000", "close": "64000.5", "volume": "2.5"}
    times = {"time": None, "received": open_time + width + SECOND // 10}
    return msgspec.convert(BTC | bar | prices | times | fields, Kline)


def quote(number: int, **fields: Any) -> Quote:
    received = NOON + number * SECOND // 10
    times = {"time": None, "received": received, "sequence": number}
    best = {"bid": "64000.10", "bid_size": "0.5", "ask": "64000.20", "ask_size": "1.25"}
    return msgspec.convert(BTC | times | best | fields, Quote)


def ticker(number: int, **fields: Any) -> Ticker:
    time = NOON + number * SECOND
    made = {"time": time, "received": time + 5_000_123, "last": "64000.10", "volume_24h": "1234.5"}
    return msgspec.convert(BTC | made | fields, Ticker)


def book(number: int, *, grid: bool = True, **fields: Any) -> OrderBook:
    """The book `number` tenths of a second after noon; on the grid where it is said to be."""
    time = NOON + number * SECOND // 10
    times = {"time": time - 7_000_000, "received": time + 5_000_123, "snapshot_time": time if grid else None}
    levels = {"bids": [["64000.10", "0.5"], ["63999.9", "2"]], "asks": [["64000.20", "1.25"]]}
    return msgspec.convert(BTC | times | levels | {"depth": 20, "sequence": number} | fields, OrderBook)


def instrument(**fields: Any) -> Instrument:
    made = {
        "exchange": "okx",
        "market": "spot",
        "symbol": "BTC-USDT",
        "instrument": "BTC-USDT",
        "time": None,
        "received": NOON,
        "base": "BTC",
        "quote": "USDT",
        "status": "live",
        "tick_size": "0.1",
    }
    return msgspec.convert(made | fields, Instrument)


def gap(**fields: Any) -> Gap:
    made = {
        "exchange": "okx",
        "market": "spot",
        "symbol": "BTC-USDT",
        "instrument": "BTC-USDT",
        "time": NOON + 20 * SECOND,
        "received": NOON + 20 * SECOND,
        "epoch": 0,
        "from_sequence": 10,
        "to_sequence": 19,
        "from_time": NOON + 9 * SECOND,
        "to_time": NOON + 20 * SECOND,
        "cause": "sequence",
        "state": "opened",
        "remaining": [[10, 19]],
    }
    return msgspec.convert(made | fields, Gap)


def coverage(state: str, time: int, **fields: Any) -> Coverage:
    made = {
        "exchange": "okx",
        "market": "spot",
        "symbol": "BTC-USDT",
        "instrument": "BTC-USDT",
        "time": time,
        "received": time,
        "state": state,
        "cause": "open" if state == "covered" else "closed",
        "connection": "ws#1" if state == "covered" else None,
        "candles": CandleSettings(timeframes=("1s", "1m")) if state == "covered" else None,
    }
    return msgspec.convert({key: value for key, value in (made | fields).items() if value is not None}, Coverage)


def clock(time: int) -> Clock:
    return Clock(exchange="okx", time=time, received=time, uncertainty=1_000_000, connections={"ws#1": time})


def fields(record: msgspec.Struct) -> dict[bytes, bytes]:
    """The fields of the stream entry that normalize or aggregate would write."""
    if isinstance(record, Clock | Coverage):
        return {b"control": type(record).__name__.lower().encode(), b"data": encode(record)}
    assert isinstance(record, Record)
    return {b"symbol": record.symbol.encode(), b"data": encode(record)}


def stream(record: msgspec.Struct, keys: Keys = KEYS) -> str:
    name = type(record).__name__.lower()
    if isinstance(record, Candle | Kline):
        return keys.stream(f"{name}:{record.timeframe}")
    return keys.stream("trade" if name in ("clock", "coverage") else name)


def entry(number: int, record: msgspec.Struct, **changes: bytes) -> Entry:
    return Entry(b"1700000000000-%d" % number, fields(record) | {k.encode(): v for k, v in changes.items()})


def add(record: msgspec.Struct, keys: Keys = KEYS) -> Command:
    """The command that puts the record on its stream."""
    flat = [part for pair in fields(record).items() for part in pair]
    return ("XADD", stream(record, keys), "*", *flat)


async def publish(url: str, records: Sequence[msgspec.Struct], keys: Keys = KEYS) -> list[bytes]:
    """Puts the records on their streams; the entries' ids."""
    wire = await Wire.open(url)
    try:
        return [check(reply) for reply in await wire.call(*(add(record, keys) for record in records))]
    finally:
        await wire.close()


@dataclass
class Running:
    """A store at work on one partition."""

    task: "asyncio.Task[None]"
    stop: asyncio.Event
    heartbeat: Heartbeat

    async def finish(self) -> None:
        self.stop.set()
        await self.task


def start(
    redis_url: str,
    database_url: str,
    folder: Path,
    *,
    keys: Keys = KEYS,
    most_rows: int = 1000,
    age: float = 0.02,
    name: str = "store-0",
    patience: float = AWAY,
    most_bytes: int = 64 * 1024 * 1024,
) -> Running:
    """A store for `keys` in a task of this loop."""
    heartbeat = Heartbeat(name, folder)
    stop = asyncio.Event()
    work = store_partition(
        keys,
        lambda: Wire.open(redis_url),
        lambda: Database.open(database_url, name),
        Progress(heartbeat),
        stop,
        Spill(folder / "spill" / name, most_bytes, heartbeat.error, namespace=keys.namespace),
        most_rows=most_rows,
        age=age,
        patience=patience,
    )
    return Running(asyncio.create_task(work), stop, heartbeat)


def query(database_url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url, autocommit=True, connect_timeout=10) as connection:
        return connection.execute(statement.encode(), values or None).fetchall()


async def eventually(database_url: str, statement: str, wanted: Any, deadline: float = 30.0) -> None:
    """Waits until the statement's one value is `wanted`; the last value stands in the failure."""
    seen: Any = "nothing"
    end = asyncio.get_running_loop().time() + deadline
    while asyncio.get_running_loop().time() < end:
        try:
            rows = await asyncio.to_thread(query, database_url, statement)
            seen = rows[0][0] if rows else "no row"
        except psycopg.OperationalError as error:
            seen = error
        if seen == wanted:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{statement}: {seen!r}, not {wanted!r}, after {deadline:g} s")


def ready(database_url: str) -> str:
    """The database, migrated."""
    prepare(database_url)
    return database_url


async def write(database_url: str, *records: msgspec.Struct) -> None:
    """Stores the records as one batch."""

    async def bury(letters: object) -> None:
        raise AssertionError(f"unusable: {letters}")

    batch = Batch("okx")
    database = await Database.open(ready(database_url), "store-0")
    names = {stream(record): None for record in records}
    cursors = await database.cursors("test", list(names))
    for name in names:
        kind = name.removeprefix("test:").removesuffix(":{okx}")
        at, first = cursors[name].id, cursors[name].entries
        entries = [entry(first + n, record) for n, record in enumerate(records, start=1) if stream(record) == name]
        batch.take(kind, name, at, entries)
    await database.write("test", batch, bury)
    await database.close()
