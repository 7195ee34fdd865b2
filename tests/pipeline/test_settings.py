"""Settings: wrong ones are refused with path, value and the nearest spelling; secrets stay out of files."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline import settings
from pipeline.errors import SettingsError

PATH = Path("/srv/tapeline/config/data_collection.json")


def file_with(**changes: Any) -> bytes:
    tree: dict[str, Any] = {"exchanges": {"okx": {"trading_pairs": [{"symbol": "BTC-USDT"}]}}}
    return json.dumps({**tree, **changes}).encode()


def with_pair(pair: dict[str, Any]) -> bytes:
    return file_with(exchanges={"okx": {"trading_pairs": [pair]}})


def load(text: bytes, environ: dict[str, str] | None = None) -> settings.Settings:
    return settings.complete(settings.decode(text, PATH), PATH, environ or {})


def test_the_default_file_is_valid_and_comes_back() -> None:
    text = settings.encode(settings.default_file())
    assert settings.decode(text, PATH) == settings.default_file()
    jsonschema.validate(json.loads(text), settings.schema())


def test_nothing_is_deleted_that_is_not_named() -> None:
    assert load(file_with()).file.retention.days.given() == {}
    named = file_with(retention={"days": {"trade": 90, "candle": None, "candle_seconds": 1}})
    assert load(named).file.retention.days.given() == {"trade": 90, "candle_seconds": 1}


def test_the_seeds_layout_is_read() -> None:
    seed = file_with(
        collection_settings={
            "health_check_interval": 120,
            "store_raw_data": True,
            "auto_restart": True,
            "max_restart_attempts": 3,
        },
        logging={"level": "INFO", "log_errors_only": True, "verbose_data_logging": False},
    )
    assert load(seed).file.logging.log_errors_only


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not readable JSON"),
        (b"[]", "Expected `object`"),
        (with_pair({"symbol": 7}), r"okx.trading_pairs\[0\].symbol: .*it is 7"),
        (
            file_with(exchanges={"okx": {"trading_pairs": [{"symbl": "A"}]}}),
            r"'symbl' in exchanges.okx.trading_pairs\[0\]",
        ),
        (file_with(exchangs={}), "unknown key 'exchangs'.*did you mean 'exchanges'"),
        (file_with(redis={"prot": 1}), "unknown key 'prot' in redis; did you mean 'port'"),
        (
            file_with(retention={"days": {"trades": 7}}),
            "unknown key 'trades' in retention.days; did you mean 'trade'",
        ),
        (
            file_with(retention={"days": {"candles_seconds": 7}}),
            "unknown key 'candles_seconds' in retention.days; did you mean 'candle_seconds'",
        ),
        (file_with(retention={"days": {"trade": 0}}), r"retention.days.trade: .*>= 1.*it is 0"),
        (file_with(retention={"days": {"quote": -3}}), r"retention.days.quote: .*it is -3"),
        (file_with(retention={"days": {"quote": 1.5}}), r"retention.days.quote: .*it is 1.5"),
        (file_with(retention={"days": {"quote": "7"}}), r"retention.days.quote: .*it is '7'"),
        (file_with(retention={"days": 7}), r"retention.days: Expected `object`"),
        (file_with(redis={"port": 99999}), r"redis.port: .*65535.*99999"),
        (file_with(exchanges={"okex": {}}), "'okex' is not supported; did you mean 'okx'"),
        (file_with(exchanges={"okx": {"enabled": False}}), "nothing would be collected"),
        (
            file_with(exchanges={"okx": {"trading_pairs": [{"symbol": "A", "timeframes": ["1min"]}]}}),
            r"trading_pairs\[0\].timeframes: '1min' is unknown; did you mean '1m'",
        ),
        (
            file_with(exchanges={"okx": {"trading_pairs": [{"symbol": "A", "data_types": ["trades"]}]}}),
            "'trades' is unknown; did you mean 'trade'",
        ),
        (
            file_with(exchanges={"okx": {"trading_pairs": [{"symbol": "A"}, {"symbol": "a"}]}}),
            "listed twice",
        ),
        (file_with(redis={"url": "redis://:secret@db:6379"}), "holds a password.*REDIS_URL"),
        (
            file_with(exchanges={"okx": {"ws_url": "ws://127.0.0.1:1/ws", "trading_pairs": [{"symbol": "A"}]}}),
            "is a simulator",
        ),
        (file_with(simulated=True), "namespace other than 'md'"),
    ],
)
def test_what_is_wrong_is_said(text: bytes, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(text)


def test_toml_is_the_same_tree() -> None:
    text = b'[[exchanges.okx.trading_pairs]]\nsymbol = "BTC-USDT"\n'
    assert settings.decode(text, PATH.with_suffix(".toml")) == settings.decode(file_with(), PATH)


def test_a_missing_file_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="pipeline config init"):
        settings.load(tmp_path / "none.json", {})


def test_the_environment_overrides() -> None:
    read = load(file_with(), {"LOG_LEVEL": "debug", "MAX_SILENCE_DURATION": "12.5", "REDIS_URL": "redis://h:1/0"})
    assert read.file.logging.level == "DEBUG"
    assert read.file.collection_settings.max_silence_duration == 12.5
    assert read.redis_url == "redis://h:1/0"
    assert "redis" not in read.processes()
    with pytest.raises(SettingsError, match="LOG_LEVEL"):
        load(file_with(), {"LOG_LEVEL": "loud"})


def test_secrets_come_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p@ss/word\n")
    environ = {"POSTGRES_HOST": "db", "POSTGRES_USER": "me", "POSTGRES_PASSWORD_FILE": str(secret)}
    url = load(file_with(), environ).database_url
    assert url == "postgresql://me:p%40ss%2Fword@db:5432/tapeline"
    assert settings.redacted(url) == "postgresql://me:***@db:5432/tapeline"
    with pytest.raises(SettingsError, match="REDIS_URL_FILE"):
        load(file_with(), {"REDIS_URL_FILE": str(tmp_path / "none")})


def test_folders_belong_to_the_file_not_to_the_current_folder() -> None:
    assert load(file_with()).state_dir == Path("/srv/tapeline/var")
    assert load(file_with(state_dir="/data")).state_dir == Path("/data")
    assert load(file_with(), {"TAPELINE_STATE_DIR": "/other"}).state_dir == Path("/other")


def test_a_long_state_folder_gets_a_short_run_folder() -> None:
    deep = "/" + "d" * 120
    run = load(file_with(state_dir=deep)).run_dir
    assert len(str(run / "supervisor.sock")) < 104
    assert run == load(file_with(state_dir=deep)).run_dir
