"""The whole, as a stranger types it: twenty seconds of a market, six kills, two cuts, and the proof."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEYS = [
    "trades_printed",
    "trades_stored",
    "lost",
    "missed_while_disconnected",
    "duplicated",
    "candles_checked",
    "candles_wrong",
    "kills",
    "disconnects",
    "frame_to_row_p50_ms",
    "frame_to_row_p99_ms",
]


def test_the_demo_proves_that_nothing_was_lost(tmp_path: Path) -> None:
    folder = tmp_path / "a demo"
    command = [sys.executable, "-m", "pipeline", "demo", "--for", "20s", "--json", "--folder", str(folder)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert list(told) == KEYS
    assert (told["lost"], told["duplicated"], told["candles_wrong"]) == (0, 0, 0)
    assert told["trades_printed"] == told["trades_stored"] + told["missed_while_disconnected"] > 500
    assert told["candles_checked"] > 100
    assert told["kills"] >= 3
    assert told["disconnects"] >= 2
    assert told["frame_to_row_p50_ms"] <= told["frame_to_row_p99_ms"]
    assert "kill -9 store-0" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "lock"]
