"""The slow disk, on a real server: every sync waits while it is slow, and none afterwards."""

import os
from pathlib import Path

import pytest
import redis
import redis.exceptions

from pipeline.commands._chaos.plan import Planned
from pipeline.commands._chaos.processes import SlowSync
from pipeline.commands._chaos.slowdisk import SlowDisk
from pipeline.servers.binary import REDIS_VARIABLE, examine
from tests.chaos.made import scene_of, settings_of
from tests.servers import RedisServer, wait_until


class Slowable(RedisServer):
    """The server that the slow disk starts."""

    def __init__(self, program: str) -> None:
        super().__init__(appendfsync="always")
        self._program = program

    def _command(self) -> list[str]:
        return ["/bin/sh", self._program, *super()._command()[1:]]


def built(folder: Path) -> SlowDisk:
    disk = SlowDisk(folder / "a slow disk")
    assert disk.environment == {}
    assert disk.build(os.environ), "the tests need a C compiler: apt install gcc"
    return disk


def test_it_is_a_redis_and_each_sync_waits_as_long_as_it_is_slow(tmp_path: Path) -> None:
    disk = built(tmp_path)
    program = disk.environment[REDIS_VARIABLE]
    assert examine(Path(program), "") is not None
    server = Slowable(program).start()
    try:
        scene = scene_of(settings_of(tmp_path, server.url), {"redis": server.pid})
        scene.disk = disk
        fault = SlowSync(Planned(at=0, fault="slow_sync", target="redis", arguments={"kill": True}), scene)
        with redis.Redis.from_url(server.url, socket_timeout=0.5) as client:
            assert client.set("a", 1)
            assert fault.begin()
            with pytest.raises(redis.exceptions.TimeoutError):
                client.set("b", 1)
        fault.end()
        assert server._process is not None
        wait_until(lambda: server._process is not None and server._process.poll() is not None, "the kill")
        server.start()
        with redis.Redis.from_url(server.url, socket_timeout=0.5) as client:
            assert client.set("c", 1)
            assert client.get("a") == b"1"
    finally:
        server.remove()


def test_without_a_compiler_there_is_no_such_fault(tmp_path: Path) -> None:
    disk = SlowDisk(tmp_path / "slow")
    assert not disk.build({"PATH": str(tmp_path)})
    assert disk.environment == {}
    scene = scene_of(settings_of(tmp_path), {"redis": 1})
    assert not SlowSync(Planned(at=0, fault="slow_sync", target="redis"), scene).begin()
