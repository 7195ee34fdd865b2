"""The whole, as a stranger types it: twenty seconds of a market, six kills, two cuts, and the proof."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.demo.outsider import Outsider

ROOT = Path(__file__).parents[2]
KEYS = [
    "trades_printed",
    "trades_stored",
    "lost",
    "missed_while_disconnected",
    "duplicated",
    "candles_checked",
    "candles_wrong",
    "books_checked",
    "books_wrong",
    "kills",
    "disconnects",
    "frame_to_row_p50_ms",
    "frame_to_row_p99_ms",
]


EVERY_PROCESS = (
    "redis,redis,postgres,supervisord,watchdog,store-0,aggregate-0,"
    "normalize-okx,ingest-okx,normalize-binance,ingest-binance"
)


def demo(tmp_path: Path, *arguments: str) -> tuple[dict[str, float], str]:
    """(the line of JSON, stderr) of a demo that ended well."""
    command = [sys.executable, "-m", "pipeline", "demo", "--json", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert list(told) == KEYS
    assert (told["lost"], told["duplicated"], told["candles_wrong"], told["books_wrong"]) == (0, 0, 0, 0)
    assert told["books_checked"] >= 16
    assert told["missed_while_disconnected"] == 0
    assert told["trades_printed"] == told["trades_stored"] > 500
    assert told["candles_checked"] > 100
    assert told["frame_to_row_p50_ms"] <= told["frame_to_row_p99_ms"]
    return told, done.stderr


def test_the_demo_proves_that_nothing_was_lost(tmp_path: Path) -> None:
    folder = tmp_path / "a demo"
    told, said = demo(tmp_path, "--for", "20s", "--folder", str(folder))
    assert told["kills"] >= 3
    assert told["disconnects"] >= 2
    assert "kill -9 store-0" in said
    assert re.search(r"gap \w+ \S+ (\d+…\d+): \d+ trades missed", said)
    assert re.search(r"gap \w+ \S+ \d+…\d+: filled, \d+ fetched again", said)
    assert re.search(r"candle \w+ \S+ 1s \S+: revision \d+ partial, \d+ trades -> revision \d+ repaired", said)
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "lock"]


def test_every_process_is_killed_in_turn_under_load_and_is_back_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    with Outsider(folder, ("sim:trade:{okx}", "sim:trade:{binance}")) as outsider:
        told, said = demo(tmp_path, "--for", "60s", "--rate", "400", "--folder", str(folder), "--blows", EVERY_PROCESS)
    # Nor does who reads the streams from outside miss a trade, or see one twice.
    assert outsider.count() == told["trades_stored"]
    assert len(outsider.ends) > 5
    assert set(outsider.ends) == {-signal.SIGKILL}
    assert told["kills"] == len(EVERY_PROCESS.split(","))
    for name in EVERY_PROCESS.split(","):
        assert f"{name} works again" in said
