"""Retention on a real Postgres: what goes, what stays, what is known afterwards, and who waits for whom."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.records import Record
from pipeline.timeframes import DAY, HOUR, MINUTE
from store import retention as module
from store.partitions import IN_USE, Partitions
from store.retention import Retention, retain
from tests.servers import PostgresServer
from tests.store.made import (
    NOON,
    SECOND,
    book,
    candle,
    clock,
    coverage,
    eventually,
    gap,
    kline,
    publish,
    query,
    quote,
    ready,
    start,
    ticker,
    trade,
    write,
)
from tests.store.test_rebuild import LATER, at, published, rebuild, seen, working

TODAY = NOON - NOON % DAY
"""2025-10-09 00:00 UTC."""
KINDS = ("trade", "quote", "orderbook", "ticker", "candle", "candle_seconds", "kline", "kline_seconds")
NAMES = "SELECT name::text FROM partitions WHERE kind = %s ORDER BY from_time"
PATIENCE = "1s"
"""Far more than a fifth of a second, and far less than the readers of these tests hold on."""


def on(day: int, hour: float = 9) -> int:
    """That many days before 2025-10-09."""
    return TODAY - day * DAY + round(hour * HOUR)


def printed(day: int, hour: float = 9, **fields: Any) -> Record:
    moment = on(day, hour)
    return trade(100 - day, time=moment, received=moment, **fields)


async def turn(url: str, tries: int = 50, **days: int) -> dict[str, Any]:
    """One look, and more while something is in use (autovacuum may be at work); what the process then says of it."""
    partitions = await Partitions.open(url, "store-0")
    try:
        await held_by(partitions)
        retention = Retention(days, clock=lambda: 7)
        while not await retention.turn(partitions, asyncio.Event()) and tries > 1:
            tries -= 1
    finally:
        await partitions.close()
    return retention.row()


async def held_by(partitions: Partitions) -> None:
    """The server lets go of the lock a moment after the connection that held it is closed."""
    async with asyncio.timeout(30):
        while not await partitions.hold():
            pass


def names(url: str, kind: str = "trade") -> list[str]:
    return [name for (name,) in query(url, NAMES, kind)]


def days_of(url: str, kind: str = "trade") -> list[int]:
    """How many days before 2025-10-09 the partitions of the kind are."""
    rows = query(url, "SELECT exact_nanoseconds(from_time) FROM partitions WHERE kind = %s ORDER BY 1", kind)
    return [(TODAY - begun) // DAY for (begun,) in rows]


async def test_whole_partitions_go_when_all_of_their_range_is_older(database_url: str) -> None:
    await write(database_url, *(printed(day) for day in (4, 3, 2, 1, 0)), clock(on(0) - 1000))
    told = await turn(database_url, trade=2)
    # It is a microsecond before nine: the whole of the day before yesterday is younger than two days and nine hours.
    assert days_of(database_url) == [2, 1, 0]
    assert told == {"dropped": 2, "last_dropped": 7, "held": {}, "trouble": None}
    rows = query(database_url, "SELECT kind, to_time - from_time, bytes > 8192 FROM dropped ORDER BY from_time")
    assert [(kind, length.days, some) for kind, length, some in rows] == [("trade", 1, True)] * 2
    assert query(database_url, "SELECT exact_nanoseconds(kept_since('trade')), kept_since('quote')") == [
        (on(2, 0), None)
    ]
    assert (await turn(database_url, trade=2))["dropped"] == 0


@pytest.mark.parametrize(("early", "kept"), [(0, [1, 0]), (1, [2, 1, 0])])
async def test_the_days_are_counted_to_the_microsecond(database_url: str, early: int, kept: list[int]) -> None:
    midnight = on(0, 0) - early * 1000
    await write(database_url, *(printed(day) for day in (2, 1, 0)), clock(midnight))
    await turn(database_url, trade=1)
    assert days_of(database_url) == kept


async def test_each_kind_has_its_own_days_and_the_others_are_kept(database_url: str) -> None:
    old, older = on(40), on(70)
    rows: list[Record] = []
    for number, moment in enumerate((older, old, on(0))):
        rows += [
            trade(number, time=moment, received=moment),
            quote(number, received=moment),
            ticker(number, received=moment),
            book(number, snapshot_time=moment),
            *(
                make(0, frame, open_time=moment, close_time=moment + width)
                for make in (candle, kline)
                for frame, width in (("1m", MINUTE), ("1s", SECOND))
            ),
        ]
    await write(database_url, *rows, clock(on(0)))
    before = {kind: names(database_url, kind) for kind in KINDS}
    assert before["candle"] == ["candles_minutes_202507", "candles_minutes_202508", "candles_minutes_202510"]
    assert before["kline_seconds"] == ["klines_seconds_20250731", "klines_seconds_20250830", "klines_seconds_20251009"]
    assert (await turn(database_url))["dropped"] == 0
    for place, kind in enumerate(KINDS):
        # A month is older than 39 days when its last day is.
        days = 39 if kind in ("candle", "kline") else 50
        told = await turn(database_url, **{kind: days})
        after = {kind: names(database_url, kind) for kind in KINDS}
        assert told["dropped"] == 1, kind
        assert after[kind] == before[kind][1:]
        assert {other: after[other] for other in KINDS[place + 1 :]} == {k: before[k] for k in KINDS[place + 1 :]}


async def test_nothing_goes_before_an_exchange_said_what_time_it_is_nor_by_a_clock_that_is_ahead(
    database_url: str,
) -> None:
    await write(database_url, printed(300), printed(0))
    assert (await turn(database_url, trade=1))["dropped"] == 0
    # The exchange's clock stands at day 299, though this host's is years ahead of it.
    await write(database_url, clock(on(299)))
    assert (await turn(database_url, trade=1))["dropped"] == 0
    await write(database_url, clock(on(298)))
    assert (await turn(database_url, trade=1))["dropped"] == 1
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE clocks SET time = now() + interval '50 years'")
    assert (await turn(database_url, trade=20_000))["dropped"] == 0


def opened(first: int, last: int, **fields: Any) -> Record:
    return gap(from_time=first, to_time=last, received=on(0), **fields)


CLOSED = {"state": "closed", "reason": "unrecoverable: forgotten"}


@pytest.mark.parametrize(
    ("entry", "stays"),
    [
        (opened(on(3, 1), on(3, 2)), [3]),
        (opened(on(4, 23), on(2, 1)), [4, 3, 2]),
        (opened(on(3, 0), on(3, 0)), [3]),
        (opened(on(3, 23), on(2, 0)), [3, 2]),
        (opened(on(2, 0) - 1000, on(2, 0) - 1000), [3]),
        # Times of the trades on both sides need not be in order.
        (opened(on(2, 1), on(4, 23)), [4, 3, 2]),
        (opened(on(3, 1), on(3, 2), state="shrunk", remaining=[[11, 12]]), [3]),
        (opened(on(3, 1), on(3, 2), state="closed", reason="filled", remaining=[], repaired=10), []),
        (opened(on(3, 1), on(3, 2), **CLOSED), []),
        (opened(on(3, 1), on(2, 2), repaired=0, **CLOSED), []),
    ],
)
async def test_days_that_a_gap_touches_stay(database_url: str, entry: Record, stays: list[int]) -> None:
    candles = [candle(0, "1s", open_time=on(day), close_time=on(day) + SECOND) for day in (4, 3, 2, 0)]
    quotes = [quote(0, received=on(day)) for day in (4, 3, 2, 0)]
    await write(database_url, *(printed(day) for day in (4, 3, 2, 0)), *candles, *quotes, entry, clock(on(0)))
    told = await turn(database_url, trade=1, candle_seconds=1, quote=1)
    assert days_of(database_url) == days_of(database_url, "candle_seconds") == [*stays, 0]
    assert days_of(database_url, "quote") == [0], "quotes have no numbers that could be missing"
    assert len(told["held"]) == 2 * len(stays)
    assert set(told["held"].values()) <= {"an open gap, or one closed within the last hour"}


async def test_a_gap_that_was_closed_just_now_may_still_have_candles_computed(database_url: str) -> None:
    just = query(ready(database_url), "SELECT exact_nanoseconds(now() - interval '59 minutes')")[0][0]
    filled = msgspec.structs.replace(opened(on(3, 1), on(3, 2)), state="closed", remaining=[], repaired=10)
    await write(database_url, printed(3), printed(0), clock(on(0)), msgspec.structs.replace(filled, received=just))
    assert (await turn(database_url, trade=1))["held"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE trade_gaps SET received = received - interval '2 minutes'")
    assert (await turn(database_url, trade=1))["dropped"] == 1


async def test_a_gap_of_which_some_came_stays_whole_until_its_last_day_may_go(database_url: str) -> None:
    """Where in it the lost ones lie is told by the trades that came, of all its days."""
    lost = opened(on(3, 23), on(1, 1), repaired=5, remaining=[[15, 19]], **CLOSED)
    await write(database_url, *(printed(day) for day in (4, 3, 2, 1, 0)), lost, clock(on(0)))
    told = await turn(database_url, trade=1)
    assert days_of(database_url) == [3, 2, 1, 0]
    assert set(told["held"].values()) == {"a gap that ends on a later day"}
    await write(database_url, clock(on(-1)))
    await turn(database_url, trade=1)
    await turn(database_url, trade=1)
    assert days_of(database_url) == [0]


@pytest.mark.parametrize(
    ("first", "last", "stays"),
    [(on(3, 1), on(3, 2), [3]), (on(3, 0), on(3, 0), [3]), (on(3, 23), on(2, 0), [3, 2])],
)
async def test_days_with_candles_to_compute_stay(database_url: str, first: int, last: int, stays: list[int]) -> None:
    wanted = rebuild(0, 0, from_time=first, to_time=last)
    candles = [candle(0, "1s", open_time=on(day), close_time=on(day) + SECOND) for day in (4, 3, 2, 0)]
    await write(database_url, *(printed(day) for day in (4, 3, 2, 0)), *candles, wanted, clock(on(0)))
    told = await turn(database_url, trade=1, candle_seconds=1)
    assert days_of(database_url) == days_of(database_url, "candle_seconds") == [*stays, 0]
    assert set(told["held"].values()) == {"candles that are to be computed"}
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM rebuilds")
    await turn(database_url, trade=1, candle_seconds=1)
    assert days_of(database_url) == days_of(database_url, "candle_seconds") == [0]


@pytest.fixture(scope="module")
def laid_out(postgres_server: PostgresServer) -> Any:
    """Ten days of trades, and a clock."""
    url = postgres_server.create_database("retention_any")
    asyncio.run(write(url, *(printed(day) for day in range(10)), clock(on(0))))
    yield url
    postgres_server.drop_database("retention_any")


MOMENTS = st.one_of(
    st.integers(on(10, 0), on(-1, 0)).map(lambda time: time // 1000 * 1000),
    st.tuples(st.integers(-1, 9), st.integers(-1, 1)).map(lambda one: on(one[0], 0) + one[1] * 1000),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spans=st.lists(st.tuples(MOMENTS, MOMENTS, st.sampled_from(("opened", "shrunk", "closed"))), max_size=4),
    wanted=st.lists(st.tuples(MOMENTS, MOMENTS).map(sorted), max_size=2),
    days=st.integers(1, 9),
)
def test_no_day_with_an_open_gap_or_candles_to_compute_ever_goes(
    laid_out: str, spans: list[tuple[int, int, str]], wanted: list[list[int]], days: int
) -> None:
    """Worked out the plainest way: everything else that is old enough goes."""
    with psycopg.connect(laid_out, autocommit=True) as connection:
        connection.execute("DELETE FROM trade_gaps; DELETE FROM rebuilds; DELETE FROM dropped")
    asyncio.run(write(laid_out, *(printed(day) for day in range(10))))
    entries = [
        gap(from_time=first, to_time=last, state=state, from_sequence=10 * n, remaining=[[10 * n, 10 * n + 1]])
        for n, (first, last, state) in enumerate(spans)
    ]
    asks = [rebuild(0, 0, from_time=first, to_time=last, received=on(0) + n) for n, (first, last) in enumerate(wanted)]
    if entries or asks:
        asyncio.run(write(laid_out, *entries, *asks))
    asyncio.run(turn(laid_out, trade=days))
    touching = [(min(a, b), max(a, b)) for a, b, state in spans if state != "closed"] + [(a, b) for a, b in wanted]
    expected = [
        day
        for day in reversed(range(10))
        if on(day - 1, 0) > on(0) - days * DAY
        or any(first < on(day - 1, 0) and last >= on(day, 0) for first, last in touching)
    ]
    assert [day for day in days_of(laid_out) if day >= 0] == expected
    gone = query(laid_out, "SELECT exact_nanoseconds(from_time) FROM dropped ORDER BY 1")
    assert [begun for (begun,) in gone] == [on(day, 0) for day in reversed(range(10)) if day not in expected]


@pytest.mark.parametrize("lock", ["SELECT count(*) FROM trades", "LOCK TABLE trades_20251006 IN ACCESS SHARE MODE"])
async def test_what_others_read_stays_and_nobody_waits_long(database_url: str, lock: str) -> None:
    await write(database_url, *(printed(day) for day in (4, 3, 0)), quote(0, received=on(4)), clock(on(0)))
    with psycopg.connect(database_url) as reader:
        reader.execute(lock.encode())
        waited = others_work(database_url)
        told = await turn(database_url, tries=1, trade=1, quote=1)
        assert waited() > 0
        assert told["held"] in ({"trades_20251005": IN_USE}, {"trades_20251006": IN_USE})
        assert days_of(database_url, "quote") == [], "what is not in use goes meanwhile"
        reader.rollback()
        assert (await turn(database_url, trade=1))["held"] == {}
    assert days_of(database_url) == [0]


def others_work(url: str) -> Callable[[], int]:
    """A writer and a reader of the table, again and again. Called, the result ends them and tells how often they had
    their turn; it raises when one waited for a lock for longer than PATIENCE."""
    stop, turns = threading.Event(), [0]

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"SET lock_timeout = '{PATIENCE}'")
            while not stop.is_set():
                connection.execute("UPDATE trades SET fills = fills WHERE time >= timestamptz '2025-10-09Z'")
                connection.execute("SELECT count(*) FROM trades WHERE time >= timestamptz '2025-10-09Z'")
                turns[0] += 1

    pool = ThreadPoolExecutor(1)
    working = pool.submit(work)

    def ended() -> int:
        stop.set()
        working.result()
        pool.shutdown()
        return turns[0]

    return ended


async def test_a_gap_written_at_the_same_moment_is_seen(database_url: str) -> None:
    """The drop waits for nobody who writes the ledger, and does not go on without knowing what he writes."""
    await write(database_url, printed(4), printed(0), clock(on(0)))
    with psycopg.connect(database_url) as writer:
        writer.execute("LOCK TABLE trade_gaps IN ROW EXCLUSIVE MODE")
        assert (await turn(database_url, tries=1, trade=1))["held"] == {"trades_20251005": IN_USE}
        writer.rollback()
    assert (await turn(database_url, trade=1))["dropped"] == 1


@pytest.mark.parametrize("seed", range(3))
async def test_no_day_goes_whose_gap_was_there_first_whoever_is_quicker(
    database_url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Gaps are written while partitions go. What was there when a gap was written stays."""
    monkeypatch.setattr(module, "BREATH", 0.0)
    await write(database_url, *(printed(day) for day in range(40)), clock(on(0)))
    days = random.Random(seed).sample(range(2, 39), 12)
    claiming = asyncio.gather(*(asyncio.to_thread(claim, database_url, part) for part in (days[:6], days[6:])))
    told: dict[str, Any] = {"held": {"nothing yet": IN_USE}}
    while not claiming.done() or IN_USE in told["held"].values():
        told = await turn(database_url, tries=1, trade=1)
    claimed = {day for there in await claiming for day in there}
    assert set(days_of(database_url)) - {1, 0} == claimed


def claim(url: str, days: list[int]) -> list[int]:
    """Writes an open gap in each of the days; those of the days that were there in the same transaction."""
    found = []
    for day in days:
        with psycopg.connect(url) as connection:
            connection.execute(
                "INSERT INTO trade_gaps SELECT 1, 0, %(day)s, %(day)s, exact_time(%(time)s), exact_time(%(time)s),"
                " 'sequence', 'opened', NULL, 0, '{}', now(), NULL, now(), 1, 1",
                {"day": day, "time": on(day)},
            )
            there = "SELECT FROM partitions WHERE kind = 'trade' AND from_time = exact_time(%s)"
            found += [day] if connection.execute(there.encode(), (on(day, 0),)).fetchone() is not None else []
    return found


async def test_of_two_that_would_drop_one_does_nothing(database_url: str) -> None:
    await write(database_url, printed(4), printed(0), clock(on(0)))
    first = await Partitions.open(database_url, "store-0")
    second = await Partitions.open(database_url, "store-0")
    assert await first.hold()
    retention = Retention({"trade": 1})
    assert await retention.turn(second, asyncio.Event())
    assert days_of(database_url) == [4, 0]
    await first.close()
    await held_by(second)
    await retention.turn(second, asyncio.Event())
    await second.close()
    assert days_of(database_url) == [0]


async def test_of_many_that_are_held_the_oldest_are_told(database_url: str) -> None:
    span = opened(on(60), on(2))
    await write(database_url, *(printed(day) for day in range(60)), span, clock(on(0)))
    told = await turn(database_url, trade=1)
    assert len(told["held"]) == 20
    assert min(told["held"]) == "trades_20250811"


async def test_partitions_of_another_shape_are_let_alone(database_url: str) -> None:
    await write(database_url, printed(4), printed(0), clock(on(0)))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE other PARTITION OF trades FOR VALUES FROM (MINVALUE) TO ('2020-01-01Z')")
        connection.execute("CREATE TABLE elsewhere PARTITION OF quotes DEFAULT")
    assert (await turn(database_url, trade=1, quote=1))["dropped"] == 1
    assert query(database_url, "SELECT count(*) FROM pg_class WHERE relname IN ('other', 'elsewhere')") == [(2,)]


async def test_a_trade_of_a_dropped_day_is_stored_and_goes_with_the_next_look(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    """By the very connection that knew the partition before it was dropped."""
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, [printed(4), printed(0), clock(on(0))])
    await eventually(database_url, "SELECT count(*) FROM trades", 2)
    await eventually(database_url, "SELECT count(*) FROM clocks", 1)
    assert (await turn(database_url, trade=1))["dropped"] == 1
    await publish(redis_url, [printed(4, 10)])
    await eventually(database_url, "SELECT count(*) FROM trades", 2)
    await running.finish()
    assert running.heartbeat.report().errors == 0
    before = query(database_url, "SELECT bytes, exact_nanoseconds(kept_since('trade')) FROM dropped")
    assert (await turn(database_url, trade=1))["dropped"] == 1
    after = query(database_url, "SELECT bytes, exact_nanoseconds(kept_since('trade')) FROM dropped")
    assert (after[0][0] > before[0][0], after[0][1], len(after)) == (True, on(3, 0), 1)


async def test_a_store_at_work_does_not_notice(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path, most_rows=20)
    await publish(redis_url, [*(printed(day) for day in range(20)), clock(on(0))])
    await eventually(database_url, "SELECT count(*) FROM trades", 20)
    await eventually(database_url, "SELECT count(*) FROM clocks", 1)
    now = on(0, 12)
    trades = [trade(n, time=now + n * 1_000_000, received=now + n * 1_000_000) for n in range(1_000, 4_000)]

    async def feed() -> None:
        for first in range(0, len(trades), 50):
            await publish(redis_url, trades[first : first + 50])

    feeding = asyncio.create_task(feed())
    gone = 0
    while gone < 18:
        gone += (await turn(database_url, trade=1))["dropped"]
    await feeding
    await eventually(database_url, "SELECT count(*) FROM trades", 2 + len(trades))
    await running.finish()
    assert running.heartbeat.report().errors == 0
    assert [day for day in days_of(database_url) if day >= 0] == [1, 0]


async def test_no_candle_is_computed_of_a_day_whose_trades_were_dropped(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    """A late trade of it is no reason to replace the candle of all of them, nor to make one where none is."""
    flat: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close"), "100") | {"quality": "quiet"}
    flat |= dict.fromkeys(("volume", "quote_volume", "buy_volume", "buy_quote_volume"), "0") | {"trades_count": 0}
    yesterday = -24 * 60
    async with working(redis_url, database_url, tmp_path) as running:
        early = [coverage_from(NOON - DAY), clock(LATER)]
        trades = [at(1, yesterday + 0.1), at(2, yesterday + 0.2), at(3, yesterday + 8), at(4, 0.1), at(5, 59)]
        stored = [candle(number, **flat) for number in (yesterday + 1, yesterday + 2)]
        await publish(redis_url, [*early, *trades, *stored])
        await eventually(database_url, "SELECT count(*) FROM trades", 5)
        await eventually(database_url, "SELECT count(*) FROM candles", 2)
        drop(database_url, "trade", on(1))
        # The day stands half empty, as a late trade would leave it.
        late = at(9, yesterday + 1.5)
        await publish(redis_url, [late, rebuild(yesterday, yesterday + 9), rebuild(0, 5)])
        await eventually(database_url, "SELECT count(*) FROM candles WHERE open_time >= timestamptz '2025-10-09Z'", 6)
        await eventually(database_url, "SELECT count(*) FROM rebuilds", 0)
        assert running.heartbeat.counters["not_kept"] == 1
    told = await published(redis_url)
    assert [one.open_time for one in told[:2]] == [one.open_time for one in stored]
    assert min(one.open_time for one in told[2:]) == NOON
    rows = query(database_url, "SELECT quality, revision FROM candles WHERE open_time < timestamptz '2025-10-09Z'")
    assert rows == [("quiet", 0)] * 2


async def test_no_candle_is_made_again_of_a_day_whose_candles_were_dropped(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    async with working(redis_url, database_url, tmp_path) as running:
        await publish(redis_url, [*seen(), at(1, 0.1), at(2, 59), candle(0, "1s")])
        await eventually(database_url, "SELECT count(*) FROM trades", 2)
        await eventually(database_url, "SELECT count(*) FROM candles", 1)
        drop(database_url, "candle_seconds", NOON)
        await publish(redis_url, [rebuild(0, 0.5, "1s", "1m")])
        await eventually(database_url, "SELECT count(*) FROM candles WHERE timeframe = '1m'", 1)
        await eventually(database_url, "SELECT count(*) FROM rebuilds", 0)
        assert running.heartbeat.counters["not_kept"] == 1
    assert query(database_url, "SELECT count(*) FROM candles WHERE timeframe = '1s'") == [(0,)]


async def test_windows_after_a_dropped_day_begin_at_the_stored_candle_before_never_at_an_older_trade(
    database_url: str,
) -> None:
    """Day 3 was kept for a gap; day 2 went; on day 1 nothing was traded before nine."""
    close = candle(0, open_time=on(1, 0) - MINUTE, close_time=on(1, 0), close="64000.7", low="64000", high="64001")
    prices = [printed(3, 9, price="1"), printed(2, 9, price="2"), printed(1, 9, price="3"), printed(0, 9, price="4")]
    await write(database_url, coverage_from(on(3)), *prices, close, clock(on(0)))
    drop(database_url, "trade", on(2))
    first = "SELECT open_time, close, quality FROM candles_of_trades(1, '1h', exact_time(%s), exact_time(%s)) LIMIT 1"
    assert query(database_url, first, on(1, 0), on(1, 8)) == [], "there is no candle of an hour"
    minute = first.replace("1h", "1m")
    ((_, price, quality),) = query(database_url, minute, on(1, 0), on(1, 1))
    assert (str(price), quality) == ("64000.7", "quiet")
    # Asked for from before the dropped day: the same, and nothing of that day.
    rows = query(database_url, minute.replace("LIMIT 1", ""), on(3, 9), on(1, 1))
    assert {str(row[1]) for row in rows} == {"1", "64000.7"}
    assert not [row for row in rows if on(2, 0) <= row[0].timestamp() * SECOND < on(1, 0)]
    drop(database_url, "candle", on(1))
    assert query(database_url, minute, on(1, 0), on(1, 1)) == []


async def test_dropped_candles_are_not_filled_in_as_quiet(database_url: str) -> None:
    """`candles(…, fill)` says that nothing was traded: of a dropped day it cannot know."""
    days = {day: candle(0, "1s", open_time=on(day), close_time=on(day) + SECOND) for day in (2, 1, 0)}
    later = candle(0, "1s", open_time=on(0) + 5 * SECOND, close_time=on(0) + 6 * SECOND)
    await write(
        database_url,
        coverage_from(on(2)),
        *days.values(),
        later,
        printed(2),
        printed(1),
        printed(0),
        clock(on(0) + HOUR),
    )
    filled = (
        "SELECT exact_nanoseconds(open_time)"
        " FROM candles('okx', 'BTC-USDT', '1s', exact_time(%s), exact_time(%s), true)"
    )
    span = on(1) + SECOND, on(0) + 3 * SECOND
    assert len(query(database_url, filled, *span)) > 80_000
    drop(database_url, "trade", on(1))
    drop(database_url, "candle_seconds", on(1))
    assert [time for (time,) in query(database_url, filled, *span)] == [on(0) + n * SECOND for n in range(3)]


async def test_the_loop_looks_again_after_a_server_that_was_away_and_ends_when_told(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST", "INTERVAL", "AGAIN"):
        monkeypatch.setattr(module, name, 0.0)
    await write(database_url, printed(4), printed(0), clock(on(0)))
    stop, asked = asyncio.Event(), list[str]()
    retention = Retention({"trade": 1})

    async def opening() -> Partitions:
        told = retention.row()
        asked.append(str(told["trouble"]))
        if told["dropped"]:
            stop.set()
        away = "postgresql://127.0.0.1:1/none?connect_timeout=2"
        return await Partitions.open(away if len(asked) < 3 else database_url, "store-0")

    await retain(opening, retention, stop)
    assert asked[0] == "None"
    assert asked[1].startswith("Postgres: ")
    assert asked[2] == asked[1]
    assert asked[3:] == ["None"], "the fourth look ends it"
    assert days_of(database_url) == [0]


async def test_sizes_are_measured_once_an_hour_and_growth_counts_what_was_dropped(database_url: str) -> None:
    await write(database_url, *(printed(day) for day in (4, 0)), clock(on(0)))
    await turn(database_url)
    await turn(database_url)
    rows = dict(query(database_url, "SELECT kind, (bytes, dropped, exact_nanoseconds(since))::text FROM sizes"))
    assert set(rows) == {"trade", "database"}, "of other kinds there is no partition"
    bytes_of = dict(query(database_url, "SELECT kind, bytes FROM sizes"))
    assert bytes_of["database"] > bytes_of["trade"] > 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE sizes SET at = at - interval '2 days'")
        connection.execute("INSERT INTO sizes SELECT kind, at - interval '7 days', 1, 0 FROM sizes")
    await turn(database_url, trade=1)
    await turn(database_url, trade=1)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE sizes SET at = at - interval '61 minutes' WHERE at > now() - interval '1 hour'")
    await turn(database_url, trade=1)
    newest = query(database_url, "SELECT dropped FROM sizes WHERE kind = 'trade' ORDER BY at DESC LIMIT 1")
    assert newest == query(database_url, "SELECT bytes FROM dropped")
    assert query(database_url, "SELECT count(*) FROM sizes WHERE kind = 'trade'") == [(3,)], "older ones are forgotten"


def coverage_from(begun: int) -> msgspec.Struct:
    return coverage("covered", begun)


def drop(url: str, kind: str, at_time: int) -> None:
    for _ in range(50):
        with contextlib.suppress(psycopg.errors.LockNotAvailable):
            assert query(url, "SELECT drop_partition(%s, exact_time(%s))", kind, at_time) == [(None,)]
            return
    raise AssertionError("it is in use all the time")
