"""The watchdog on a real supervisord: what is hung, dead, broken, unfit or refused."""

import os
import signal
from collections.abc import Iterator

import pytest
import redis

from pipeline import reports
from tests.servers import wait_until
from tests.supervision.instance import STAGES, Instance


@pytest.fixture
def servers(redis_url: str, database_url: str) -> dict[str, str]:
    return {"REDIS_URL": redis_url, "DATABASE_URL": database_url}


@pytest.fixture
def instance(servers: dict[str, str]) -> Iterator[Instance]:
    with Instance(environ=servers) as made:
        yield made


def test_it_starts_the_stages_in_order_and_they_stop_in_order(instance: Instance) -> None:
    supervisord = instance.start_with_stand_ins()
    instance.wait_running()
    starts = {name: program for name, program in instance.supervisor.programs().items() if name in STAGES}
    assert set(starts) == set(STAGES)
    assert instance.program("redis").state == instance.program("postgres").state == "STOPPED"
    log = (instance.settings.log_dir / "watchdog.log").read_text()
    assert [log.index(f"{name}: start") for name in STAGES] == sorted(log.index(f"{name}: start") for name in STAGES)
    done = instance.run("down")
    assert done.returncode == 0, done.stderr
    order = (instance.notes / "stopped").read_text().split()
    assert order == ["ingest-okx", "normalize-okx", "aggregate-0", "store-0"]
    assert supervisord.wait(30) == 0
    assert instance.our_pids() == []


def test_a_broken_stage_is_tried_more_and_more_slowly_and_comes_back(servers: dict[str, str]) -> None:
    with Instance(environ=servers, max_restart_attempts=1) as instance:
        (instance.notes / "aggregate-0.broken").touch()
        instance.start_with_stand_ins(lambda text: text.replace("startsecs = 2", "startsecs = 2\nstartretries=0"))
        wait_until(lambda: instance.watched("aggregate-0").get("parked"), "the watchdog to hold it back", 60)
        wait_until(lambda: "more slowly" in instance.watchdog_says(), "the watchdog to be loud")
        assert instance.watched("aggregate-0")["reason"].startswith("FATAL")
        instance.wait_running("store-0", "normalize-okx", "ingest-okx")
        (instance.notes / "aggregate-0.broken").unlink()
        instance.wait_running()


def test_without_auto_restart_what_ends_stays_down_until_a_person_starts_it(servers: dict[str, str]) -> None:
    with Instance(environ=servers, auto_restart=False) as instance:
        instance.start_with_stand_ins()
        before = instance.wait_running()
        wait_until(lambda: instance.watched("ingest-okx").get("pid") == before["ingest-okx"], "the watchdog to look")
        os.kill(before["ingest-okx"], signal.SIGKILL)
        wait_until(lambda: "auto_restart is off" in (instance.watched("ingest-okx")["reason"] or ""), "its report")
        assert instance.program("ingest-okx").state == "EXITED"
        done = instance.run("restart", "ingest-okx")
        assert done.returncode == 0, done.stdout
        assert instance.program("ingest-okx").state == "RUNNING"


def test_a_new_watchdog_goes_on_with_the_counts_of_the_old(instance: Instance) -> None:
    instance.start_with_stand_ins()
    before = instance.wait_running()
    wait_until(lambda: instance.watched("store-0").get("pid") == before["store-0"], "the watchdog to look")
    os.kill(before["store-0"], signal.SIGKILL)
    wait_until(lambda: instance.watched("store-0")["restarts"] == 1, "the restart to be counted")
    watchdog = instance.program("watchdog").pid
    os.kill(watchdog, signal.SIGKILL)
    wait_until(lambda: instance.program("watchdog").pid not in (0, watchdog), "a new watchdog")
    wait_until(lambda: instance.watched("store-0").get("state") == "RUNNING", "its first look")
    assert instance.watched("store-0")["restarts"] == 1
    assert instance.wait_running()["aggregate-0"] == before["aggregate-0"]


def test_an_evicting_redis_is_refused_until_it_no_longer_evicts(instance: Instance, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    instance.start_with_stand_ins()
    wait_until(lambda: "allkeys-lru" in instance.watchdog_says(), "the watchdog to refuse the server")
    assert all(instance.program(name).start == 0 for name in STAGES)
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "noeviction")
    instance.wait_running()


def test_a_worker_that_is_stopped_or_says_it_does_nothing_is_restarted_one_that_waits_is_not(
    instance: Instance,
) -> None:
    """The ladder's last step on a real supervisord: hung by its beats, silent by its own word, once in a long while."""
    (instance.notes / "normalize-okx.waiting").touch()
    (instance.notes / "normalize-okx.stalled").touch()
    instance.start_with_stand_ins()
    before = instance.wait_running()
    os.kill(before["aggregate-0"], signal.SIGSTOP)
    (instance.notes / "ingest-okx.stalled").touch()
    wait_until(
        lambda: (instance.watched("ingest-okx").get("reason") or "").startswith("silent: made up"), "its verdict"
    )
    wait_until(lambda: instance.watched("ingest-okx")["restarts"] == 1, "the restart")
    wait_until(lambda: instance.watched("aggregate-0").get("restarts") == 1, "the restart of the hung one", 60)
    assert instance.watched("aggregate-0")["reason"].startswith("hung")
    after = instance.wait_running()
    assert after["ingest-okx"] != before["ingest-okx"]
    watchdog = instance.program("watchdog").pid
    os.kill(watchdog, signal.SIGKILL)
    wait_until(lambda: instance.program("watchdog").pid not in (0, watchdog), "a new watchdog")
    wait_until(lambda: instance.watched("ingest-okx").get("state") == "RUNNING", "its first look")
    looks = reports.read(instance.settings.heartbeat_dir / "watchdog").loops

    def looked() -> bool:
        return reports.read(instance.settings.heartbeat_dir / "watchdog").loops >= looks + 5

    wait_until(looked, "it to look a few times more")
    # It still says that it does nothing; the next restart for that is due in a quarter of an hour.
    assert instance.watched("ingest-okx")["restarts"] == instance.watched("ingest-okx")["silences"] == 1
    assert instance.program("ingest-okx").pid == after["ingest-okx"]
    assert instance.watched("normalize-okx")["restarts"] == 0
    assert instance.program("normalize-okx").pid == before["normalize-okx"]
