"""A ban that the process before us told of."""

from pathlib import Path
from typing import Any

import pytest

from ingest.held import still_held
from pipeline.reports import Report, write
from pipeline.timeframes import HOUR, SECOND

NAME, BEAT = "ingest-binance", 1_790_000_000 * SECOND


def report(folder: Path, details: dict[str, Any]) -> Path:
    write(folder, Report(name=NAME, pid=1, started=BEAT, beat=BEAT, loops=1, details=details))
    return folder / NAME


@pytest.mark.parametrize(
    ("passed", "left"),
    [(0, {"weight": HOUR}), (HOUR // 2, {"weight": HOUR // 2}), (HOUR, {}), (-HOUR, {"weight": HOUR})],
)
def test_what_is_left_of_a_ban(tmp_path: Path, passed: int, left: dict[str, int]) -> None:
    """Never more than was said, even where the clock was set back."""
    rows = {"weight": {"used": 20, "limit": 6000, "period": 1, "held": HOUR}, "connects": {"held": 0}}
    assert still_held(report(tmp_path, {"budgets": rows}), BEAT + passed) == left


@pytest.mark.parametrize(
    "details", [{}, {"budgets": None}, {"budgets": {"weight": 5}}, {"budgets": {"x": {"held": "1"}}}]
)
def test_a_report_that_tells_nothing_holds_nothing(tmp_path: Path, details: dict[str, Any]) -> None:
    assert still_held(report(tmp_path, details), BEAT) == {}


def test_no_report_or_a_broken_one_holds_nothing(tmp_path: Path) -> None:
    assert still_held(tmp_path / NAME, BEAT) == {}
    (tmp_path / NAME).write_text("{")
    assert still_held(tmp_path / NAME, BEAT) == {}
    assert still_held(tmp_path, BEAT) == {}
