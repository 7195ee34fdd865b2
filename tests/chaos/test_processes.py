"""Faults of processes, on real ones."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.commands._chaos.plan import Planned
from pipeline.commands._chaos.processes import RUNS, STOPPED, Away, Kill, KillTwice, Stop, Stutter
from pipeline.commands._chaos.scene import signalled
from pipeline.errors import ServerAway
from pipeline.parent import _status, command_of
from pipeline.supervisor import Fault, Program
from tests.chaos.made import Programs, scene_of, settings_of, sleeper
from tests.servers import wait_until

ROOT = Path(__file__).parents[2]


class Family:
    """A process and its child."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self.process = process
        self.pids = [process.pid, int(process.stdout.readline())]

    @property
    def states(self) -> list[str]:
        return [_status(pid)[0] for pid in self.pids]

    def are(self, *states: str) -> None:
        wait_until(lambda: self.states == list(states), f"{states}, not {self.states}")


@pytest.fixture
def family() -> Iterator[Family]:
    with sleeper() as process:
        made = Family(process)
        yield made
        for pid in reversed(made.pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def planned(fault: str, target: str, seconds: float = 0.0) -> Planned:
    return Planned(at=0, fault=fault, target=target, seconds=seconds)


def test_a_worker_is_stopped_and_goes_on(family: Family, tmp_path: Path) -> None:
    fault = Stop(planned("stop", "store-0", 1.0), scene_of(settings_of(tmp_path), {"store-0": family.pids[0]}))
    assert fault.begin()
    family.are("T", "S")
    assert not fault.over(0.9)
    assert fault.over(1.0)
    fault.end()
    family.are("S", "S")


class Obeying(Programs):
    """Does as it is told, in its own time."""

    state, refuses = "RUNNING", False

    def programs(self) -> dict[str, Program]:
        return {"redis": Program(name="redis", state=self.state, pid=7 if self.state != "STOPPED" else 0)}

    def stop(self, name: str) -> None:
        self.state = "STOPPING"

    def start(self, name: str) -> None:
        if self.refuses:
            raise Fault(6, "SHUTDOWN_STATE")
        self.state = "STARTING"


def test_a_server_is_away_until_it_is_started_again(tmp_path: Path) -> None:
    scene = scene_of(settings_of(tmp_path))
    scene.supervisor = obeying = Obeying({})
    fault = Away(planned("away", "redis", 120.0), scene)
    assert fault.begin()
    assert not fault.over(119.9)
    with pytest.raises(ServerAway, match="still stopping"):
        fault.end()
    obeying.state, obeying.refuses = "STOPPED", True
    assert not Away(planned("away", "redis", 120.0), scene).begin()
    with pytest.raises(ServerAway, match="SHUTDOWN_STATE"):
        fault.end()
    obeying.refuses = False
    fault.end()
    assert obeying.state == "STARTING"


def test_of_a_server_the_children_are_stopped_too(family: Family, tmp_path: Path) -> None:
    fault = Stop(planned("stop", "postgres", 1.0), scene_of(settings_of(tmp_path), {"postgres": family.pids[0]}))
    assert fault.begin()
    family.are("T", "T")
    fault.end()
    family.are("S", "S")


def test_a_stutter_stops_and_runs_in_turn(family: Family, tmp_path: Path) -> None:
    fault = Stutter(planned("stutter", "redis", 5.0), scene_of(settings_of(tmp_path), {"redis": family.pids[0]}))
    assert fault.begin()
    family.are("T", "T")
    assert not fault.over(STOPPED + RUNS / 2)
    family.are("S", "S")
    assert not fault.over(STOPPED + RUNS + 0.1)
    family.are("T", "T")
    assert fault.over(5.0)
    fault.end()
    family.are("S", "S")


def test_a_process_that_was_replaced_meanwhile_is_not_signalled(family: Family) -> None:
    pid = family.pids[0]
    signalled([(pid, "another program")], signal.SIGKILL)
    signalled([(pid, command_of(pid))], signal.SIGSTOP)
    family.are("T", "S")


def test_a_kill_and_nothing_to_kill(family: Family, tmp_path: Path) -> None:
    scene = scene_of(settings_of(tmp_path), {"store-0": family.pids[0], "redis": 0})
    assert not Kill(planned("kill", "redis"), scene).begin()
    assert not Kill(planned("kill", "aggregate-0"), scene).begin()
    assert Kill(planned("kill", "store-0"), scene).begin()
    assert family.process.wait(10) == -signal.SIGKILL


def test_killed_twice_in_a_row_as_soon_as_there_is_another(family: Family, tmp_path: Path) -> None:
    pids = {"redis": family.pids[0]}
    fault = KillTwice(planned("kill_twice", "redis"), scene_of(settings_of(tmp_path), pids))
    assert fault.begin()
    assert family.process.wait(10) == -signal.SIGKILL
    assert not fault.over(1.0)
    pids["redis"] = 0
    assert not fault.over(1.0)
    pids["redis"] = family.pids[1]
    assert fault.over(1.1)
    wait_until(lambda: _status(family.pids[1])[0] in ("", "Z"), "the second kill")


def test_what_was_stopped_goes_on_when_the_run_itself_is_killed(family: Family) -> None:
    code = (
        "import sys, tempfile, time\n"
        "from pathlib import Path\n"
        "from pipeline.commands._chaos.plan import Planned\n"
        "from pipeline.commands._chaos.processes import Stop\n"
        "from tests.chaos.made import scene_of, settings_of\n"
        "scene = scene_of(settings_of(Path(tempfile.gettempdir()) / 'none'), {'redis': int(sys.argv[1])})\n"
        "assert Stop(Planned(at=0, fault='stop', target='redis', seconds=60), scene).begin()\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(family.pids[0])], cwd=ROOT) as run:
        family.are("T", "T")
        run.kill()
    family.are("S", "S")
