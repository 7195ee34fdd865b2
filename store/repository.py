"""A connection that reads for the repositories: symbols looked up, rows fetched or streamed, errors made ours."""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, LiteralString, NamedTuple, Self

import psycopg
from psycopg.rows import TupleRow

from pipeline.errors import ServerAway, SettingsError
from pipeline.records import Market

Time = datetime | int
CONNECT_TIMEOUT = 5


class Header(NamedTuple):
    number: int
    exchange: str
    market: Market
    symbol: str
    instrument: str

    def fields(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if name != "number"}


class Repository:
    """A connection (its own, by conninfo, or a given one, which it leaves open). Not for use by two threads."""

    def __init__(self, source: str | psycopg.Connection[TupleRow]) -> None:
        self._own = isinstance(source, str)
        with _clear_errors():
            if isinstance(source, str):
                source = psycopg.connect(
                    source, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name="repository"
                )
        self._connection = source

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection if it is the repository's own."""
        if self._own:
            self._connection.close()

    def header(self, exchange: str, symbol: str) -> Header:
        found = self.all(
            "SELECT id, exchange, market, symbol, instrument FROM instruments WHERE id = instrument_id(%s, %s)",
            (exchange, symbol),
        )
        if not found:
            raise SettingsError(f"nothing is stored of {symbol!r} on {exchange!r}")
        return Header(*found[0])

    def all(self, statement: LiteralString, values: Sequence[object]) -> list[TupleRow]:
        with _clear_errors():
            return self._connection.execute(statement, values).fetchall()

    def each(self, statement: LiteralString, values: Sequence[object], chunk: int) -> Generator[TupleRow]:
        """Rows by a cursor of the server's, `chunk` at a time: memory stays small however long the range is."""
        with _clear_errors(), self._connection.transaction(), self._connection.cursor(name="tapeline") as cursor:
            cursor.itersize = chunk
            cursor.execute(statement, values)
            yield from cursor


def moment(time: Time) -> datetime:
    """An aware datetime; nanoseconds are floored to whole microseconds."""
    if isinstance(time, int):
        return datetime.fromtimestamp(time // 1_000_000_000, UTC).replace(microsecond=time % 1_000_000_000 // 1000)
    if time.tzinfo is None:
        raise SettingsError(f"{time.isoformat()} names no time zone")
    return time


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise ServerAway(f"Postgres: {_first_line(error)}") from error
    except psycopg.Error as error:
        raise SettingsError(f"the database is not one of ours, or is not ready: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
