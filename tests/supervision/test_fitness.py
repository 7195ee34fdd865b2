"""Who may hold the data: versions, eviction, persistence, memory; whose our import names are; doctor's verdict."""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from pipeline.errors import ServerAway
from pipeline.installation import IMPORT_NAMES, check_import_names
from pipeline.servers.fitness import Check, check_postgres, check_redis, judge_postgres, judge_redis
from tests.servers import RedisServer, wait_until
from tests.supervision.instance import Instance

GOOD = {"redis_version": "7.0.15", "aof_enabled": "1", "maxmemory": "1000000", "used_memory": "1000"}


def levels(checks: list[Check]) -> dict[str, str]:
    return {check.name.removeprefix("redis "): check.level for check in checks}


def test_a_good_server_is_good() -> None:
    assert set(levels(judge_redis(GOOD, "noeviction", False)).values()) == {"ok"}


@pytest.mark.parametrize(
    ("facts", "policy", "accept", "name", "level"),
    [
        ({"redis_version": "6.2.14"}, "noeviction", False, "version", "fail"),
        ({}, "allkeys-lru", False, "eviction", "fail"),
        ({}, "volatile-ttl", False, "eviction", "fail"),
        ({}, "allkeys-lru", True, "eviction", "warn"),
        ({}, None, False, "eviction", "warn"),
        ({"aof_enabled": "0"}, "noeviction", False, "persistence", "warn"),
        ({"aof_last_write_status": "err"}, "noeviction", False, "persistence", "fail"),
        ({"maxmemory": "0"}, "noeviction", False, "memory", "warn"),
        ({"used_memory": "700000"}, "noeviction", False, "memory", "warn"),
    ],
)
def test_each_fault_is_seen(facts: dict[str, str], policy: str | None, accept: bool, name: str, level: str) -> None:
    found = levels(judge_redis(GOOD | facts, policy, accept))
    assert found[name] == level
    assert {found[other] for other in found if other != name} == {"ok"}


def test_postgres_13_is_old_and_14_is_not() -> None:
    assert judge_postgres(130_021).level == "fail"
    assert judge_postgres(140_000) == Check("postgres version", "ok", "postgres 14.0")


async def test_real_servers_are_looked_at(redis_url: str, database_url: str) -> None:
    assert set(levels(await check_redis(redis_url, False)).values()) == {"ok"}
    assert [check.level for check in await check_postgres(database_url)] == ["ok"]


def test_where_config_is_forbidden_info_tells_or_we_say_so(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.execute_command("ACL", "SETUSER", "guest", "on", ">secret", "~*", "+@all", "-config")
    url = redis_server.url.replace("//", "//guest:secret@")
    assert levels(asyncio.run(check_redis(url, False)))["eviction"] == "ok"


def test_doctor_and_up_refuse_an_evicting_server(redis_url: str, database_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    with Instance(environ={"REDIS_URL": redis_url, "DATABASE_URL": database_url}) as instance:
        told = instance.run("doctor", "--json")
        assert told.returncode == 1
        failed = [check for check in json.loads(told.stdout) if check["level"] == "fail"]
        assert [check["name"] for check in failed] == ["redis eviction"]
        assert "accept_eviction" in failed[0]["advice"]
        started = instance.run("up")
        assert (started.returncode, "allkeys-lru" in started.stderr) == (2, True)
        instance.tree["redis"]["accept_eviction"] = True
        instance.write()
        assert instance.run("doctor").returncode == 0


def test_doctor_without_settings_says_what_to_type() -> None:
    with Instance() as instance:
        text = instance.path.read_text()
        instance.path.unlink()
        told = instance.run("doctor")
        instance.path.write_text(text)
    assert told.returncode == 1
    assert "fail settings: no settings at" in told.stdout
    assert "ok   python" in told.stdout


def test_our_import_names_are_ours() -> None:
    assert [check.level for check in check_import_names()] == ["ok"] * len(IMPORT_NAMES)


def test_a_foreign_owner_of_an_import_name_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "stores-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stores\nVersion: 2.0\n")
    (metadata / "top_level.txt").write_text("store\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (failed,) = [check for check in check_import_names() if check.level == "fail"]
    assert failed.text == "store is also installed by stores"


def test_a_server_that_loads_its_data_is_away_and_not_judged(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        for number in range(3_000):
            client.set(f"key {number}", "x")
    redis_server.stop()
    redis_server.options["key-load-delay"] = "2000"

    def until_loading() -> None:
        found: list[str] = []

        def loading() -> bool:
            try:
                asyncio.run(check_redis(redis_server.url, False))
            except ServerAway as error:
                found.append(str(error))
            return "Redis is loading its data" in found

        wait_until(loading, "the server to load")
        with redis.Redis.from_url(redis_server.url) as client:
            client.config_set("key-load-delay", 0)

    # The server dies with the thread that starts it.
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(until_loading)
        redis_server.start()
        looking.result()
    assert levels(asyncio.run(check_redis(redis_server.url, False)))["persistence"] == "ok"
