"""The run loop on a real Redis: whatever goes wrong, every entry has its effect exactly once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ContractBroken
from pipeline.heartbeat import Heartbeat
from pipeline.records import Trade
from pipeline.steps import REREAD_FROM, Entry, Step, stream_id
from pipeline.streams import Keys
from pipeline.trimmer import SHARES, Promise, trim
from pipeline.wire import Wire
from pipeline.worker import LeaseElsewhere, PartitionLoop, work
from tests.pipeline.faults import FAULTS, Fault, dump, faulty, until
from tests.proxy import TcpProxy
from tests.servers import RedisServer

KEYS = Keys("md", "okx")
ENTRIES = 700


class RunningSum:
    """A stage whose output shows any entry that was lost, doubled or taken out of order: each record's
    size is the sum of all numbers so far."""

    name = "normalize"

    def __init__(self, keys: Keys) -> None:
        self.source = keys.raw
        self.sum = 0

    def restore(self, saved: Mapping[bytes, bytes]) -> None:
        self.sum = int(saved.get(b"sum", b"0"))

    def process(self, entry: Entry, step: Step) -> None:
        number = int(entry.fields[b"number"])
        self.sum += number
        trade = Trade(
            exchange="okx",
            market="spot",
            symbol="BTC-USDT",
            instrument="BTC-USDT",
            time=number,
            received=number,
            id=str(number),
            sequence=number,
            price="1",
            size=str(self.sum),
            side="buy",
        )
        step.emit("trade", trade)

    def save(self, step: Step) -> None:
        step.save("sum", b"%d" % self.sum)

    def report(self) -> dict[str, object]:
        return {"sum": self.sum}


class SumSavedNowAndThen(RunningSum):
    """Its sum is saved with each fifth step only: what came since has to be read again. `told` is what it was told
    again, `lost` what it was told to be gone, `loaded` what was saved when it was restored, of all instances."""

    told: list[bytes]
    lost: list[bytes]
    loaded: list[Mapping[bytes, bytes]]

    def restore(self, saved: Mapping[bytes, bytes]) -> None:
        super().restore(saved)
        self.loaded.append(saved)
        self.steps, self.last = 0, b"0-0"
        self.reread_from: bytes | None = saved.get(REREAD_FROM.encode())

    def process(self, entry: Entry, step: Step) -> None:
        super().process(entry, step)
        self.last = entry.id

    def save(self, step: Step) -> None:
        self.steps += 1
        if self.steps % 5 == 1:
            super().save(step)
            step.save(REREAD_FROM, self.last)

    def reread(self, entry: Entry) -> None:
        assert self.reread_from is not None
        assert stream_id(entry.id) > stream_id(self.reread_from)
        self.sum += int(entry.fields[b"number"])
        self.told.append(entry.id)

    def lack(self, oldest: bytes) -> None:
        if self.reread_from is not None and stream_id(self.reread_from) < stream_id(oldest):
            self.reread_from = None
            self.lost.append(oldest)

    def faults(self) -> list[str]:
        return ["the sum is wrong from here on"] if self.lost else []


def now_and_then() -> type[SumSavedNowAndThen]:
    """A class with lists of its own."""
    return type("Own", (SumSavedNowAndThen,), {"told": [], "lost": [], "loaded": []})


async def fill(url: str, first: int = 1, last: int = ENTRIES) -> None:
    wire = await Wire.open(url)
    await wire.call(*(("XADD", KEYS.raw, "*", "number", number) for number in range(first, last + 1)))
    await wire.close()


async def output(url: str) -> list[dict[str, Any]]:
    return (await dump(url, KEYS.trade)).get(KEYS.trade, [])


@contextlib.asynccontextmanager
async def worker(
    tmp_path: Path,
    open_wire: Callable[[], Awaitable[Wire]],
    token: str = "first",
    most_entries: int = 50,
    stage: Callable[[Keys], RunningSum] = RunningSum,
) -> AsyncIterator[Heartbeat]:
    """A running worker; stopped at the end, and what it raised is raised."""
    heartbeat, stop = Heartbeat("normalize-okx", tmp_path), asyncio.Event()
    task = asyncio.create_task(work(stage, open_wire, KEYS, token, heartbeat, stop, most_entries=most_entries))
    try:
        yield heartbeat
    finally:
        stop.set()
        await task


async def all_processed(url: str, entries: int = ENTRIES) -> None:
    async def done() -> bool:
        return len(await output(url)) >= entries

    await until(done, f"{entries} records")


def opener(url: str, timeout: float = 5.0) -> Callable[[], Awaitable[Wire]]:
    return lambda: Wire.open(url, timeout=timeout)


async def expected(tmp_path: Path) -> dict[str, Any]:
    """What a run without faults leaves on a Redis of its own."""
    server = RedisServer().start()
    try:
        await fill(server.url)
        async with worker(tmp_path, opener(server.url)):
            await all_processed(server.url)
        return await dump(server.url, "md:*")
    finally:
        server.remove()


def without_ids(found: dict[str, Any]) -> dict[str, Any]:
    """The cursor is an entry id, which is a time: not the same in two runs."""
    return {
        key: {field: text for field, text in value.items() if field != b"cursor"} if isinstance(value, dict) else value
        for key, value in found.items()
    }


@pytest.mark.parametrize("fault", FAULTS)
async def test_failing_execs_leave_the_output_of_a_faultless_run(
    tmp_path: Path, redis_server: RedisServer, fault: Fault
) -> None:
    faultless = await expected(tmp_path)
    await fill(redis_server.url)
    open_wire, failed = faulty(redis_server.url, 3, fault)
    async with worker(tmp_path, open_wire):
        await all_processed(redis_server.url)
    assert len(failed) >= 3
    assert without_ids(await dump(redis_server.url, "md:*")) == without_ids(faultless)


async def test_output_does_not_depend_on_how_much_is_read(tmp_path: Path, redis_server: RedisServer) -> None:
    found = []
    await fill(redis_server.url)
    wire = await Wire.open(redis_server.url)
    for most in (1, 7, 1_000):
        await wire.call(("DEL", KEYS.trade, KEYS.state("normalize"), KEYS.last("trade")))
        async with worker(tmp_path, opener(redis_server.url), most_entries=most):
            await all_processed(redis_server.url)
        found.append(await dump(redis_server.url, "md:*"))
    await wire.close()
    assert found[0] == found[1] == found[2]


async def test_two_owners_double_nothing(tmp_path: Path, redis_server: RedisServer) -> None:
    await fill(redis_server.url, 1, 300)
    async with (
        worker(tmp_path, opener(redis_server.url), "first", 7) as first,
        worker(tmp_path, opener(redis_server.url), "second", 7) as second,
    ):
        await fill(redis_server.url, 301, ENTRIES)
        await all_processed(redis_server.url)
    assert [entry[1] for entry in await output(redis_server.url)] == [b"BTC-USDT"] * ENTRIES
    await assert_right(redis_server.url)
    assert {first.status, second.status} == {"running", "standby"}


async def assert_right(url: str, entries: int = ENTRIES) -> None:
    numbers = [int(entry[3].split(b'"sequence":')[1].split(b",")[0]) for entry in await output(url)]
    assert numbers == list(range(1, entries + 1))
    last = (await output(url))[-1][3]
    assert b'"size":"%d"' % (entries * (entries + 1) // 2) in last


async def test_a_stale_exec_on_an_old_socket_is_refused(
    tmp_path: Path, redis_server: RedisServer, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    """The owner is stopped with its EXEC on the way; another does the work; then the old EXEC arrives."""
    proxy = tcp_proxy(redis_server.port)
    stalled = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold_exec(data: bytes) -> bytes | None:
        if b"EXEC" in data:
            loop.call_soon_threadsafe(stalled.set)
            proxy._flowing.clear()
            held.append(data)
            return b""
        return data

    held: list[bytes] = []
    proxy.requests = hold_exec
    await fill(redis_server.url)
    async with worker(tmp_path, opener(proxy.redis_url(), timeout=2.0), "stale"):
        await stalled.wait()
        async with worker(tmp_path, opener(redis_server.url), "fresh"):
            await all_processed(redis_server.url)
        proxy.requests = lambda data: b"".join([*held, data]) if held and not held.clear() else data  # type: ignore[func-returns-value]
        proxy.resume()
    await assert_right(redis_server.url)


async def test_a_redis_that_is_stopped_and_continued_doubles_nothing(tmp_path: Path, redis_server: RedisServer) -> None:
    await fill(redis_server.url, 1, 100)
    async with worker(tmp_path, opener(redis_server.url, timeout=0.3)) as heartbeat:
        await all_processed(redis_server.url, 100)
        await fill(redis_server.url, 101, ENTRIES)
        redis_server.pause()

        async def noticed() -> bool:
            return heartbeat.waiting_for == "redis"

        await until(noticed, "the worker to notice")
        redis_server.resume()
        await all_processed(redis_server.url)
    await assert_right(redis_server.url)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_redis_that_is_killed_and_started_again_loses_nothing(
    tmp_path: Path, redis_server: RedisServer, times: int
) -> None:
    await fill(redis_server.url)
    async with worker(tmp_path, opener(redis_server.url), most_entries=5) as heartbeat:

        async def at_work() -> bool:
            return heartbeat.counters["steps"] >= 10

        await until(at_work, "ten steps")
        for _ in range(times):
            redis_server.kill()
            redis_server.start()
        await all_processed(redis_server.url)
    await assert_right(redis_server.url)


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_saved_behind_the_cursor_is_brought_up_to_it(
    tmp_path: Path, redis_server: RedisServer, fault: Fault
) -> None:
    stage = now_and_then()
    await fill(redis_server.url)
    open_wire, failed = faulty(redis_server.url, 8, fault)
    async with worker(tmp_path, open_wire, most_entries=7, stage=stage) as heartbeat:
        await all_processed(redis_server.url)
    await assert_right(redis_server.url)
    assert len(failed) >= 3
    assert heartbeat.counters["reread"] == len(stage.told) > 20
    assert stage.lost == []


async def test_a_second_owner_loads_and_reads_nothing_while_the_first_works(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    stage, idle = now_and_then(), now_and_then()
    await fill(redis_server.url, 1, 300)
    async with worker(tmp_path, opener(redis_server.url), "first", 7, stage):
        await all_processed(redis_server.url, 300)
        wire = await Wire.open(redis_server.url)
        loop = PartitionLoop(idle(KEYS), wire, KEYS, "second", Heartbeat("second", tmp_path), 7)
        with pytest.raises(LeaseElsewhere):
            await loop.restore(take=False)
        await wire.close()
    assert (idle.told, idle.loaded) == ([], [])


async def test_a_lease_lost_while_restoring_is_not_taken_back(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that read raw for long at a restore would take it from each other for ever."""
    takes: list[bool] = []
    restore = PartitionLoop.restore

    async def lost_once(self: PartitionLoop, *, take: bool) -> None:
        takes.append(take)
        if len(takes) == 1:
            raise LeaseElsewhere("a later one took it")
        await restore(self, take=take)

    monkeypatch.setattr(PartitionLoop, "restore", lost_once)
    await fill(redis_server.url)
    async with worker(tmp_path, opener(redis_server.url)):
        await all_processed(redis_server.url)
    assert takes == [True, False]


async def test_what_has_to_be_read_again_is_not_trimmed(tmp_path: Path, redis_server: RedisServer) -> None:
    stage = now_and_then()
    await fill(redis_server.url)
    async with worker(tmp_path, opener(redis_server.url), most_entries=7, stage=stage):
        await all_processed(redis_server.url)
    wire = await Wire.open(redis_server.url)
    first = (await wire.call(("XRANGE", KEYS.raw, "-", "+", "COUNT", 350)))[0][-1][0]
    await wire.call(("HSET", KEYS.state("normalize"), REREAD_FROM, first))
    nothing = Promise(milliseconds=-100_000, entries=0)
    assert (await trim(wire, KEYS, nothing))[KEYS.raw] == 300, "whole nodes of a hundred entries"
    assert len((await wire.call(("XRANGE", KEYS.raw, first, first)))[0]) == 1
    await wire.call(("HDEL", KEYS.state("normalize"), REREAD_FROM))
    assert (await trim(wire, KEYS, nothing))[KEYS.raw] == 300
    await wire.close()


async def test_a_stage_is_told_when_what_it_has_to_read_again_is_gone(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    stage = now_and_then()
    await fill(redis_server.url, 1, 300)
    async with worker(tmp_path, opener(redis_server.url), most_entries=7, stage=stage):
        await all_processed(redis_server.url, 300)
    wire = await Wire.open(redis_server.url)
    first, second = [entry_id for entry_id, _ in (await wire.call(("XRANGE", KEYS.raw, "-", "+", "COUNT", 2)))[0]]
    await wire.call(("HSET", KEYS.state("normalize"), REREAD_FROM, first), ("XDEL", KEYS.raw, first))
    await wire.call(("XTRIM", KEYS.raw, "MAXLEN", 0))
    await wire.close()
    async with worker(tmp_path, opener(redis_server.url), stage=stage) as heartbeat:
        await fill(redis_server.url, 301, 310)
        await all_processed(redis_server.url, 310)
    assert len(stage.lost) == 1
    assert stream_id(stage.lost[0]) >= stream_id(second)
    assert str(heartbeat.report().last_error).endswith("the sum is wrong from here on")


async def test_a_key_of_another_type_stops_the_worker(tmp_path: Path, redis_server: RedisServer) -> None:
    wire = await Wire.open(redis_server.url)
    await wire.call(("SET", KEYS.trade, "not a stream"))
    await wire.close()
    heartbeat = Heartbeat("normalize-okx", tmp_path)
    with pytest.raises(ContractBroken, match="not written by us"):
        await work(RunningSum, opener(redis_server.url), KEYS, "first", heartbeat, asyncio.Event())


async def test_a_command_that_fails_inside_exec_stops_the_worker(redis_server: RedisServer) -> None:
    wire = await Wire.open(redis_server.url)
    await wire.call(("SET", "text", "x"))
    with pytest.raises(ContractBroken, match="XADD"):
        await wire.transact([("XADD", "text", "*", "a", "b"), ("SET", "other", "1")])
    await wire.close()


async def test_lag_is_seen_by_people(tmp_path: Path, redis_server: RedisServer) -> None:
    await fill(redis_server.url)
    async with worker(tmp_path, opener(redis_server.url)):
        await all_processed(redis_server.url)
    await fill(redis_server.url, 1, 5)
    wire = await Wire.open(redis_server.url)
    group = (await wire.call(("XINFO", "GROUPS", KEYS.raw)))[0][0]
    facts = dict(zip(group[::2], group[1::2], strict=True))
    await wire.close()
    assert (facts[b"entries-read"], facts[b"lag"]) == (ENTRIES, 5)


async def test_trimming_waits_for_every_named_reader(tmp_path: Path, redis_server: RedisServer) -> None:
    await fill(redis_server.url)
    wire = await Wire.open(redis_server.url)
    nothing = Promise(milliseconds=-1_000, entries=0)
    assert await trim(wire, KEYS, nothing) == {}
    async with worker(tmp_path, opener(redis_server.url)):
        await all_processed(redis_server.url)
    removed = await trim(wire, KEYS, nothing)
    assert removed[KEYS.raw] >= ENTRIES - 100, "whole nodes of a hundred entries are cut"
    assert KEYS.trade not in removed, "neither aggregate nor store has read it"
    assert await trim(wire, KEYS, Promise(milliseconds=10**9, entries=0)) == {KEYS.raw: 0}
    await wire.close()


async def test_a_stream_of_any_length_is_cut_to_what_was_promised(redis_server: RedisServer) -> None:
    wire = await Wire.open(redis_server.url)
    for _ in range(30):
        await wire.call(*[("XADD", KEYS.raw, "*", "f", "v")] * 1_000)
    await wire.call(("XGROUP", "CREATE", KEYS.raw, "normalize", "$"))
    share = SHARES["raw"].entries
    assert await trim(wire, KEYS, Promise(milliseconds=-1_000, entries=40_000 * share)) == {}
    removed = (await trim(wire, KEYS, Promise(milliseconds=-1_000, entries=1_950 * share)))[KEYS.raw]
    assert 27_950 <= removed <= 28_050, "whole nodes of a hundred entries are cut, and never too much"
    await wire.close()


async def test_large_kinds_keep_a_share_of_what_was_promised(redis_server: RedisServer) -> None:
    wire = await Wire.open(redis_server.url)
    for kind in ("orderbook", "quote", "ticker"):
        await wire.call(*[("XADD", KEYS.stream(kind), "*", "f", "v")] * 3_000)
        await wire.call(("XGROUP", "CREATE", KEYS.stream(kind), "store", "$"))
    removed = await trim(wire, KEYS, Promise(milliseconds=-100_000, entries=5_000))
    assert removed == {KEYS.stream("orderbook"): 2_900, KEYS.stream("quote"): 2_000}
    # An hour ago, a tenth of it and a fifth: nothing is as old.
    await wire.call(*[("XADD", KEYS.stream("orderbook"), "*", "f", "v")] * 3_000)
    assert await trim(wire, KEYS, Promise(milliseconds=3_600_000, entries=0)) == {
        KEYS.stream(kind): 0 for kind in ("orderbook", "quote", "ticker")
    }
    await wire.close()


async def test_a_reader_below_the_floor_is_told(tmp_path: Path, redis_server: RedisServer) -> None:
    await fill(redis_server.url)
    wire = await Wire.open(redis_server.url)
    first = (await wire.call(("XRANGE", KEYS.raw, "-", "+", "COUNT", 1)))[0][0][0]
    last = (await wire.call(("XREVRANGE", KEYS.raw, "+", "-", "COUNT", 1)))[0][0][0]
    await wire.call(("HSET", KEYS.state("normalize"), "cursor", first), ("HSET", KEYS.floor, KEYS.raw, last))
    await wire.close()
    async with worker(tmp_path, opener(redis_server.url)) as heartbeat:
        await all_processed(redis_server.url, ENTRIES - 1)
    last_error = heartbeat.report().last_error
    assert last_error is not None
    assert "trimmed" in last_error
