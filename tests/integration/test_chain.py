"""Raw frames → normalize → aggregate on a real Redis: the output is a function of the raw stream alone.

The same raw stream, read 1, 7 or 1,000 entries at a time, with every n-th EXEC failing in five ways, or
with workers killed in the middle, gives the same bytes in every output stream, and leaves the same wants. Order books
are saved now and then only: what came since is read again, and that this happened is asserted.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from aggregate.stage import Aggregate
from normalize.checkpoints import EVERY
from normalize.stage import Normalize
from pipeline.exchanges import EXCHANGES
from pipeline.frames import Frame, RawEntry, RequestData
from pipeline.heartbeat import Heartbeat
from pipeline.records import Gap, OrderBook, Trade
from pipeline.steps import REREAD_FROM, Stage, stream_id
from pipeline.streams import Keys
from pipeline.wire import Wire
from pipeline.worker import work
from tests.integration.rawstream import book_stream, commands, raw_stream
from tests.pipeline.faults import FAULTS, Fault, dump, faulty, until
from tests.servers import RedisServer

Opener = Callable[[], Awaitable[Wire]]


class Venue(NamedTuple):
    """One exchange's raw stream, and what an undisturbed run makes of it."""

    keys: Keys
    raw: list[RawEntry]
    faultless: dict[str, Any]

    @property
    def frames(self) -> Iterable[Frame]:
        return (frame for entry in self.raw for frame in entry.frames)


def normalize(keys: Keys) -> Stage:
    return Normalize(keys, EXCHANGES[keys.partition])


def aggregate(keys: Keys) -> Stage:
    return Aggregate(keys, keys.partition)


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path,
    stage: Callable[[Keys], Stage],
    keys: Keys,
    open_wire: Opener,
    most: int,
    token: str = "first",
) -> AsyncIterator[Heartbeat]:
    """A worker of its own task; cancelled without mercy at the end, as a kill would."""
    heartbeat = Heartbeat("worker", tmp_path)
    task = asyncio.create_task(work(stage, open_wire, keys, token, heartbeat, asyncio.Event(), most_entries=most))
    try:
        yield heartbeat
    finally:
        assert not task.done() or not task.exception()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def caught_up(url: str, keys: Keys, stage: str, enough: Callable[[], bool] = lambda: False) -> None:
    """The stage has read all there is, or enough."""
    source = {"normalize": keys.raw, "aggregate": keys.trade}[stage]
    wire = await Wire.open(url)

    async def done() -> bool:
        cursor, last = await wire.call(
            ("HGET", keys.state(stage), "cursor"), ("XREVRANGE", source, "+", "-", "COUNT", 1)
        )
        return enough() or (bool(last) and cursor == last[0][0])

    try:
        await until(done, f"{stage} to read all of {source}", 120)
    finally:
        await wire.close()


async def feed(url: str, keys: Keys, raw: list[RawEntry], begin: int = 0, end: int | None = None) -> None:
    wire = await Wire.open(url)
    await wire.call(*commands(keys.raw, raw)[begin:end])
    await wire.close()


async def chain(
    tmp_path: Path, url: str, keys: Keys, raw: list[RawEntry], open_wire: Opener, most: int = 1_000
) -> tuple[dict[str, Any], int]:
    """Feeds the raw stream, lets both stages read all of it; what they wrote, and how many entries normalize read
    again."""
    await feed(url, keys, raw)
    async with running(tmp_path, normalize, keys, open_wire, most) as heartbeat:
        await caught_up(url, keys, "normalize")
    async with running(tmp_path, aggregate, keys, open_wire, most):
        await caught_up(url, keys, "aggregate")
    return await outputs(url), heartbeat.counters["reread"]


async def outputs(url: str) -> dict[str, Any]:
    """Every output stream, newest-record hash and want; not the raw stream, nor state (its cursors are ids), nor the
    wake-ups for wants (one that is taken back in the step that made it wakes nobody)."""
    found = await dump(url, "md:*")
    ours = ("md:raw", "md:state", "md:lease", "md:request")
    return {key: value for key, value in found.items() if not key.startswith(ours)}


def opener(url: str) -> Opener:
    return lambda: Wire.open(url)


@pytest.fixture(scope="module", params=["okx", "binance"])
def venue(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Venue:
    """What an undisturbed run writes."""
    keys = Keys("md", request.param)
    raw = raw_stream(seed=7, seconds=90) if request.param == "okx" else book_stream(12, 60, request.param)

    async def run() -> dict[str, Any]:
        server = RedisServer().start()
        try:
            return (await chain(tmp_path_factory.mktemp("hb"), server.url, keys, raw, opener(server.url)))[0]
        finally:
            server.remove()

    return Venue(keys, raw, asyncio.run(run()))


def records(found: list[list[bytes]], kind: type[Any]) -> list[Any]:
    return [msgspec.json.decode(row[3], type=kind) for row in found if row[0] == b"symbol"]


def test_the_stream_is_worth_the_trouble(venue: Venue) -> None:
    """The other tests would prove nothing on a quiet stream: it has trades, gaps, dead letters and every quality."""
    found = venue.faultless
    if venue.keys.partition == "okx":
        trades: list[Trade] = records(found[venue.keys.trade], Trade)
        assert len(trades) > 1_500
        assert len({(trade.instrument, trade.epoch, trade.sequence) for trade in trades}) == len(trades)
        assert len(found[venue.keys.stream("gap")]) > 10
        candles = b"".join(row[3] for row in found[venue.keys.stream("candle:1s")])
        for quality in (b"complete", b"partial", b"repaired"):
            assert b'"quality":"' + quality in candles
    assert len(found[venue.keys.dead]) >= 2


def test_every_trade_is_there_once_or_named(venue: Venue) -> None:
    """Gaps are fetched: in parts, doubled, cut, refused. What the ledger says is missing is what is not there."""
    if venue.keys.partition != "okx":
        return
    trades: list[Trade] = records(venue.faultless[venue.keys.trade], Trade)
    newest = {
        (gap.instrument, gap.epoch, gap.from_sequence): gap
        for gap in records(venue.faultless[venue.keys.stream("gap")], Gap)
    }
    assert Counter(gap.reason for gap in newest.values())["filled"] > 20
    assert any((gap.reason or "").startswith("unrecoverable: ") for gap in newest.values())
    assert sum(trade.repaired for trade in trades) > 100
    for name in {trade.instrument for trade in trades}:
        numbers = [trade.sequence for trade in trades if trade.instrument == name]
        named = [
            number
            for gap in newest.values()
            if gap.instrument == name
            for first, last in gap.remaining
            for number in range(first, last + 1)
        ]
        live = [trade.sequence for trade in trades if trade.instrument == name and not trade.repaired]
        assert sorted([*numbers, *named]) == list(range(min(numbers), max(live) + 1))


def test_the_books_are_worth_the_trouble(venue: Venue) -> None:
    """They break and heal, cross, are asked for and refused; quotes, tickers and bars come beside them."""
    found = venue.faultless
    books: list[OrderBook] = records(found[venue.keys.stream("orderbook")], OrderBook)
    reasons = Counter(book.reason for book in books)
    assert reasons[None] > 500
    assert {"gap", "crossed", "writer"} <= set(reasons)
    assert len({book.instrument for book in books}) == len(found[venue.keys.last("orderbook")]) > 1
    ends = Counter(
        data.state
        for frame in venue.frames
        if frame.kind == "request" and (data := msgspec.json.decode(frame.data, type=RequestData))
    )
    assert ends["answered"] >= 5
    assert ends["refused"] >= 2
    asked = any((frame.key or "").startswith("snapshot") for frame in venue.frames)
    assert asked == (venue.keys.partition == "binance")
    for kind in ("quote", "ticker", "kline:1s"):
        assert len(found[venue.keys.stream(kind)]) > 50
        assert found[venue.keys.last(kind)]


def assert_same(found: dict[str, Any], venue: Venue) -> None:
    assert set(found) == set(venue.faultless)
    for key, value in venue.faultless.items():
        assert found[key] == value, key


@pytest.mark.parametrize("most", [1, 7])
async def test_output_does_not_depend_on_how_much_is_read(
    tmp_path: Path, redis_server: RedisServer, venue: Venue, most: int
) -> None:
    url = redis_server.url
    found, _ = await chain(tmp_path, url, venue.keys, venue.raw, opener(url), most)
    assert_same(found, venue)


@pytest.mark.parametrize("fault", FAULTS)
async def test_failing_execs_change_no_byte(
    tmp_path: Path, redis_server: RedisServer, venue: Venue, fault: Fault
) -> None:
    open_wire, failed = faulty(redis_server.url, 4, fault)
    most = len(venue.raw) // 25
    found, reread = await chain(tmp_path, redis_server.url, venue.keys, venue.raw, open_wire, most)
    assert_same(found, venue)
    assert len(failed) > 5
    assert reread > 10, "books stand behind the cursor when a fault hits"


async def test_workers_killed_again_and_again_change_no_byte(
    tmp_path: Path, redis_server: RedisServer, venue: Venue
) -> None:
    url, keys, reread = redis_server.url, venue.keys, 0
    await feed(url, keys, venue.raw)
    for stage, name in ((normalize, "normalize"), (aggregate, "aggregate")):
        for steps in range(1, 11):
            async with running(tmp_path, stage, keys, opener(url), 5) as heartbeat:
                counters = heartbeat.counters
                await caught_up(url, keys, name, lambda counters=counters, steps=steps: counters["steps"] >= steps)  # type: ignore[misc]
            reread += heartbeat.counters["reread"]
        async with running(tmp_path, stage, keys, opener(url), 1_000):
            await caught_up(url, keys, name)
    assert_same(await outputs(url), venue)
    assert reread > 0


async def test_a_worker_killed_long_after_a_checkpoint_reads_raw_again(
    tmp_path: Path, redis_server: RedisServer, venue: Venue
) -> None:
    """At three places of the stream, some seconds behind the last checkpoint: what is read again is what came since."""
    url, keys = redis_server.url, venue.keys
    wire = await Wire.open(url)
    begin = 0
    for part in (0.3, 0.55, 0.8):
        end = round(len(venue.raw) * part)
        await feed(url, keys, venue.raw, begin, end)
        async with running(tmp_path, normalize, keys, opener(url), 3):
            await caught_up(url, keys, "normalize")
        cursor, since = (await wire.call(("HMGET", keys.state("normalize"), "cursor", REREAD_FROM)))[0]
        behind = stream_id(cursor)[0] - stream_id(since)[0]
        assert 0 < behind < end - begin, "saved since the last part, and not at its end"
        saved = venue.raw[stream_id(since)[0] - 1].frames[-1].ts
        now = venue.raw[end - 1].frames[-1].ts
        assert saved is not None
        assert now is not None
        assert now - saved < 2 * EVERY
        # Killed; the next one finds nothing new, but brings its books up to the cursor.
        async with running(tmp_path, normalize, keys, opener(url), 7) as heartbeat:

            async def read_again(heartbeat: Heartbeat = heartbeat, behind: int = behind) -> bool:
                return heartbeat.counters["reread"] >= behind

            await until(read_again, "raw to be read again")
            assert heartbeat.counters["reread"] == behind
        begin = end
    await wire.close()
    await feed(url, keys, venue.raw, begin)
    async with running(tmp_path, normalize, keys, opener(url), 1_000) as heartbeat:
        await caught_up(url, keys, "normalize")
    assert heartbeat.counters["reread"] > 0
    async with running(tmp_path, aggregate, keys, opener(url), 1_000):
        await caught_up(url, keys, "aggregate")
    assert_same(await outputs(url), venue)


async def test_both_at_once_and_a_second_owner_change_no_byte(
    tmp_path: Path, redis_server: RedisServer, venue: Venue
) -> None:
    url, keys = redis_server.url, venue.keys
    async with (
        running(tmp_path, normalize, keys, opener(url), 20),
        running(tmp_path, aggregate, keys, opener(url), 20),
        running(tmp_path, normalize, keys, opener(url), 20, "second"),
        running(tmp_path, aggregate, keys, opener(url), 20, "second"),
    ):
        await feed(url, keys, venue.raw)
        await caught_up(url, keys, "normalize")
        await caught_up(url, keys, "aggregate")
    assert_same(await outputs(url), venue)
