"""The run loop on a real Redis, step by step: the lease, a refused commit and what was under way, how much is read."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.errors import StepRefused
from pipeline.heartbeat import Heartbeat
from pipeline.wire import Wire
from pipeline.worker import LeaseElsewhere, PartitionLoop
from tests.pipeline.test_worker import KEYS, RunningSum, assert_right, fill, output
from tests.servers import RedisServer


class Stepping(NamedTuple):
    """A loop that was restored, and a connection of somebody else."""

    loop: PartitionLoop
    stage: RunningSum
    heartbeat: Heartbeat
    other: Wire


@contextlib.asynccontextmanager
async def stepping(url: str, folder: Path, most_entries: int) -> AsyncIterator[Stepping]:
    wire, other = await Wire.open(url), await Wire.open(url)
    heartbeat, stage = Heartbeat("first", folder), RunningSum(KEYS)
    loop = PartitionLoop(stage, wire, KEYS, "first", heartbeat, most_entries)
    try:
        await loop.restore(take=True)
        yield Stepping(loop, stage, heartbeat, other)
    finally:
        await loop.drop()
        await wire.close()
        await other.close()


@pytest.fixture(autouse=True)
def waiting_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.worker.BLOCK_MS", 1)


async def test_a_lease_is_prolonged_and_taken_again_when_it_was_lost(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = KEYS.lease("normalize")
    async with stepping(redis_server.url, tmp_path, 1_000) as (loop, _, _, other):
        for word in ("DEL", "PERSIST"):
            await loop.step()
            await other.call((word, lease))
            monkeypatch.setattr("pipeline.worker.PROLONG", 0.0)
            await loop.step()
            await loop.step()
            holder, left = await other.call(("GET", lease), ("PTTL", lease))
            assert holder == b"first", word
            assert 5_000 < left <= 10_000, word
            monkeypatch.setattr("pipeline.worker.PROLONG", 1_000.0)
        await other.call(("SET", lease, "second"))
        await fill(redis_server.url, 1, 1)
        with pytest.raises(LeaseElsewhere):
            await loop.step()
    assert await output(redis_server.url) == []


async def test_what_was_read_behind_a_refused_commit_is_not_used(tmp_path: Path, redis_server: RedisServer) -> None:
    """It was read after a cursor that never came to be."""
    await fill(redis_server.url, 1, 15)
    async with stepping(redis_server.url, tmp_path, 10) as (loop, _, heartbeat, other):
        await loop.step()
        await loop.settle()
        before = loop.cursor
        await other.call(("HSET", KEYS.state("normalize"), "foreign", 1))
        with pytest.raises(StepRefused):
            await loop.step()
        assert (loop.cursor, heartbeat.counters["entries"], heartbeat.counters["steps"]) == (before, 10, 1)
        assert len(await output(redis_server.url)) == 10
        await loop.restore(take=True)
        await loop.step()
    await assert_right(redis_server.url, 15)


async def test_what_was_processed_while_a_refused_commit_was_under_way_is_dropped(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    await fill(redis_server.url, 1, 40)
    async with stepping(redis_server.url, tmp_path, 10) as (loop, stage, heartbeat, other):
        await loop.step()
        await loop.settle()
        await other.call(("HSET", KEYS.state("normalize"), "foreign", 1))
        await loop.step()
        assert stage.sum == 20 * 21 // 2
        with pytest.raises(StepRefused):
            await loop.step()
        assert stage.sum == 30 * 31 // 2
        assert (heartbeat.counters["entries"], len(await output(redis_server.url))) == (10, 10)
        await loop.restore(take=True)
        assert stage.sum == 10 * 11 // 2
        for _ in range(3):
            await loop.step()
    await assert_right(redis_server.url, 40)


async def test_what_is_dropped_with_a_commit_under_way_leaves_nothing_behind(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """A process that ends for another reason: the commit was done or not, and whoever comes next can tell."""
    await fill(redis_server.url, 1, 40)
    async with stepping(redis_server.url, tmp_path, 10) as (loop, _, _, _):
        await loop.step()
    async with stepping(redis_server.url, tmp_path, 100) as (loop, _, _, _):
        await loop.step()
    await assert_right(redis_server.url, 40)


async def test_after_a_quiet_time_no_more_is_read_at_once_than_at_the_start(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with stepping(redis_server.url, tmp_path, 1_000) as (loop, _, _, other):
        for number in range(1, 11):
            await other.call(("XADD", KEYS.raw, "*", "number", number))
            await loop.step()
        await fill(redis_server.url, 11, 500)
        for written in (110, 210, 410):
            await loop.step()
            await loop.settle()
            assert len(await output(redis_server.url)) == written
