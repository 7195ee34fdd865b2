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
TITLES = [
    title.strip("*.") for title in re.findall(r"^\*\*[^*]+\*\*", PAGE.partition("## Ten queries")[2], re.MULTILINE)
]

INSTRUMENTS = 100
BUSY = 30_000
QUIET = 1_500
MOST_SORTED = 200
"""Rows a sort may hold beyond what the query returns."""

MADE = f"""
    SELECT make_partition('trades', timestamptz '2026-11-18 00:00Z' + day * interval '1 day')
    FROM generate_series(0, 4) AS day;
    SELECT make_partition('candles_minutes', timestamptz '2026-10-05 00:00Z' + month * interval '1 month')
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
    ANALYZE;
"""


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[str]:
    """Two days of trades and candles of 100 instruments; BTC-USDT lacks three trades of the second."""
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


def test_there_are_ten_queries() -> None:
    assert (len(QUERIES), len(TITLES)) == (10, 10)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize("statement", QUERIES, ids=TITLES)
def test_a_query_reads_its_range_by_index_and_sorts_no_more_than_it_returns(filled: str, statement: str) -> None:
    explained = query(filled, "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + statement)
    plan = explained[0][0][0]["Plan"]
    returned = plan["Actual Rows"]
    for node in nodes(plan):
        table, loops = node.get("Relation Name", ""), node["Actual Loops"]
        if node["Node Type"] == "Sort":
            assert node["Plans"][0]["Actual Rows"] <= returned + MOST_SORTED, plan
        if not loops or not table.startswith(("trades_", "candles_")):
            continue
        inside = table in ("trades_20261120", "candles_minutes_202611")
        if node["Node Type"].endswith("Seq Scan"):
            # Only a sum over all trades of a day may read a partition from end to end.
            assert table == "trades_20261120", node
            assert "exchange, i.market" in statement, node
        elif not inside:
            # The newest rows are looked for from the newest partition backwards: empty ones cost nothing.
            assert node["Actual Rows"] * loops == 0, node
            assert "DESC" in statement or "last_trades" in statement, node


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
