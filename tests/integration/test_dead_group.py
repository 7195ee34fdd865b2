"""A dead consumer group in a small Redis: ingest's writer, a stage and the trimmer go on; nothing waits for ever."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest

import pipeline.trimmer
from ingest.timing import MILLISECOND
from pipeline.frames import Frame, unpack
from pipeline.heartbeat import Heartbeat
from pipeline.losses import Lost, lost_field
from pipeline.memory import HOUR, INGEST_STOPS, memory_share
from pipeline.records import Trade
from pipeline.steps import Entry, Step
from pipeline.streams import Keys
from pipeline.trimmer import Promise, trim_forever
from pipeline.wire import Wire, check
from pipeline.worker import work
from tests.ingest.conftest import HASTY, eventually
from tests.ingest.test_writer import KEYS, Fixture
from tests.servers import RedisServer

SIZE = 32 * 1024 * 1024
ROUND = 2_000
"""Frames given at a time: about a megabyte, and two of trades."""
PAD = "x" * 400


class Trades:
    """A stage that makes a trade of each frame."""

    name = "normalize"

    def __init__(self, keys: Keys) -> None:
        self.source = keys.raw

    def restore(self, saved: Mapping[bytes, bytes]) -> None:
        """It has no state."""

    def process(self, entry: Entry, step: Step) -> None:
        for frame in unpack(entry.fields).frames:
            number = frame.ts or 0
            trade = Trade(
                exchange="okx",
                market="spot",
                symbol="BTC-USDT",
                instrument="BTC-USDT",
                time=number,
                received=number,
                id=f"{number}{PAD}",
                sequence=number,
                price="1",
                size="1",
                side="buy",
            )
            step.emit("trade", trade)

    def save(self, step: Step) -> None:
        """It has no state."""

    def report(self) -> dict[str, object]:
        return {}


class Chain:
    """The writer, the stage, readers of ours that are always there, and a trimmer that can be left out."""

    def __init__(self, url: str, folder: Path) -> None:
        timing = msgspec.structs.replace(HASTY, spool_after=200 * MILLISECOND)
        self.fixture = Fixture(url, folder, timing=timing, spool_bytes=1024 * 1024 * 1024)
        self.heartbeat = Heartbeat("normalize-okx", folder)
        self.shares: list[float] = []
        self._url = url
        self._stop = asyncio.Event()

    async def open_wire(self) -> Wire:
        return await Wire.open(self._url)

    @contextlib.asynccontextmanager
    async def running(self, *, trimming: bool = True) -> AsyncIterator[None]:
        self._stop.clear()
        tasks = [asyncio.create_task(self._read())]
        tasks.append(asyncio.create_task(work(Trades, self.open_wire, KEYS, "one", self.heartbeat, self._stop)))
        if trimming:
            promise = Promise(milliseconds=900_000, entries=1_000_000)
            tasks.append(asyncio.create_task(trim_forever(self.open_wire, KEYS, promise, self.heartbeat, self._stop)))
        try:
            yield
            assert not any(task.done() for task in tasks)
        finally:
            self._stop.set()
            await asyncio.gather(*tasks)

    async def _read(self) -> None:
        """Stands for aggregate and store, and looks how full Redis is."""
        wire = await self.open_wire()
        while not self._stop.is_set():
            for group in ("aggregate", "store"):
                await wire.call(("XGROUP", "CREATE", KEYS.trade, group, "0", "MKSTREAM"))
                await wire.call(("XGROUP", "SETID", KEYS.trade, group, "$"))
            self.shares.append(await memory_share(wire))
            await asyncio.sleep(0.01)
        await wire.close()

    def give(self) -> None:
        """ROUND frames."""
        for _ in range(ROUND):
            number = self.fixture.given
            self.fixture.writer.append(Frame(number, "c#1", "in", "ws", f'{{"number":{number},"pad":"{PAD}"}}'))
            self.fixture.given += 1

    async def through(self, frames: int) -> None:
        """Gives frames; returns when all are on the raw stream and the stage has made trades of them."""
        for _ in range(frames // ROUND):
            self.give()
            await self.fixture.written()

        async def made() -> bool:
            return self.heartbeat.counters["records"] == self.fixture.given

        await eventually(made)

    async def drained(self) -> None:
        """Nothing waits on disk, and there is room for more."""

        async def empty() -> bool:
            spool = self.fixture.writer.spool
            return spool is not None and not spool.unread and self.fixture.writer.has_room

        await eventually(empty)


@pytest.fixture
async def wire(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    """Megabytes a second into 32 MB: what takes seconds elsewhere takes milliseconds here."""
    monkeypatch.setattr(pipeline.trimmer, "INTERVAL", 0.02)
    monkeypatch.setattr(pipeline.trimmer, "PRESSED_INTERVAL", 0.02)
    opened = await Wire.open(redis_server.url)
    await opened.call(("CONFIG", "SET", "maxmemory", SIZE))
    yield opened
    await opened.close()


async def lost(wire: Wire, group: str) -> Lost:
    text = check((await wire.call(("HGET", KEYS.lost, lost_field(KEYS.trade, group))))[0])
    return msgspec.json.decode(text, type=Lost)


@pytest.mark.parametrize("reads", [False, True], ids=["never reads", "never acknowledges"])
async def test_a_dead_group_stops_nobody(redis_server: RedisServer, wire: Wire, tmp_path: Path, reads: bool) -> None:
    """More than the whole memory goes through beside it."""
    chain = Chain(redis_server.url, tmp_path)
    await wire.call(("XGROUP", "CREATE", KEYS.trade, "dead", "0", "MKSTREAM"))
    async with chain.fixture.running(), chain.running():
        for _ in range(20):
            await chain.through(2 * ROUND)
            if reads:
                await wire.call(("XREADGROUP", "GROUP", "dead", "c", "STREAMS", KEYS.trade, ">"))
        await chain.drained()
    # For a moment a burst may go over ingest's mark; it does not stay there.
    assert sorted(chain.shares)[len(chain.shares) * 9 // 10] <= INGEST_STOPS
    assert max(chain.shares) < 0.75
    assert await memory_share(wire) <= INGEST_STOPS
    assert chain.fixture.heartbeat.counters["dropped"] == 0
    # What it did not lose is there, and what it lost was counted.
    there = check((await wire.call(("XLEN", KEYS.trade)))[0])
    record = await lost(wire, "dead")
    assert record.exact
    assert 0 < there < chain.fixture.given
    assert record.entries == chain.fixture.given - there


async def test_from_above_the_mark_of_ingest_all_comes_back(
    redis_server: RedisServer, wire: Wire, tmp_path: Path
) -> None:
    """Nothing is trimmed until ingest has stopped for it; then all comes off the disk."""
    chain = Chain(redis_server.url, tmp_path)
    await wire.call(("XGROUP", "CREATE", KEYS.trade, "dead", "0", "MKSTREAM"))
    spool = chain.fixture.writer.spool
    assert spool is not None
    async with chain.fixture.running():
        async with chain.running(trimming=False):

            async def full() -> bool:
                if chain.fixture.writer.waiting_bytes < ROUND * len(PAD):
                    chain.give()
                return chain.fixture.writer.away and await memory_share(wire) > INGEST_STOPS

            await eventually(full)
            chain.give()

            async def spools() -> bool:
                return spool.unread

            await eventually(spools)
        async with chain.running():
            await chain.through(ROUND)
            await chain.drained()
    assert await memory_share(wire) <= INGEST_STOPS
    assert chain.fixture.heartbeat.counters["spooled"] > 0
    assert chain.fixture.heartbeat.counters["dropped"] == 0


async def test_a_group_that_keeps_up_loses_nothing_beside_a_dead_one(
    redis_server: RedisServer, wire: Wire, tmp_path: Path
) -> None:
    """The dead one has 13 MB to read that are hours old, and all that is new."""
    chain = Chain(redis_server.url, tmp_path)
    old = int(time.time() * 1000) - 2 * HOUR
    for number in range(130):
        entries = [("XADD", KEYS.trade, f"{old + number}-{n}", "symbol", "X", "data", "x" * 1_000) for n in range(100)]
        await wire.call(*entries)
    await wire.call(("XGROUP", "CREATE", KEYS.trade, "dead", "0"), ("XGROUP", "CREATE", KEYS.trade, "live", "$"))
    got = 0
    async with chain.fixture.running(), chain.running():
        for _ in range(7):
            await chain.through(ROUND)
            found = check(
                (await wire.call(("XREADGROUP", "GROUP", "live", "c", "NOACK", "STREAMS", KEYS.trade, ">")))[0]
            )
            got += len(found[0][1])
    assert got == chain.fixture.given == 7 * ROUND
    assert 12_000 < (await lost(wire, "dead")).entries <= 13_000
    assert check((await wire.call(("HEXISTS", KEYS.lost, lost_field(KEYS.trade, "live"))))[0]) == 0
