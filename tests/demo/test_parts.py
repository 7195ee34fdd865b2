"""The demo's own parts: the plan of blows, its folder and settings, its environment."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline import settings as settings_module
from pipeline.commands._demo import instance
from pipeline.commands._demo.blows import BEGIN, CUT, END, LONGEST_PAUSE, known, plan, rounds
from pipeline.commands._demo.instance import Offer
from pipeline.commands._demo.interruption import interruptible
from pipeline.commands._demo.rows import _value
from pipeline.commands._demo.settling import Settling, _id
from pipeline.errors import ServerAway, SettingsError
from pipeline.servers import folders
from pipeline.streams import Keys
from pipeline.timeframes import TIMEFRAMES
from tests.servers import RedisServer

TURNS = rounds(("okx", "binance"))
OFFER = Offer(("BTC-USDT",), "ws://127.0.0.1:1/ws/v5", "http://127.0.0.1:2")


@pytest.mark.parametrize("duration", [20.0, 60.0, 600.0])
def test_a_plan_holds_every_blow_within_its_time(duration: float) -> None:
    blows = plan(duration, random.Random(3), TURNS)
    kinds = Counter(blow.what for blow in blows)
    assert kinds[CUT] >= 2
    assert {"ingest-binance", "normalize-okx", "aggregate-0", "store-0", "redis", "postgres"} <= set(kinds)
    times = [blow.at for blow in blows]
    assert times == sorted(times)
    assert BEGIN * duration <= times[0]
    assert times[-1] <= END * duration


def test_a_long_demo_goes_on_dealing_blows() -> None:
    times = [blow.at for blow in plan(3_600.0, random.Random(1), TURNS)]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 1.5 * LONGEST_PAUSE


def test_the_same_seed_plans_the_same() -> None:
    one, same, other = (plan(60.0, random.Random(seed), TURNS) for seed in (7, 7, 8))
    assert one == same != other


def test_every_process_of_every_exchange_has_its_turn() -> None:
    stages = {f"{stage}-{exchange}" for stage in ("ingest", "normalize") for exchange in ("okx", "binance")}
    assert stages <= set(TURNS) <= set(known(("okx", "binance")))
    assert {f"{stage}-okx" for stage in ("ingest", "normalize")} <= set(rounds(("okx",)))


def test_the_settings_of_a_demo_are_its_own(tmp_path: Path) -> None:
    folder = instance.take_folder(tmp_path)
    settings = instance.write_settings(folder, {"okx": OFFER})
    assert (settings.namespace, settings.file.postgres.database, settings.file.simulated) == (
        "sim",
        "tapeline_sim",
        True,
    )
    assert settings.redis_url is None
    assert settings.database_url is None
    assert settings.state_dir == folder.state
    assert settings.file.exchanges["okx"].trading_pairs[0].timeframes == TIMEFRAMES
    assert settings.file.redis.port != settings.file.postgres.port
    assert settings_module.load(folder.settings, {}) == settings


def test_a_second_demo_in_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    folder = instance.take_folder(tmp_path)
    folder.truth.mkdir()
    with pytest.raises(SettingsError, match="another demo is running"):
        instance.take_folder(tmp_path)
    assert folder.truth.is_dir()


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(SettingsError, match="no demo wrote"):
        instance.take_folder(tmp_path, tmp_path)
    assert (tmp_path / "state").is_dir()
    assert instance.take_folder(tmp_path, tmp_path / "new").path == tmp_path / "new"


def test_clearing_leaves_nothing_of_a_demo_and_everything_else(tmp_path: Path) -> None:
    folder = instance.take_folder(tmp_path)
    instance.write_settings(folder, {"okx": OFFER})
    (folder.state / "log").mkdir(parents=True)
    (tmp_path / "var" / "mine").write_text("kept")
    instance.clear(folder)
    assert sorted(path.name for path in folder.path.iterdir()) == [".gitignore", "lock"]
    assert (tmp_path / "var" / "mine").read_text() == "kept"


def test_data_that_outlived_a_removed_folder_are_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "SYSTEM", tmp_path / "tapeline")
    folder = instance.take_folder(tmp_path)
    left = folders.system_home(instance.write_settings(folder, {"okx": OFFER}))
    left.mkdir(parents=True)
    (left.parent / "another").mkdir()
    os.close(folder.lock)
    shutil.rmtree(folder.path)
    instance.write_settings(instance.take_folder(tmp_path), {"okx": OFFER})
    assert [path.name for path in left.parent.iterdir()] == ["another"]


def test_the_environment_of_a_demo_leads_to_no_server_of_ours() -> None:
    given = {
        "PATH": "/usr/bin",
        "REDIS_URL": "redis://live",
        "REDIS_HOST": "live",
        "DATABASE_URL_FILE": "/run/secret",
        "POSTGRES_PASSWORD": "x",
        "DATA_COLLECTION_CONFIG": "live.json",
        "TAPELINE_STATE_DIR": "/var/lib/live",
        "RECONNECT_DELAY": "60",
        "TAPELINE_REDIS_SERVER": "/opt/redis-server",
    }
    assert instance.environment(given) == {"PATH": "/usr/bin", "TAPELINE_REDIS_SERVER": "/opt/redis-server"}


def test_stream_ids_are_ordered_as_numbers() -> None:
    assert _id(b"1700000000000-9") < _id(b"1700000000000-10") < _id(b"1700000000001")


def test_times_of_postgres_are_read_exactly() -> None:

    assert _value(datetime(2026, 11, 21, 9, 0, 0, 123457, UTC)) == 1_795_251_600_123_457_000
    assert _value("text") == "text"


def test_too_short_a_demo_is_refused_before_anything_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "demo", "--for", "5s"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "at least 20s" in done.stderr


def test_signals_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


class Departing:
    """Is interrupted while it is finalized, where Python drops what is raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_a_finalizer_kept_is_told_again() -> None:
    def depart() -> None:
        Departing()
        threading.Event().wait()

    with pytest.raises(KeyboardInterrupt), interruptible():
        depart()


def test_a_redis_that_does_not_answer_is_waited_for(tmp_path: Path, redis_server: RedisServer) -> None:
    folder = instance.take_folder(tmp_path)
    instance.write_settings(folder, {"okx": OFFER})
    settings = settings_module.load(folder.settings, {"REDIS_URL": redis_server.url})
    raw = Keys(settings.namespace, "okx").raw
    settling = Settling(settings, redis_server.resume)
    settling._redis("XADD", raw, "7-1", "v", "1")
    redis_server.pause()
    assert settling._ends([raw], 60.0) == {raw: (7, 1)}
    redis_server.stop()
    with pytest.raises(ServerAway):
        settling.books()
