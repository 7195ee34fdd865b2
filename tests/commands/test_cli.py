"""The command line itself: how commands are found, what errors become, what a pipe that closes does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.commands._options import DURATION
from tests.commands.conftest import Instance

COMMANDS = sorted(path.stem for path in (Path(__file__).parents[2] / "pipeline" / "commands").glob("[!_]*.py"))
OURS = ("config", "exchanges", "gaps", "health", "record", "replay", "status", "streams", "symbols", "tail")


def module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_every_file_is_a_command() -> None:
    listed = CliRunner().invoke(cli, ["--help"]).stdout
    assert set(OURS) <= set(COMMANDS)
    for name in COMMANDS:
        assert re.search(rf"^  {name.replace('_', '-')} ", listed, re.MULTILINE)


@pytest.mark.parametrize("name", OURS)
def test_help_has_examples(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert re.search(rf"Examples:\n +pipeline .*{name}", result.stdout)


def test_an_unknown_command_is_2_with_the_nearest() -> None:
    result = CliRunner().invoke(cli, ["stauts"])
    assert result.exit_code == 2
    assert "did you mean 'status'?" in result.stderr


@pytest.mark.parametrize("arguments", [["status", "--no-such"], ["tail"], ["status", "--watch", "soon"]])
def test_a_wrong_command_line_is_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, arguments).exit_code == 2


def test_missing_settings_are_2_with_what_to_type(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["-c", str(tmp_path / "none.json"), "status"])
    assert result.exit_code == 2
    assert "pipeline config init" in result.stderr
    assert result.stderr.count("\n") == 1


def test_only_the_called_command_is_imported() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from pipeline.cli import cli;"
        "CliRunner().invoke(cli, ['config', '--help']);"
        "print([m for m in sys.modules if m.startswith('pipeline.commands.')], 'redis' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "['pipeline.commands.config'] False"


def test_the_module_is_the_command() -> None:
    assert module("--version").stdout.startswith("tapeline ")
    assert module("no-such-command").returncode == 2


def test_a_server_that_is_away_is_3(away: Instance) -> None:
    for arguments in (["streams"], ["tail", "trade"], ["gaps"], ["record", "never.jsonl"]):
        result = away.run(*arguments)
        assert result.exit_code == 3
        assert result.stderr.startswith("pipeline: ")
        assert result.stderr.count("\n") == 1


def test_a_reader_that_has_enough_is_no_error(away: Instance) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "pipeline", "-c", str(away.path), "config", "show", "--schema"]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("45s", 45), ("10m", 600), ("1h30m", 5_400), ("7d", 604_800), ("0.5s", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10x", "m", "-5s", "1h 30m", "1h30"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="length of time"):
        DURATION.convert(text, None, None)
