"""How much a stage asks for: about what a step can use, so that little is read twice."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import redis

from pipeline.heartbeat import Heartbeat
from pipeline.records import Trade
from pipeline.steps import Command, Entry, Found, Step
from pipeline.streams import Keys
from pipeline.wire import Reply, Wire
from pipeline.worker import PartitionLoop
from tests.servers import RedisServer

KEYS = Keys("md", "okx")
ENTRIES = 2_000


class Fanning:
    """A stage that makes `of_each` records of an entry."""

    name = "normalize"

    def __init__(self, of_each: int) -> None:
        self.source = KEYS.raw
        self.taken: list[int] = []
        self.of_each = of_each

    def restore(self, saved: Mapping[bytes, bytes]) -> None:
        pass

    def process(self, entry: Entry, step: Step) -> None:
        number = int(entry.fields[b"number"])
        trade = Trade(
            exchange="okx", market="spot", symbol="X", instrument="X", time=number, received=number, id="1",
            sequence=number, price="1", size="1", side="buy",
        )  # fmt: skip
        for _ in range(self.of_each):
            step.emit("trade", trade)
        self.taken.append(number)

    def save(self, step: Step) -> None:
        pass

    def report(self) -> dict[str, object]:
        return {}


class FanningMany(Fanning):
    """… and takes entries together; `given` is how many it was given at a time."""

    def __init__(self, of_each: int) -> None:
        super().__init__(of_each)
        self.given: list[int] = []

    def process_many(self, found: Found, step: Step) -> int:
        self.given.append(len(found))
        for taken, (entry, flat) in enumerate(found, start=1):
            self.process(Entry(entry, {flat[0]: flat[1]}), step)
            if step.full:
                return taken
        return len(found)


class Looking(Fanning):
    """A stage that looks, of each batch of a hundred but the first, whether Redis has the one before while this
    process waits for nothing."""

    def __init__(self, url: str, heartbeat: Heartbeat) -> None:
        super().__init__(1)
        self._client = redis.Redis.from_url(url)
        self._heartbeat = heartbeat
        self.confirmed: list[tuple[int, int]] = []
        """Records written, and entries of which the loop knows that they were."""

    def process(self, entry: Entry, step: Step) -> None:
        super().process(entry, step)
        number = len(self.taken) - 1
        if number >= 100 and number % 100 == 0:
            for _ in range(5_000):
                if self._client.xlen(KEYS.trade) >= number:
                    break
            self.confirmed.append((self._client.xlen(KEYS.trade), self._heartbeat.counters["entries"]))

    def close(self) -> None:
        self._client.close()


class Counting(Wire):
    """`read` is how many entries each call brought."""

    read: list[int]

    async def call(self, *commands: Command, block: float = 0.0) -> list[Reply]:
        replies = await super().call(*commands, block=block)
        if commands[-1][0] == "XREAD" and replies[-1]:
            self.read.append(len(replies[-1][0][1]))
        return replies


async def work_through(url: str, tmp_path: Path, stage: Fanning, size: int = 0) -> list[int]:
    """All entries, of `size` bytes and a number each; what was read."""
    wire = await Counting.open(url)
    wire.read = []
    for first in range(0, ENTRIES, 500):
        await wire.call(*(("XADD", KEYS.raw, "*", "number", n, "more", "x" * size) for n in range(first, first + 500)))
    loop = PartitionLoop(stage, wire, KEYS, "first", Heartbeat("first", tmp_path), 1_000)
    await loop.restore(take=True)
    while len(stage.taken) < ENTRIES:
        await loop.step()
    await loop.settle()
    await wire.close()
    assert stage.taken == list(range(ENTRIES))
    return wire.read


@pytest.mark.parametrize(("of_each", "most"), [(64, 16), (60, 17), (7, 143), (1, 1_000)])
@pytest.mark.parametrize("kind", [Fanning, FanningMany])
async def test_a_stage_reads_what_it_can_use(
    tmp_path: Path, redis_server: RedisServer, of_each: int, most: int, kind: type[Fanning]
) -> None:
    read = await work_through(redis_server.url, tmp_path, kind(of_each))
    assert max(read[-5:-1]) <= most
    # All but what the first reads did not know, of which the second is behind the first.
    assert sum(read) <= ENTRIES + 2 * most + 200


@pytest.mark.parametrize("kind", [Fanning, FanningMany])
async def test_large_entries_are_taken_up_to_the_bound(
    tmp_path: Path, redis_server: RedisServer, kind: type[Fanning]
) -> None:
    stage = kind(1)
    read = await work_through(redis_server.url, tmp_path, stage, 20_000)
    assert sum(read) <= 1.1 * ENTRIES
    if isinstance(stage, FanningMany):
        assert max(stage.given) == 53, "the last of these reaches 1 MiB"


async def test_redis_commits_a_step_while_the_next_one_is_processed(tmp_path: Path, redis_server: RedisServer) -> None:
    wire, heartbeat = await Wire.open(redis_server.url), Heartbeat("first", tmp_path)
    await wire.call(*(("XADD", KEYS.raw, "*", "number", number) for number in range(500)))
    stage = Looking(redis_server.url, heartbeat)
    loop = PartitionLoop(stage, wire, KEYS, "first", heartbeat, 100)
    await loop.restore(take=True)
    for _ in range(5):
        await loop.step()
    stage.close()
    await wire.close()
    assert stage.confirmed == [(number, number - 100) for number in (100, 200, 300, 400)]
