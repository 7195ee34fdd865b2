"""`pipeline config`: what is written, what is refused and how it is said, what is hidden."""

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner, Result

from pipeline import settings
from pipeline.cli import cli

SECRET = "s3cr3t"


def run(path: Path, *arguments: str, **environment: str | None) -> Result:
    clean = dict.fromkeys(("REDIS_URL", "DATABASE_URL", "DATA_COLLECTION_CONFIG")) | environment
    return CliRunner(env=clean).invoke(cli, ["-c", str(path), "config", *arguments])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "data_collection.json"


def test_init_writes_what_it_says(path: Path) -> None:
    result = run(path, "init")
    assert result.exit_code == 0
    assert f"wrote {path}" in result.stdout
    assert "will collect okx BTC-USDT: trade; candles 1m 5m 15m 1h 4h 1d" in result.stdout
    assert settings.load(path, {}).file == settings.default_file()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_init_with_exchanges_patterns_and_types(path: Path) -> None:
    wanted = ["--exchange", "okx", "--exchange", "binance", "--symbol", "*-USDT", "--types", "trade, orderbook"]
    result = run(path, "init", *wanted)
    assert result.exit_code == 0, result.stderr
    assert "will collect okx *-USDT (a pattern): trade orderbook; candles 1m 5m 15m 1h 4h 1d" in result.stdout
    file = settings.load(path, {}).file
    assert {name: [pair.symbol for pair in one.trading_pairs] for name, one in file.exchanges.items()} == {
        "okx": ["*-USDT"],
        "binance": ["*-USDT"],
    }
    checked = run(path, "check")
    assert checked.exit_code == 0
    assert "collects binance *-USDT (a pattern): trade orderbook" in checked.stdout
    assert "ingest-okx ingest-binance" in checked.stdout


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (["--types", "trade,orderbok"], "did you mean 'orderbook'?"),
        (["--exchange", "okk"], "'okk' is not one of"),
        (["--symbol", "BTC-USDT-PERP", "--symbol", "btc-usdt-swap"], "are the same instrument"),
    ],
)
def test_init_refuses_what_cannot_be(path: Path, wanted: list[str], told: str) -> None:
    result = run(path, "init", *wanted)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not path.exists()


def test_check_knows_the_klines_of_an_exchange(path: Path) -> None:
    pair = {"symbol": "BTC-USDT", "data_types": ["kline"], "timeframes": ["5s", "10s"]}
    path.parent.mkdir()
    path.write_text(json.dumps({"exchanges": {"okx": {"trading_pairs": [pair]}}}))
    result = run(path, "check")
    assert result.exit_code == 2
    assert "trading_pairs[0].timeframes: okx has klines of 1s 1m 5m 15m 1h 4h 1d only" in result.stderr
    pair["timeframes"] = ["5s", "1m"]
    path.write_text(json.dumps({"exchanges": {"okx": {"trading_pairs": [pair]}}}))
    assert "collects okx BTC-USDT: kline; klines 5s 1m" in run(path, "check").stdout


def test_init_keeps_a_file_that_is_there(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    result = run(path, "init")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert path.read_text() == "mine"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert run(path, "init", "--force").exit_code == 0
    assert run(path, "check").exit_code == 0


def test_init_follows_the_environment(path: Path) -> None:
    result = CliRunner(env={"DATA_COLLECTION_CONFIG": str(path)}).invoke(cli, ["config", "init"])
    assert result.exit_code == 0
    assert path.is_file()


def test_init_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file" / "settings.json", "init")
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
    assert run(tmp_path / "settings.toml", "init").exit_code == 2


def test_check_says_what_would_run(path: Path) -> None:
    run(path, "init")
    result = run(path, "check")
    assert result.exit_code == 0
    assert "processes: redis postgres store-0 aggregate-0 normalize-okx ingest-okx" in result.stdout
    assert run(path.parent / "none.json", "check", str(path)).exit_code == 0, "an argument comes before -c"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"exchanges": {"okex": {}}}, ["'okex'", "'okx'"]),
        ({"exchange": {}}, ["'exchange'", "'exchanges'"]),
        (
            {"collection_settings": {"max_silence": 3}},
            ["'max_silence'", "collection_settings", "'max_silence_duration'"],
        ),
        ({"collection_settings": {"max_restart_attempts": "three"}}, ["max_restart_attempts", "'three'"]),
        ({"redis": {"url": f"redis://:{SECRET}@example.net"}}, ["redis.url", "REDIS_URL"]),
    ],
)
def test_check_names_path_value_and_nearest_spelling(path: Path, change: dict[str, object], told: list[str]) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps(json.loads(settings.encode(settings.default_file())) | change))
    result = run(path, "check")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert str(path) in result.stderr
    assert all(word in result.stderr for word in told), result.stderr
    assert SECRET not in result.output


def test_check_of_what_is_no_json(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"exchanges": ')
    result = run(path, "check")
    assert result.exit_code == 2
    assert "not readable JSON" in result.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_show_hides_passwords(path: Path, form: list[str]) -> None:
    run(path, "init")
    addresses = {
        "REDIS_URL": f"redis://:{SECRET}@db.example.net:6379/0",
        "DATABASE_URL": f"postgresql://me:{SECRET}@db.example.net/tapeline",
    }
    result = run(path, "show", *form, **addresses)
    assert result.exit_code == 0
    assert "db.example.net" in result.stdout
    assert SECRET not in result.stdout


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://me:{SECRET}@db.example.net/tapeline",
        f"postgresql://me:p@{SECRET}@db.example.net/tapeline",
        f"postgresql://me:p/{SECRET}@db.example.net/tapeline",
        f"postgresql://me@db.example.net/tapeline?password={SECRET}&sslmode=require",
        f"host=db.example.net password={SECRET} dbname=tapeline",
        f"host=db.example.net password='a {SECRET}' dbname=tapeline",
    ],
)
def test_a_password_is_hidden_however_it_is_given(address: str) -> None:
    hidden = settings.redacted(address)
    assert SECRET not in hidden
    assert "db.example.net" in hidden
    assert "tapeline" in hidden or "sslmode" in hidden


@pytest.mark.parametrize("address", ["redis://127.0.0.1:6379/0", "unix:///srv/a/run/redis.sock", "redis://me@h:1/0"])
def test_an_address_without_a_password_stays(address: str) -> None:
    assert settings.redacted(address) == address


def test_show_is_what_is_in_force(path: Path) -> None:
    run(path, "init")
    shown = json.loads(run(path, "show", "--json", MAX_SILENCE_DURATION="17").stdout)
    assert shown["settings"]["collection_settings"]["max_silence_duration"] == 17.0
    assert shown["config_file"] == str(path)
    assert shown["state_dir"] == str(path.parent.parent / "var")


def test_the_schema_takes_what_init_writes_and_refuses_the_rest(path: Path) -> None:
    run(path, "init")
    schema = json.loads(run(path, "show", "--schema").stdout)
    written = json.loads(path.read_text())
    jsonschema.validate(written, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written | {"exchange": {}}, schema)
