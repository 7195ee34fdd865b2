"""When normalize waits because nobody reads what it writes, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import pipeline.heartbeat
import pipeline.worker
from pipeline.judgement import HUNG_WORKER, Life, Policy, Seen, judge
from pipeline.pressure import OUTPUTS, Pressure
from pipeline.reports import read
from pipeline.steps import Command
from pipeline.streams import READERS, Keys
from pipeline.wire import Wire, check
from tests.pipeline.faults import until
from tests.pipeline.test_worker import all_processed, assert_right, fill, opener, output, worker
from tests.servers import RedisServer

KEYS = Keys("md", "okx")
MB = 1_000_000


@pytest.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[Wire]:
    """On a Redis that is large enough for buffers not to count."""
    opened = await Wire.open(redis_server.url)
    await opened.call(("SETRANGE", "ballast", 32_000_000, "x"))
    yield opened
    await opened.close()


async def add(wire: Wire, stream: str, size: int, *readers: str) -> None:
    """`size` bytes that none of the readers has read."""
    for group in readers:
        await wire.call(("XGROUP", "CREATE", stream, group, "0", "MKSTREAM", "ENTRIESREAD", 0))
    entry: Command = ("XADD", stream, "*", "number", 0, "f", "v" * 10_000)
    for _ in range(size // (100 * 10_000)):
        await wire.call(*[entry] * 100)


async def read_all(wire: Wire, stream: str, *readers: str) -> None:
    """As our stages show it."""
    facts = check((await wire.call(("XINFO", "STREAM", stream)))[0])
    added = dict(zip(facts[::2], facts[1::2], strict=True))[b"entries-added"]
    for group in readers:
        check((await wire.call(("XGROUP", "SETID", stream, group, "$", "ENTRIESREAD", added)))[0])


async def limit(wire: Wire, share: float) -> None:
    """Lets what is used now be this share of the limit."""
    text: bytes = check((await wire.call(("INFO", "memory")))[0])
    used = next(int(line.split(":")[1]) for line in text.decode().splitlines() if line.startswith("used_memory:"))
    check((await wire.call(("CONFIG", "SET", "maxmemory", int(used / share))))[0])


def normalize() -> Pressure:
    return Pressure(KEYS, "normalize", KEYS.raw)


async def test_a_large_backlog_is_worked_off_however_full_redis_is(wire: Wire) -> None:
    await add(wire, KEYS.raw, 20 * MB, "normalize")
    await add(wire, KEYS.trade, 10 * MB, "aggregate", "store")
    await limit(wire, 0.95)
    assert not await normalize().too_high(wire)


async def test_what_nobody_has_read_is_waited_for(wire: Wire) -> None:
    await add(wire, KEYS.raw, 6 * MB, "normalize")
    await add(wire, KEYS.trade, 5 * MB, "aggregate", "store")
    await add(wire, KEYS.stream("orderbook"), 5 * MB, "store")
    await limit(wire, 0.60)
    assert not await normalize().too_high(wire), "there is room"
    await limit(wire, 0.85)
    assert await normalize().too_high(wire), "all outputs together are more than the input"
    assert not await Pressure(KEYS, "aggregate", KEYS.trade).too_high(wire), "aggregate never waits"
    await read_all(wire, KEYS.trade, "aggregate")
    assert await normalize().too_high(wire), "the slowest reader counts"
    await read_all(wire, KEYS.trade, "store")
    assert not await normalize().too_high(wire)


async def test_outputs_that_are_read_but_not_trimmed_are_no_reason(wire: Wire) -> None:
    """They are kept for others, and the trimmer sees to them."""
    await add(wire, KEYS.raw, 2 * MB, "normalize")
    await add(wire, KEYS.trade, 20 * MB, "aggregate", "store")
    await read_all(wire, KEYS.trade, "aggregate", "store")
    await read_all(wire, KEYS.raw, "normalize")
    await add(wire, KEYS.trade, MB)
    await limit(wire, 0.95)
    assert not await normalize().too_high(wire), "a megabyte is read within a moment"


async def test_where_redis_cannot_tell_the_work_goes_on(wire: Wire) -> None:
    await add(wire, KEYS.raw, 12 * MB, "normalize")
    await add(wire, KEYS.trade, 10 * MB, "aggregate", "store")
    entry = check((await wire.call(("XRANGE", KEYS.raw, "-", "+", "COUNT", 2)))[0])[1][0]
    await wire.call(("XDEL", KEYS.raw, entry))
    await limit(wire, 0.95)
    assert not await normalize().too_high(wire)


async def test_without_a_limit_nothing_waits(wire: Wire) -> None:
    await add(wire, KEYS.trade, 5 * MB, "aggregate", "store")
    check((await wire.call(("CONFIG", "SET", "maxmemory", 0)))[0])
    assert not await normalize().too_high(wire)


def test_all_that_normalize_writes_counts() -> None:
    assert {"trade", "orderbook", "quote", "ticker", "kline:1m", "gap", "instrument"} <= set(OUTPUTS["normalize"])
    assert not {"raw", "dead", "candle:1m", "rebuild"} & set(OUTPUTS["normalize"])
    assert set(OUTPUTS["normalize"]) < set(READERS)


async def test_the_worker_waits_alive_and_goes_on(
    tmp_path: Path, redis_server: RedisServer, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its lease and beats, so nobody takes it for hung; when the output is read it goes on, and when it is
    told to stop while it waits it stops."""
    monkeypatch.setattr(pipeline.worker, "WEIGH", 0.01)
    monkeypatch.setattr(pipeline.heartbeat, "INTERVAL", 0.01)
    books = KEYS.stream("orderbook")
    await add(wire, books, 10 * MB, "store")
    await limit(wire, 0.85)
    await fill(redis_server.url, 1, 100)
    async with worker(tmp_path, opener(redis_server.url)) as heartbeat:
        beating = asyncio.create_task(heartbeat.run())

        async def waits() -> bool:
            return heartbeat.waiting_for == "memory"

        await until(waits, "the worker to wait")
        assert await output(redis_server.url) == []
        before = heartbeat.report()
        loops = before.loops

        async def beats() -> bool:
            return heartbeat.report().loops > loops + 10

        await until(beats, "ten beats")
        report = read(tmp_path / "normalize-okx")
        assert report is not None
        assert (report.status, report.waiting_for) == ("running", "memory")
        assert check((await wire.call(("GET", KEYS.lease("normalize"))))[0]) == b"first"
        await read_all(wire, books, "store")
        await all_processed(redis_server.url, 100)
        assert heartbeat.waiting_for is None
        assert heartbeat.counters["restores"] == 0
        await wire.call(("XGROUP", "SETID", books, "store", "0", "ENTRIESREAD", 0))
        await until(waits, "the worker to wait again")
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


def test_who_beats_is_not_hung_however_long_it_waits() -> None:
    life, policy = Life(), Policy()
    for number in range(100):
        seen = Seen(name="normalize-okx", state="RUNNING", pid=7, start=1, beats=number)
        verdict = judge(seen, life, number * HUNG_WORKER / 2, policy)
        assert verdict.do == ()
        life = verdict.life


async def test_a_redis_filled_from_outside_only_makes_a_worker_wait(tmp_path: Path, redis_server: RedisServer) -> None:
    """OOM in any reply, at the restore as well: wait, keep, try again."""
    wire = await Wire.open(redis_server.url)
    await fill(redis_server.url, 1, 300)
    await wire.call(("CONFIG", "SET", "maxmemory", 1))
    async with worker(tmp_path, opener(redis_server.url), most_entries=7) as heartbeat:

        async def refused() -> bool:
            return heartbeat.counters["restores"] >= 2

        await until(refused, "two refusals at the start")
        assert heartbeat.waiting_for == "redis"
        await wire.call(("CONFIG", "SET", "maxmemory", 0))
        await all_processed(redis_server.url, 100)
        await wire.call(("CONFIG", "SET", "maxmemory", 1))
        restores = heartbeat.counters["restores"]

        async def refused_again() -> bool:
            return heartbeat.counters["restores"] >= restores + 2

        await until(refused_again, "two refusals at work")
        await wire.call(("CONFIG", "SET", "maxmemory", 0))
        await fill(redis_server.url, 301, 400)
        await all_processed(redis_server.url, 400)
    await wire.close()
    await assert_right(redis_server.url, 400)
