"""Is this installation whole: do our import names belong to us, and is the Python new enough.

`store`, `normalize`, `aggregate` … are also names of other distributions, and pip overwrites silently.
"""

import importlib.metadata
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

import pipeline
from pipeline.errors import SettingsError
from pipeline.servers.fitness import Check

DISTRIBUTION = "tapeline"
IMPORT_NAMES = ("pipeline", "ingest", "normalize", "aggregate", "store", "simulator")
OLDEST_PYTHON = (3, 11)


def check_python() -> Check:
    """The version of Python and the platform."""
    shown = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Check("python", "fail", shown, "use Python 3.11 or newer")
    if platform.system() not in ("Linux", "Darwin"):
        return Check("python", "warn", f"{shown}: not tested there", "run it on Linux or macOS")
    return Check("python", "ok", shown)


def check_import_names() -> list[Check]:
    """Each of our import names must be our own package, lying beside `pipeline`."""
    home = Path(pipeline.__file__).parent.parent
    owners = importlib.metadata.packages_distributions()
    return [_check_name(name, home, owners.get(name, [])) for name in IMPORT_NAMES]


def refuse_foreign_names() -> None:
    """Raises SettingsError when one of our import names is another's."""
    for check in check_import_names():
        if check.level == "fail":
            raise SettingsError(f"{check.text}: {check.advice}")


def _check_name(name: str, home: Path, owners: list[str]) -> Check:
    title = f"package {name}"
    foreign = sorted({owner for owner in owners if owner.lower() != DISTRIBUTION})
    advice = "make an environment for Tapeline alone: python -m venv .venv && .venv/bin/pip install tapeline"
    if foreign:
        return Check(title, "fail", f"{name} is also installed by {', '.join(foreign)}", advice)
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return Check(title, "fail", f"{name} cannot be imported", "install Tapeline again")
    if Path(spec.origin).parent.parent != home:
        return Check(title, "fail", f"{name} is imported from {Path(spec.origin).parent}, not from {home}", advice)
    return Check(title, "ok", str(home / name))
