"""Faults on the way to real servers, and what their clients see of them."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.commands._chaos.plan import Planned
from pipeline.commands._chaos.scene import Scene
from pipeline.commands._chaos.servers import JUNK, LEAD, Cut, Deaf, Fill, Stall, Tapped
from tests.chaos.made import scene_of, settings_of
from tests.servers import RedisServer

MIB = 1024 * 1024


@pytest.fixture
def scene(redis_server: RedisServer, tmp_path: Path) -> Iterator[Scene]:
    """The instance's socket is that of the server; we ask it by TCP."""
    made = scene_of(settings_of(tmp_path, redis_server.url))
    made.settings.run_dir.mkdir(parents=True)
    (made.settings.run_dir / "redis.sock").hardlink_to(redis_server.socket)
    yield made
    made.turn(all_now=True)


@contextlib.contextmanager
def client(scene: Scene, timeout: float = 5.0) -> Iterator["redis.Redis"]:
    """One connection by the instance's socket, kept until it breaks; nothing is tried twice."""
    path = str(scene.settings.run_dir / "redis.sock")
    with redis.Redis(
        unix_socket_path=path, socket_timeout=timeout, retry=Retry(NoBackoff(), 0), single_connection_client=True
    ) as made:
        yield made


def planned(fault: str, target: str = "redis", seconds: float = 1.0) -> Planned:
    return Planned(at=0, fault=fault, target=target, seconds=seconds)


def begun(fault: Tapped) -> Tapped:
    assert fault.begin()
    assert not fault.over(LEAD / 2)
    return fault


def test_a_cut_ends_every_connection(scene: Scene) -> None:
    with client(scene) as ours:
        assert ours.ping()
        assert Cut(planned("cut"), scene).begin()
        with pytest.raises(redis.exceptions.ConnectionError):
            ours.ping()
    with client(scene) as ours:
        assert ours.ping()


def test_a_stalled_command_arrives_after_its_client_has_gone(scene: Scene, redis_server: RedisServer) -> None:
    socket = scene.settings.run_dir / "redis.sock"
    before = socket.stat().st_ino
    fault = begun(Stall(planned("stall"), scene))
    with client(scene, 0.2) as ours:
        assert ours.ping()
        assert not fault.over(LEAD)
        with pytest.raises(redis.exceptions.TimeoutError):
            ours.incr("n")
    # Whoever connects now is accepted and hears nothing.
    with pytest.raises(redis.exceptions.TimeoutError), client(scene, 0.2) as ours:
        ours.ping()
    with redis.Redis.from_url(redis_server.url) as direct:
        assert direct.get("n") is None
        assert fault.over(LEAD + 1.0)
        fault.end()
        assert socket.stat().st_ino == before
        waited = threading.Event()
        for _ in range(100):
            if direct.get("n") is not None:
                break
            waited.wait(0.05)
        assert direct.get("n") == b"1"
    with client(scene) as ours:
        assert ours.ping()


def test_what_is_asked_of_the_deaf_is_done_and_never_confirmed(scene: Scene, redis_server: RedisServer) -> None:
    fault = begun(Deaf(planned("deaf"), scene))
    with client(scene, 0.5) as ours:
        assert ours.ping()
        assert not fault.over(LEAD)
        with pytest.raises(redis.exceptions.TimeoutError):
            ours.incr("n")
    with redis.Redis.from_url(redis_server.url) as direct:
        assert direct.get("n") == b"1"
    fault.end()
    with client(scene) as ours:
        assert ours.get("n") == b"1"


def test_a_server_that_began_anew_meanwhile_keeps_its_socket(scene: Scene) -> None:
    socket = scene.settings.run_dir / "redis.sock"
    fault = begun(Stall(planned("stall"), scene))
    socket.unlink()
    socket.touch()
    its = socket.stat().st_ino
    fault.end()
    assert socket.stat().st_ino == its
    assert not (socket.parent / "direct").exists()


def test_without_a_socket_there_is_nothing_to_tap(scene: Scene) -> None:
    (scene.settings.run_dir / "redis.sock").unlink()
    assert not Stall(planned("stall"), scene).begin()


def test_redis_is_filled_again_and_again_and_emptied(tmp_path: Path) -> None:
    server = RedisServer(maxmemory=str(64 * MIB)).start()
    try:
        fault = Fill(planned("fill"), scene_of(settings_of(tmp_path, server.url)))
        with redis.Redis.from_url(server.url) as ours:
            ours.set("mine", bytes(8 * MIB))
            assert fault.begin()
            for _ in range(20):
                assert not fault.over(0.5)
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                ours.set("more", "x")
            ours.delete("mine")
            for _ in range(20):
                assert fault.over(1.0)
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                ours.set("more", "x")
            fault.end()
            assert not ours.exists(JUNK)
            assert ours.set("more", "x")
    finally:
        server.remove()


def test_postgres_cuts_every_other_connection(database_url: str, tmp_path: Path) -> None:
    scene = scene_of(settings_of(tmp_path, database_url=database_url))
    with psycopg.connect(database_url) as ours:
        ours.execute("SELECT 1")
        assert Cut(planned("cut", "postgres"), scene).begin()
        with pytest.raises(psycopg.OperationalError):
            ours.execute("SELECT 1")
