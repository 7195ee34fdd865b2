"""Raw frames → normalize → aggregate on a real Redis: the output is a function of the raw stream alone.

The same raw stream, read 1, 7 or 1,000 entries at a time, with every n-th EXEC failing in five ways, or
with workers killed in the middle, gives the same bytes in every output stream.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregate.stage import Aggregate
from normalize.stage import Normalize
from pipeline.exchanges import EXCHANGES
from pipeline.heartbeat import Heartbeat
from pipeline.records import Trade
from pipeline.steps import Stage
from pipeline.streams import Keys
from pipeline.wire import Wire
from pipeline.worker import work
from tests.integration.rawstream import commands, raw_stream
from tests.pipeline.faults import FAULTS, Fault, dump, faulty, until
from tests.servers import RedisServer

KEYS = Keys("md", "okx")
STREAM = raw_stream(seed=7, seconds=90)

Opener = Callable[[], Awaitable[Wire]]


def normalize(keys: Keys) -> Stage:
    return Normalize(keys, EXCHANGES["okx"])


def aggregate(keys: Keys) -> Stage:
    return Aggregate(keys, EXCHANGES["okx"].name)


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path, stage: Callable[[Keys], Stage], open_wire: Opener, most: int, token: str = "first"
) -> AsyncIterator[None]:
    """A worker of its own task; cancelled without mercy at the end, as a kill would."""
    heartbeat = Heartbeat("worker", tmp_path)
    task = asyncio.create_task(work(stage, open_wire, KEYS, token, heartbeat, asyncio.Event(), most_entries=most))
    try:
        yield
    finally:
        assert not task.done() or not task.exception()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def caught_up(url: str, stage: str, source: str) -> None:
    wire = await Wire.open(url)

    async def done() -> bool:
        cursor, last = await wire.call(
            ("HGET", KEYS.state(stage), "cursor"), ("XREVRANGE", source, "+", "-", "COUNT", 1)
        )
        return bool(last) and cursor == last[0][0]

    try:
        await until(done, f"{stage} to read all of {source}", 120)
    finally:
        await wire.close()


async def feed(url: str) -> None:
    wire = await Wire.open(url)
    await wire.call(*commands(KEYS.raw, STREAM))
    await wire.close()


async def chain(tmp_path: Path, url: str, open_wire: Opener, most: int = 1_000) -> dict[str, Any]:
    """Feeds the raw stream, lets both stages read all of it, and returns what they wrote."""
    await feed(url)
    async with running(tmp_path, normalize, open_wire, most):
        await caught_up(url, "normalize", KEYS.raw)
    async with running(tmp_path, aggregate, open_wire, most):
        await caught_up(url, "aggregate", KEYS.trade)
    return await outputs(url)


async def outputs(url: str) -> dict[str, Any]:
    """Every output stream and newest-record hash; not the raw stream, nor state (its cursors are ids)."""
    found = await dump(url, "md:*")
    return {key: value for key, value in found.items() if not key.startswith(("md:raw", "md:state", "md:lease"))}


def opener(url: str) -> Opener:
    return lambda: Wire.open(url)


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed run writes."""

    async def run() -> dict[str, Any]:
        server = RedisServer().start()
        try:
            return await chain(tmp_path_factory.mktemp("hb"), server.url, opener(server.url))
        finally:
            server.remove()

    return asyncio.run(run())


def trades(found: dict[str, Any]) -> list[Trade]:
    rows = found[KEYS.trade]
    return [msgspec.json.decode(row[3], type=Trade) for row in rows if row[0] == b"symbol"]


def test_the_stream_is_worth_the_trouble(faultless: dict[str, Any]) -> None:
    """The other tests would prove nothing on a quiet stream: it has trades, gaps, dead letters and every quality."""
    found = trades(faultless)
    assert len(found) > 1_500
    assert len({(trade.instrument, trade.epoch, trade.sequence) for trade in found}) == len(found)
    assert len(faultless[KEYS.stream("gap")]) > 10
    assert len(faultless[KEYS.dead]) > 5
    candles = b"".join(row[3] for row in faultless[KEYS.stream("candle:1s")])
    for quality in (b"complete", b"partial", b"repaired"):
        assert b'"quality":"' + quality in candles


def assert_same(found: dict[str, Any], faultless: dict[str, Any]) -> None:
    assert set(found) == set(faultless)
    for key, value in faultless.items():
        assert found[key] == value, key


@pytest.mark.parametrize("most", [1, 7])
async def test_output_does_not_depend_on_how_much_is_read(
    tmp_path: Path, redis_server: RedisServer, faultless: dict[str, Any], most: int
) -> None:
    assert_same(await chain(tmp_path, redis_server.url, opener(redis_server.url), most), faultless)


@pytest.mark.parametrize("fault", FAULTS)
async def test_failing_execs_change_no_byte(
    tmp_path: Path, redis_server: RedisServer, faultless: dict[str, Any], fault: Fault
) -> None:
    open_wire, failed = faulty(redis_server.url, 4, fault)
    assert_same(await chain(tmp_path, redis_server.url, open_wire, 40), faultless)
    assert len(failed) > 5


async def test_workers_killed_again_and_again_change_no_byte(
    tmp_path: Path, redis_server: RedisServer, faultless: dict[str, Any]
) -> None:
    url = redis_server.url
    await feed(url)
    for stage, name, source in ((normalize, "normalize", KEYS.raw), (aggregate, "aggregate", KEYS.trade)):
        for _ in range(10):
            async with running(tmp_path, stage, opener(url), 5):
                await asyncio.sleep(0.03)
        async with running(tmp_path, stage, opener(url), 1_000):
            await caught_up(url, name, source)
    assert_same(await outputs(url), faultless)


async def test_both_at_once_and_a_second_owner_change_no_byte(
    tmp_path: Path, redis_server: RedisServer, faultless: dict[str, Any]
) -> None:
    url = redis_server.url
    async with (
        running(tmp_path, normalize, opener(url), 20),
        running(tmp_path, aggregate, opener(url), 20),
        running(tmp_path, normalize, opener(url), 20, "second"),
        running(tmp_path, aggregate, opener(url), 20, "second"),
    ):
        await feed(url)
        await caught_up(url, "normalize", KEYS.raw)
        await caught_up(url, "aggregate", KEYS.trade)
    assert_same(await outputs(url), faultless)
