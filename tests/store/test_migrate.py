"""Migrations on a real server: once, together, never changed."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from pipeline.errors import ServerAway, SettingsError
from store.migrate import Migration, check_server, migrations, pending
from store.postgres import Database, PostgresAway
from store.prepare import prepare
from tests.servers import PostgresServer, free_port
from tests.store.made import book, candle, kline, query, quote, ticker, trade, write

LANDED = {
    1: "75cfd1ebb60aef1d",
    2: "62685755ad28c518",
    3: "50b27feacf5f6467",
    4: "8b4a53425d442e12",
    5: "41775de198ccb85c",
    6: "e4f377a8fe887ab1",
    7: "e6199a4feaacf14a",
}
"""The first characters of the checksums of steps that are in use."""

LANDED_ROWS = """
    SELECT make_partition('trades', '2025-10-09Z'), make_partition('candles_minutes', '2025-10-09Z');
    INSERT INTO instruments (exchange, instrument, symbol, market, tick_size, valid_from)
    VALUES ('okx', 'BTC-USDT', 'BTC-USDT', 'spot', 0.10, '2025-10-09 09:00Z');
    INSERT INTO instrument_history (instrument_id, valid_from, symbol, market, base, quote, tick_size, status)
    VALUES (1, '2025-10-09 09:00Z', 'BTC-USDT', 'spot', 'BTC', 'USDT', 0.10, 'live');
    INSERT INTO trades (instrument_id, time, received, sequence, epoch, fills, repaired, side, price, size, id,
        conditions)
    VALUES (1, '2025-10-09 09:00:00.7Z', '2025-10-09 09:00:00.75Z', 7, 0, 1, false, 'buy', 64000.10, 0.50, '7', '{}');
    INSERT INTO candles (instrument_id, timeframe, open_time, close_time, received, missing, trades_count, entry_ms,
        entry_seq, revision, quality, open, high, low, close, volume, quote_volume, buy_volume, buy_quote_volume)
    VALUES (1, '1m', '2025-10-09 09:00Z', '2025-10-09 09:01Z', '2025-10-09 09:01Z', 0, 1, 1, 1, 0, 'complete',
            1.0, 1, 1, 1, 1, 1, 1, 1);
    INSERT INTO trade_gaps (instrument_id, epoch, from_sequence, to_sequence, from_time, to_time, cause, state,
        repaired, remaining, opened, received, entry_ms, entry_seq)
    VALUES (1, 0, 5, 6, '2025-10-09 09:00Z', '2025-10-09 09:00Z', 'sequence', 'opened', 0, '{[5,6]}',
            '2025-10-09 09:00Z', '2025-10-09 09:00Z', 1, 1);
    INSERT INTO coverage (instrument_id, entry_ms, entry_seq, time, received, partition, state, cause)
    VALUES (1, 1, 1, '2025-10-09 09:00Z', '2025-10-09 09:00Z', 'okx', 'covered', 'open');
    INSERT INTO clocks (partition, exchange, time, received, uncertainty, connections)
    VALUES ('okx', 'okx', '2025-10-09 09:00Z', '2025-10-09 09:00Z', 1, '{"ws#1": 1}');
    INSERT INTO cursors (namespace, stream, id, entries) VALUES ('md', 'md:trade:{okx}', '1-1', 1);
"""
"""A row of each table, as the schema was then."""


def test_numbers_are_contiguous_and_begin_at_one() -> None:
    assert [step.number for step in migrations()] == list(range(1, len(migrations()) + 1))


def test_landed_steps_are_never_changed() -> None:
    """Databases in use have them applied: a change would lock their owners out."""
    assert {step.number: step.checksum[:16] for step in migrations() if step.number in LANDED} == LANDED


def rows(database_url: str, *tables: str) -> dict[str, list[tuple[object, ...]]]:
    return {table: query(database_url, f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables}


async def test_a_database_of_the_landed_schema_keeps_its_rows(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as landed:
        landed.setattr("store.migrate.migrations", lambda: migrations()[: len(LANDED)])
        assert prepare(database_url) == len(LANDED)
    with psycopg.connect(database_url) as connection:
        connection.execute(LANDED_ROWS.encode())
    tables = ("instruments", "instrument_history", "trades", "candles", "trade_gaps", "coverage", "clocks", "cursors")
    before = rows(database_url, *tables)
    assert all(before.values())

    assert prepare(database_url) == len(migrations()) - len(LANDED)
    assert rows(database_url, *tables) == before
    # And it is at work: old functions and new kinds, in the old partition and in new ones.
    assert query(database_url, "SELECT id FROM last_trades('okx', 'BTC-USDT', 5)") == [("7",)]
    assert query(database_url, "SELECT make_partition('trades', '2025-10-09 12:00Z')") == [(False,)]
    await write(database_url, trade(8), candle(1), quote(1), ticker(1), kline(0), book(10))
    counts = ", ".join(
        f"(SELECT count(*) FROM {name})" for name in ("trades", "candles", "quotes", "tickers", "klines")
    )
    assert query(database_url, f"SELECT {counts}, (SELECT count(*) FROM orderbooks)") == [(2, 2, 1, 1, 1, 1)]
    assert query(database_url, "SELECT count(*) FROM instruments") == [(1,)]


def test_a_second_time_does_nothing(database_url: str) -> None:
    assert prepare(database_url) == len(migrations())
    assert prepare(database_url) == 0
    assert query(database_url, "SELECT count(*) FROM migrations") == [(len(migrations()),)]


def test_several_at_once_apply_each_step_once(postgres_server: PostgresServer) -> None:
    url = postgres_server.database("made_by_many")
    try:
        with ThreadPoolExecutor(6) as pool:
            applied = list(pool.map(prepare, [url] * 6))
    finally:
        postgres_server.drop_database("made_by_many")
    assert sorted(applied) == [0, 0, 0, 0, 0, len(migrations())]


def test_a_newer_and_a_changed_database_are_refused(database_url: str) -> None:
    prepare(database_url)
    query(database_url, "UPDATE migrations SET checksum = 'x' WHERE number = 2 RETURNING 1")
    with pytest.raises(SettingsError, match=r"migration 2 \(trades\) was applied with other contents"):
        prepare(database_url)
    query(database_url, "DELETE FROM migrations WHERE number = 2 RETURNING 1")
    query(database_url, "INSERT INTO migrations VALUES (9999, 'later', 'x') RETURNING 1")
    with pytest.raises(SettingsError, match="written by a newer version"):
        prepare(database_url)


async def test_store_waits_for_migrations_and_refuses_a_newer_schema(database_url: str) -> None:
    with pytest.raises(PostgresAway, match="migrations"):
        await Database.open(database_url, "store-0")
    prepare(database_url)
    await (await Database.open(database_url, "store-0")).close()
    query(database_url, "INSERT INTO migrations VALUES (9999, 'later', 'x') RETURNING 1")
    with pytest.raises(SettingsError, match="newer version"):
        await Database.open(database_url, "store-0")


def test_a_step_that_fails_leaves_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (*migrations(), Migration(len(migrations()) + 1, "broken", "CREATE TABLE half (a int); SELECT 1 / 0"))
    monkeypatch.setattr("store.migrate.migrations", lambda: broken)
    with pytest.raises(ServerAway, match="division by zero"):
        prepare(database_url)
    assert query(database_url, "SELECT to_regclass('half'), count(*) FROM migrations") == [(None, len(migrations()))]


def test_who_may_not_create_databases_is_told_so(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS humble")
        connection.execute("CREATE ROLE humble LOGIN")
    url = postgres_server.database("never_made").replace("postgres@", "humble@")
    with pytest.raises(SettingsError, match="permission denied to create database"):
        prepare(url)
    with pytest.raises(SettingsError, match='role "nobody_at_all" does not exist'):
        prepare(url.replace("humble@", "nobody_at_all@"))


def test_a_server_that_is_not_there_is_away() -> None:
    with pytest.raises(ServerAway, match="cannot be made ready"):
        prepare(f"postgresql://postgres@127.0.0.1:{free_port()}/x")


def test_old_servers_are_refused() -> None:
    check_server(140_000)
    with pytest.raises(SettingsError, match="PostgreSQL 13 is too old"):
        check_server(130_020)


def test_steps_that_lack_are_those_not_applied() -> None:
    known = (Migration(1, "a", "A"), Migration(2, "b", "B"))
    assert pending({1: known[0].checksum}, known) == known[1:]
