"""Allowances across kills: what processes took one after another never exceeds what the exchange grants."""

import contextlib
import itertools
import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.budget import Budget
from ingest.clock import HostClock
from ingest.feed import Rate
from ingest.tally import MOST_BYTES, Tally
from pipeline.timeframes import DAY, HOUR, SECOND

COUNT, PERIOD = 3, SECOND
START = 1_790_000_000 * SECOND
KILLED: list[object] = []
"""A generator that is dropped would run to its end, which a killed process does not."""


class Machine:
    """A machine's clocks, and the processes that run on it one after another."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "taken" / "ingest-okx"
        self.up = HOUR
        self.wall = START
        self.told: list[str] = []
        self.boot()

    def pass_time(self, duration: int) -> None:
        self.up += duration
        self.wall += duration

    def boot(self) -> dict[str, Budget]:
        """A new process; the one before is gone without a word."""
        clock = HostClock(lambda: self.up, lambda: self.wall)
        self.budgets = {"connects": Budget(Rate(COUNT, PERIOD)), "weight": Budget(Rate(100, 60 * SECOND))}
        self.tally = Tally(self.path, clock, self.told.append)
        self.tally.restore(self.budgets)
        return self.budgets

    def used(self, name: str) -> int:
        return self.budgets[name].used(self.up)


@given(st.integers(0, 2**32), st.integers(20, 120))
def test_no_second_sees_more_connects_than_are_granted_wherever_the_process_is_killed(seed: int, steps: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        arrivals: list[int] = []
        flights: list[tuple[contextlib.AbstractContextManager[None], bool]] = []
        for _ in range(steps):
            machine.pass_time(chance.choice([0, SECOND // 20, SECOND // 3, SECOND]))
            connects = machine.budgets["connects"]
            action = chance.choice(["go", "go", "go", "arrive", "end", "kill"])
            if action == "go" and connects.next(machine.up) <= machine.up:
                flight = connects.flight(connects.reserve(machine.up), lambda: machine.up)
                flight.__enter__()
                flights.append((flight, False))
            elif action in ("arrive", "end") and flights:
                flight, arrived = flights.pop(0)
                if not arrived:
                    arrivals.append(machine.up)
                if action == "end":
                    flight.__exit__(None, None, None)
                else:
                    flights.append((flight, True))
            elif action == "kill":
                # What had not arrived does so in the last moment.
                arrivals += [machine.up for _, arrived in flights if not arrived]
                KILLED.extend(flights)
                flights.clear()
                machine.boot()
        for earlier, later in zip(sorted(arrivals), sorted(arrivals)[COUNT:], strict=False):
            assert later - earlier >= PERIOD


def test_what_is_noted_stands_in_the_file_before_it_goes_out(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    before = machine.path.read_bytes()
    connects = machine.budgets["connects"]
    with connects.flight(connects.reserve(machine.up), lambda: machine.up):
        assert b"begun" in machine.path.read_bytes()[len(before) :]
        assert machine.boot()["connects"].used(machine.up) == 1
    machine.budgets["weight"].goes(machine.up, 20)
    assert machine.boot()["weight"].used(machine.up) == 20


def test_what_was_taken_is_forgotten_with_its_period_only(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.budgets["weight"].goes(machine.up, 30)
    machine.pass_time(40 * SECOND)
    machine.boot()
    machine.budgets["weight"].goes(machine.up, 50)
    machine.pass_time(10 * SECOND)
    assert machine.boot()["weight"].used(machine.up) == 80
    machine.pass_time(20 * SECOND)
    assert machine.boot()["weight"].used(machine.up) == 50
    machine.pass_time(60 * SECOND)
    assert machine.boot()["weight"].used(machine.up) == 0
    assert machine.path.read_bytes() == b""


@pytest.mark.parametrize(("passed", "left"), [(0, HOUR), (HOUR // 2, HOUR // 2), (HOUR, 0), (-DAY, HOUR)], ids=str)
def test_a_ban_outlives_processes_and_the_machine(tmp_path: Path, passed: int, left: int) -> None:
    """Never longer than was said, even where the clock was set back."""
    machine = Machine(tmp_path)
    machine.budgets["weight"].hold(machine.up + HOUR)
    machine.up, machine.wall = SECOND, machine.wall + passed
    for _ in range(2):
        rows = {name: budget.row(machine.up) for name, budget in machine.boot().items()}
        assert rows["weight"]["held"] == left
        assert rows["connects"]["held"] == 0


def test_a_machine_that_was_started_anew_counts_what_it_took_before_from_its_start(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.budgets["weight"].goes(machine.up, 30)
    machine.up = 10 * SECOND
    assert machine.boot()["weight"].used(machine.up) == 30
    machine.pass_time(51 * SECOND)
    assert machine.used("weight") == 0


@pytest.mark.parametrize("torn", [b"{", b'{"of":"weight","what":"took","at":', b"\xff\xfe\n", b'{"of":1}\n'])
def test_a_torn_line_says_nothing_and_the_others_count(tmp_path: Path, torn: bytes) -> None:
    machine = Machine(tmp_path)
    machine.budgets["weight"].goes(machine.up, 7)
    machine.path.write_bytes(machine.path.read_bytes() + torn)
    assert machine.boot()["weight"].used(machine.up) == 7
    machine.budgets["weight"].goes(machine.up, 1)
    assert machine.boot()["weight"].used(machine.up) == 8


def test_the_file_stays_small_and_keeps_what_is_on_its_way(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    connects = machine.budgets["connects"]
    with connects.flight(connects.reserve(machine.up), lambda: machine.up):
        for _ in range(10_000):
            machine.pass_time(SECOND)
            machine.budgets["weight"].goes(machine.up)
        assert machine.path.stat().st_size < MOST_BYTES + 1_000
        assert machine.boot()["connects"].used(machine.up) == 1
    assert machine.used("weight") == 61, "of a minute and a little"


def test_where_nothing_can_be_written_it_is_said_once_and_collecting_goes_on(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    machine = Machine(tmp_path)
    for _ in range(3):
        machine.budgets["weight"].goes(machine.up)
    assert len(machine.told) == 1
    assert "cannot note" in machine.told[0]


def test_processes_that_end_leave_no_open_file(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    machine = Machine(tmp_path)
    before = descriptors()
    for _ in itertools.repeat(None, 20):
        machine.budgets["weight"].goes(machine.up)
        machine.tally.close()
        machine.boot()
    assert descriptors() == before
