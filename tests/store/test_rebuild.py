"""Requests to candles on real servers: what is stored of a window becomes what its trades say, whatever is killed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.heartbeat import Heartbeat
from pipeline.records import Candle, Rebuild, Trade
from pipeline.wire import Wire, check
from store.postgres import Database
from store.progress import Progress
from store.rebuild import Rebuilding, rebuild_partition
from tests.servers import PostgresServer, RedisServer
from tests.store.made import (
    BTC,
    KEYS,
    NOON,
    SECOND,
    Running,
    candle,
    clock,
    coverage,
    eventually,
    gap,
    publish,
    query,
    ready,
    start,
    trade,
)

WAITING = "SELECT count(*) FROM rebuilds"
MINUTE = 60 * SECOND
LATER = NOON + 60 * MINUTE


def rebuild(first: float, last: float, *timeframes: str, **fields: Any) -> Rebuild:
    """Of the windows at `first` … `last` minutes after noon."""
    span = {"from_time": NOON + round(first * MINUTE), "to_time": NOON + round(last * MINUTE)}
    made = {"time": LATER - 10 * MINUTE, "received": LATER, "timeframes": timeframes or ("1m",)}
    return msgspec.convert(BTC | span | made | fields, Rebuild)


def at(sequence: int, minutes: float, price: str = "100", **fields: Any) -> Trade:
    time = NOON + round(minutes * MINUTE)
    return trade(sequence, time=time, received=LATER, price=price, **fields)


def seen(until: int = LATER) -> list[msgspec.Struct]:
    """The instrument is covered from noon on."""
    return [coverage("covered", NOON), clock(until)]


@contextlib.asynccontextmanager
async def working(redis_url: str, database_url: str, folder: Path) -> AsyncIterator[Running]:
    """Both loops of a store."""
    running = start(redis_url, ready(database_url), folder)
    task = rebuilding(redis_url, database_url, running)
    try:
        yield running
    finally:
        running.stop.set()
        await asyncio.gather(running.task, task)


def rebuilding(redis_url: str, database_url: str, running: Running) -> "asyncio.Future[None]":
    progress = Progress(running.heartbeat)
    loop = rebuild_partition(
        KEYS, lambda: Wire.open(redis_url), lambda: Database.open(database_url, "store-0"), progress, running.stop
    )
    return asyncio.ensure_future(loop)


async def published(redis_url: str, timeframe: str = "1m") -> list[Candle]:
    wire = await Wire.open(redis_url)
    try:
        rows = check((await wire.call(("XRANGE", KEYS.stream(f"candle:{timeframe}"), "-", "+")))[0])
    finally:
        await wire.close()
    return [msgspec.json.decode(fields[3], type=Candle) for _, fields in rows]


def stored(database_url: str, timeframe: str = "1m") -> list[tuple[Any, ...]]:
    """(minutes after noon, quality, revision, close, trades, seconds missing) of each candle."""
    return [
        (round((opened - NOON) / MINUTE, 3), *rest)
        for opened, *rest in query(
            database_url,
            "SELECT exact_nanoseconds(open_time), quality, revision, close::text, trades_count, missing / 1000000000"
            " FROM candles WHERE timeframe = %s ORDER BY open_time",
            timeframe,
        )
    ]


async def test_windows_become_what_their_trades_say(redis_url: str, database_url: str, tmp_path: Path) -> None:
    """A candle that lacks a trade, one that is not there at all, and quiet ones whose price was another."""
    wrong = candle(0, open="100", high="100", low="100", close="100", trades_count=1)
    quiet = candle(1, open="100", high="100", low="100", close="100", trades_count=0, quality="quiet", volume="0")
    quiet = msgspec.structs.replace(quiet, quote_volume="0", buy_volume="0", buy_quote_volume="0", revision=3)
    trades = [at(1, 0.1), at(2, 0.5, "101", repaired=True), at(3, 2.5, "102.500", repaired=True), at(4, 59.9)]
    async with working(redis_url, database_url, tmp_path) as running:
        await publish(redis_url, [*seen(), *trades, wrong, quiet, rebuild(0, 3)])
        await eventually(database_url, "SELECT count(*) FROM candles", 4)
        await eventually(database_url, WAITING, 0)
        assert running.heartbeat.report().details["rebuilds"] == {"waiting": 0, "windows": 4}
    assert stored(database_url) == [
        (0, "repaired", 1, "101", 2, 0),
        (1, "quiet", 4, "101", 0, 0),
        (2, "repaired", 0, "102.5", 1, 0),
        (3, "quiet", 0, "102.5", 0, 0),
    ]
    told = (await published(redis_url))[2:]
    assert [one.revision for one in told] == [1, 4, 0, 0]
    assert {(one.received, one.symbol) for one in told} == {(LATER, "BTC-USDT")}
    assert (told[0].first_id, told[0].last_id, told[0].quote_volume) == ("1", "2", "100.5")
    wire = await Wire.open(redis_url)
    assert check((await wire.call(("EXISTS", KEYS.last("candle:1m"))))[0]) == 0, "the newest candle is aggregate's"
    await wire.close()


async def test_what_is_right_already_is_not_published_again(redis_url: str, database_url: str, tmp_path: Path) -> None:
    async with working(redis_url, database_url, tmp_path):
        await publish(redis_url, [*seen(), at(1, 0.1), at(2, 59), rebuild(0, 5, "1s", "1m"), rebuild(0, 5, "1s", "1m")])
        await eventually(database_url, "SELECT count(*) FROM candles", 7)
        await eventually(database_url, WAITING, 0)
        await publish(redis_url, [rebuild(0, 5, "1s", "1m"), at(3, 59.5)])
        await eventually(database_url, "SELECT count(*) FROM trades", 3)
        await eventually(database_url, WAITING, 0)
    assert [one.revision for one in await published(redis_url)] == [0] * 6
    assert [(one.revision, one.quality) for one in await published(redis_url, "1s")] == [(0, "complete")]


async def test_windows_that_end_after_the_horizon_are_left_to_aggregate(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    async with working(redis_url, database_url, tmp_path):
        trades = [at(1, 0.1), at(2, 49.5), at(3, 50.5), at(4, 59)]
        await publish(redis_url, [*seen(), *trades, rebuild(48, 58, "1m", "1d")])
        await eventually(database_url, "SELECT count(*) FROM candles", 2)
        await eventually(database_url, WAITING, 0)
    assert [minute for minute, *_ in stored(database_url)] == [48, 49]


async def test_a_quiet_candle_of_unknown_time_is_said_to_be_partial(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    flat: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close"), "100") | {
        "trades_count": 0,
        "quality": "quiet",
    }
    flat |= dict.fromkeys(("volume", "quote_volume", "buy_volume", "buy_quote_volume"), "0")
    hole = gap(
        from_sequence=2, to_sequence=5, from_time=NOON + MINUTE // 2, to_time=NOON + 4 * MINUTE, remaining=[[2, 5]]
    )
    async with working(redis_url, database_url, tmp_path):
        await publish(redis_url, [*seen(), at(1, 0.5), at(6, 4), at(7, 59), hole, candle(1, **flat), candle(2, **flat)])
        await publish(redis_url, [rebuild(0.5, 4)])
        await eventually(database_url, "SELECT count(*) FROM candles WHERE quality = 'partial'", 4)
        await eventually(database_url, WAITING, 0)
    assert stored(database_url) == [
        (0, "partial", 0, "100", 1, 30),
        (1, "partial", 1, "100", 0, 60),
        (2, "partial", 1, "100", 0, 60),
        (4, "partial", 0, "100", 1, 0),
    ]


async def test_candles_outlive_trades_that_retention_deleted(redis_url: str, database_url: str, tmp_path: Path) -> None:
    async with working(redis_url, database_url, tmp_path):
        await publish(redis_url, [*seen(), at(1, 0.1), at(2, 59), candle(0, trades_count=5), candle(1, trades_count=7)])
        await publish(redis_url, [rebuild(0, 1)])
        await eventually(database_url, "SELECT count(*) FROM candles", 2)
        await eventually(database_url, "SELECT entries FROM cursors WHERE stream LIKE '%%rebuild%%'", 1)
        await eventually(database_url, WAITING, 0)
    assert [(trades, revision) for *_, revision, _, trades, _ in stored(database_url)] == [(5, 0), (7, 0)]


async def test_nothing_is_computed_before_trades_and_ledger_are_stored(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    """The request may be stored long before the trades it tells of, when their stream is the longer one."""
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, [*seen(), rebuild(0, 0.5)])
    await eventually(database_url, WAITING, 1)
    await running.finish()
    await publish(redis_url, [at(1, 0.1), at(2, 0.2, "99"), at(3, 59)])
    again = start(redis_url, database_url, tmp_path)
    computing = rebuilding(redis_url, database_url, again)
    await eventually(database_url, WAITING, 0)
    again.stop.set()
    await asyncio.gather(again.task, computing)
    (one,) = await published(redis_url)
    assert (one.trades_count, one.close, one.revision) == (2, "99", 0)


async def test_a_store_that_slept_between_computing_and_publishing_publishes_nothing(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    """Its candle is of fewer trades than the one another store has published since."""
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, [*seen(), at(1, 0.1), at(9, 59), rebuild(0, 0.5)])
    await eventually(database_url, "SELECT count(*) FROM trades", 2)
    await eventually(database_url, WAITING, 1)
    stale = await sleeper(redis_url, database_url, tmp_path)
    await stale.asleep.wait()
    await publish(redis_url, [at(2, 0.2, "99")])
    await eventually(database_url, "SELECT count(*) FROM trades", 3)
    computing = rebuilding(redis_url, database_url, running)
    await eventually(database_url, WAITING, 0)
    stale.wake.set()
    with pytest.raises(Exception, match="another owner"):
        await stale.task
    await stale.wire.close()
    await stale.close()
    await running.finish()
    await computing
    assert [(one.trades_count, one.revision) for one in await published(redis_url)] == [(2, 0)]


class Sleeper(Database):
    """Stops after it has computed, as a process does that gets SIGSTOP there."""

    asleep: asyncio.Event
    wake: asyncio.Event
    wire: Wire
    task: "asyncio.Task[bool]"

    async def windows(self, number: int, timeframe: str, start: int, end: int) -> Any:
        found = await super().windows(number, timeframe, start, end)
        self.asleep.set()
        await self.wake.wait()
        return found


async def sleeper(redis_url: str, database_url: str, folder: Path) -> Sleeper:
    database = await Sleeper.open(database_url, "store-9")
    database.asleep, database.wake = asyncio.Event(), asyncio.Event()
    database.wire = await Wire.open(redis_url)
    progress = Progress(Heartbeat("store-9", folder))
    database.task = asyncio.create_task(Rebuilding(KEYS, database.wire, database, progress).turn())
    return database


@pytest.mark.parametrize("killed", ["redis", "postgres"])
async def test_servers_killed_meanwhile_change_nothing(
    redis_server: RedisServer, own_postgres: PostgresServer, tmp_path: Path, killed: str
) -> None:
    """Two hours of 5 s windows, computed in pieces, while a server dies three times."""
    url = own_postgres.create_database("rebuilt")
    trades = [at(number, number / 10, str(100 + number)) for number in range(1, 1_200)]
    async with working(redis_server.url, url, tmp_path):
        await publish(redis_server.url, [*seen(NOON + 3 * 60 * MINUTE), *trades])
        await eventually(url, "SELECT count(*) FROM trades", len(trades))
        horizon = NOON + 119 * MINUTE
        await publish(redis_server.url, [rebuild(0, 119, "1s", "5s", "1m", "5m", time=horizon)])
        for _ in range(3):
            await asyncio.sleep(0.5)
            server: RedisServer | PostgresServer = redis_server if killed == "redis" else own_postgres
            server.kill()
            server.start()
        await eventually(url, WAITING, 0, 60)
    wrong = query(
        url,
        "SELECT c.timeframe, c.open_time FROM candles c WHERE NOT EXISTS (SELECT FROM candles_of_trades("
        "c.instrument_id, c.timeframe, c.open_time, c.close_time) t"
        " WHERE (t.open, t.high, t.low, t.close, t.volume, t.trades_count, t.quality)"
        " = (c.open, c.high, c.low, c.close, c.volume, c.trades_count, c.quality))",
    )
    assert wrong == []
    counts = query(url, "SELECT timeframe, count(*)::int FROM candles GROUP BY 1 ORDER BY 1")
    assert counts == [("1m", 119), ("1s", 1189), ("5m", 23), ("5s", 1189)]
