"""Quotes, tickers, bars and books on real servers: nothing is lost or doubled, whatever is killed between batches."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from pipeline.records import DeadLetter, Kline, OrderBook, Quote, Record, Ticker, encode
from pipeline.timeframes import DAY
from pipeline.wire import Wire, check
from store.repositories import KlineRepository, QuoteRepository, TickerRepository
from tests.proxy import TcpProxy
from tests.servers import PostgresServer
from tests.store.made import (
    KEYS,
    NOON,
    SECOND,
    Running,
    book,
    eventually,
    kline,
    publish,
    query,
    quote,
    ready,
    start,
    stream,
    ticker,
    write,
)

COUNT = """
    SELECT (SELECT count(*) FROM quotes) + (SELECT count(*) FROM tickers) + (SELECT count(*) FROM klines)
         + (SELECT count(*) FROM orderbooks WHERE snapshot_time IS NOT NULL)
"""
SEEN = """
    SELECT ARRAY(SELECT sequence FROM quotes ORDER BY entry_ms, entry_seq),
           ARRAY(SELECT last FROM tickers ORDER BY entry_ms, entry_seq),
           ARRAY(SELECT first_id::int FROM klines ORDER BY open_time),
           ARRAY(SELECT sequence FROM orderbooks ORDER BY entry_ms, entry_seq)
"""
PER_ROUND = 5
"""Rows that COUNT counts of one round of `mixed`."""


def mixed(number: int) -> list[Record]:
    """Round `number`, a second long: two quotes, a ticker, a bar, and ten books, of which one is a point of the grid;
    every third round the book is broken for a while."""
    broken = {"grid": False, "valid": False, "reason": "gap"} if number % 3 == 0 else {"grid": False}
    first = number * 10
    return [
        quote(2 * number),
        book(first),
        ticker(number, last=str(number)),
        *(book(first + at, **(broken if 3 <= at <= 6 else {"grid": False})) for at in range(1, 10)),
        kline(number, "1s", first_id=str(number)),
        quote(2 * number + 1),
    ]


def all_of(rounds: int) -> tuple[list[int], ...]:
    """What SEEN gives when rounds 0 … are stored once each."""
    numbers = range(rounds)
    books = [first + at for n in numbers for first in (10 * n,) for at in ((0, 3, 7) if n % 3 == 0 else (0,))]
    return list(range(2 * rounds)), list(numbers), list(numbers), books


async def publish_rounds(redis_url: str, first: int, last: int) -> None:
    await publish(redis_url, [record for number in range(first, last) for record in mixed(number)])


async def state(running: Running, wanted: str | None) -> None:
    for _ in range(3000):
        if running.heartbeat.waiting_for == wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it waits for {running.heartbeat.waiting_for}, not for {wanted}")


async def test_every_kind_lands_and_is_reported(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    await publish_rounds(redis_url, 0, 60)
    await eventually(database_url, COUNT, 60 * PER_ROUND)
    await running.finish()
    assert query(database_url, SEEN) == [all_of(60)]
    report = running.heartbeat.report()
    tables = report.details["tables"]
    rows = {"quotes": 120, "tickers": 60, "klines": 60, "orderbooks": 60 + 2 * 20}
    assert {name: tables[name]["rows"] for name in rows} == rows
    assert {name: tables[name]["latency_ms"]["count"] for name in rows} == rows | {"orderbooks": 60}
    assert tables["orderbooks"]["newest"] == book(590).snapshot_time
    assert tables["klines"]["newest"] == kline(59, "1s").close_time
    assert report.counters["skipped"] == 600 - rows["orderbooks"]
    assert report.last_data is not None
    assert {stream(record) for record in mixed(0)} <= set(report.details["cursors"])


async def test_killed_and_restarted_postgres(redis_url: str, own_postgres: PostgresServer, tmp_path: Path) -> None:
    url = ready(own_postgres.create_database("tape"))
    running = start(redis_url, url, tmp_path, age=0.001, most_rows=60)
    for turn in range(4):
        await publish_rounds(redis_url, turn * 60, turn * 60 + 40)
        await asyncio.to_thread(own_postgres.kill if turn % 2 else own_postgres.stop)
        await publish_rounds(redis_url, turn * 60 + 40, turn * 60 + 60)
        await state(running, "postgres")
        await asyncio.to_thread(own_postgres.start)
        await state(running, None)
    await eventually(url, COUNT, 240 * PER_ROUND)
    await running.finish()
    assert query(url, SEEN) == [all_of(240)]
    assert running.heartbeat.counters["known"] == 0


async def test_connections_to_postgres_cut_anywhere(
    redis_url: str,
    postgres_server: PostgresServer,
    database_url: str,
    tcp_proxy: Callable[[int], TcpProxy],
    tmp_path: Path,
) -> None:
    """A commit whose answer is lost was done or not: what is known of books must not depend on which."""
    proxy = tcp_proxy(postgres_server.port)
    through = ready(database_url).replace(f":{postgres_server.port}/", f":{proxy.port}/")
    chunks = itertools.count(1)
    proxy.replies = lambda data: None if next(chunks) % 61 == 0 else data
    running = start(redis_url, through, tmp_path, age=0.001, most_rows=40)
    await publish_rounds(redis_url, 0, 120)
    await eventually(database_url, COUNT, 120 * PER_ROUND)
    await running.finish()
    assert query(database_url, SEEN) == [all_of(120)]
    assert running.heartbeat.counters["known"] == 0
    assert proxy.connections > 2


async def test_two_owners_store_everything_once(redis_url: str, database_url: str, tmp_path: Path) -> None:
    ready(database_url)
    owners = [start(redis_url, database_url, tmp_path, name=f"store-{n}", age=0.001, most_rows=50) for n in range(2)]
    for number in range(0, 120, 2):
        await publish_rounds(redis_url, number, number + 2)
    await eventually(database_url, COUNT, 120 * PER_ROUND)
    for owner in owners:
        await owner.finish()
    assert query(database_url, SEEN) == [all_of(120)]
    assert [owner.heartbeat.counters["known"] for owner in owners] == [0, 0]


async def test_entries_that_are_read_again_are_known_by_their_ids(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    await publish_rounds(redis_url, 0, 30)
    for _ in range(2):
        running = start(redis_url, ready(database_url), tmp_path)
        await eventually(database_url, "SELECT sum(entries)::int FROM cursors WHERE id <> '0-0'", 30 * 14)
        await running.finish()
        seen = query(database_url, SEEN)
        query(database_url, "UPDATE cursors SET id = '0-0', entries = 0 RETURNING 1")
    assert seen == [all_of(30)]
    assert running.heartbeat.counters["known"] == 30 * PER_ROUND + 2 * 10


async def test_two_events_of_one_time_are_two_rows_and_no_time_is_none(database_url: str) -> None:
    twins: list[Record] = [quote(1), quote(1), ticker(1, time=None), ticker(1, time=None)]
    await write(database_url, *twins)
    assert query(database_url, "SELECT time, count(*) FROM quotes GROUP BY time") == [(None, 2)]
    assert query(database_url, "SELECT time, count(*) FROM tickers GROUP BY time") == [(None, 2)]


async def test_a_bar_told_again_replaces_its_row(redis_url: str, database_url: str, tmp_path: Path) -> None:
    running = start(redis_url, ready(database_url), tmp_path, age=0.001)
    for close in ("64000.1", "64000.2"):
        await publish(redis_url, [kline(0, close="1"), kline(0, close=close), kline(1, close=close)])
        await eventually(database_url, "SELECT max(close)::text FROM klines", close)
    await running.finish()
    assert (
        query(database_url, "SELECT close::text, trades_count, quote_volume FROM klines")
        == [("64000.2", None, None)] * 2
    )


async def test_records_come_back_as_they_went_in(database_url: str) -> None:
    quotes: list[Quote] = [
        quote(1),
        quote(2, bid=None, bid_size=None, sequence=None),
        quote(3, time=NOON + 1000, bid="0.000010", ask_size="0"),
    ]
    tickers: list[Ticker] = [
        ticker(1, received=NOON + SECOND),
        ticker(2, time=None, received=NOON + 2 * SECOND, last=None, open_24h="1.10", high_24h="2", low_24h="-1"),
    ]
    whole: dict[str, Any] = {
        "quote_volume": "1",
        "buy_volume": "0",
        "buy_quote_volume": "0.10",
        "contracts": "7",
        "trades_count": 3,
    }
    klines: list[Kline] = [kline(0), kline(1, time=NOON, first_id="a", last_id="b\t", **whole), kline(2)]
    await write(database_url, *quotes, *tickers, *klines, kline(0, "1s"))
    end = NOON + 60 * SECOND
    with QuoteRepository(database_url) as repository:
        assert repository.between("okx", "btc-usdt", NOON, end) == quotes
        assert list(repository.stream("okx", "BTC-USDT", NOON, end, chunk=1)) == quotes
        assert repository.last("okx", "BTC-USDT", 2) == quotes[:0:-1]
    with TickerRepository(database_url) as repository_of_tickers:
        assert repository_of_tickers.between("okx", "BTC-USDT", NOON, end) == tickers
        assert repository_of_tickers.last("okx", "BTC-USDT") == tickers[-1]
    with KlineRepository(database_url) as bars:
        assert bars.between("okx", "BTC-USDT", "1m", NOON, NOON + 120 * SECOND) == klines[:2]
        assert list(bars.stream("okx", "BTC-USDT", "1m", NOON, NOON + 120 * SECOND)) == klines[:2]
        assert bars.last("okx", "BTC-USDT", "1m", 2) == [klines[2], klines[1]]
        assert bars.last("okx", "BTC-USDT", "1s") == [kline(0, "1s")]


UNUSABLE: list[tuple[OrderBook | Quote | Ticker | Kline, str]] = [
    (quote(900, bid="many"), "row refused: InvalidTextRepresentation"),
    (quote(901, ask="NaN"), "row refused: quotes_ask"),
    (quote(902, bid_size="-1"), "row refused: quotes_sizes"),
    (quote(903, sequence=2**63), "row refused: NumericValueOutOfRange"),
    (quote(904, received=-1), "time out of range"),
    (ticker(900, last="Infinity"), "row refused: tickers_finite"),
    (ticker(901, volume_24h="-1"), "row refused: tickers_finite"),
    (ticker(902, time=2**69), "time out of range"),
    (kline(900, close="NaN"), "row refused: klines_finite"),
    (kline(901, close_time=NOON), "row refused: klines_window"),
    (kline(903, received=NOON - 2 * DAY), "time out of range"),
    (book(9000, bids=[["1", "NaN"]]), "row refused: orderbooks_bids"),
    (book(9010, asks=[["1,2", "1"]]), "row refused: InvalidTextRepresentation"),
    (book(9020, asks=[["NULL", "1"]]), "row refused: InvalidTextRepresentation"),
    (book(9030, asks=[['1"', "1"]]), "row refused: InvalidTextRepresentation"),
    (book(9040, snapshot_time=NOON + 3 * DAY), "time out of range"),
]


async def test_unusable_entries_are_buried_and_the_others_stored(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    await publish_rounds(redis_url, 0, 80)
    await publish(redis_url, [record for record, _ in UNUSABLE])
    wire = await Wire.open(redis_url)
    for kind in ("quote", "ticker", "orderbook", "kline:1m"):
        check((await wire.call(("XADD", KEYS.stream(kind), "*", "symbol", "X", "data", "{not json")))[0])
    await publish_rounds(redis_url, 80, 160)
    running = start(redis_url, ready(database_url), tmp_path, most_rows=5000)
    await eventually(database_url, COUNT, 160 * PER_ROUND)
    await running.finish()
    found = check((await wire.call(("XRANGE", KEYS.dead, "-", "+")))[0])
    await wire.close()
    letters = [msgspec.json.decode(dict(zip(flat[::2], flat[1::2], strict=True))[b"data"]) for _, flat in found]
    reasons = {letter["frame"]: letter["reason"] for letter in letters}
    assert query(database_url, SEEN) == [all_of(160)]
    assert {frame: reason for frame, reason in reasons.items() if frame != "{not json"} == {
        encode(record).decode(): reason for record, reason in UNUSABLE
    }
    assert len(letters) == len(UNUSABLE) + 4
    assert all(msgspec.convert(letter, DeadLetter).stage == "store" for letter in letters)


async def test_partitions_of_every_kind_are_ready_before_they_are_needed(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    running = start(redis_url, ready(database_url), tmp_path)
    await publish_rounds(redis_url, 0, 1)
    await eventually(database_url, COUNT, PER_ROUND)
    await running.finish()
    for parent in ("orderbooks", "quotes", "tickers", "klines_seconds"):
        assert query(
            database_url,
            "SELECT bool_and(to_regclass(%s || to_char(day, '_YYYYMMDD')) IS NOT NULL)"
            " FROM generate_series(current_date, current_date + 2, interval '1 day') AS day",
            parent,
        ) == [(True,)]
    assert query(database_url, "SELECT count(*) >= 3 FROM pg_class WHERE relname ~ '^klines_minutes_[0-9]{6}$'") == [
        (True,)
    ]


@pytest.mark.parametrize("parent", ["candles", "klines", "instruments"])
def test_only_tables_with_partitions_of_time_get_one(database_url: str, parent: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="has no partitions of its own"):
        query(ready(database_url), "SELECT make_partition(%s, now())", parent)
