"""docs/database.md is true: its columns are the schema's, its queries are right and read no more than they must."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from store.prepare import prepare
from tests.servers import PostgresServer
from tests.store.made import query

PAGE = (Path(__file__).parents[2] / "docs" / "database.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
TITLES = [title.strip("*.") for title in re.findall(r"^\*\*[^*]+\*\*", PAGE.partition("## Queries")[2], re.MULTILINE)]

INSTRUMENTS = 100
BUSY = 30_000
QUIET = 1_500
NOON = 36 * 3600
"""Seconds from the first row to noon of the second day."""
DAY_TABLES = tuple(f"{table}_20261120" for table in ("trades", "orderbooks", "quotes", "tickers"))
MONTH_TABLES = ("candles_minutes_202611", "klines_minutes_202611")
PARTITIONS = tuple(name.rpartition("_")[0] + "_" for name in DAY_TABLES + MONTH_TABLES)
MOST_SORTED = 200
"""Rows a sort may hold beyond what the query returns."""

MADE = f"""
    SELECT make_partition('trades', timestamptz '2026-11-18 00:00Z' + day * interval '1 day')
    FROM generate_series(0, 4) AS day;
    SELECT make_partition('candles_minutes', timestamptz '2026-10-05 00:00Z' + month * interval '1 month')
    FROM generate_series(0, 2) AS month;
    SELECT make_partition(parent, timestamptz '2026-11-18 00:00Z' + day * interval '1 day')
    FROM unnest(ARRAY['orderbooks', 'quotes', 'tickers']) AS parent, generate_series(0, 4) AS day;
    SELECT make_partition('klines_minutes', timestamptz '2026-10-05 00:00Z' + month * interval '1 month')
    FROM generate_series(0, 2) AS month;
    INSERT INTO instruments (exchange, instrument, symbol, market, quote)
    SELECT CASE WHEN n <= 80 THEN 'okx' ELSE 'kraken' END, name, name, 'spot', 'USDT'
    FROM generate_series(1, {INSTRUMENTS}) AS n,
        LATERAL (SELECT CASE n WHEN 1 THEN 'BTC-USDT' ELSE 'C' || n || '-USDT' END) AS names (name);
    INSERT INTO trades (instrument_id, time, received, sequence, epoch, fills, repaired, side, price, size, id,
        conditions)
    SELECT i.id, at, at + interval '20 ms', k, 0, 1, false, CASE k % 3 WHEN 0 THEN 'sell' ELSE 'buy' END,
           100 + k % 7, 1 + k % 5, k::text, '{{}}'
    FROM instruments i
    CROSS JOIN LATERAL (SELECT CASE i.symbol WHEN 'BTC-USDT' THEN {BUSY} ELSE {QUIET} END AS a_day) AS rates
    CROSS JOIN LATERAL generate_series(1, 2 * a_day) AS k
    CROSS JOIN LATERAL (SELECT timestamptz '2026-11-19 00:00Z' + (k - 1) * interval '1 day' / a_day AS at) AS times
    WHERE NOT (i.symbol = 'BTC-USDT' AND k IN ({BUSY} + 100, {BUSY} + 101, {BUSY} + 5000))
    ORDER BY at;
    INSERT INTO candles (instrument_id, timeframe, open_time, close_time, received, missing, trades_count, entry_ms,
        entry_seq, revision, quality, open, high, low, close, volume, quote_volume, buy_volume, buy_quote_volume)
    SELECT i.id, '1m', at, at + interval '1 minute', at, 0, 1, 1, 1, 0,
           CASE WHEN n = 2000 AND i.id <= 3 THEN 'partial' ELSE 'complete' END, 1, 1, 1, 1, 1, 1, 1, 1
    FROM instruments i, generate_series(0, 2 * 1440 - 1) AS n,
        LATERAL (SELECT timestamptz '2026-11-19 00:00Z' + n * interval '1 minute' AS at) AS times
    ORDER BY at;
    INSERT INTO coverage (instrument_id, entry_ms, entry_seq, time, received, partition, state, cause, connection)
    SELECT i.id, n, 0, at, at, 'okx', CASE n % 2 WHEN 0 THEN 'covered' ELSE 'uncovered' END, 'open', 'ws#1'
    FROM instruments i, generate_series(0, 39) AS n,
        LATERAL (SELECT timestamptz '2026-11-19 00:00Z' + n * interval '1 hour' AS at) AS times;
    INSERT INTO klines (instrument_id, timeframe, open_time, close_time, received, entry_ms, entry_seq,
        open, high, low, close, volume)
    SELECT i.id, '1m', at, at + interval '1 minute', at, 1, 1, 1, 1, 1, CASE n WHEN 2000 THEN 2 ELSE 1 END, 1.0
    FROM instruments i, generate_series(0, 2 * 1440 - 1) AS n,
        LATERAL (SELECT timestamptz '2026-11-19 00:00Z' + n * interval '1 minute' AS at) AS times
    WHERE i.id <= 20 AND n <> 2500
    ORDER BY at;
    -- A point each second of BTC-USDT (invalid at 12:00:01 and :02), one in ten minutes of the others.
    INSERT INTO orderbooks (at, received, time, snapshot_time, sequence, entry_ms, entry_seq, instrument_id, depth,
        valid, unit, reason, bid, bid_size, ask, ask_size, bid_prices, bid_sizes, ask_prices, ask_sizes)
    SELECT at, at, at, at, n, n, 0, i.id, 20, reason IS NULL, 'base', reason, 99.99, 1, 100.01, 1,
           '{{99.99,99.98}}', '{{1,2}}', '{{100.01,100.03}}', '{{1,3}}'
    FROM instruments i
    CROSS JOIN LATERAL (SELECT CASE i.symbol WHEN 'BTC-USDT' THEN 1 ELSE 600 END AS step) AS steps
    CROSS JOIN LATERAL generate_series(0, 2 * 86400 - 1, step) AS n
    CROSS JOIN LATERAL (SELECT timestamptz '2026-11-19 00:00Z' + n * interval '1 second' AS at) AS times
    CROSS JOIN LATERAL (SELECT CASE WHEN n IN ({NOON + 1}, {NOON + 2}) THEN 'gap' END AS reason) AS states
    ORDER BY at;
    INSERT INTO orderbooks (at, received, entry_ms, entry_seq, instrument_id, depth, valid, unit, reason,
        bid_prices, bid_sizes, ask_prices, ask_sizes)
    SELECT at, at, {NOON} + seconds::int, 1, instrument_id('okx', 'BTC-USDT'), 20, reason IS NULL, 'base', reason,
           '{{}}', '{{}}', '{{}}', '{{}}'
    FROM (VALUES (0.3, 'gap'), (2.2, NULL)) AS changes (seconds, reason),
        LATERAL (SELECT timestamptz '2026-11-20 12:00Z' + seconds * interval '1 second' AS at) AS times;
    INSERT INTO quotes (received, sequence, entry_ms, entry_seq, instrument_id, bid, bid_size, ask, ask_size)
    SELECT at, n, n, 0, i.id, 99, 1, 101, 1
    FROM instruments i
    CROSS JOIN LATERAL (SELECT CASE i.symbol WHEN 'BTC-USDT' THEN 1 ELSE 600 END AS step) AS steps
    CROSS JOIN LATERAL generate_series(0, 2 * 86400 - 1, step) AS n
    CROSS JOIN LATERAL (SELECT timestamptz '2026-11-19 00:00Z' + n * interval '1 second' AS at) AS times
    ORDER BY at;
    INSERT INTO tickers (received, time, entry_ms, entry_seq, instrument_id, last, quote_volume_24h)
    SELECT at, at, n, 0, i.id, n, 1000
    FROM instruments i, generate_series(0, 2 * 288 - 1) AS n,
        LATERAL (SELECT timestamptz '2026-11-19 00:00Z' + n * interval '5 minutes' AS at) AS times
    ORDER BY at;
    ANALYZE;
"""


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[str]:
    """Two days of 100 instruments; BTC-USDT lacks three trades of the second, and its book was invalid at noon."""
    url = postgres_server.create_database("database_page")
    prepare(url)
    with psycopg.connect(url) as connection:
        connection.execute(MADE.encode())
    yield url
    postgres_server.drop_database("database_page")


def documented_tables() -> dict[str, list[tuple[str, str]]]:
    sections = re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE)
    return {name: re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", body, re.MULTILINE) for name, body in sections}


def test_every_table_and_column_is_documented_with_its_type(filled: str) -> None:
    rows = query(
        filled,
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " ORDER BY c.relname, a.attnum",
    )
    schema: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in rows:
        schema.setdefault(table, []).append((column, kind))
    assert documented_tables() == schema


def test_every_function_and_view_is_documented(filled: str) -> None:
    functions = query(filled, "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
    views = query(filled, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'")
    for (name,) in functions:
        assert f"| `{name}(" in PAGE
    for (name,) in views:
        assert f"| `{name}` |" in PAGE


def test_every_query_has_a_title() -> None:
    assert (len(QUERIES), len(TITLES)) == (19, 19)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize("statement", QUERIES, ids=TITLES)
def test_a_query_reads_its_range_by_index_and_sorts_no_more_than_it_returns(filled: str, statement: str) -> None:
    explained = query(filled, "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + statement)
    plan = explained[0][0][0]["Plan"]
    # A join of two ranges may put each into order; all else sorts what it returns.
    returned = 1440 if "FULL JOIN" in statement else plan["Actual Rows"]
    for node in nodes(plan):
        table, loops = node.get("Relation Name", ""), node["Actual Loops"]
        if node["Node Type"] == "Sort":
            assert node["Plans"][0]["Actual Rows"] <= returned + MOST_SORTED, plan
        if not loops or not table.startswith(PARTITIONS):
            continue
        inside = table in DAY_TABLES + MONTH_TABLES
        if node["Node Type"].endswith("Seq Scan"):
            # Only a sum over all trades of a day may read a partition from end to end.
            assert table == "trades_20261120", node
            assert "exchange, i.market" in statement, node
        elif not inside:
            # The newest rows are looked for from the newest partition backwards: empty ones cost nothing.
            assert node["Actual Rows"] * loops == 0, node
            assert "DESC" in statement or "last_" in statement, node


def answer(url: str, title: str) -> list[tuple[Any, ...]]:
    return query(url, QUERIES[[name.lower().startswith(title) for name in TITLES].index(True)])


def test_the_answers_are_right(filled: str) -> None:
    last = answer(filled, "last trades")
    assert [row[4] for row in last] == list(range(2 * BUSY, 2 * BUSY - 10, -1))
    assert len(answer(filled, "a range")) == BUSY // 24
    assert len(answer(filled, "vwap")) == 120
    holes = [(row[1], row[2]) for row in answer(filled, "holes")]
    assert sorted(holes) == [(BUSY + 100, BUSY + 101), (BUSY + 5000, BUSY + 5000)]
    seen = answer(filled, "coverage")
    assert (len(seen), seen[0][1].total_seconds(), seen[0][2]) == (80, 8 * 3600, 8)
    assert len(answer(filled, "the latest trade")) == 80
    assert sorted(row[0] for row in answer(filled, "repaired")) == ["BTC-USDT", "C2-USDT", "C3-USDT"]
    assert answer(filled, "duplicates") == []
    volume = {row[0]: (row[3], row[4]) for row in answer(filled, "volume by venue")}
    assert volume["kraken"][1] == 20 * QUIET
    assert volume["okx"][1] == 79 * QUIET + BUSY - 3
    assert isinstance(volume["okx"][0], Decimal)
    digest = {row[0]: row[1:] for row in answer(filled, "digest")}
    assert len(digest) == 80
    assert digest["BTC-USDT"][:3] == (BUSY - 3, BUSY + 1, 2 * BUSY)
    assert digest["C2-USDT"] == digest["C3-USDT"]
    assert digest["C2-USDT"] != digest["BTC-USDT"]


def test_the_answers_about_books_quotes_and_bars_are_right(filled: str) -> None:
    ((age, valid, reason, *best),) = answer(filled, "a book at a time")
    assert (age.total_seconds(), valid, reason, best) == (0.2, False, "gap", [None] * 4)
    levels = answer(filled, "levels of a book")
    assert [(row[0], row[3], round(row[4], 6)) for row in levels] == [
        (1, 1, Decimal("100.01")),
        (2, 4, Decimal("100.025")),
    ]
    minutes = answer(filled, "spread over a day")
    assert len(minutes) == 1440
    assert {round(row[1], 9) for row in minutes} == {2}
    assert sorted({row[4] for row in minutes}) == [58, 60]
    ((start, end, why),) = answer(filled, "invalid times")
    assert ((end - start).total_seconds(), start.second, why) == (1.9, 0, "gap")
    assert [row[0].second for row in answer(filled, "last quotes")] == list(range(59, 49, -1))
    assert answer(filled, "quotes stored twice") == []
    paid = answer(filled, "what trades paid")
    assert len(paid) == BUSY // 144 + 1
    assert {(row[1], round(row[5])) for row in paid} >= {("buy", 0), ("buy", 600), ("sell", -600)}
    tickers = answer(filled, "the latest ticker")
    assert (len(tickers), {row[2] for row in tickers}) == (80, {2 * 288 - 1})
    wrong = answer(filled, "candles against")
    assert sorted((row[0].hour, row[7], row[8]) for row in wrong) == [(9, 1, 2), (17, 1, None)]


def test_a_range_of_candles_is_an_index_range(filled: str) -> None:
    statement = "SELECT * FROM candles('okx', 'BTC-USDT', '1m', '2026-11-20 00:00Z', '2026-11-21 00:00Z')"
    plan = query(filled, "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + statement)[0][0][0]["Plan"]
    reading = [node for node in nodes(plan) if node["Node Type"].endswith("Scan") and node["Actual Loops"]]
    assert not [node for node in reading if node["Node Type"] in ("Seq Scan", "Function Scan", "CTE Scan")], plan
    tables = {node["Relation Name"] for node in reading if "Relation Name" in node}
    assert tables == {"candles_minutes_202611"}
    assert plan["Actual Rows"] == 1440


def test_a_range_by_parameters_skips_partitions_too(filled: str) -> None:
    with psycopg.connect(filled) as connection:
        for _ in range(12):  # Long enough for psycopg to prepare the statement and Postgres to keep a generic plan.
            cursor = connection.execute(
                "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON)"
                " SELECT * FROM trades(%s, %s, %s::timestamptz, %s::timestamptz)",
                ("OKX", "btc-usdt", "2026-11-20 12:00Z", "2026-11-20 13:00Z"),
            )
            plan = cursor.fetchall()[0][0][0]["Plan"]
    reading = [node for node in nodes(plan) if node["Actual Loops"]]
    read = {node["Relation Name"] for node in reading if node.get("Relation Name", "instruments") != "instruments"}
    assert read == {"trades_20261120"}
    assert plan["Actual Rows"] == BUSY // 24


def test_what_a_redis_that_lost_its_end_makes_twice_is_found(filled: str) -> None:
    """Alike but for the stream entry."""
    with psycopg.connect(filled) as connection:
        again = connection.execute(
            "INSERT INTO quotes (received, sequence, entry_ms, entry_seq, instrument_id, bid, bid_size, ask, ask_size)"
            " SELECT received, sequence, entry_ms + 1000, 1, instrument_id, bid, bid_size, ask, ask_size FROM quotes"
            " WHERE instrument_id = instrument_id('okx', 'BTC-USDT') AND received >= '2026-11-20 12:00Z'"
            " AND received < '2026-11-20 12:00:02Z'"
        )
        assert again.rowcount == 2
        found = connection.execute(QUERIES[TITLES.index("Quotes stored twice")].encode()).fetchall()
        connection.rollback()
    assert [(symbol, rows) for symbol, _, _, rows in found] == [("BTC-USDT", 2)] * 2
