"""Trimming and the readers outside, on a real Redis: what groups hold back, when they are overridden, what they are
told."""

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from pipeline.losses import TOLD_FOR, Lost, joined, lost_field, undelivered
from pipeline.memory import ALL, HOUR, INGEST_STOPS, MARKS, MINUTE, left_to_outsiders
from pipeline.steps import REREAD_FROM, Command, stream_id
from pipeline.streams import Keys
from pipeline.trimmer import Promise, Trimmer, trim
from pipeline.wire import Reply, Wire, check
from tests.servers import RedisServer

KEYS = Keys("md", "okx")
NOTHING = Promise(milliseconds=-100_000, entries=0)
AGES = (2 * HOUR, 30 * MINUTE, 5 * MINUTE, MINUTE // 6)
"""Of entries, in ms: each lies between two marks."""
EACH = 200


@pytest.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[Wire]:
    """On a Redis that is large enough for buffers not to count as much as a mark."""
    opened = await Wire.open(redis_server.url)
    await opened.call(("SETRANGE", "ballast", 32_000_000, "x"))
    yield opened
    await opened.close()


async def fill(wire: Wire, stream: str, *ages: int) -> None:
    """EACH entries of each age, read by all of ours."""
    now = int(time.time() * 1000)
    for age in ages:
        await wire.call(*(("XADD", stream, f"{now - age}-{number}", "f", "v") for number in range(EACH)))
    for group in ("aggregate", "store", "normalize"):
        await wire.call(("XGROUP", "CREATE", stream, group, "$"), ("XGROUP", "SETID", stream, group, "$"))


async def use(wire: Wire, share: float) -> None:
    """Lets what is used be this share of the limit."""
    text: bytes = check((await wire.call(("INFO", "memory")))[0])
    used = next(int(line.split(":")[1]) for line in text.decode().splitlines() if line.startswith("used_memory:"))
    check((await wire.call(("CONFIG", "SET", "maxmemory", int(used / share))))[0])


async def group(wire: Wire, name: str = "bot", stream: str = KEYS.trade, at: str = "0") -> None:
    check((await wire.call(("XGROUP", "CREATE", stream, name, at, "MKSTREAM")))[0])


async def read(wire: Wire, count: int, name: str = "bot", stream: str = KEYS.trade) -> list[bytes]:
    """The ids of the next entries, delivered to the group."""
    command: Command = ("XREADGROUP", "GROUP", name, "c", "COUNT", count, "STREAMS", stream, ">")
    found = check((await wire.call(command))[0])
    return [entry_id for entry_id, _ in found[0][1]]


async def acknowledge(wire: Wire, ids: list[bytes]) -> None:
    check((await wire.call(("XACK", KEYS.trade, "bot", *ids)))[0])


async def lost(wire: Wire) -> dict[str, Lost]:
    flat = check((await wire.call(("HGETALL", KEYS.lost)))[0])
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {field.decode(): msgspec.json.decode(text, type=Lost) for field, text in pairs}


async def floor(wire: Wire, stream: str = KEYS.trade) -> bytes | None:
    found: bytes | None = check((await wire.call(("HGET", KEYS.floor, stream)))[0])
    return found


async def length(wire: Wire, stream: str = KEYS.trade) -> int:
    return int(check((await wire.call(("XLEN", stream)))[0]))


async def first(wire: Wire, stream: str = KEYS.trade) -> bytes:
    found: bytes = check((await wire.call(("XRANGE", stream, "-", "+", "COUNT", 1)))[0])[0][0]
    return found


async def test_a_group_keeps_what_it_was_not_given_or_has_not_acknowledged(wire: Wire) -> None:
    await group(wire)
    await fill(wire, KEYS.trade, *AGES)
    assert await trim(wire, KEYS, NOTHING) == {KEYS.trade: 0}
    ids = await read(wire, 450)
    assert await trim(wire, KEYS, NOTHING) == {KEYS.trade: 0}, "all is pending"
    await acknowledge(wire, ids[:250] + ids[251:])
    assert await trim(wire, KEYS, NOTHING) == {KEYS.trade: 200}, "whole nodes before the one that is pending"
    await acknowledge(wire, [ids[250]])
    assert await trim(wire, KEYS, NOTHING) == {KEYS.trade: 200}
    assert stream_id(await first(wire)) <= stream_id(ids[449])
    assert await lost(wire) == {}


async def test_the_slowest_of_several_groups_counts(wire: Wire) -> None:
    await group(wire, "fast")
    await group(wire, "slow")
    await fill(wire, KEYS.trade, *AGES)
    await wire.call(("XGROUP", "SETID", KEYS.trade, "fast", "$"))
    slow = await read(wire, 100, "slow")
    assert await trim(wire, KEYS, NOTHING) == {KEYS.trade: 0}
    await wire.call(("XACK", KEYS.trade, "slow", *slow), ("XGROUP", "DESTROY", KEYS.trade, "fast"))
    await wire.call(("XGROUP", "DESTROY", KEYS.trade, "slow"))
    assert await trim(wire, KEYS, NOTHING) == {KEYS.trade: 700}


async def test_what_is_given_between_the_two_questions_is_kept(redis_server: RedisServer, wire: Wire) -> None:
    """Asked in the other order, nothing would be pending and everything delivered."""

    class ReadsBetween(Wire):
        async def call(self, *commands: Command, block: float = 0.0) -> list[Reply]:
            if commands[0][0] == "XPENDING":
                given.extend(await read(wire, 10_000))
                await acknowledge(wire, given[:50])
            return await super().call(*commands, block=block)

    given: list[bytes] = []
    await group(wire)
    await fill(wire, KEYS.trade, *AGES)
    acknowledged = await read(wire, 450)
    await acknowledge(wire, acknowledged[:-1])
    trimming = await ReadsBetween.open(redis_server.url)
    removed = await trim(trimming, KEYS, NOTHING)
    await trimming.close()
    assert len(given) == 350
    assert removed == {KEYS.trade: 400}
    assert len(check((await wire.call(("XRANGE", KEYS.trade, given[0], "+")))[0])) == 350


async def test_a_group_on_the_raw_stream_holds_nothing(wire: Wire) -> None:
    await group(wire, stream=KEYS.raw)
    await fill(wire, KEYS.raw, *AGES)
    await read(wire, 750, stream=KEYS.raw)
    assert (await trim(wire, KEYS, NOTHING))[KEYS.raw] == 700
    pending = check((await wire.call(("XPENDING", KEYS.raw, "bot")))[0])
    assert pending[0] == 50, "what is gone is not pending any more either"
    assert await lost(wire) == {}


@pytest.mark.parametrize(("share", "gone"), [(0.40, 0), (0.47, 1), (0.52, 2), (0.56, 3), (0.58, 4), (0.595, 4)])
async def test_a_dead_group_keeps_the_less_the_shorter_memory_is(wire: Wire, share: float, gone: int) -> None:
    await group(wire)
    await fill(wire, KEYS.trade, *AGES)
    await use(wire, share)
    trimmer = Trimmer(KEYS, NOTHING)
    removed = (await trimmer.trim(wire))[KEYS.trade]
    # The last entry stands at the readers' cursors: its node stays.
    assert removed == gone * EACH - 100 * (gone == 4)
    assert trimmer.pressed == (gone > 0)
    told = await lost(wire)
    if not gone:
        assert (told, await floor(wire)) == ({}, None)
        return
    record = told[lost_field(KEYS.trade, "bot")]
    assert (record.entries, record.exact, record.after) == (removed, True, "0-0")
    assert stream_id(record.to.encode()) < stream_id(await first(wire)) or gone == 4
    assert await floor(wire) == record.to.encode()
    await group(wire, "live", at=record.to)
    assert len(await read(wire, 10_000, "live")) >= 4 * EACH - removed - 100, "who stands at the floor has lost nothing"


@pytest.mark.parametrize(("share", "gone"), [(0.40, 0), (0.47, 2), (0.52, 3)])
async def test_what_is_promised_by_number_yields_before_what_is_promised_by_time(
    wire: Wire, share: float, gone: int
) -> None:
    await fill(wire, KEYS.trade, *AGES)
    await use(wire, share)
    removed = await trim(wire, KEYS, Promise(milliseconds=10 * MINUTE, entries=1_000))
    assert removed.get(KEYS.trade, 0) == gone * EACH


@pytest.mark.parametrize(("share", "kept"), [(0.47, 5), (0.52, 1), (0.56, 0)])
async def test_the_promise_yields_before_groups_that_are_little_behind(wire: Wire, share: float, kept: int) -> None:
    """Ten minutes are promised to anyone; a group has the last five minutes to read."""
    now = int(time.time() * 1000)
    for stream in (KEYS.trade, KEYS.stream("ticker")):
        await fill(wire, stream, *AGES)
    await group(wire, at=f"{now - 6 * MINUTE}-0")
    await use(wire, share)
    removed = await trim(wire, KEYS, Promise(milliseconds=10 * MINUTE, entries=0))
    minutes = {5: 2, 1: 3, 0: 4}[kept]
    assert removed[KEYS.stream("ticker")] == minutes * EACH - 100 * (minutes == 4)
    assert removed[KEYS.trade] == (2 if share < 0.55 else 3) * EACH


@pytest.mark.parametrize(("share", "unread", "gone"), [(0.585, 0, 0), (0.62, 1, 0), (0.62, 0, 700)])
async def test_what_would_be_read_again_yields_where_it_keeps_ingest_from_writing(
    wire: Wire, share: float, unread: int, gone: int
) -> None:
    """Normalize has read all and ingest writes nothing: no stream time passes, so no book would ever be saved again."""
    await fill(wire, KEYS.raw, *AGES)
    await wire.call(("HSET", KEYS.state("normalize"), REREAD_FROM, await first(wire, KEYS.raw)))
    for _ in range(unread):
        await wire.call(("XADD", KEYS.raw, "*", "f", "v"))
    await use(wire, share)
    assert (await trim(wire, KEYS, NOTHING))[KEYS.raw] == gone


async def test_what_is_pending_of_removed_entries_is_acknowledged_for_the_group(wire: Wire) -> None:
    """A list of what is pending takes as much memory as small entries: a group that never acknowledges would fill Redis
    by it alone."""
    await group(wire)
    await fill(wire, KEYS.trade, *AGES)
    await read(wire, 4 * EACH - 50)
    await use(wire, 0.47)
    await trim(wire, KEYS, NOTHING)
    await use(wire, 0.56)
    await trim(wire, KEYS, NOTHING)
    pending = check((await wire.call(("XPENDING", KEYS.trade, "bot")))[0])
    assert pending[0] == EACH - 50
    assert pending[1] == await first(wire)
    record = (await lost(wire))[lost_field(KEYS.trade, "bot")]
    assert (record.entries, record.exact) == (3 * EACH, True)


async def test_a_group_that_is_far_behind_in_what_it_reads_is_told_all_it_lost(wire: Wire) -> None:
    await group(wire)
    await fill(wire, KEYS.trade, *AGES)
    await acknowledge(wire, await read(wire, 150))
    await read(wire, 100)
    await use(wire, 0.56)
    assert (await trim(wire, KEYS, NOTHING))[KEYS.trade] == 3 * EACH
    record = (await lost(wire))[lost_field(KEYS.trade, "bot")]
    assert (record.entries, record.exact) == (3 * EACH - 150, True)


async def test_a_group_that_was_given_all_that_is_removed_lost_nothing(wire: Wire) -> None:
    """Of a group that never read anything Redis cannot tell how far behind it is."""
    await group(wire)
    await fill(wire, KEYS.trade, 2 * HOUR)
    await group(wire, "live", at="$")
    await fill(wire, KEYS.trade, 5 * MINUTE)
    await use(wire, 0.47)
    assert (await trim(wire, KEYS, NOTHING))[KEYS.trade] == EACH
    assert list(await lost(wire)) == [lost_field(KEYS.trade, "bot")]


async def test_the_floor_never_goes_back(wire: Wire) -> None:
    await fill(wire, KEYS.trade, *AGES)
    await use(wire, 0.56)
    await trim(wire, KEYS, NOTHING)
    highest = await floor(wire)
    assert highest is not None
    await use(wire, 0.1)
    for promise in (Promise(HOUR, 0), Promise(HOUR, 1_000), NOTHING):
        await trim(wire, KEYS, promise)
        assert await floor(wire) == highest


async def test_a_full_redis_is_trimmed_and_the_notes_follow(wire: Wire) -> None:
    await group(wire)
    await fill(wire, KEYS.trade, *AGES)
    await read(wire, 100)
    check((await wire.call(("CONFIG", "SET", "maxmemory", 1_000_000)))[0])
    assert "OOM" in str((await wire.call(("HSET", "a", "b", "c")))[0]) or await wire.call(("HGET", "a", "b")) == [None]
    trimmer = Trimmer(KEYS, NOTHING)
    removed = (await trimmer.trim(wire))[KEYS.trade]
    assert removed == 4 * EACH - 100
    assert (await lost(wire), await floor(wire)) == ({}, None), "refused"
    check((await wire.call(("CONFIG", "SET", "maxmemory", 0)))[0])
    await trimmer.trim(wire)
    assert (await lost(wire))[lost_field(KEYS.trade, "bot")].entries == removed


async def test_the_note_of_a_group_goes_with_it(wire: Wire) -> None:
    await group(wire)
    await group(wire, "other")
    await fill(wire, KEYS.trade, *AGES)
    await use(wire, 0.56)
    await trim(wire, KEYS, NOTHING)
    await use(wire, 0.1)
    assert len(await lost(wire)) == 2
    await wire.call(("XGROUP", "DESTROY", KEYS.trade, "bot"), ("HSET", KEYS.lost, "foreign", "not JSON"))
    await trim(wire, KEYS, NOTHING)
    assert set(await lost(wire)) == {lost_field(KEYS.trade, "other")}


async def test_a_group_that_is_destroyed_meanwhile_holds_nothing(redis_server: RedisServer, wire: Wire) -> None:
    class Destroys(Wire):
        async def call(self, *commands: Command, block: float = 0.0) -> list[Reply]:
            if commands[0][0] == "XPENDING":
                await wire.call(("XGROUP", "DESTROY", KEYS.trade, "bot"))
            return await super().call(*commands, block=block)

    await group(wire)
    await fill(wire, KEYS.trade, *AGES)
    await read(wire, 4 * EACH)
    trimming = await Destroys.open(redis_server.url)
    assert await trim(trimming, KEYS, NOTHING) == {KEYS.trade: 700}
    await trimming.close()
    assert await lost(wire) == {}


async def test_without_a_limit_of_the_server_that_of_the_settings_counts(wire: Wire) -> None:
    await group(wire)
    await fill(wire, KEYS.trade, *AGES)
    check((await wire.call(("CONFIG", "SET", "maxmemory", 0)))[0])
    assert await Trimmer(KEYS, NOTHING).trim(wire) == {KEYS.trade: 0}
    assert await Trimmer(KEYS, NOTHING, budget=1_000_000).trim(wire) == {KEYS.trade: 4 * EACH - 100}


def test_outsiders_give_way_before_ingest_stops() -> None:
    shares = [share for share, _ in MARKS]
    assert shares == sorted(shares, reverse=True)
    assert left_to_outsiders(0.0) == left_to_outsiders(shares[-1]) == ALL
    assert left_to_outsiders(INGEST_STOPS) == (0, 0, False), "or a dead group would keep ingest from ever writing again"


@pytest.mark.parametrize(
    ("delivered", "lag", "expected"),
    [
        ((0, 0), None, 300),
        ((99, 0), 1_000, 300),
        ((250, 0), 850, 150),
        ((250, 0), None, None),
        ((399, 0), None, 0),
        ((500, 0), None, 0),
        ((900, 0), 100, 0),
    ],
)
def test_the_count_of_what_a_group_was_not_given(delivered: tuple[int, int], lag: int | None, expected: Any) -> None:
    """Entries 100 to 1099; those below 400 are removed."""
    assert undelivered(delivered, lag, (100, 0), 1_000, (399, 0), 300) == expected


def test_losses_add_up_while_they_are_told() -> None:
    one = Lost(stream="s", group="g", entries=5, exact=True, since=10, time=10, after="1-0", to="5-0")
    two = msgspec.structs.replace(one, entries=7, exact=False, since=90, time=90, after="5-0", to="9-0")
    assert joined(None, one) == one
    both = msgspec.structs.replace(two, entries=12, since=10, after="1-0")
    assert joined(one, two) == both
    later = msgspec.structs.replace(two, time=one.time + TOLD_FOR)
    assert joined(one, later) == later
