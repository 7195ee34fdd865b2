"""Migrations on a real server: once, together, never changed."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from pipeline.errors import ServerAway, SettingsError
from store.migrate import Migration, check_server, migrations, pending
from store.postgres import Database, PostgresAway
from store.prepare import prepare
from tests.servers import PostgresServer, free_port
from tests.store.made import query


def test_numbers_are_contiguous_and_begin_at_one() -> None:
    assert [step.number for step in migrations()] == list(range(1, len(migrations()) + 1))


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
