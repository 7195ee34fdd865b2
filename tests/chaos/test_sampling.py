"""Samples of real processes, folders and a real Redis."""

import os
import sys
import threading
from pathlib import Path

import pytest

from pipeline.commands._chaos.sampling import Sampler, of_process, of_tree, size
from pipeline.probes import redis as redis_probe
from pipeline.streams import Keys
from pipeline.supervisor import Program
from tests.chaos.made import Programs, settings_of, sleeper
from tests.servers import RedisServer, wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells it in /proc, which only Linux has")


class Living(Programs):
    """Of these pids; supervisord is ourselves."""

    states: dict[str, str] = {}  # noqa: RUF012

    def programs(self) -> dict[str, Program]:
        return {
            name: Program(name=name, state=self.states.get(name, "RUNNING"), pid=pid) for name, pid in self.pids.items()
        }

    def pid(self) -> int:
        return os.getpid()


@linux
def test_a_process_says_what_it_takes() -> None:
    held = bytearray(32 * 2**20)
    use = of_process(os.getpid())
    assert use.memory is not None
    assert use.peak is not None
    assert len(held) < use.memory <= use.peak
    assert use.files is not None
    with open(os.devnull):
        assert of_process(os.getpid()).files == use.files + 1


@linux
def test_of_a_server_the_children_count_too() -> None:
    with sleeper() as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            both, one = of_tree(process.pid), of_tree(child)
            assert both.memory is not None
            assert one.memory is not None
            assert both.memory > one.memory > 0
            assert both.files is not None
            assert one.files is not None
            assert both.files > one.files > 0
        finally:
            os.kill(child, 9)
            process.kill()


def test_who_is_gone_takes_nothing() -> None:
    with sleeper() as process:
        assert process.stdout is not None
        os.kill(int(process.stdout.readline()), 9)
        process.kill()
    assert of_process(process.pid).memory is None
    assert of_tree(process.pid).memory is None


def test_a_folder_has_the_size_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "within").mkdir()
    (tmp_path / "one").write_bytes(bytes(100))
    (tmp_path / "within" / "two").write_bytes(bytes(23))
    assert size(tmp_path) == 123
    assert size(tmp_path / "nowhere") == 0


def test_everything_is_looked_at(tmp_path: Path, redis_server: RedisServer) -> None:
    settings = settings_of(tmp_path, redis_server.url)
    stream = Keys("sim", "okx").trade
    client = redis_probe.connect(settings)
    redis_probe.call(client, "XADD", stream, "5-1", "data", "x")
    client.close()
    spool = tmp_path / "spool" / "ingest-okx" / "okx"
    spool.mkdir(parents=True)
    (spool / "segment").write_bytes(bytes(77))
    supervisor = Living({"ingest-okx": os.getpid(), "postgres": 0})
    sampler = Sampler(settings, supervisor, tmp_path / "resources.jsonl")
    sample = sampler.look()
    assert sample.newest == {stream: b"5-1"}
    assert sample.redis is not None
    assert sample.redis[0] > 2**19
    assert sample.postgres
    assert sample.uses["ingest-okx"].disk == 77
    assert sample.uses["store-0"].disk == 0
    supervisor.states = {"postgres": "STOPPED"}
    assert not sampler.look().postgres


def test_samples_are_written_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.commands._chaos.sampling.INTERVAL", 0.01)
    settings = settings_of(tmp_path, "redis://127.0.0.1:1/0")
    sampler = Sampler(settings, Living({"store-0": os.getpid()}), tmp_path / "resources.jsonl")
    sampler.start()
    wait_until(lambda: sampler.resources.samples > 2, "samples")
    sampler.stop()
    lines = (tmp_path / "resources.jsonl").read_text().splitlines()
    assert len(lines) == sampler.resources.samples
    assert "sampler" not in {thread.name for thread in threading.enumerate()}
    sampler.stop()
