"""The bench for real, in small: every part runs, counts what it did, and tells the figures that docs/ explains."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.goals import GOALS, Goal
from bench.part import PARTS, WrongResult, expect, medians, parts, ratio
from bench.product import NAMES as PROCESSES
from pipeline.errors import SettingsError

ROOT = Path(__file__).parent.parent.parent
FACTS = {"seed", "rounds", "quick", "python", "cores", "machine"}
RESTING = {f"idle.0.{name}_cores" for name in (*PROCESSES, "venue")}
"""Of these a process may use less, while nothing happens, than the 10 ms in which the system counts."""
NAMES = [part.NAME for part in parts()]


@pytest.mark.parametrize("name", NAMES)
def test_a_part_runs_and_tells_sane_figures(name: str, tmp_path: Path) -> None:
    words = ["--quick", "--json", "--rounds", "1", "--only", name, "--folder", str(tmp_path / "bench")]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words], capture_output=True, text=True, cwd=ROOT, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["quick"] is True
    figures = {key: figure for key, figure in told.items() if key not in FACTS}
    keys = {key for part in parts([name]) for key in part.KEYS}
    assert set(figures) == keys
    for key, figure in figures.items():
        if figure is None:
            assert "cryptofeed" in key, key
        elif key in RESTING:
            assert figure >= 0, key
        else:
            assert figure > 0, key


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.NAME)
def test_every_key_is_documented(part: object) -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    for key in getattr(part, "KEYS"):  # noqa: B009
        assert f"\n| `{key}` |" in page, key


def test_no_documented_key_is_unknown() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    table = page.partition("## Keys")[2].partition("\n## ")[0]
    documented = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert documented == {key for part in parts() for key in part.KEYS}


def test_parts_are_modules_of_their_own_name() -> None:
    assert tuple(NAMES) == PARTS
    assert [part.NAME for part in parts(["mem"])] == ["memory"]


def test_a_name_that_fits_no_part_is_refused() -> None:
    with pytest.raises(SettingsError, match="memroy"):
        parts(["memroy"])


def test_medians_are_of_the_rounds_and_missing_where_no_round_has_one() -> None:
    rounds = [{"a": 1.0, "b": None}, {"a": 9.0, "b": None}, {"a": 2.0, "b": None}]
    assert medians(rounds) == {"a": 2.0, "b": None}


def test_a_ratio_needs_both_sides() -> None:
    assert ratio(3, 2) == 1.5
    assert ratio(3, None) is None
    assert ratio(None, 2) is None


def test_a_result_that_is_short_or_doubled_is_refused() -> None:
    expect("rows", 5, 5)
    with pytest.raises(WrongResult, match="rows: 4 of 5 \\(1 lost\\)"):
        expect("rows", 4, 5)
    with pytest.raises(WrongResult, match="rows: 6 of 5 \\(1 too many\\)"):
        expect("rows", 6, 5)


def test_goals_know_which_way_is_good() -> None:
    assert Goal("least", 2).met(2)
    assert not Goal("least", 2).met(1.9)
    assert Goal("most", 2).met(2)
    assert not Goal("most", 2).met(2.1)
    assert set(GOALS) >= {"chain.trades_per_s", "store.ratio_to_copy"}
