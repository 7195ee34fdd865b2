"""The rows of one batch on their way into the tables, inside the batch's transaction."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import psycopg

from pipeline.records import Record
from store import statements as sql
from store.batch import Batch, Found, InstrumentKey, latest_candles, latest_gaps, letter, rounds
from store.copytext import timestamp
from store.faults import Fault, TooManyFaults, fault_of_row, load_sound, most_faults
from store.rows import (
    CANDLES,
    COVERAGE,
    GAPS,
    INSTRUMENTS,
    TRADES,
    Row,
    Table,
    candle_line,
    coverage_line,
    gap_line,
    instrument_line,
    render,
    trade_line,
)

T = TypeVar("T", bound=Record)


class Loading:
    """One batch: what was written by table, what was there already, what has to be buried."""

    def __init__(
        self, connection: psycopg.AsyncConnection[Any], batch: Batch, ids: Mapping[InstrumentKey, int]
    ) -> None:
        self._connection = connection
        self._batch = batch
        self._ids = ids
        self._most = most_faults(batch.entries)
        self.letters = list(batch.letters)
        self.written: dict[str, int] = {}
        self.known = 0

    async def run(self) -> None:
        """Loads every table. Raises psycopg.Error for the server's faults, TooManyFaults for too many of rows."""
        batch = self._batch
        for turn in rounds(batch.instruments):
            await self._load(INSTRUMENTS, turn, instrument_line, self._instruments)
        await self._load(TRADES, batch.trades, trade_line, self._trades)
        await self._load(CANDLES, latest_candles(batch.candles), candle_line, self._merge(CANDLES, sql.MERGE_CANDLES))
        await self._load(GAPS, latest_gaps(batch.gaps), gap_line, self._merge(GAPS, sql.MERGE_GAPS))
        coverage = coverage_line(batch.partition)
        await self._load(COVERAGE, batch.coverage, coverage, self._merge(COVERAGE, sql.merge_new(COVERAGE)))
        await self._clock()
        if len(self.letters) > self._most:
            first = self.letters[0].reason
            raise TooManyFaults(f"{len(self.letters)} of {batch.entries} entries are unusable, the first: {first}")

    async def _clock(self) -> None:
        if self._batch.clock is None:
            return
        clock, entry = self._batch.clock
        try:
            async with self._connection.transaction():
                times = (timestamp(clock.time or 0), timestamp(clock.received), clock.uncertainty)
                connections = msgspec.json.encode(clock.connections).decode()
                values = (self._batch.partition, clock.exchange, *times, connections)
                await self._connection.execute(sql.SET_CLOCK, values)
        except (psycopg.Error, ValueError) as error:
            fault = fault_of_row(error) if isinstance(error, psycopg.Error) else Fault("time out of range", str(error))
            if fault is None:
                raise
            self.letters.append(letter(clock.exchange, clock.received, entry, fault.reason, fault.detail))

    async def _load(
        self,
        table: Table,
        found: Sequence[Found[T]],
        line: Callable[[Found[T], int], str],
        load: Callable[[Sequence[Row]], Awaitable[int]],
    ) -> None:
        rows, unusable = render(found, self._ids, line)
        for item, error in unusable:
            self._bury(item, Fault(error.reason, error.detail))
        written, refused = await load_sound(load, rows, self._most - len(self.letters))
        for row, fault in refused:
            self._bury(row.found, fault)
        self.written[table.name] = self.written.get(table.name, 0) + written
        self.known += len(rows) - len(refused) - written

    def _bury(self, found: Found[Record], fault: Fault) -> None:
        record = found.record
        self.letters.append(letter(record.exchange, record.received, found.entry, fault.reason, fault.detail))

    async def _trades(self, rows: Sequence[Row]) -> int:
        """Straight into the table; only where a key is there already, by way of the temporary table."""
        try:
            async with self._connection.transaction():
                return await self._copy(sql.copy(TRADES), rows)
        except psycopg.errors.UniqueViolation:
            return await self._merge(TRADES, sql.merge_new(TRADES))(rows)

    def _merge(self, table: Table, statement: str) -> Callable[[Sequence[Row]], Awaitable[int]]:
        async def load(rows: Sequence[Row]) -> int:
            async with self._connection.transaction():
                await self._fill(table, rows)
                return (await self._connection.execute(statement.encode())).rowcount

        return load

    async def _instruments(self, rows: Sequence[Row]) -> int:
        """Metadata that changed begin a new row of history, which the table of instruments then shows."""
        async with self._connection.transaction():
            await self._fill(INSTRUMENTS, rows)
            await self._connection.execute(sql.CLOSE_HISTORY.encode())
            opened = await self._connection.execute(sql.OPEN_HISTORY.encode())
            await self._connection.execute(sql.UPDATE_INSTRUMENTS.encode())
            return opened.rowcount

    async def _fill(self, table: Table, rows: Sequence[Row]) -> None:
        await self._connection.execute(f"TRUNCATE {sql.incoming(table)}".encode())
        await self._copy(sql.copy(table, sql.incoming(table)), rows)

    async def _copy(self, statement: str, rows: Sequence[Row]) -> int:
        async with self._connection.cursor() as cursor:
            async with cursor.copy(statement.encode()) as copy:
                await copy.write("\n".join([row.line for row in rows]) + "\n")
            return cursor.rowcount
