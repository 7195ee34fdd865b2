"""`up`, `down`, `restart`, `logs` and bare supervisord, on the real stages and private servers."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from pipeline import settings
from pipeline.commands import up
from pipeline.parent import alive
from pipeline.stanzas import committed
from tests.servers import wait_until
from tests.supervision.instance import STAGES, Instance

NAMES = ("redis", "postgres", *STAGES)
HINT = re.compile(r"no settings at .*data_collection\.json: type `pipeline config init` to write them")


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    """One instance for the tests that break something and see it come back by itself."""
    with Instance() as made:
        begun = made.run("up", "--detach")
        assert begun.returncode == 0, begun.stdout + begun.stderr + made.logs()
        yield made


@pytest.fixture
def clone(instance: Instance) -> Path:
    """The instance's folder as a checkout: supervisord.conf, `.venv`, `var`."""
    shutil.copy(committed(), instance.folder)
    (instance.folder / ".venv").symlink_to(sys.prefix)
    for name in ("log", "run"):
        (instance.folder / "var" / name).mkdir(parents=True)
    return instance.folder


def bare(clone: Path) -> list[str]:
    """supervisord as it is started from anywhere: nothing in the environment but where the settings are, since the
    environment of these tests is another checkout's."""
    path = clone / "config" / "data_collection.json"
    program = [str(clone / ".venv" / "bin" / "supervisord"), "-c", str(clone / "supervisord.conf")]
    return ["/usr/bin/env", "-i", f"DATA_COLLECTION_CONFIG={path}", *program]


def test_bare_supervisord_reaches_healthy_and_stops_on_its_signal(instance: Instance, clone: Path) -> None:
    with subprocess.Popen(bare(clone), cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            pids = instance.wait_running()
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "stopped: redis" in said
    stops = [line.split("stopped: ")[1].split()[0] for line in said.splitlines() if "stopped: " in line]
    assert stops[0] == "watchdog"
    assert stops[-2:] == ["postgres", "redis"]
    assert not any(alive(pid) for pid in pids.values() if pid)


@pytest.mark.parametrize("terminal", ["pipe", "file", "terminal", "socket"])
def test_without_settings_it_stops_with_a_line_that_says_what_to_type(
    instance: Instance, clone: Path, terminal: str, tmp_path: Path
) -> None:
    instance.path.unlink()
    output = tmp_path / "output"
    if terminal == "file":
        with output.open("w") as file:
            code = subprocess.run(bare(clone), cwd="/", stdout=file, stderr=file, timeout=60, check=False).returncode
        said = output.read_text()
    elif terminal == "pipe":
        done = subprocess.run(bare(clone), cwd="/", capture_output=True, text=True, timeout=60, check=False)
        code, said = done.returncode, done.stdout
    else:
        # journald gives a socket, which cannot be opened through /dev/stdout.
        ours, theirs = pty.openpty() if terminal == "terminal" else _pair()
        with subprocess.Popen(bare(clone), cwd="/", stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            said = _read_all(ours)
            code = process.wait(60)
    assert len(HINT.findall(said)) == 1, said
    assert code == 0
    instance.write()


def _pair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _read_all(descriptor: int) -> str:
    found = b""
    # A pseudo-terminal whose other side is gone answers with EIO.
    with contextlib.suppress(OSError):
        while part := os.read(descriptor, 65_536):
            found += part
    os.close(descriptor)
    return found.decode()


def test_up_and_down(instance: Instance) -> None:
    begun = instance.run("up", "--detach")
    assert begun.returncode == 0, begun.stdout + begun.stderr + instance.logs()
    before = instance.wait_running()
    again = instance.run("up")
    assert again.returncode == 2
    assert "already up" in again.stderr
    checked = instance.run("doctor", "--json")
    assert checked.returncode == 0, checked.stdout
    levels = {check["name"]: check["level"] for check in json.loads(checked.stdout)}
    assert levels["redis version"] == levels["redis eviction"] == levels["postgres version"] == "ok"
    done = instance.run("restart", "ingest-okx", "--json")
    (result,) = json.loads(done.stdout)
    assert done.returncode == 0
    assert (result["before"], result["restarted"]) == (before["ingest-okx"], True)
    assert result["after"] == instance.program("ingest-okx").pid != before["ingest-okx"]
    wrong = instance.run("restart", "ingest-kox")
    assert (wrong.returncode, "ingest-okx" in wrong.stderr) == (2, True)
    shown = instance.run("logs", "watchdog", "-n", "3")
    assert len(shown.stdout.splitlines()) == 3
    assert all(" watchdog " in line for line in shown.stdout.splitlines())
    with psycopg.connect(instance.settings.database_address()) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (0,)
    # Without its keeper collecting goes on.
    running = instance.wait_running()
    os.kill(int((instance.settings.run_dir / "up.lock").read_text()), signal.SIGKILL)
    orphaned = instance.run("up")
    assert (orphaned.returncode, "running already" in orphaned.stderr) == (2, True)
    assert instance.wait_running() == running
    ended = instance.run("down")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert instance.our_pids() == []
    stops = [line.removesuffix(" stopped") for line in ended.stdout.splitlines() if line.endswith(" stopped")]
    assert stops[:5] == ["watchdog", "ingest-okx", "normalize-okx", "aggregate-0", "store-0"]
    assert set(stops[5:]) == {"redis", "postgres"}
    idle = instance.run("down")
    assert (idle.returncode, "nothing is running" in idle.stdout) == (0, True)


def test_a_killed_supervisord_leaves_nothing_and_the_keeper_brings_all_back(shared: Instance) -> None:
    before = shared.wait_running()
    with redis.Redis.from_url(shared.settings.redis_address()) as client:
        client.set("kept", "yes")
    # One that cannot act on any signal but SIGKILL until it is continued.
    os.kill(before["store-0"], signal.SIGSTOP)
    os.kill(before["redis"], signal.SIGSTOP)
    os.kill(shared.supervisor.pid(), signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in before.values() if pid), "all of its processes to be gone", 60)
    after = shared.wait_running()
    assert not {pid for pid in after.values() if pid} & set(before.values())
    with redis.Redis.from_url(shared.settings.redis_address()) as client:
        assert client.get("kept") == b"yes"
    assert "SIGKILL" in (shared.settings.log_dir / "up.log").read_text()


def test_up_in_a_long_path_with_a_space() -> None:
    parent = Path(tempfile.mkdtemp(prefix="a folder whose name is far too long for the path of any unix socket here "))
    parent.chmod(0o755)
    with Instance(parent) as instance:
        assert len(str(instance.folder)) > 80
        done = instance.run("up", "--detach")
        assert done.returncode == 0, done.stdout + done.stderr + instance.logs()
        assert instance.run("doctor").returncode == 0
        assert instance.run("down").returncode == 0
        assert instance.our_pids() == []
        shutil.rmtree(instance.settings.run_dir)
    parent.rmdir()


def test_up_writes_settings_where_there_are_none_and_nobody_named_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings, "project_folder", lambda: tmp_path)
    monkeypatch.delenv(settings.PATH_VARIABLE, raising=False)
    given = up.default_settings(None)
    assert given.path == tmp_path / "config" / "data_collection.json"
    assert given.file == settings.default_file()
    said = capsys.readouterr().out
    assert f"wrote {given.path}" in said
    assert "BTC-USDT" in said


def test_each_process_killed_is_back_by_itself(shared: Instance) -> None:
    before = shared.wait_running()
    for name in (*NAMES, "redis"):
        pid = shared.program(name).pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: shared.program(name).pid not in (0, pid), f"{name} to be started again")  # noqa: B023
    after = shared.wait_running()
    assert not {after[name] for name in NAMES} & {before[name] for name in NAMES}
    assert after["watchdog"] == before["watchdog"]


def test_up_for_a_while_ends_by_itself(instance: Instance) -> None:
    done = instance.run("up", "--for", "1s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopping" in done.stdout
    assert instance.our_pids() == []


def test_interrupt_stops_everything_and_a_second_one_forces(instance: Instance) -> None:
    with subprocess.Popen(
        instance.command("up"),
        env=instance.environ,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        pids = instance.wait_running()
        # It would keep the others waiting until supervisord's own patience ends.
        os.kill(pids["aggregate-0"], signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: instance.program("watchdog").state == "STOPPED", "the end to begin")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "redis stopped" in said
    assert instance.our_pids() == []


def test_up_refuses_a_taken_port_before_anything_starts(instance: Instance) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", instance.tree["redis"]["port"]))
        taken.listen()
        done = instance.run("up", "--detach")
    assert done.returncode == 2
    assert "redis.port" in done.stderr
    assert not (instance.settings.state_dir / "redis").exists()


def test_up_refuses_bad_settings_and_a_mistyped_file(instance: Instance) -> None:
    instance.tree["redis"]["prot"] = 1
    instance.write()
    done = instance.run("up")
    assert (done.returncode, "prot" in done.stderr) == (2, True)
    del instance.tree["redis"]["prot"]
    instance.write()
    mistyped = instance.path.with_name("data_colection.json")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", "-c", str(mistyped), "up"],
        env=instance.environ,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "config init" in done.stderr) == (2, True)
    assert not mistyped.exists()


def test_what_hangs_is_killed_and_nobody_else_though_redis_is_away_meanwhile(shared: Instance) -> None:
    before = shared.wait_running()
    wait_until(lambda: shared.watched("ingest-okx").get("pid") == before["ingest-okx"], "the watchdog to look")
    hung = {"redis", "normalize-okx"}
    restarts = shared.watched("normalize-okx")["restarts"]
    for name in hung:
        os.kill(before[name], signal.SIGSTOP)
    for name in hung:
        wait_until(lambda: shared.program(name).pid not in (0, before[name]), f"{name} to be replaced", 60)  # noqa: B023
    after = shared.wait_running()
    assert {name for name in after if after[name] != before[name]} == hung
    wait_until(lambda: shared.watched("normalize-okx")["restarts"] == restarts + 1, "the restart to be counted")
    assert "hung" in shared.watched("normalize-okx")["reason"]
    assert "normalize-okx: hung" in (shared.settings.log_dir / "supervisord.log").read_text()
