"""Trades → aggregate → store on real servers: an hour that was missed and fetched again, newest page first or oldest
first, leaves the candles that there would be had nothing been missed. Whoever is killed meanwhile."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregate.stage import Aggregate
from pipeline.heartbeat import Heartbeat
from pipeline.records import Candle, Gap, Trade, encode
from pipeline.steps import Command
from pipeline.streams import Keys
from pipeline.timeframes import DAY, TIMEFRAMES, WIDTHS
from pipeline.wire import Wire, check
from pipeline.worker import work
from store.postgres import Database
from store.progress import Progress
from store.rebuild import rebuild_partition
from store.repositories import MarketDataRepository
from tests.aggregate.made import NAMES, START, Record, at, clock, covered, gap, trade, uncovered
from tests.aggregate.outages import Outages, all_windows, judged, known, same
from tests.servers import RedisServer
from tests.store.made import eventually, query, ready, start

KEYS = Keys("md", "okx")
FRAMES = ("1s", "5s", "1m", "5m", "1h", "1d")
HOUR = 3600
END = 3 * HOUR
PAGE = 100
AGAIN = "wss://example#2"
CANDLES = """
    SELECT timeframe, exact_nanoseconds(open_time), exact_nanoseconds(close_time), open, high, low, close, volume,
           quote_volume, buy_volume, buy_quote_volume, contracts, trades_count, first_id, last_id, missing
    FROM candles ORDER BY 1, 2
"""
MINUTES = (
    "SELECT quality, count(*)::int FROM candles WHERE timeframe = '1m' AND open_time >= exact_time(%s)"
    " AND open_time < exact_time(%s) GROUP BY 1 ORDER BY 1"
)
WRONG = """
    SELECT c.timeframe, c.open_time, c.quality, t.quality FROM candles c
    JOIN LATERAL candles_of_trades(c.instrument_id, c.timeframe, c.open_time, c.close_time) t ON true
    WHERE (t.quality, t.missing) IS DISTINCT FROM (c.quality, c.missing)
"""


def market() -> list[Trade]:
    """Three hours; now busy, now silent for minutes. The last trade closes every window before it."""
    drawn, made, now = random.Random(5), [trade(1, 0)], 0.0
    while now < END:
        now += (400 if drawn.random() < 0.01 else drawn.choice((0.05, 0.8, 4))) * drawn.random()
        side, price = drawn.choice(("buy", "sell")), f"{100 + drawn.randrange(900) / 10:.2f}"
        made.append(trade(len(made) + 1, min(now, END), price, drawn.choice(("1", "0.25")), side=side))
    return made


def told(trades: list[Trade], second: int) -> Iterator[Record]:
    """The trades as they were printed, and the clock each second, from `second` on."""
    for one in trades:
        assert one.time is not None
        while at(second) <= one.time:
            yield ticking(second)
            second += 1
        yield one


def ticking(second: float) -> Record:
    return msgspec.structs.replace(clock(second), connections={"wss://example#1": at(second), AGAIN: at(second)})


def whole(trades: list[Trade]) -> list[Record]:
    return [trades[0], covered(0, TIMEFRAMES), *told(trades[1:], 0)]


def missed(trades: list[Trade], newest_first: bool) -> list[Record]:
    """The connection is gone for the second half hour and the first of the next; an hour later its pages come."""
    before = [one for one in trades if (one.time or 0) < at(HOUR / 2)]
    after = [one for one in trades if (one.time or 0) >= at(HOUR * 3 / 2)]
    lost = trades[len(before) : len(trades) - len(after)]
    late = [one for one in after if (one.time or 0) >= at(HOUR * 5 / 2)]
    soon = after[: len(after) - len(late)]
    records = [trades[0], covered(0, TIMEFRAMES), *told(before[1:], 0), uncovered(HOUR / 2)]
    records += [soon[0], covered(HOUR * 3 / 2, TIMEFRAMES, connection=AGAIN)]
    hole = (lost[0].sequence, lost[-1].sequence, 0.0, 0.0)
    times = {"from_time": before[-1].time, "to_time": after[0].time}
    opened = msgspec.structs.replace(gap("opened", *hole, HOUR * 3 / 2 + 3), **times)
    rest = list(told(soon[1:], HOUR * 3 // 2))
    heard = at(HOUR * 3 / 2 + 3)
    place = next(n for n, one in enumerate(rest) if not isinstance(one, Trade) and (one.time or 0) >= heard)
    records += [*rest[:place], opened, *rest[place:]]
    pages = [lost[n : n + PAGE] for n in range(0, len(lost), PAGE)]
    # OKX answers newest first, and so do the trades within its pages; Binance the other way round.
    pages = [page[::-1] for page in pages[::-1]] if newest_first else pages
    left = {one.sequence for one in lost}
    for number, page in enumerate(pages):
        now = HOUR * 5 / 2 + number / 4
        records += [msgspec.structs.replace(one, repaired=True, received=at(now)) for one in page]
        left -= {one.sequence for one in page}
        remaining = tuple((n, n) for n in sorted(left))
        state = "shrunk" if left else "closed"
        news: dict[str, Any] = {
            "state": state,
            "remaining": remaining,
            "repaired": len(lost) - len(left),
            "time": at(now),
        }
        records += [msgspec.structs.replace(opened, **news), ticking(now)]
    return [*records, *told(late, HOUR * 5 // 2 + 60)]


def commands(records: list[Record]) -> list[Command]:
    """As normalize writes them: a gap stands in its own stream as well."""
    found: list[Command] = []
    for record in records:
        name = NAMES.get(type(record))
        label: Command = (b"symbol", b"BTC-USDT") if name is None else (b"control", name)
        found.append(("XADD", KEYS.trade, "*", *label, b"data", encode(record)))
        if isinstance(record, Gap):
            found.append(("XADD", KEYS.stream("gap"), "*", b"symbol", b"BTC-USDT", b"data", encode(record)))
    return found


@contextlib.asynccontextmanager
async def living(redis_url: str, database_url: str, folder: Path, life: int) -> AsyncIterator[None]:
    """Aggregate and store, both killed at the end."""

    async def wire() -> Wire:
        return await Wire.open(redis_url)

    async def database() -> Database:
        return await Database.open(database_url, "store-0")

    stop, beat = asyncio.Event(), Heartbeat("aggregate-0", folder)
    storing = start(redis_url, database_url, folder, keys=KEYS)
    tasks = [
        storing.task,
        asyncio.create_task(rebuild_partition(KEYS, wire, database, Progress(storing.heartbeat), storing.stop)),
        asyncio.create_task(work(lambda keys: Aggregate(keys, "okx"), wire, KEYS, f"life {life}", beat, stop)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            assert not task.done() or not task.exception()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def settled(wire: Wire, database_url: str) -> None:
    """Both have read all there is, and nothing waits to be computed."""
    last = check((await wire.call(("XREVRANGE", KEYS.trade, "+", "-", "COUNT", 1)))[0])[0][0]
    for _ in range(1_200):
        if check((await wire.call(("HGET", KEYS.state("aggregate"), "cursor")))[0]) == last:
            break
        await asyncio.sleep(0.05)
    ends = {}
    for stream in (
        KEYS.trade,
        KEYS.stream("gap"),
        KEYS.stream("rebuild"),
        *(KEYS.stream(f"candle:{f}") for f in TIMEFRAMES),
    ):
        found = check((await wire.call(("XREVRANGE", stream, "+", "-", "COUNT", 1)))[0])
        if found:
            ends[stream] = found[0][0].decode()
    for stream, end in ends.items():
        # What store computes comes on top.
        reached = f"string_to_array(id, '-')::bigint[] >= string_to_array('{end}', '-')::bigint[]"
        await eventually(database_url, f"SELECT {reached} FROM cursors WHERE stream = '{stream}'", True, 60)
    await eventually(database_url, "SELECT count(*) FROM rebuilds", 0, 60)


async def stored(redis_url: str, database_url: str, folder: Path, records: list[Record], lives: int) -> None:
    """Plays the records through both, which are killed and started again on the way."""
    wire = await Wire.open(redis_url)
    every = commands(records)
    parts = [every[len(every) * n // lives : len(every) * (n + 1) // lives] for n in range(lives)]
    try:
        for life, part in enumerate(parts):
            async with living(redis_url, database_url, folder, life):
                for begin in range(0, len(part), 500):
                    for reply in await wire.call(*part[begin : begin + 500]):
                        check(reply)
                if life == lives - 1:
                    await settled(wire, database_url)
                else:
                    await asyncio.sleep(0.4)
    finally:
        await wire.close()


@pytest.fixture(scope="module")
def printed() -> list[Trade]:
    return market()


@pytest.mark.parametrize(("newest_first", "lives"), [(True, 1), (False, 1), (True, 8), (False, 8)])
async def test_a_repaired_hour_leaves_the_candles_of_an_hour_that_was_seen(
    redis_server: RedisServer,
    database_url: str,
    postgres_server: Any,
    tmp_path: Path,
    printed: list[Trade],
    newest_first: bool,
    lives: int,
) -> None:
    seen = postgres_server.create_database(f"seen_{newest_first}_{lives}".lower())
    try:
        await stored(redis_server.url, ready(seen), tmp_path / "seen", whole(printed), 1)
        wire = await Wire.open(redis_server.url)
        await wire.call(("FLUSHALL",))
        await wire.close()
        records = missed(printed, newest_first)
        assert len(known(records).trades) == len(printed)
        await stored(redis_server.url, ready(database_url), tmp_path / "missed", records, lives)
        expected, found = query(seen, CANDLES), query(database_url, CANDLES)
        assert len(expected) > 3_000
        assert found == expected
        span = START + HOUR // 2 * 10**9 + 60 * 10**9, START + HOUR * 3 // 2 * 10**9 - 60 * 10**9
        qualities = dict(query(database_url, MINUTES, *span))
        assert set(qualities) == {"quiet", "repaired"}
        assert qualities["quiet"] == dict(query(seen, MINUTES, *span))["quiet"]
        assert query(database_url, WRONG) == []
    finally:
        postgres_server.drop_database(f"seen_{newest_first}_{lives}".lower())


@pytest.mark.parametrize(("seed", "late"), [(2880, False), (585, False), (3, False), (4, True), (8, True)])
async def test_outages_of_any_sort_leave_the_candles_of_all_trades(
    redis_url: str, database_url: str, tmp_path: Path, seed: int, late: bool
) -> None:
    """Connections that seem to live and carry nothing for hours, gaps side by side, trades dated back, numbers that
    never come: against plain arithmetic, and against what the audit makes of the trades."""
    market = Outages(seed, FRAMES, "1m", 60_000.0, late=late).run(120)
    await stored(redis_url, ready(database_url), tmp_path, market.records, 3)
    now, found = known(market.records), candles_of(database_url)
    until = max(one.time or 0 for one in market.truth)
    asked = query(database_url, "SELECT entries::int FROM cursors WHERE stream LIKE '%%:rebuild:%%'")
    assert asked > [(0,)]
    meant = {(frame, start) for frame in FRAMES for start in all_windows(now, frame, "1m", until)}
    for window in sorted(meant | {key for key, row in found.items() if row.close_time <= until}):
        row = found.get(window)
        wanted = judged(now, *window, "1m", row)
        assert (row is None) == (wanted is None), (window, row)
        if row is not None and wanted is not None:
            assert same(row, wanted), (window, row, wanted)
    assert [row for row in query(database_url, WRONG) if row[1].timestamp() * 10**9 + WIDTHS[row[0]] <= until] == []


def candles_of(database_url: str) -> dict[tuple[str, int], Candle]:
    """What is stored, by time frame and open time."""
    with MarketDataRepository(database_url) as repository:
        rows = {frame: repository.between("okx", "BTC-USDT", frame, START, START + 30 * DAY) for frame in FRAMES}
    return {(frame, row.open_time): row for frame, found in rows.items() for row in found}
