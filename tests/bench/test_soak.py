"""The soak: in small for real, and its judgement of lag and memory."""

import json
import subprocess
import sys
from pathlib import Path

from bench.part import parts
from bench.soak import KEYS, Mark, fallen_behind, grown
from pipeline.streams import READERS

ROOT = Path(__file__).parent.parent.parent


def mark(
    at: float, behind: float = 5, memory: float = 50, entries: int = 0, name: str = "store", windows: int = 0
) -> Mark:
    return Mark(at, {"normalize": behind}, {name: memory}, dict.fromkeys(READERS, entries), windows)


def test_it_runs_in_small_and_tells_its_figures(tmp_path: Path) -> None:
    words = ["--quick", "--json", "--only", "soak", "--folder", str(tmp_path / "bench")]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words], capture_output=True, text=True, cwd=ROOT, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.keys() >= KEYS.keys()
    assert all(told[key] >= 0 for key in KEYS)
    assert told["soak.trades"] > 0


def test_it_runs_only_when_named() -> None:
    assert "soak" not in [part.NAME for part in parts()]
    assert [part.NAME for part in parts(["soak"])] == ["soak"]


def test_every_key_is_documented() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    for key in KEYS:
        spelt = f"soak.<m>m.{key.split('.')[2]}" if key.count(".") == 2 else key
        assert f"\n| `{spelt}` |" in page, spelt


def test_a_stage_may_be_a_little_behind_but_not_ever_more() -> None:
    first = mark(0, behind=5)
    assert fallen_behind(first, mark(240, behind=205, entries=24_000)) == []
    assert "normalize was 5" in fallen_behind(first, mark(240, behind=206, entries=24_000))[0]


def test_a_process_may_breathe_but_not_grow() -> None:
    middle = mark(180, memory=50)
    assert grown(middle, mark(300, memory=71)) == []
    assert "store had 50 MiB" in grown(middle, mark(300, memory=72))[0]


def test_postgres_fills_its_buffers() -> None:
    assert grown(mark(180, memory=50, name="postgres"), mark(300, memory=500, name="postgres")) == []


def test_aggregate_and_its_state_grow_with_the_windows_it_keeps() -> None:
    for name in ("aggregate", "redis"):
        middle = mark(180, memory=50, name=name)
        assert grown(middle, mark(300, memory=119, name=name, windows=50_000)) == []
        assert grown(middle, mark(300, memory=121, name=name, windows=50_000))
    assert grown(mark(180, memory=50), mark(300, memory=119, windows=50_000))
