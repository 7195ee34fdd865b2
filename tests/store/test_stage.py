"""Streams to rows on real servers: what is on the streams is in Postgres once, whatever is killed meanwhile."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psycopg
import pytest

from pipeline.errors import StepRefused
from pipeline.records import DeadLetter, encode
from pipeline.timeframes import DAY
from pipeline.wire import Wire, check
from store.batch import Batch
from store.postgres import Database
from tests.proxy import TcpProxy
from tests.servers import PostgresServer, RedisServer
from tests.store.made import (
    KEYS,
    NOON,
    SECOND,
    Running,
    candle,
    clock,
    coverage,
    entry,
    eventually,
    fields,
    gap,
    instrument,
    publish,
    query,
    ready,
    start,
    stream,
    trade,
    write,
)

COUNT = "SELECT count(*) FROM trades"
SUM = "SELECT count(*), count(DISTINCT sequence), sum(sequence), min(sequence), max(sequence) FROM trades"


def all_of(last: int) -> list[tuple[int, ...]]:
    """What SUM gives when trades 1 … last are stored once each."""
    return [(last, last, last * (last + 1) // 2, 1, last)]


async def dead(redis_url: str) -> list[DeadLetter]:
    wire = await Wire.open(redis_url)
    try:
        found = check((await wire.call(("XRANGE", KEYS.dead, "-", "+")))[0])
    finally:
        await wire.close()
    letters = [dict(zip(flat[::2], flat[1::2], strict=True))[b"data"] for _, flat in found]
    return [msgspec.json.decode(data, type=DeadLetter) for data in letters]


async def put(redis_url: str, name: str, data: bytes) -> None:
    """An entry as no stage of ours would write it."""
    wire = await Wire.open(redis_url)
    try:
        check((await wire.call(("XADD", name, "*", "symbol", "BTC-USDT", "data", data)))[0])
    finally:
        await wire.close()


async def state(running: Running, wanted: str | None) -> None:
    """Waits until the store says that it waits for `wanted`; None: for nothing."""
    for _ in range(3000):
        if running.heartbeat.waiting_for == wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it waits for {running.heartbeat.waiting_for}, not for {wanted}")


async def test_records_of_every_kind_land(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, [instrument(), coverage("covered", NOON), *(trade(number) for number in range(1, 501))])
    await publish(redis_url, [clock(NOON + 60 * SECOND), gap(), candle(0), candle(0, "1s")])
    await eventually(database_url, COUNT, 500)
    await eventually(database_url, "SELECT count(*) FROM candles", 2)
    await running.finish()
    tables = ("trade_gaps", "coverage", "clocks", "instrument_history", "instruments")
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    assert query(database_url, f"SELECT {counts}") == [(1, 1, 1, 1, 1)]
    details = running.heartbeat.report().details
    newest = NOON + 500 * SECOND // 10
    assert details["tables"]["trades"].items() >= {"rows": 500, "newest": newest}.items()
    assert details["latency_ms"]["count"] == 500
    assert sum(count for _, count in details["latency_buckets"]) == 500
    assert set(details["cursors"]) == {
        stream(kind) for kind in (trade(1), candle(0), candle(0, "1s"), instrument(), gap())
    }


async def test_a_row_is_the_record_to_the_last_digit(redis_url: str, database_url: str, tmp_path: Path) -> None:
    made = trade(
        7,
        price="0.000000012340",
        contracts="12",
        id="a\t\\b",
        conditions=("block",),
        first_sequence=6,
        fills=2,
        epoch=3,
    )
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, [made])
    await eventually(database_url, COUNT, 1)
    await running.finish()
    columns = (
        "price::text, contracts::text, id, conditions, first_sequence, fills, epoch, extract(epoch FROM time)::text"
    )
    assert query(database_url, f"SELECT {columns} FROM trades") == [
        ("0.000000012340", "12", "a\t\\b", ["block"], 6, 2, 3, "1760000400.700000")
    ]


async def test_the_lag_shows_in_redis(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    ids = await publish(redis_url, [trade(number) for number in range(1, 101)])
    await eventually(database_url, COUNT, 100)
    await running.finish()
    wire = await Wire.open(redis_url)
    (group,) = check((await wire.call(("XINFO", "GROUPS", KEYS.trade)))[0])
    await wire.close()
    shown = dict(zip(group[::2], group[1::2], strict=True))
    assert (shown[b"name"], shown[b"last-delivered-id"], shown[b"lag"]) == (b"store", ids[-1], 0)


async def test_the_same_trades_again_under_new_ids_are_known(redis_url: str, database_url: str, tmp_path: Path) -> None:
    """A Redis that lost its last second lets normalize write the same trades again."""
    running = start(redis_url, ready(database_url), tmp_path)
    trades = [trade(number) for number in range(1, 201)]
    await publish(redis_url, trades[:150])
    await eventually(database_url, COUNT, 150)
    await publish(redis_url, trades[100:])
    await eventually(database_url, COUNT, 200)
    await running.finish()
    assert query(database_url, SUM) == all_of(200)
    assert running.heartbeat.counters["known"] == 50


async def test_a_batch_from_a_cursor_that_moved_is_refused_whole(database_url: str) -> None:
    database = await Database.open(ready(database_url), "store-0")

    async def bury(letters: object) -> None:
        raise AssertionError("nothing to bury")

    def batch(first: int, old: str) -> Batch:
        made = Batch("okx")
        made.take("trade", KEYS.trade, old, [entry(number, trade(number)) for number in range(first, first + 10)])
        return made

    await database.cursors("test", [KEYS.trade])
    await database.write("test", batch(1, "0-0"), bury)
    with pytest.raises(StepRefused, match="1 cursors were moved"):
        await database.write("test", batch(5, "0-0"), bury)
    assert query(database_url, SUM) == all_of(10)
    await database.write("test", batch(11, "1700000000000-10"), bury)
    await database.close()
    assert query(database_url, SUM) == all_of(20)
    assert query(database_url, "SELECT entries FROM cursors") == [(20,)]


async def test_known_refused_and_new_rows_of_one_batch_are_told_apart(database_url: str) -> None:
    await write(database_url, *(trade(number) for number in range(1, 6)))
    letters: list[DeadLetter] = []

    async def bury(buried: Sequence[DeadLetter]) -> None:
        letters.extend(buried)

    batch = Batch("okx")
    again = [*(trade(number) for number in range(3, 9)), trade(9, fills=0)]
    batch.take("trade", KEYS.trade, "1700000000000-5", [entry(n, record) for n, record in enumerate(again, start=6)])
    batch.take("candle:1m", KEYS.stream("candle:1m"), "0-0", [entry(20, candle(0))])
    database = await Database.open(database_url, "store-0")
    await database.cursors("test", [KEYS.trade, KEYS.stream("candle:1m")])
    written = await database.write("test", batch, bury)
    await database.close()
    assert (written.rows["trades"], written.rows["candles"], written.known, written.buried) == (3, 1, 3, 1)
    assert [(letter.reason, letter.entry) for letter in letters] == [("row refused: trades_fills", "1700000000000-12")]
    assert query(database_url, SUM) == all_of(8)


async def test_two_owners_store_everything_once(redis_url: str, database_url: str, tmp_path: Path) -> None:
    ready(database_url)
    owners = [start(redis_url, database_url, tmp_path, name=f"store-{n}", age=0.001, most_rows=50) for n in range(2)]
    for first in range(1, 2001, 20):
        await publish(redis_url, [trade(number) for number in range(first, first + 20)])
    await eventually(database_url, COUNT, 2000)
    for owner in owners:
        await owner.finish()
    assert query(database_url, SUM) == all_of(2000)
    # The cursors alone kept them apart: the keys of the table never had to.
    assert [owner.heartbeat.counters["known"] for owner in owners] == [0, 0]
    assert sum(owner.heartbeat.counters["trades"] for owner in owners) >= 1900


async def test_killed_and_restarted_postgres(redis_url: str, own_postgres: PostgresServer, tmp_path: Path) -> None:
    url = ready(own_postgres.create_database("tape"))
    running = start(redis_url, url, tmp_path, age=0.001, most_rows=100)
    numbers = itertools.count(1)
    for turn in range(6):
        await publish(redis_url, [trade(next(numbers)) for _ in range(1000)])
        await asyncio.to_thread(own_postgres.kill if turn % 2 else own_postgres.stop)
        await publish(redis_url, [trade(next(numbers)) for _ in range(500)])
        await state(running, "postgres")
        await asyncio.to_thread(own_postgres.start)
        await state(running, None)
    last = next(numbers) - 1
    await eventually(url, COUNT, last)
    await running.finish()
    assert query(url, SUM) == all_of(last)
    assert running.heartbeat.counters["known"] == 0
    assert running.heartbeat.waiting_for is None


async def test_connections_to_postgres_cut_anywhere(
    redis_url: str,
    postgres_server: PostgresServer,
    database_url: str,
    tcp_proxy: Callable[[int], TcpProxy],
    tmp_path: Path,
) -> None:
    """A commit whose answer is lost was done or not: only the cursors can tell."""
    proxy = tcp_proxy(postgres_server.port)
    through = ready(database_url).replace(f":{postgres_server.port}/", f":{proxy.port}/")
    chunks = itertools.count(1)

    def cut_now_and_then(data: bytes) -> bytes | None:
        return None if next(chunks) % 37 == 0 else data

    proxy.replies = cut_now_and_then
    running = start(redis_url, through, tmp_path, age=0.001, most_rows=40)
    await publish(redis_url, [trade(number) for number in range(1, 1001)])
    await eventually(database_url, COUNT, 1000)
    await running.finish()
    assert query(database_url, SUM) == all_of(1000)
    assert running.heartbeat.counters["known"] == 0
    assert proxy.connections > 2


async def test_a_postgres_that_hangs_shows_and_goes_on(
    redis_url: str,
    postgres_server: PostgresServer,
    database_url: str,
    tcp_proxy: Callable[[int], TcpProxy],
    tmp_path: Path,
) -> None:
    proxy = tcp_proxy(postgres_server.port)
    through = ready(database_url).replace(f":{postgres_server.port}/", f":{proxy.port}/")
    running = start(redis_url, through, tmp_path)
    await publish(redis_url, [trade(1)])
    await eventually(database_url, COUNT, 1)
    proxy.stall()
    await publish(redis_url, [trade(number) for number in range(2, 501)])
    await state(running, "postgres")
    proxy.resume()
    await eventually(database_url, COUNT, 500)
    await state(running, None)
    await running.finish()
    assert query(database_url, SUM) == all_of(500)
    assert (running.heartbeat.counters["known"], running.heartbeat.counters["restores"]) == (0, 0)


async def test_killed_and_paused_redis(redis_server: RedisServer, database_url: str, tmp_path: Path) -> None:
    running = start(redis_server.url, ready(database_url), tmp_path, age=0.001, most_rows=100)
    await publish(redis_server.url, [trade(number) for number in range(1, 1001)])
    await eventually(database_url, COUNT, 1000)
    await asyncio.to_thread(redis_server.kill)
    await state(running, "redis")
    await asyncio.to_thread(redis_server.start)
    await publish(redis_server.url, [trade(number) for number in range(1001, 2001)])
    await state(running, None)
    redis_server.pause()
    await state(running, "redis")
    redis_server.resume()
    await publish(redis_server.url, [trade(number) for number in range(2001, 3001)])
    await eventually(database_url, COUNT, 3000)
    await running.finish()
    assert query(database_url, SUM) == all_of(3000)


async def test_a_flushed_redis_goes_on_from_its_new_entries(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, [trade(number) for number in range(1, 101)])
    await eventually(database_url, COUNT, 100)
    wire = await Wire.open(redis_url)
    await wire.call(("FLUSHALL",))
    await wire.close()
    await publish(redis_url, [trade(number) for number in range(101, 201)])
    await eventually(database_url, COUNT, 200)
    await running.finish()
    assert query(database_url, SUM) == all_of(200)


async def test_a_redis_that_begins_anew_with_its_clock_set_back_is_read(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    """Its ids lie below the cursor."""
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, [trade(number) for number in range(1, 101)])
    await eventually(database_url, COUNT, 100)
    await running.finish()
    wire = await Wire.open(redis_url)
    await wire.call(("FLUSHALL",))
    fields = [("symbol", "BTC-USDT", "data", encode(trade(number))) for number in range(51, 201)]
    await wire.call(*(("XADD", KEYS.trade, f"1000-{at}", *pair) for at, pair in enumerate(fields)))
    await wire.close()
    running = start(redis_url, ready(database_url), tmp_path)
    await eventually(database_url, COUNT, 200)
    await running.finish()
    assert query(database_url, SUM) == all_of(200)


async def test_unusable_entries_are_buried_and_the_others_stored(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    await publish(redis_url, [trade(number) for number in range(1, 1001)])
    await put(redis_url, KEYS.trade, encode(trade(5000)).replace(b"64000.10", b"many"))
    await put(redis_url, KEYS.trade, encode(trade(5001)).replace(b"64000.10", b"NaN"))
    await put(redis_url, KEYS.trade, encode(trade(2**63)))
    await put(redis_url, KEYS.trade, encode(trade(1, time=2**69, received=2**69)))
    await put(redis_url, KEYS.trade, b"{not json")
    await put(redis_url, KEYS.stream("candle:1m"), encode(candle(0, high="1")))
    await put(redis_url, KEYS.stream("gap"), encode(gap(from_sequence=2**70)))
    await publish(redis_url, [trade(number) for number in range(1001, 1501)])
    running = start(redis_url, ready(database_url), tmp_path, most_rows=5000)
    await eventually(database_url, COUNT, 1500)
    await running.finish()
    assert query(database_url, SUM) == all_of(1500)
    letters = await dead(redis_url)
    assert sorted(letter.reason for letter in letters) == [
        "not a record",
        "row refused: InvalidTextRepresentation",
        "row refused: NumericValueOutOfRange",
        "row refused: NumericValueOutOfRange",
        "row refused: candles_range",
        "row refused: trades_price",
        "time out of range",
    ]
    (wrong,) = (letter for letter in letters if letter.reason == "row refused: InvalidTextRepresentation")
    assert 'column price: "many"' in wrong.detail
    assert all(letter.stage == "store" for letter in letters)
    assert running.heartbeat.counters["buried"] == 7


async def test_too_many_unusable_entries_stop_everything(redis_url: str, database_url: str, tmp_path: Path) -> None:
    for number in range(12):
        await put(redis_url, KEYS.trade, encode(trade(number + 1, price="x")))
    await publish(redis_url, [trade(number) for number in range(100, 200)])
    running = start(redis_url, ready(database_url), tmp_path)
    await state(running, "operator")
    await running.finish()
    assert query(
        database_url, "SELECT (SELECT count(*) FROM trades), id FROM cursors WHERE stream LIKE '%:trade:%'"
    ) == [(0, "0-0")]
    assert await dead(redis_url) == []
    assert "too many rows are refused" in (running.heartbeat.report().last_error or "")


async def test_entries_that_stop_everything_can_be_given_up_by_hand(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    """As docs/database.md says, while store runs."""
    for number in range(12):
        await put(redis_url, KEYS.trade, encode(trade(number + 1, price="x")))
    *_, last = await publish(redis_url, [trade(50)])
    await publish(redis_url, [trade(number) for number in range(100, 200)])
    running = start(redis_url, ready(database_url), tmp_path)
    await state(running, "operator")
    query(
        database_url,
        "UPDATE cursors SET id = %s WHERE namespace = %s AND stream = %s RETURNING id",
        *(last.decode(), KEYS.namespace, KEYS.trade),
    )
    await eventually(database_url, COUNT, 100)
    await state(running, None)
    await running.finish()


async def test_a_partition_that_vanished_is_made_again(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, [trade(1)])
    await eventually(database_url, COUNT, 1)
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP TABLE trades_20251009")
    await publish(redis_url, [trade(2)])
    await eventually(database_url, COUNT, 1)
    await running.finish()
    assert query(database_url, "SELECT sequence FROM trades") == [(2,)]
    assert await dead(redis_url) == []


async def test_partitions_are_ready_before_they_are_needed(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, [trade(1)])
    await eventually(database_url, COUNT, 1)
    await running.finish()
    ahead = query(
        database_url,
        "SELECT bool_and(to_regclass('trades_' || to_char(day, 'YYYYMMDD')) IS NOT NULL"
        " AND to_regclass('candles_seconds_' || to_char(day, 'YYYYMMDD')) IS NOT NULL),"
        " bool_and(to_regclass('candles_minutes_' || to_char(day + (day - current_date) * 20, 'YYYYMM')) IS NOT NULL)"
        " FROM generate_series(current_date, current_date + 2, interval '1 day') AS days (at), date(at) AS day",
    )
    assert ahead == [(True, True)]


async def test_a_year_of_trades_far_apart_gets_its_partitions(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    times = [NOON - day * DAY for day in range(0, 365, 73)]
    await publish(redis_url, [trade(n, time=time, received=time) for n, time in enumerate(times)])
    await eventually(database_url, COUNT, 5)
    await running.finish()


async def test_the_candle_of_the_later_entry_wins_whatever_its_revision(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    running = start(redis_url, ready(database_url), tmp_path, age=0.001)
    for close, revision in (("64000.1", 5), ("64000.2", 6), ("64000.3", 0)):
        await publish(redis_url, [candle(0, close=close, revision=revision), candle(1, close=close, revision=revision)])
        await eventually(database_url, "SELECT max(close)::text FROM candles", close)
    await running.finish()
    assert query(database_url, "SELECT count(*), max(revision) FROM candles") == [(2, 0)]


async def test_an_older_entry_never_overwrites_a_candle(database_url: str) -> None:
    database = await Database.open(ready(database_url), "store-0")
    name = stream(candle(0))

    async def bury(letters: object) -> None:
        raise AssertionError("nothing to bury")

    for namespace, number, close in (("a", 7, "64000.7"), ("b", 3, "64000.3"), ("c", 10, "64000.9")):
        await database.cursors(namespace, [name])
        batch = Batch("okx")
        batch.take("candle:1m", name, "0-0", [entry(number, candle(0, close=close))])
        written = await database.write(namespace, batch, bury)
        assert written.known == (number == 3)
    await database.close()
    assert query(database_url, "SELECT close::text, entry_seq FROM candles") == [("64000.9", 10)]


async def test_a_gap_lives_in_one_row(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    shrunk = gap(state="shrunk", time=NOON + 30 * SECOND, repaired=6, remaining=[[10, 11], [18, 19]])
    await publish(redis_url, [gap(), gap(from_sequence=40, to_sequence=40, remaining=[[40, 40]])])
    await eventually(database_url, "SELECT count(*) FROM trade_gaps", 2)
    await publish(redis_url, [shrunk])
    await eventually(database_url, "SELECT max(repaired) FROM trade_gaps", 6)
    await running.finish()
    assert query(
        database_url,
        "SELECT state, remaining::text, extract(epoch FROM time - opened)::int FROM trade_gaps"
        " WHERE from_sequence = 10",
    ) == [("shrunk", "{[10,12),[18,20)}", 10)]


async def test_metadata_that_change_leave_a_history(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    hour = 3600 * SECOND
    other = instrument(instrument="ETH-USDT", symbol="ETH-USDT", base="ETH")
    await publish(
        redis_url,
        [
            trade(1),
            instrument(),
            other,
            instrument(received=NOON + hour),
            instrument(received=NOON + 2 * hour, tick_size="0.01"),
            instrument(received=NOON + 3 * hour, tick_size="0.01", status="suspend"),
        ],
    )
    await eventually(database_url, "SELECT status FROM instruments WHERE symbol = 'BTC-USDT'", "suspend")
    await running.finish()
    history = query(
        database_url,
        "SELECT tick_size::text, status, extract(hour FROM valid_from)::int, extract(hour FROM valid_to)::int"
        " FROM instrument_history WHERE instrument_id = instrument_id('okx', 'btc-usdt') ORDER BY valid_from",
    )
    assert history == [("0.1", "live", 9, 11), ("0.01", "live", 11, 12), ("0.01", "suspend", 12, None)]
    assert query(database_url, "SELECT tick_size::text FROM instruments ORDER BY symbol") == [("0.01",), ("0.1",)]


async def test_it_waits_for_the_schema(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, database_url, tmp_path)
    await publish(redis_url, [trade(1)])
    await state(running, "postgres")
    ready(database_url)
    await eventually(database_url, COUNT, 1)
    await running.finish()


async def test_clocks_alone_are_written_about_once_a_second(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path, age=0.001)
    for number in range(20):
        await publish(redis_url, [clock(NOON + number * SECOND)])
    await eventually(database_url, "SELECT extract(epoch FROM time)::bigint FROM clocks", NOON // SECOND + 19)
    assert running.heartbeat.report().details["batches"] < 10
    await publish(redis_url, [clock(NOON + 30 * SECOND), trade(1)])
    await eventually(database_url, COUNT, 1)
    await running.finish()
    assert query(database_url, "SELECT extract(epoch FROM time)::bigint FROM clocks") == [(NOON // SECOND + 30,)]


async def test_stopping_writes_what_was_read(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path, age=30.0)
    await publish(redis_url, [trade(number) for number in range(1, 101)])
    wire = await Wire.open(redis_url)
    # A group that is there says that the loop reads; an age of 30 s keeps what it read in memory.
    while not check((await wire.call(("EXISTS", KEYS.stream("gap"))))[0]):
        await asyncio.sleep(0.01)
    await wire.close()
    await running.finish()
    stored = query(database_url, COUNT)[0][0]
    assert stored in (0, 100)
    at = query(database_url, "SELECT entries FROM cursors WHERE stream = %s", KEYS.trade)
    assert at == [(stored,)]


def test_entries_carry_what_the_stages_write() -> None:
    assert fields(clock(1)).keys() == {b"control", b"data"}
