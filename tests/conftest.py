"""Fixtures that all tests share: real servers (one Postgres for the whole run, a fresh Redis a test), a tiny disk."""

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.proxy import TcpProxy
from tests.servers import PostgresServer, RedisServer

_numbers = itertools.count(1)

# How long an example takes says nothing on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs so, and all that we start would inherit it: nothing could be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A fresh Redis (AOF on) of this test's own: it may be killed, paused and restarted."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The Postgres of the whole run. A test that stops it must start it again; see `own_postgres`."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty database on `postgres_server`."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A Postgres of this test's own: it may be killed, paused and restarted."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[int], TcpProxy]]:
    """`tcp_proxy(port)` starts a proxy to that port of loopback; all are closed after the test."""
    started: list[TcpProxy] = []

    def start(target: int) -> TcpProxy:
        started.append(TcpProxy(target).start())
        return started[-1]

    yield start
    for proxy in started:
        proxy.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; where nothing may be mounted, the machine has no such disk to try."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
