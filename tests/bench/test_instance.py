"""The bench's own servers: they run while it does, and nothing of it is left, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from bench.frames import symbols
from bench.instance import Instance
from pipeline.parent import alive
from pipeline.probes.redis import call
from tests.servers import wait_until

ROOT = Path(__file__).parent.parent.parent


def started(pid: int) -> list[psutil.Process]:
    """What a process has started, and these in turn."""
    return psutil.Process(pid).children(recursive=True)


def test_reset_leaves_nothing_and_changed_settings_hold(tmp_path: Path) -> None:
    place = tmp_path / "bench"
    # Servers of other tests run in this process as well.
    others = set(started(os.getpid()))
    with Instance({"okx": symbols(2)}, os.environ, place) as instance:
        servers = set(started(os.getpid())) - others
        assert len(servers) > 2
        call(instance.redis, "XADD", instance.keys("okx").raw, "*", "v", "1")
        with instance.postgres() as connection:
            connection.execute("INSERT INTO cursors (namespace, stream, id, entries) VALUES ('sim', 's', '1-0', 1)")
            instance.reset()
            assert connection.execute("SELECT count(*) FROM cursors").fetchone() == (0,)
            assert connection.execute("SELECT count(*) FROM migrations").fetchone() != (0,)
        assert call(instance.redis, "EXISTS", instance.keys("okx").raw) == 0
        with instance.running("normalize-okx") as (process,):
            cpu = instance.cpu()
            assert set(cpu) == {"redis", "postgres", "normalize-okx"}
            assert process.memory() > 0
        assert set(instance.cpu()) == {"redis", "postgres"}
    assert not [server for server in servers if alive(server.pid)]
    assert not (place / "state").exists()


def test_an_interrupt_stops_everything(tmp_path: Path) -> None:
    place = tmp_path / "bench"
    words = [sys.executable, "-m", "bench", "--only", "memory", "--folder", str(place)]
    bench = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: bench.poll() is not None or len(started(bench.pid)) > 2, "the servers to run")
    servers = started(bench.pid)
    bench.send_signal(signal.SIGINT)
    _, said = bench.communicate(timeout=120)
    assert bench.returncode == 130, said
    assert servers
    assert not [server for server in servers if alive(server.pid)]
