"""The audit's connection: reads only, row by row, with one view of the database for each day of an instrument."""

import contextlib
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from pipeline.errors import ServerAway, TapelineError
from pipeline.probes.postgres import connect, short
from pipeline.settings import Settings

STATEMENT_MS = 30 * 60 * 1000
"""A day of a busy instrument takes seconds; a month at once may take minutes."""
CHUNK = 1_000

Row = dict[str, Any]

_SESSION: LiteralString = "SET TIME ZONE 'UTC'; SET cursor_tuple_fraction = 1; SET jit = off"
"""Every row of a cursor is read, and no answer is worth compiling for."""

_HOLD: LiteralString = """
    LOCK TABLE ONLY trades, ONLY candles_seconds, ONLY candles_minutes, ONLY klines_seconds, ONLY klines_minutes
    IN ACCESS SHARE MODE"""


class Database:
    """One connection. Every method raises psycopg.Error."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is asked within is told of one moment, although store goes on writing."""
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            # What retention drops vanishes from older snapshots too: it has to wait.
            self._connection.execute(_HOLD)
            yield

    def one(self, statement: sql.Composed) -> Row | None:
        """The first row."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement).fetchone()

    def all(self, statement: sql.Composed) -> list[Row]:
        """Every row of an answer that is known to be short."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement).fetchall()

    def each(self, statement: sql.Composed) -> Iterator[Row]:
        """Row by row, by a cursor of the server; only within `snapshot`."""
        with self._connection.cursor("audit", row_factory=dict_row) as cursor:
            cursor.itersize = CHUNK
            yield from cursor.execute(statement)

    def text(self, statement: sql.Composed) -> str:
        """The SQL, its values quoted."""
        return statement.as_string(self._connection)


@contextlib.contextmanager
def database(settings: Settings) -> Iterator[Database]:
    """The database of the settings. What goes wrong within comes out as ServerAway, or as TapelineError where the
    schema is not there yet."""
    try:
        with connect(settings, timeout_ms=STATEMENT_MS) as connection:
            connection.execute(_SESSION)
            yield Database(connection)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as error:
        raise TapelineError(
            f"the database is not what this version needs: store has not run on it ({short(error)})"
        ) from error
    except psycopg.errors.QueryCanceled as error:
        raise ServerAway(
            f"Postgres took over {STATEMENT_MS // 60_000} minutes for one answer: ask for fewer days"
        ) from error
    except psycopg.Error as error:
        raise ServerAway(f"Postgres does not answer: {short(error)}") from error
