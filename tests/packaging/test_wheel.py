"""The wheel holds everything that runs, and nothing else."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"pipeline", "ingest", "normalize", "aggregate", "store", "simulator"}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Paths inside a wheel built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("tapeline-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_only_our_packages_are_in_it(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_every_source_file_and_migration_is_in_it(names: set[str]) -> None:
    sources = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    migrations = set((ROOT / "store" / "migrations").glob("*.sql"))
    assert migrations
    assert {str(path.relative_to(ROOT)) for path in sources | migrations} <= names


def test_supervisord_conf_and_the_marks_of_typed_packages_are_in_it(names: set[str]) -> None:
    assert {"pipeline/supervisord.conf", *(f"{package}/py.typed" for package in PACKAGES)} <= names


def test_constraints_hold_names_and_versions_only() -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = [line for line in lines if line]
    assert len(pinned) > 40
    assert all(line.count("==") >= 1 and "/" not in line and "@" not in line and "--" not in line for line in pinned)


def test_every_direct_need_is_pinned() -> None:

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    pinned = set(re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / "constraints.txt").read_text().lower(), re.MULTILINE))
    assert {re.split(r"[\[<>=;!~ ]", need)[0].lower() for need in wanted} <= pinned
