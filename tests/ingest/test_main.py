"""The whole process against the simulator and a real Redis: what came in stands in the raw stream once, in order."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
import redis.asyncio

from ingest.main import run, timing_of
from ingest.timing import MILLISECOND, Timing
from pipeline.errors import SettingsError
from pipeline.frames import ClockData, Frame, RawEntry, unpack
from pipeline.reports import Report, read
from pipeline.settings import Settings, TradingPair
from pipeline.timeframes import SECOND
from simulator.faults import Fault
from simulator.server import Simulator, serve
from tests.ingest.conftest import DEADLINE, HASTY, QUICK, eventually, frames_of, newest_id, read_raw, settings_for
from tests.servers import RedisServer

SYMBOLS = ("BTC-USDT", "ETH-USDT", "BTC-USDT-PERP")
NAME = "ingest-okx"


@contextlib.asynccontextmanager
async def collecting(settings: Settings, timing: Timing = QUICK) -> AsyncIterator[asyncio.Event]:
    """ingest-okx as a task; stopped and awaited at the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, NAME, stop, timing))
    try:
        yield stop
        stop.set()
        async with asyncio.timeout(DEADLINE):
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with serve(rate=400, limits=50) as simulator:
        yield simulator


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, simulator: Simulator) -> Settings:
    return settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, SYMBOLS)


def trade_ids(frames: list[Frame]) -> dict[tuple[str, str], list[int]]:
    """(connection, instrument) to the trade ids that came, in order."""
    found: dict[tuple[str, str], list[int]] = {}
    for frame in frames:
        if frame.kind == "ws" and frame.dir == "in" and '"data":' in frame.data:
            message = json.loads(frame.data)
            ids = found.setdefault((frame.conn, message["arg"]["instId"]), [])
            ids += [int(row["tradeId"]) for row in message["data"]]
    return found


def check(entries: list[RawEntry]) -> dict[tuple[str, str], list[int]]:
    """Numbers contiguous, times in order, each connection opens first and closes last, and has every trade between
    its first and its last once and in order."""
    assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
    frames = frames_of(entries)
    times = [frame.ts or 0 for frame in frames]
    assert times == sorted(times)
    for name in {frame.conn for frame in frames if "#" in frame.conn}:
        kinds = [frame.kind for frame in frames if frame.conn == name]
        assert (kinds[0], kinds[-1]) == ("open", "close")
        assert kinds.count("open") == kinds.count("close") == 1
    found = trade_ids(frames)
    for ids in found.values():
        assert ids == list(range(ids[0], ids[-1] + 1))
    return found


def trades_read(entries: list[RawEntry]) -> int:
    return sum(map(len, trade_ids(frames_of(entries)).values()))


async def more_trades(url: str, count: int = 100, partition: str = "okx") -> None:
    """Returns when `count` more trades are in the stream."""
    newest = await newest_id(url, partition)

    async def there() -> bool:
        return trades_read(await read_raw(url, partition, newest)) >= count

    await eventually(there)


def report(settings: Settings) -> Report:
    return read(settings.heartbeat_dir / NAME)


def subscriptions(settings: Settings) -> dict[str, dict[str, Any]]:
    """The rows of the newest report; none before the first one."""
    there = (settings.heartbeat_dir / NAME).exists()
    return dict(report(settings).details.get("subscriptions", {})) if there else {}


async def test_from_the_first_list_to_the_last_close(settings: Settings, redis_url: str) -> None:
    async with collecting(settings):
        await more_trades(redis_url, 300)
    entries = await read_raw(redis_url)
    found = check(entries)
    assert {instrument for _, instrument in found} == {"BTC-USDT", "ETH-USDT", "BTC-USDT-SWAP"}
    frames = [frame for frame in frames_of(entries) if frame.kind != "clock"]
    kinds = [frame.kind for frame in frames]
    assert kinds[:3] == ["rest", "rest", "open"], "lists of instruments come first"
    assert [str(frame.url).rpartition("=")[2] for frame in frames[:2]] == ["SPOT", "SWAP"]
    assert frames[0].conn == settings.file.exchanges["okx"].rest_url
    last = report(settings)
    assert last.status == "stopped"
    assert last.counters["frames"] == sum(frame.kind == "ws" and frame.dir == "in" for frame in frames)
    assert last.counters["written"] == sum(len(entry.frames) for entry in entries)
    assert last.details["buffered"] == 0
    assert last.errors == 0


async def test_the_clock_tells_of_connections_and_of_the_exchange(settings: Settings, redis_url: str) -> None:
    async with collecting(settings):
        await more_trades(redis_url)
    frames = frames_of(await read_raw(redis_url))
    clocks = [
        (frame.ts or 0, msgspec.json.decode(frame.data, type=ClockData)) for frame in frames if frame.kind == "clock"
    ]
    live = [(ts, clock) for ts, clock in clocks if clock.connections]
    assert live
    for ts, clock in live:
        assert all(last <= ts for last in clock.connections.values())
        assert clock.offset is not None
        # The simulator tells the time of this very machine.
        assert abs(clock.offset) <= clock.uncertainty
    heard = {frame.ts for frame in frames if frame.kind in ("ws", "open")}
    assert {last for _, clock in live for last in clock.connections.values()} <= heard


async def test_nothing_is_lost_or_doubled_under_faults_of_sockets_and_redis(
    settings: Settings, redis_server: RedisServer, simulator: Simulator
) -> None:
    url = redis_server.url
    async with collecting(settings, msgspec.structs.replace(QUICK, redis_timeout=HASTY.redis_timeout)):
        await more_trades(url)
        simulator.inject(Fault(fault="disconnect"))
        await more_trades(url)
        redis_server.pause()
        try:
            await asyncio.sleep(2 * HASTY.redis_timeout / SECOND)
        finally:
            redis_server.resume()
        await more_trades(url)
        simulator.inject(Fault(fault="notice", seconds=DEADLINE))
        await more_trades(url)
        for _ in range(2):
            await asyncio.to_thread(redis_server.kill)
            simulator.inject(Fault(fault="disconnect"))
            await asyncio.to_thread(redis_server.start)
            await more_trades(url)
    entries = await read_raw(url)
    connections = {connection for connection, _ in check(entries)}
    assert len(connections) == 5
    assert len({entry.w for entry in entries}) == 1


async def test_an_instrument_belongs_to_one_partition_and_lists_to_all(
    tmp_path: Path, redis_url: str, simulator: Simulator
) -> None:
    settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, SYMBOLS, partitions=2)
    shares: dict[int, set[str]] = {0: set(), 1: set()}
    for instrument in ("BTC-USDT", "ETH-USDT", "BTC-USDT-SWAP"):
        shares[crc32(instrument.encode()) % 2].add(instrument)
    async with collecting(settings):
        for number, share in shares.items():
            if share:
                await more_trades(redis_url, 20, f"okx.{number}")
    for number, share in shares.items():
        entries = await read_raw(redis_url, f"okx.{number}")
        found = check(entries)
        assert {instrument for _, instrument in found} == share
        frames = frames_of(entries)
        assert [frame.kind for frame in frames if frame.kind != "clock"][:2] == ["rest", "rest"]
        connections = {connection for connection, _ in found}
        clocks = [msgspec.json.decode(frame.data, type=ClockData) for frame in frames if frame.kind == "clock"]
        assert {name for clock in clocks for name in clock.connections} == connections


async def test_every_partition_replaces_its_connections_before_they_break(
    tmp_path: Path, redis_url: str, simulator: Simulator
) -> None:
    """As after 24 hours, all at once, and twice."""
    settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, SYMBOLS, partitions=2)
    names = {f"okx.{crc32(instrument.encode()) % 2}" for instrument in ("BTC-USDT", "ETH-USDT", "BTC-USDT-SWAP")}
    assert len(names) == 2

    async def ends(partition: str) -> list[tuple[str, str]]:
        frames = frames_of(await read_raw(redis_url, partition))
        return [(frame.kind, frame.conn) for frame in frames if frame.kind in ("open", "close")]

    async with collecting(settings, msgspec.structs.replace(QUICK, lifetime=SECOND)):

        async def replaced_twice() -> bool:
            return all([[kind for kind, _ in await ends(name)].count("close") >= 2 for name in names])

        await eventually(replaced_twice)
    for name in names:
        live: set[str] = set()
        told = await ends(name)
        for number, (kind, connection) in enumerate(told):
            (live.add if kind == "open" else live.discard)(connection)
            assert live or number == len(told) - 1, "never without a connection before the end"
        ids: dict[str, set[int]] = {}
        for (_, instrument), found in check(await read_raw(redis_url, name)).items():
            ids.setdefault(instrument, set()).update(found)
        assert ids
        for numbers in ids.values():
            assert numbers == set(range(min(numbers), max(numbers) + 1)), "the connections overlap"
    assert report(settings).errors == 0


async def test_one_of_fifty_is_refused_and_the_others_are_not_disturbed(tmp_path: Path, redis_url: str) -> None:
    async with serve(rate=400, symbols=60, limits=1) as simulator:
        instruments = sorted(simulator.state()["per_instrument"])[:50]
        simulator.inject(Fault(fault="refused_symbol", instrument=instruments[20], whole_request=True))
        settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, tuple(instruments))
        async with collecting(settings):

            async def settled() -> bool:
                rows = subscriptions(settings)
                return len(rows) == 50 and all(row["state"] != "requested" for row in rows.values())

            await eventually(settled)
            rows = subscriptions(settings)
            assert [row["instrument"] for row in rows.values() if row["state"] == "refused"] == [instruments[20]]
            assert len(report(settings).details["connections"]) == 1
    check(await read_raw(redis_url))


async def test_connecting_anew_all_at_once_stays_within_the_limits(tmp_path: Path, redis_url: str) -> None:
    """The simulator grants what OKX grants: 3 connections a second."""
    kinds = ("trade", "orderbook", "quote", "kline")
    pairs = tuple(TradingPair(symbol=symbol, data_types=kinds, timeframes=("1m",)) for symbol in SYMBOLS)
    async with serve(rate=50, limits=1) as simulator:
        settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, pairs, partitions=2)

        async def whole() -> bool:
            rows = subscriptions(settings)
            return len(rows) == 12 and all(row["state"] == "subscribed" for row in rows.values())

        async with collecting(settings):
            await eventually(whole)
            opened = simulator.state()["opened"]
            assert opened == 8, "four routes in each partition"
            simulator.inject(Fault(fault="disconnect"))

            async def again() -> bool:
                return bool(simulator.state()["opened"] == 2 * opened)

            await eventually(again)
            await eventually(whole)
        assert report(settings).errors == opened, "each cut once, none refused"
        assert "1006" in str(report(settings).last_error)


async def test_without_rest_it_connects_all_the_same_says_so_and_lists_later(
    settings: Settings, redis_url: str, simulator: Simulator
) -> None:
    simulator.inject(Fault(fault="rest_error", status=503))
    timing = msgspec.structs.replace(QUICK, rest_patience=SECOND // 10)
    async with collecting(settings, timing):
        await more_trades(redis_url)

        async def said() -> bool:
            return "instruments" in str(report(settings).last_error)

        await eventually(said)
        simulator.inject(Fault(fault="clear"))

        async def listed() -> bool:
            return sum(frame.kind == "rest" for frame in frames_of(await read_raw(redis_url))) >= 2

        await eventually(listed)
    check(await read_raw(redis_url))


async def test_it_waits_for_redis_before_it_collects(
    tmp_path: Path, redis_server: RedisServer, simulator: Simulator
) -> None:
    settings = settings_for(tmp_path, redis_server.url, simulator.ws_url, simulator.rest_url, SYMBOLS)
    await asyncio.to_thread(redis_server.kill)
    async with collecting(settings, HASTY):

        async def waits() -> bool:
            path = settings.heartbeat_dir / NAME
            return path.exists() and read(path).waiting_for == "redis"

        await eventually(waits)
        assert simulator.state()["opened"] == 0
        await asyncio.to_thread(redis_server.start)
        await more_trades(redis_server.url)
    check(await read_raw(redis_server.url))


async def test_a_second_ingest_started_later_wins(settings: Settings, redis_url: str) -> None:
    first = asyncio.create_task(run(settings, NAME, asyncio.Event(), QUICK))
    await more_trades(redis_url)
    async with collecting(settings):
        with pytest.raises(SettingsError, match="another ingest-okx"):
            async with asyncio.timeout(DEADLINE):
                await first
        await more_trades(redis_url)
    entries = await read_raw(redis_url)
    writers = [writer for writer, _ in itertools.groupby(entry.w for entry in entries)]
    assert len(writers) == 2, "no entry of the first after one of the second"
    assert writers == sorted(writers)
    check([entry for entry in entries if entry.w == writers[1]])


async def test_a_restart_begins_a_new_writer(settings: Settings, redis_url: str) -> None:
    for _ in range(2):
        async with collecting(settings):
            await more_trades(redis_url, 30)
    entries = await read_raw(redis_url)
    for _, group in itertools.groupby(entries, key=lambda entry: entry.w):
        check(list(group))
    assert len({entry.w for entry in entries}) == 2


async def test_what_was_kept_for_one_namespace_does_not_get_into_another(
    settings: Settings, redis_server: RedisServer
) -> None:
    """Simulated trades on disk, and then the settings of a live instance."""
    timing = msgspec.structs.replace(QUICK, spool_after=200 * MILLISECOND, flush=200 * MILLISECOND)
    async with collecting(settings, timing):
        await more_trades(redis_server.url)
        await asyncio.to_thread(redis_server.kill)

        async def spooled() -> bool:
            return report(settings).details["spool"]["okx"]["records"] >= 5

        await eventually(spooled)
    await asyncio.to_thread(redis_server.start)
    kept = await read_raw(redis_server.url)
    other = msgspec.structs.replace(settings.file.redis, namespace="other")
    moved = msgspec.structs.replace(settings, file=msgspec.structs.replace(settings.file, redis=other))
    async with collecting(moved):

        async def begun() -> bool:
            async with redis.asyncio.from_url(redis_server.url) as client:
                return bool(await client.xlen("other:raw:{okx}"))

        await eventually(begun)
    assert await read_raw(redis_server.url) == kept
    async with redis.asyncio.from_url(redis_server.url) as client:
        entries = [unpack(fields) for _, fields in await client.xrange("other:raw:{okx}")]
    assert len({entry.w for entry in entries}) == 1, "no entry of the process before"


async def test_what_redis_did_not_take_before_the_stop_is_written_by_the_next_start(
    settings: Settings, redis_server: RedisServer
) -> None:
    timing = msgspec.structs.replace(QUICK, spool_after=200 * MILLISECOND, flush=200 * MILLISECOND)
    async with collecting(settings, timing):
        await more_trades(redis_server.url)
        await asyncio.to_thread(redis_server.kill)

        async def spooled() -> bool:
            return report(settings).details["spool"]["okx"]["records"] >= 5

        await eventually(spooled)
    assert "on disk, for the next start" in str(report(settings).last_error)
    assert report(settings).counters["dropped"] == 0
    await asyncio.to_thread(redis_server.start)
    async with collecting(settings):
        await more_trades(redis_server.url)
    entries = await read_raw(redis_server.url)
    groups = [list(group) for _, group in itertools.groupby(entries, key=lambda entry: entry.w)]
    assert len(groups) == 2
    for group in groups:
        check(group)


async def test_status_is_told_of_connections_and_subscriptions(
    tmp_path: Path, redis_url: str, simulator: Simulator
) -> None:
    symbols = (*SYMBOLS, "NOPE-USDT")
    settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, symbols)
    async with collecting(settings):
        await more_trades(redis_url)

        async def told() -> bool:
            rows = report(settings).details.get("subscriptions", {})
            return "refused" in {row["state"] for row in rows.values()}

        await eventually(told)
        details = report(settings).details
    (connection,) = details["connections"].values()
    assert connection["state"] == "open"
    assert connection["frames"] > 0
    assert connection["attempts"] == connection["reconnects"] == 0
    states = {name: row["state"] for name, row in details["subscriptions"].items()}
    assert states == {
        "trades-all BTC-USDT": "subscribed",
        "trades-all ETH-USDT": "subscribed",
        "trades-all BTC-USDT-SWAP": "subscribed",
        "trades-all NOPE-USDT": "refused",
    }
    assert "60018" in details["subscriptions"]["trades-all NOPE-USDT"]["reason"]
    assert details["subscriptions"]["trades-all BTC-USDT-SWAP"]["symbol"] == "BTC-USDT-PERP"


async def test_the_namespace_is_told_what_it_holds(settings: Settings, redis_url: str) -> None:
    async with collecting(settings):
        await more_trades(redis_url, 1)
    async with redis.asyncio.from_url(redis_url, decode_responses=True) as client:
        meta = await client.hgetall("sim:meta")
        index = await client.hgetall("sim:index")
    assert meta == {"schema": "1", "mode": "simulated", "partitions:okx": "1"}
    assert json.loads(index["sim:trade:{okx}"]) == {
        "kind": "trade",
        "exchange": "okx",
        "partition": "okx",
        "partitions": 1,
    }
    assert {"sim:raw:{okx}", "sim:candle:1m:{okx}", "sim:gap:{okx}", "sim:dead:{okx}"} <= set(index)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("partitions:okx", "2", "has 2 partitions of okx, not 1"),
        ("mode", "live", "holds live data"),
        ("schema", "9", "schema 9"),
    ],
)
async def test_a_namespace_used_in_another_way_is_refused(
    settings: Settings, redis_url: str, field: str, value: str, said: str
) -> None:
    async with redis.asyncio.from_url(redis_url) as client:
        await client.hset("sim:meta", field, value)
    with pytest.raises(SettingsError, match=said):
        async with asyncio.timeout(DEADLINE):
            await run(settings, NAME, asyncio.Event(), QUICK)
    assert await read_raw(redis_url) == []


async def test_settings_that_cannot_be_collected_are_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "redis://127.0.0.1:1/0", "ws://127.0.0.1:1", "http://127.0.0.1:1", SYMBOLS)
    with pytest.raises(SettingsError, match="'kraken' is not enabled"):
        await run(settings, "ingest-kraken", asyncio.Event())
    twice = settings_for(
        tmp_path, "redis://127.0.0.1:1/0", "ws://127.0.0.1:1", "http://127.0.0.1:1", ("BTC-USDT-PERP", "BTC-USDT-SWAP")
    )
    with pytest.raises(SettingsError, match="same instrument"):
        await run(twice, NAME, asyncio.Event())


def test_the_settings_have_a_word_in_the_timing(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "redis://127.0.0.1:1/0", "ws://127.0.0.1:1", "http://127.0.0.1:1", SYMBOLS)
    timing = timing_of(settings)
    assert (timing.first_delay, timing.mute) == (5 * SECOND, 300 * SECOND)
