"""The whole, as it is typed: a minute of harm to the whole product and the proof; and an end by Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.chaos.test_outcome import KEYS
from tests.servers import wait_until

ROOT = Path(__file__).parents[2]
FOLDER = "a chaos"
SMALL = ("--rate", "150", "--symbols", "6")


def started(tmp_path: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "pipeline", "chaos", "--json", "--folder", str(tmp_path / FOLDER), *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ours(folder: Path) -> list[str]:
    """Processes that live on this folder: it stands in their command line or in their environment."""
    listing = subprocess.run(["ps", "axeww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if str(folder) in line]


def test_a_minute_of_chaos_loses_nothing(tmp_path: Path) -> None:
    run = started(tmp_path, "--minutes", "1", "--every", "3s", "--seed", "3", "--tamper", *SMALL)
    out, said = run.communicate(timeout=560)
    assert run.returncode == 0, said[-4000:]
    (line,) = out.splitlines()
    told = json.loads(line)
    assert list(told) == KEYS
    assert (told["lost"], told["duplicated"], told["candles_wrong"]) == (0, 0, 0)
    assert told["trades_printed"] == told["trades_stored"] > 1_000
    assert (told["gaps_open"], told["unrecoverable"]) == (0, 0)
    assert told["gaps_opened"] > 0
    assert told["candles_checked"] > 300
    assert told["faults"] == sum(told["by_fault"].values()) >= 15
    assert told["seed"] == 3
    assert told["audit"] == 0
    assert told["memory_mib"] > 100
    assert "by hand: deleted" in said
    assert "pipeline audit: exit code 1" in said
    assert "not in the ledger" in said
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == [".gitignore", "lock"]
    assert ours(tmp_path / FOLDER) == []


def test_servers_away_for_a_while_lose_nothing(tmp_path: Path) -> None:
    run = started(tmp_path, "--outages", "--minutes", "0.7", *SMALL)
    out, said = run.communicate(timeout=560)
    assert run.returncode == 0, said[-4000:]
    told = json.loads(out)
    assert told["by_fault"] == {"away": 3}
    assert (told["lost"], told["duplicated"], told["candles_wrong"], told["gaps_open"]) == (0, 0, 0, 0)
    assert told["trades_printed"] == told["trades_stored"] > 1_000
    assert told["audit"] == 0
    assert told["disk_mib"] > 0.1
    assert "while Postgres was away" in said


def test_ctrl_c_in_the_midst_of_it_leaves_nothing_running(tmp_path: Path) -> None:
    plan = tmp_path / "plan.jsonl"
    lines = [
        {"at": 0.1, "fault": "stop", "target": "postgres", "seconds": 50.0},
        {"at": 0.2, "fault": "stop", "target": "normalize-okx", "seconds": 50.0},
        {"at": 0.3, "fault": "line_stall", "target": "binance", "seconds": 50.0},
        {"at": 0.4, "fault": "stall", "target": "redis", "seconds": 50.0},
    ]
    plan.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = started(tmp_path, "--minutes", "1", "--plan", str(plan), "--gaps-stay", *SMALL)
    dealt = tmp_path / FOLDER / "dealt.jsonl"
    with run:
        try:
            wait_until(
                lambda: (
                    run.poll() is not None or (dealt.is_file() and len(dealt.read_text().splitlines()) == len(lines))
                ),
                "all four faults to be in force",
                120.0,
            )
            assert len(ours(tmp_path / FOLDER)) > 10
        finally:
            run.send_signal(signal.SIGINT)
            out, said = run.communicate(timeout=150)
    assert run.returncode == 130, said[-3000:]
    assert out == ""
    wait_until(lambda: ours(tmp_path / FOLDER) == [], "everything to be gone")
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == [".gitignore", "lock"]


def test_the_plan_is_printed_and_nothing_is_started(tmp_path: Path) -> None:
    run = started(tmp_path, "--minutes", "1", "--dry-run", "--seed", "5")
    out, said = run.communicate(timeout=60)
    assert run.returncode == 0, said
    assert all(set(json.loads(line)) <= {"at", "fault", "target", "seconds", "arguments"} for line in out.splitlines())
    assert not (tmp_path / FOLDER).exists()


def test_a_plan_that_cannot_be_dealt_is_refused_before_anything_starts(tmp_path: Path) -> None:
    plan = tmp_path / "plan.jsonl"
    plan.write_text('{"at": 1, "fault": "kill", "target": "web"}\n')
    run = started(tmp_path, "--plan", str(plan))
    _, said = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "kill of 'web'" in said
    assert not (tmp_path / FOLDER).exists()
