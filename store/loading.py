"""The rows of one batch on their way into the tables, inside the batch's transaction."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

import msgspec
import psycopg

from pipeline.records import Record
from store import rows as lines
from store import statements as sql
from store.batch import Batch, Validity, changed_books, latest, letter, rounds
from store.copytext import timestamp
from store.faults import Fault, TooManyFaults, fault_of_row, load_sound, most_faults
from store.found import Found, InstrumentKey
from store.rows import Row, joined, render
from store.tables import (
    CANDLES,
    COVERAGE,
    GAPS,
    INSTRUMENTS,
    KLINES,
    ORDERBOOKS,
    QUOTES,
    REBUILDS,
    TICKERS,
    TRADES,
    Table,
)

T = TypeVar("T", bound=Record)


class Loading:
    """One batch: what was written by table, what was there already, what has to be buried.

    As a rule no row is refused, so the batch is tried without savepoints; any refusal ends that. With `careful` each
    table has its own, and a refused row is found and buried.

    `validity` is what is known of books: what the newest rows said before, and what they say after `run`.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        batch: Batch,
        ids: Mapping[InstrumentKey, int],
        validity: Mapping[InstrumentKey, Validity],
        *,
        careful: bool,
    ) -> None:
        self._connection = connection
        self._careful = careful
        self._batch = batch
        self._ids = ids
        self._most = most_faults(batch.entries)
        self.validity = dict(validity)
        self.letters = list(batch.letters)
        self.written: dict[str, int] = {}
        self.known = 0
        self.skipped = batch.skipped

    async def run(self) -> None:
        """Loads every table. Raises psycopg.Error for the server's faults, and for those of rows unless careful;
        TooManyFaults for too many of rows."""
        batch = self._batch
        for turn in rounds(batch.instruments):
            await self._load(INSTRUMENTS, turn, lines.instrument_line, self._instruments)
        await self._trades()
        await self._load(QUOTES, batch.quotes, lines.quote_line, self._append(QUOTES, sql.merge_new(QUOTES)))
        await self._load(TICKERS, batch.tickers, lines.ticker_line, self._append(TICKERS, sql.merge_new(TICKERS)))
        await self._books()
        await self._bars()
        gaps = latest(batch.gaps, lambda gap: (gap.epoch, gap.from_sequence))
        await self._load(GAPS, gaps, lines.gap_line, self._merge(GAPS, sql.MERGE_GAPS))
        coverage = lines.coverage_line(batch.partition)
        await self._load(COVERAGE, batch.coverage, coverage, self._merge(COVERAGE, sql.merge_new(COVERAGE)))
        rebuild = lines.rebuild_line(batch.partition)
        await self._load(REBUILDS, batch.rebuilds, rebuild, self._merge(REBUILDS, sql.merge_new(REBUILDS)))
        await self._clock()
        if len(self.letters) > self._most:
            first = self.letters[0].reason
            raise TooManyFaults(f"{len(self.letters)} of {batch.entries} entries are unusable, the first: {first}")

    async def _trades(self) -> None:
        trades = self._batch.trades
        text = None if self._careful else trades.text(self._ids)
        if text is None:
            await self._load(TRADES, trades, lines.trade_line, self._append(TRADES, sql.merge_new(TRADES)))
            return
        written = await self._copy(sql.copy(TRADES), text) if text else 0
        self.written[TRADES.name] = written
        self.known += len(trades) - written

    async def _bars(self) -> None:
        candles = latest(self._batch.candles, lambda candle: (candle.timeframe, candle.open_time))
        # A revision takes the place of a row: to try without would only make the server log it as an error.
        revised = any(item.record.revision for item in candles)
        put = self._merge if revised else self._append
        await self._load(CANDLES, candles, lines.candle_line, put(CANDLES, sql.MERGE_CANDLES))
        klines = latest(self._batch.klines, lambda kline: (kline.timeframe, kline.open_time))
        await self._load(KLINES, klines, lines.kline_line, self._append(KLINES, sql.MERGE_KLINES))

    async def _books(self) -> None:
        """Of the books between two points of the grid only those that the newest row does not say already."""
        await self._find_validity()
        books, after = changed_books(self._batch.books, self.validity)
        self.skipped += len(self._batch.books) - len(books)
        sound = len(self.letters)
        await self._load(ORDERBOOKS, books, lines.orderbook_line, self._append(ORDERBOOKS, sql.merge_new(ORDERBOOKS)))
        # A change that could not be stored is not known: the table is asked again, and the next record is the change.
        self.validity = after if len(self.letters) == sound else {}

    async def _find_validity(self) -> None:
        """What the newest rows say of the books that are not known yet. Its place is after the cursors were moved: no
        other owner can write between this and the commit."""
        unknown = {self._ids[found.key]: found.key for found in self._batch.books if found.key not in self.validity}
        if unknown:
            rows = await self._connection.execute(sql.NEWEST_BOOKS, (list(unknown),))
            self.validity.update({unknown[number]: (valid, reason) async for number, valid, reason in rows})

    async def _clock(self) -> None:
        if self._batch.clock is None:
            return
        clock, entry = self._batch.clock
        try:
            async with self._savepoint():
                times = (timestamp(clock.time or 0), timestamp(clock.received), clock.uncertainty)
                connections = msgspec.json.encode(clock.connections).decode()
                values = (self._batch.partition, clock.exchange, *times, connections)
                await self._connection.execute(sql.SET_CLOCK, values)
        except (psycopg.Error, ValueError) as error:
            fault = fault_of_row(error) if isinstance(error, psycopg.Error) else Fault("time out of range", str(error))
            if fault is None or (isinstance(error, psycopg.Error) and not self._careful):
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
        written, refused = await self._try(load, rows)
        for row, fault in refused:
            self._bury(row.found, fault)
        self.written[table.name] = self.written.get(table.name, 0) + written
        self.known += len(rows) - len(refused) - written

    async def _try(
        self, load: Callable[[Sequence[Row]], Awaitable[int]], rows: Sequence[Row]
    ) -> tuple[int, list[tuple[Row, Fault]]]:
        """How many rows were written, and which were refused."""
        if self._careful:
            return await load_sound(load, rows, self._most - len(self.letters))
        return await load(rows) if rows else 0, []

    def _savepoint(self) -> AbstractAsyncContextManager[object]:
        return self._connection.transaction() if self._careful else nullcontext()

    def _bury(self, found: Found[Record], fault: Fault) -> None:
        record = found.record
        self.letters.append(letter(record.exchange, record.received, found.entry, fault.reason, fault.detail))

    def _append(self, table: Table, statement: str) -> Callable[[Sequence[Row]], Awaitable[int]]:
        """Straight into the table; only where a key is there already, by way of the temporary table."""
        merge = self._merge(table, statement)

        async def load(rows: Sequence[Row]) -> int:
            try:
                async with self._savepoint():
                    return await self._copy(sql.copy(table), joined(rows))
            except psycopg.errors.UniqueViolation:
                if not self._careful:
                    raise
                return await merge(rows)

        return load

    def _merge(self, table: Table, statement: str) -> Callable[[Sequence[Row]], Awaitable[int]]:
        async def load(rows: Sequence[Row]) -> int:
            async with self._savepoint():
                await self._fill(table, rows)
                return (await self._connection.execute(statement.encode())).rowcount

        return load

    async def _instruments(self, rows: Sequence[Row]) -> int:
        """Metadata that changed begin a new row of history, which the table of instruments then shows."""
        async with self._savepoint():
            await self._fill(INSTRUMENTS, rows)
            await self._connection.execute(sql.CLOSE_HISTORY.encode())
            opened = await self._connection.execute(sql.OPEN_HISTORY.encode())
            await self._connection.execute(sql.UPDATE_INSTRUMENTS.encode())
            return opened.rowcount

    async def _fill(self, table: Table, rows: Sequence[Row]) -> None:
        await self._connection.execute(f"TRUNCATE {sql.incoming(table)}".encode())
        await self._copy(sql.copy(table, sql.incoming(table)), joined(rows))

    async def _copy(self, statement: str, text: str) -> int:
        async with self._connection.cursor() as cursor:
            async with cursor.copy(statement.encode()) as copy:
                await copy.write(text)
            return cursor.rowcount
