"""The schema's numbered steps: which there are, which a database has, and how the rest are applied.

Applied steps are never changed: the table `migrations` keeps their checksums.
"""

import hashlib
import logging
from importlib.resources import files
from typing import Any, NamedTuple

import psycopg

from pipeline.errors import SettingsError

OLDEST_SERVER = 140_000
LOCK = 7_460_031_945_210_771_201
"""Key of the advisory lock that lets one process at a time migrate a database."""

_TABLE = """
CREATE TABLE IF NOT EXISTS migrations (
    number   int PRIMARY KEY,
    name     text NOT NULL,
    checksum text NOT NULL,
    applied  timestamptz NOT NULL DEFAULT now()
)
"""

log = logging.getLogger(__name__)


class Migration(NamedTuple):
    """One step: `0002_trades.sql` has number 2 and name `trades`."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """The steps this program brings, in order."""
    found = []
    for file in (files("store") / "migrations").iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return tuple(sorted(found))


def pending(applied: dict[int, str], known: tuple[Migration, ...]) -> tuple[Migration, ...]:
    """The steps a database lacks that has `applied` (number to checksum).

    Raises SettingsError where the database is newer than this program or a step was changed since.
    """
    if newer := sorted(set(applied) - {step.number for step in known}):
        raise SettingsError(
            f"the database has migration {newer[-1]}, this program knows {known[-1].number} of them: "
            "it was written by a newer version; upgrade this one"
        )
    for step in known:
        if applied.get(step.number, step.checksum) != step.checksum:
            raise SettingsError(
                f"migration {step.number} ({step.name}) was applied with other contents than this program has: "
                "the schema is not what this program expects; restore the database or the program"
            )
    return tuple(step for step in known if step.number not in applied)


def migrate(connection: psycopg.Connection[Any]) -> tuple[Migration, ...]:
    """Applies what is missing and returns it. `connection` is in autocommit. Waits for another process
    that migrates. Raises SettingsError (server too old, schema newer or changed) and psycopg.Error."""
    check_server(connection.info.server_version)
    connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    try:
        connection.execute(_TABLE)
        rows = connection.execute("SELECT number, checksum FROM migrations").fetchall()
        steps = pending(dict(rows), migrations())
        for step in steps:
            _apply(connection, step)
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
    return steps


def check_server(version: int) -> None:
    """Raises SettingsError for a server older than PostgreSQL 14. `version` as libpq spells it."""
    if version < OLDEST_SERVER:
        raise SettingsError(f"PostgreSQL {version // 10_000} is too old: 14 or newer is needed")


def _apply(connection: psycopg.Connection[Any], step: Migration) -> None:
    with connection.transaction():
        connection.execute(step.sql.encode())
        connection.execute(
            "INSERT INTO migrations (number, name, checksum) VALUES (%s, %s, %s)",
            (step.number, step.name, step.checksum),
        )
    log.info("applied migration %d (%s)", step.number, step.name)
