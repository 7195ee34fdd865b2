"""What repositories of one kind have in common: records of a range of time, at once or one by one."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import ClassVar, Generic, LiteralString, TypeVar

from psycopg.rows import TupleRow

from pipeline.errors import SettingsError
from pipeline.records import Record
from pipeline.timeframes import WIDTHS
from store.repository import Header, Repository, Time, moment

CHUNK = 5_000

R = TypeVar("R", bound=Record)


class RangeRepository(Repository, Generic[R]):
    """Records of a kind whose range is asked for by exchange, symbol, start and end."""

    columns: ClassVar[LiteralString]
    """SELECT and the columns that `record` takes."""
    function: ClassVar[LiteralString]
    """The SQL function of the range."""
    kind: type[R]
    names: ClassVar[tuple[str, ...]]
    """The record's fields, in the order of the columns."""

    def between(self, exchange: str, symbol: str, start: Time, end: Time) -> list[R]:
        """The records of [start, end), oldest first."""
        header = self.header(exchange, symbol)
        rows = self.all(f"{self.columns} FROM {self.function}(%s, %s, %s, %s)", span(header, start, end))
        return [self.record(header, row) for row in rows]

    def stream(self, exchange: str, symbol: str, start: Time, end: Time, *, chunk: int = CHUNK) -> Iterator[R]:
        """As `between`, one by one. The connection is busy until the iterator is used up or closed."""
        header = self.header(exchange, symbol)
        statement: LiteralString = f"{self.columns} FROM {self.function}(%s, %s, %s, %s)"
        with contextlib.closing(self.each(statement, span(header, start, end), chunk)) as rows:
            for row in rows:
                yield self.record(header, row)

    def record(self, header: Header, row: TupleRow) -> R:
        return filled(self.kind, header, self.names, row)


def filled(kind: type[R], header: Header, names: Sequence[str], row: TupleRow) -> R:
    """The record of one row: `names` are its fields, in the order of the columns."""
    return kind(**header.fields(), **dict(zip(names, row, strict=True)))


def nanoseconds(column: LiteralString) -> LiteralString:
    """SQL: a timestamptz as ns since 1970 UTC, exactly."""
    return f"(extract(epoch FROM {column}) * 1000000)::bigint * 1000"


def span(header: Header, start: Time, end: Time) -> tuple[str, str, datetime, datetime]:
    return header.exchange, header.instrument, moment(start), moment(end)


def known_timeframe(timeframe: str) -> str:
    """The time frame. Raises SettingsError for one that there is not."""
    if timeframe not in WIDTHS:
        raise SettingsError(f"there is no time frame {timeframe!r}; known are {', '.join(WIDTHS)}")
    return timeframe
