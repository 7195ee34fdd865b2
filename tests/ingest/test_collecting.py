"""The whole process on Binance: lists that come late, patterns, what is not listed, wants and their answers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio

import ingest
from ingest.main import run
from ingest.timing import Timing
from pipeline.frames import ClockData, Frame, RequestData, SubscriptionData
from pipeline.records import Instrument, encode
from pipeline.reports import read
from pipeline.settings import CollectionSettings, Settings, TradingPair
from pipeline.streams import Keys
from pipeline.timeframes import MINUTE, SECOND
from pipeline.wants import Want, resync_key, snapshot_key
from simulator.server import serve
from tests.ingest.conftest import DEADLINE, QUICK, eventually, frames_of, read_raw, settings_for
from tests.ingest.stand import Stand, line

NAME = "ingest-binance"
KEYS = Keys("sim", "binance")
OURS = str(Path(ingest.__file__).parent)
BAN = (418, {"Retry-After": "7200"}, '{"code":-1003,"msg":"Way too much request weight used; IP banned."}')
ALL = ("trade", "candle", "orderbook", "quote", "ticker", "kline")


@contextlib.asynccontextmanager
async def collecting(settings: Settings, timing: Timing = QUICK) -> AsyncIterator[None]:
    """ingest-binance as a task; stopped and awaited at the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, NAME, stop, timing))
    try:
        yield
        stop.set()
        async with asyncio.timeout(DEADLINE):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with Stand().running() as stand:
        yield stand


def settings_of(folder: Path, redis_url: str, stand: Stand, *pairs: str | TradingPair) -> Settings:
    return settings_for(folder, redis_url, stand.ws_url, stand.rest_url, pairs, name="binance")


async def frames(redis_url: str, *kinds: str) -> list[Frame]:
    return [frame for frame in frames_of(await read_raw(redis_url, "binance")) if not kinds or frame.kind in kinds]


async def told(redis_url: str, key: str) -> list[tuple[int, str]]:
    data = [msgspec.json.decode(frame.data, type=RequestData) for frame in await frames(redis_url, "request")]
    return [(each.number, each.state) for each in data if each.key == key]


def details(settings: Settings) -> dict[str, Any]:
    path = settings.heartbeat_dir / NAME
    return dict(read(path).details) if path.exists() else {}


def last_error(settings: Settings) -> str:
    path = settings.heartbeat_dir / NAME
    return str(read(path).last_error) if path.exists() else ""


async def eventually_opened(stand: Stand, number: int) -> None:
    async def there() -> bool:
        return len(stand.sockets) >= number

    await eventually(there)


async def subscribed(settings: Settings, names: Iterable[str]) -> None:
    """Returns when exactly these rows are subscribed."""
    wanted = set(names)

    async def there() -> bool:
        rows = details(settings).get("subscriptions", {})
        return {name for name, row in rows.items() if row["state"] == "subscribed"} == wanted

    await eventually(there)


async def want(redis_url: str, **wants: Want) -> None:
    """Sets wants by key, as normalize does."""
    async with redis.asyncio.from_url(redis_url) as client, client.pipeline(transaction=True) as pipe:
        for key, each in wants.items():
            pipe.hset(KEYS.want, key, msgspec.json.encode(each))
            pipe.xadd(KEYS.request, {"key": key})
        await pipe.execute()


def snapshot(instrument: str, number: int = 1) -> Want:
    return Want(what="snapshot", instrument=instrument, number=number, since=1, reason="first")


async def test_canonical_symbols_are_subscribed_by_the_list_and_what_it_lacks_is_refused(
    tmp_path: Path, redis_url: str, stand: Stand
) -> None:
    pair = TradingPair(symbol="BTC-USDT", data_types=ALL, timeframes=("1m", "1s", "5s"))
    settings = settings_of(tmp_path, redis_url, stand, pair, "NOPE-USDT")
    channels = ("trade", "depth@100ms", "bookTicker", "ticker", "kline_1s", "kline_1m")
    async with collecting(settings):
        await subscribed(settings, (f"{channel} BTCUSDT" for channel in channels))
        rows = details(settings)["subscriptions"]
        assert "NOPE-USDT is not listed" in last_error(settings)
    assert stand.streams(1) == {f"btcusdt@{channel}" for channel in channels}
    assert rows["trade BTCUSDT"]["kinds"] == ["trade", "candle"]
    assert rows["kline_1m BTCUSDT"]["kinds"] == ["kline"]
    assert rows["trade BTCUSDT"]["symbol"] == "BTC-USDT"
    refused = rows["trade NOPE-USDT"]
    assert (refused["state"], refused["reason"], refused["conn"]) == ("refused", "not listed", None)
    said = [frame for frame in await frames(redis_url, "subscription") if "NOPE" in frame.data]
    assert [frame.conn for frame in said] == [stand.rest_url], "once, on no connection"
    assert msgspec.json.decode(said[0].data, type=SubscriptionData).state == "refused"


async def test_the_frames_of_subscriptions_carry_the_settings(tmp_path: Path, redis_url: str, stand: Stand) -> None:
    pair = TradingPair(symbol="BTC-USDT", data_types=ALL, timeframes=("1m",))
    settings = settings_of(tmp_path, redis_url, stand, pair)
    collection = CollectionSettings(book_depth=50, book_interval=0.25, store_interval=5.0, candle_grace=2.0)
    settings = msgspec.structs.replace(
        settings, file=msgspec.structs.replace(settings.file, collection_settings=collection)
    )
    async with collecting(settings):
        await subscribed(
            settings,
            (f"{channel} BTCUSDT" for channel in ("trade", "depth@100ms", "bookTicker", "ticker", "kline_1m")),
        )
    data = [msgspec.json.decode(frame.data, type=SubscriptionData) for frame in await frames(redis_url, "subscription")]
    book, trade, quote = (
        next(each for each in data if each.channel == channel) for channel in ("depth@100ms", "trade", "bookTicker")
    )
    assert (book.depth, book.interval, book.store_interval) == (50, SECOND // 4, 5 * SECOND)
    assert (trade.timeframes, trade.grace) == (("1m",), 2 * SECOND)
    assert (quote.depth, quote.timeframes) == (20, ())


async def test_a_list_that_comes_late_is_waited_for_without_end(tmp_path: Path, redis_url: str, stand: Stand) -> None:
    stand.shut = True
    settings = settings_of(tmp_path, redis_url, stand, "BTC-USDT")
    async with collecting(settings, msgspec.structs.replace(QUICK, rest_patience=SECOND // 10)):

        async def waits() -> bool:
            row = details(settings).get("subscriptions", {}).get("trade BTC-USDT")
            return bool(row) and row["state"] == "requested" and "list" in row["reason"]

        await eventually(waits)
        assert not stand.said, "nothing is subscribed on a guess"
        stand.shut = False
        await subscribed(settings, ["trade BTCUSDT"])


async def test_a_new_listing_that_matches_is_subscribed_beside_the_others(
    tmp_path: Path, redis_url: str, stand: Stand
) -> None:
    settings = settings_of(tmp_path, redis_url, stand, "*-USDT", "ETH-BTC", "*-DOGE")
    async with collecting(settings, msgspec.structs.replace(QUICK, listings=SECOND // 5)):
        await subscribed(settings, ["trade BTCUSDT", "trade ETHUSDT", "trade ETHBTC"])
        assert details(settings)["patterns"] == {"*-USDT": 2, "*-DOGE": 0}
        assert "*-DOGE matches no instrument" in last_error(settings)
        stand.lines.append(line("NEWUSDT", "NEW", "USDT"))
        await subscribed(settings, ["trade BTCUSDT", "trade ETHUSDT", "trade ETHBTC", "trade NEWUSDT"])
        assert details(settings)["patterns"]["*-USDT"] == 3
    assert len(stand.sockets) == 1
    asked = [request["params"] for request in stand.said[0]]
    assert asked == [["ethbtc@trade", "btcusdt@trade", "ethusdt@trade"], ["newusdt@trade"]]


async def test_what_leaves_the_list_is_refused_on_every_connection_until_it_comes_back(
    tmp_path: Path, redis_url: str, stand: Stand
) -> None:
    settings = settings_of(tmp_path, redis_url, stand, "BTC-USDT", "ETH-USDT")
    async with collecting(settings, msgspec.structs.replace(QUICK, listings=SECOND // 5)):
        await subscribed(settings, ["trade BTCUSDT", "trade ETHUSDT"])
        (gone,) = [each for each in stand.lines if each["symbol"] == "ETHUSDT"]
        stand.lines.remove(gone)
        await subscribed(settings, ["trade BTCUSDT"])
        assert details(settings)["subscriptions"]["trade ETHUSDT"]["reason"] == "not listed"
        assert "ETH-USDT is no longer listed" in last_error(settings)
        await stand.sockets[0].close()
        await eventually_opened(stand, 2)
        await subscribed(settings, ["trade BTCUSDT"])
        stand.lines.append(gone)
        await subscribed(settings, ["trade BTCUSDT", "trade ETHUSDT"])
    said = [
        (frame.conn.rpartition("#")[2], msgspec.json.decode(frame.data, type=SubscriptionData).state)
        for frame in await frames(redis_url, "subscription")
        if "ETHUSDT" in frame.data
    ]
    assert said == [
        ("1", "requested"),
        ("1", "subscribed"),
        ("1", "refused"),
        ("2", "refused"),
        ("2", "requested"),
        ("2", "subscribed"),
    ]


@pytest.mark.parametrize("phase", ["asking for the list", "subscribing", "asking for a snapshot", "banned"])
async def test_stop_ends_every_phase_and_leaves_no_task(
    tmp_path: Path, redis_url: str, stand: Stand, phase: str
) -> None:
    stand.shut, stand.mute = phase == "asking for the list", phase == "subscribing"
    stand.refusal = BAN if phase == "banned" else None
    stand.slow.clear()
    settings = settings_of(tmp_path, redis_url, stand, "BTC-USDT")
    await want(redis_url, **{snapshot_key("BTCUSDT"): snapshot("BTCUSDT")})

    async def reached() -> bool:
        if phase == "subscribing":
            return bool(stand.sockets)
        return bool(stand.snapshots if phase == "asking for a snapshot" else stand.asked)

    # The retries of the real timing are far apart: stop comes amid a pause.
    stop = asyncio.Event()
    before = asyncio.all_tasks()
    task = asyncio.create_task(run(settings, NAME, stop, Timing()))
    async with asyncio.timeout(DEADLINE):
        await eventually(reached)
        stop.set()
        await task
    code = [getattr(each.get_coro(), "cr_code", None) for each in asyncio.all_tasks() - before]
    assert not [each for each in code if each is not None and each.co_filename.startswith(OURS)]


async def test_wants_become_answers_and_are_told_of(tmp_path: Path, redis_url: str, stand: Stand) -> None:
    settings = settings_of(tmp_path, redis_url, stand, "BTC-USDT")
    key = snapshot_key("BTCUSDT")
    stand.answers = [(429, {"Retry-After": "1"}, '{"code":-1003,"msg":"Too many requests"}')]
    async with collecting(settings):
        await subscribed(settings, ["trade BTCUSDT"])
        await want(redis_url, **{key: snapshot("BTCUSDT")})

        async def refused() -> bool:
            return await told(redis_url, key) == [(1, "asked"), (1, "refused")]

        await eventually(refused)
        await want(redis_url, **{key: snapshot("BTCUSDT", 2)})

        async def answered() -> bool:
            return await told(redis_url, key) == [(1, "asked"), (1, "refused"), (2, "asked"), (2, "answered")]

        await eventually(answered)

        async def reported() -> bool:
            row = details(settings)["requests"].get(key)
            return bool(row == {"number": 2, "state": "answered", "reason": None})

        await eventually(reported)
        budgets = details(settings)["budgets"]
    assert (budgets["weight"]["limit"], budgets["weight"]["period"]) == (6000, MINUTE)
    assert budgets["weight"]["used"] >= 100
    assert budgets["connects"]["used"] == 1
    rest = [frame for frame in await frames(redis_url, "rest") if frame.key]
    assert [frame.key for frame in rest] == [key]


async def test_a_restart_does_what_the_hash_still_wants(tmp_path: Path, redis_url: str, stand: Stand) -> None:
    settings = settings_of(tmp_path, redis_url, stand, "BTC-USDT")
    gone = f"{stand.ws_url}/stream#1"
    keys = snapshot_key("BTCUSDT"), resync_key("BTCUSDT", gone)
    old = Want(what="resync", instrument="BTCUSDT", number=4, since=1, reason="gap", connection=gone)
    await want(redis_url, **{keys[0]: snapshot("BTCUSDT", 7), keys[1]: old})
    for times in (1, 2):
        async with collecting(settings):

            async def done(times: int = times) -> bool:
                return [await told(redis_url, key) for key in keys] == [
                    [(7, "asked"), (7, "answered")] * times,
                    [(4, "asked"), (4, "refused")] * times,
                ]

            await eventually(done)


async def test_a_ban_is_not_asked_against_by_anybody_nor_by_the_next_process(
    tmp_path: Path, redis_url: str, stand: Stand
) -> None:
    settings = settings_of(tmp_path, redis_url, stand, "BTC-USDT")
    timing = msgspec.structs.replace(QUICK, listings=SECOND // 5, clock=SECOND // 5, rest_patience=SECOND // 5)

    async def held() -> bool:
        return bool(details(settings).get("budgets", {}).get("weight", {}).get("held", 0) > 3600 * SECOND)

    async with collecting(settings, timing):
        await subscribed(settings, ["trade BTCUSDT"])
        stand.refusal = BAN
        await eventually(held)
        asked = len(stand.asked)
        await want(redis_url, **{snapshot_key("BTCUSDT"): snapshot("BTCUSDT")})

        async def refused() -> bool:
            return (1, "refused") in await told(redis_url, snapshot_key("BTCUSDT"))

        await eventually(refused)
    # What was under way when the ban came could not be called back.
    assert len(stand.asked) - asked <= 1
    stand.asked.clear()
    for _ in range(2):
        async with collecting(settings, timing):
            await eventually(held)

            async def said() -> bool:
                return "as the exchange demands" in last_error(settings)

            await eventually(said)
    assert stand.asked == []


async def test_without_a_list_it_goes_on_with_what_normalize_has_read_before(
    tmp_path: Path, redis_url: str, stand: Stand
) -> None:
    known = [
        Instrument(
            exchange="binance",
            market="spot",
            symbol=f"{base}-USDT",
            instrument=f"{base}USDT",
            time=None,
            received=1,
            base=base,
            quote="USDT",
            status=status,
            expiry=expiry,
        )
        for base, status, expiry in (
            ("BTC", "TRADING", None),
            ("OLD", "TRADING", None),
            ("OFF", "BREAK", None),
            ("END", "TRADING", 1),
        )
    ]
    async with redis.asyncio.from_url(redis_url) as client:
        fields = {each.instrument: encode(each) for each in known} | {"?": b"{"}
        await client.hset(KEYS.last("instrument"), mapping=fields)
    stand.shut = True
    settings = settings_of(tmp_path, redis_url, stand, "BTC-USDT", "O*-USDT", "E*-USDT", "NEW-USDT")
    async with collecting(settings, msgspec.structs.replace(QUICK, rest_patience=SECOND // 10)):
        await subscribed(settings, ["trade BTCUSDT", "trade OLDUSDT"])
        assert details(settings)["subscriptions"]["trade NEW-USDT"]["reason"] == "waits for the list of instruments"
        stand.shut = False
        await subscribed(settings, ["trade BTCUSDT", "trade ETHUSDT"])
        rows = details(settings)["subscriptions"]
    assert (rows["trade OLDUSDT"]["state"], rows["trade OLDUSDT"]["reason"]) == ("refused", "not listed")
    assert (rows["trade NEW-USDT"]["state"], rows["trade NEW-USDT"]["reason"]) == ("refused", "not listed")
    assert len(stand.sockets) == 1, "nothing was connected anew"


@pytest.mark.parametrize("late", [False, True], ids=["at the start", "later"])
async def test_an_empty_list_is_not_believed(tmp_path: Path, redis_url: str, stand: Stand, late: bool) -> None:
    settings = settings_of(tmp_path, redis_url, stand, "BTC-USDT")
    lines = stand.lines
    timing = msgspec.structs.replace(QUICK, listings=SECOND // 5, rest_patience=SECOND // 5)
    stand.lines = lines if late else []
    async with collecting(settings, timing):
        if late:
            await subscribed(settings, ["trade BTCUSDT"])
            stand.lines = []

        async def doubted() -> bool:
            return "there is nothing in it" in last_error(settings)

        await eventually(doubted)
        rows = details(settings)["subscriptions"]
        assert [row["state"] for row in rows.values()] == ["subscribed" if late else "requested"]
        stand.lines = lines
        await subscribed(settings, ["trade BTCUSDT"])
    assert all("BTCUSDT" in frame.data for frame in await frames(redis_url, "rest"))


@pytest.mark.parametrize("lies", [1, 3], ids=["one answer", "a whole measurement"])
async def test_wrong_answers_of_the_clock_are_not_believed(
    tmp_path: Path, redis_url: str, stand: Stand, lies: int
) -> None:
    settings = settings_of(tmp_path, redis_url, stand, "BTC-USDT")
    async with collecting(settings, msgspec.structs.replace(QUICK, clock=SECOND // 10)):
        await subscribed(settings, ["trade BTCUSDT"])
        stand.lies = lies

        async def doubted() -> bool:
            return "clock: " in last_error(settings)

        await eventually(doubted)
        asked = len(stand.asked)

        async def asked_again() -> bool:
            return len(stand.asked) > asked + 3

        await eventually(asked_again)
    clocks = [msgspec.json.decode(frame.data, type=ClockData).offset for frame in await frames(redis_url, "clock")]
    assert all(abs(offset) < SECOND for offset in clocks if offset is not None)


async def test_the_index_lists_what_the_pairs_ask_for(tmp_path: Path, redis_url: str, stand: Stand) -> None:
    pairs = (
        TradingPair(symbol="BTC-USDT", data_types=("trade", "quote"), timeframes=("1m",)),
        TradingPair(symbol="ETH-USDT", data_types=("orderbook", "kline"), timeframes=("5s", "1h")),
    )
    settings = settings_of(tmp_path, redis_url, stand, *pairs)
    async with collecting(settings):
        await subscribed(
            settings,
            ["trade BTCUSDT", "bookTicker BTCUSDT", "depth@100ms ETHUSDT", "kline_1h ETHUSDT"],
        )
    async with redis.asyncio.from_url(redis_url, decode_responses=True) as client:
        index = await client.hgetall("sim:index")
    kinds = {json.loads(text)["kind"] for text in index.values()}
    assert kinds == {"raw", "trade", "gap", "instrument", "dead", "quote", "orderbook", "candle:1m", "kline:1h"}
    assert "sim:kline:1h:{binance}" in index


async def test_against_the_simulator_every_kind_gives_data(tmp_path: Path, redis_url: str) -> None:
    async with serve(exchange="binance", rate=200, limits=50) as simulator:
        pair = TradingPair(symbol="BTC-USDT", data_types=ALL, timeframes=("1s",))
        settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, (pair,), name="binance")
        channels = ("trade", "depth@100ms", "bookTicker", "ticker", "kline_1s")
        key = snapshot_key("BTCUSDT")
        async with collecting(settings):
            await want(redis_url, **{key: snapshot("BTCUSDT")})

            async def there() -> bool:
                text = "\n".join(frame.data for frame in await frames(redis_url, "ws"))
                return all(f'"stream":"btcusdt@{channel}"' in text for channel in channels)

            await eventually(there)

            async def answered() -> bool:
                return (1, "answered") in await told(redis_url, key)

            await eventually(answered)

            async def measured() -> bool:
                return details(settings).get("clock_offset") is not None

            await eventually(measured)
    (body,) = [json.loads(frame.data) for frame in await frames(redis_url, "rest") if frame.key]
    assert body["lastUpdateId"] > 0
