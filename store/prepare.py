"""Makes a database ready for `store`: creates it where it is missing and permitted, then migrates it.

The watchdog calls this before it starts `store`, which itself never changes the schema.
"""

import logging

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipeline.errors import ServerAway, SettingsError
from store.migrate import migrate

CONNECT_TIMEOUT = 5
APPLICATION = "prepare"
_REFUSED = ("28", "3D", "42501")
"""SQLSTATEs (or their classes) of logins and rights that only the operator can mend."""
_SIGNS = ("authentication failed", "pg_hba.conf", "no password supplied", 'role "', "invalid connection option")
"""The same in words: libpq gives no SQLSTATE where a connection is refused."""

log = logging.getLogger(__name__)


def prepare(database_url: str) -> int:
    """Returns how many migrations were applied. Blocks; safe to call again and from several processes.

    Raises SettingsError (no right to create or to log in, schema newer or changed, server too old) and
    ServerAway (cannot be reached, or not just now)."""
    try:
        with _connect(database_url) as connection:
            return len(migrate(connection))
    except psycopg.Error as error:
        code, words = error.sqlstate or "", str(error)
        refused = code.startswith(_REFUSED) or any(sign in words for sign in _SIGNS)
        kind = SettingsError if refused else ServerAway
        raise kind(f"the database cannot be made ready: {_first_line(error)}") from error


def _connect(database_url: str) -> psycopg.Connection[tuple[object, ...]]:
    try:
        return _open(database_url)
    except psycopg.OperationalError as error:
        name = str(conninfo_to_dict(database_url).get("dbname") or "")
        if not name or f'database "{name}" does not exist' not in str(error):
            raise
    _create(database_url, name)
    return _open(database_url)


def _create(database_url: str, name: str) -> None:
    with _open(make_conninfo(database_url, dbname="postgres")) as connection:
        try:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            log.info("created database %s", name)
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            log.info("database %s was created by another process", name)


def _open(database_url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(database_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name=APPLICATION)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
