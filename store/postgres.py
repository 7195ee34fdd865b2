"""One connection to Postgres and what `store` does over it: cursors, instruments, partitions, batches.

Every method raises PostgresAway when the server cannot or will not just now; what was under way is then
either wholly there or not at all, and only the cursors read anew can tell.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import msgspec
import psycopg

from pipeline.errors import ServerAway, StepRefused
from pipeline.records import DeadLetter, Record
from store import statements as sql
from store.batch import Batch, Found, InstrumentKey, Moved, Partition, latest_candles, latest_gaps, letter, rounds
from store.copytext import timestamp
from store.faults import Fault, TooManyFaults, fault_of_row, load_sound, most_faults
from store.migrate import check_server, migrations, pending
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

CONNECT_TIMEOUT = 5
TIMEOUT = 60.0
"""Seconds any one call may take; a checkpoint on a slow disk is shorter."""

_CONNECTION: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

# A stopped owner must not hold the cursors' rows for ever: its transaction is ended for it.
_SESSION = "SET timezone = 'UTC'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '30s'"

T = TypeVar("T", bound=Record)

Bury = Callable[[Sequence[DeadLetter]], Awaitable[None]]


class PostgresAway(ServerAway):
    """Postgres cannot be reached, timed out, or refuses for now."""


class Cursor(NamedTuple):
    """How far a stream is stored: the last entry's id and how many entries that were."""

    id: str
    entries: int


class Written(NamedTuple):
    """What a batch came to: rows written by table, rows that were there already (or newer), dead letters."""

    rows: dict[str, int]
    known: int
    buried: int


class Database:
    """One connection. Not for use by two tasks at once."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._instruments: dict[InstrumentKey, int] = {}
        self._partitions: set[Partition] = set()

    @classmethod
    async def open(cls, conninfo: str, name: str) -> Self:
        """Connects as `name` and checks the schema. Raises PostgresAway also while migrations are missing,
        SettingsError when the schema is newer than this program or was changed."""
        with _server_faults():
            connection = await psycopg.AsyncConnection.connect(
                conninfo, autocommit=True, application_name=name, **_CONNECTION
            )
        database = cls(connection)
        try:
            await database._prepare()
        except BaseException:
            await connection.close()
            raise
        return database

    async def close(self) -> None:
        await self._connection.close()

    async def cursors(self, namespace: str, streams: Sequence[str]) -> dict[str, Cursor]:
        """Where each stream stands; a new one stands before its first entry."""
        async with _call():
            await self._connection.execute(sql.ADD_CURSORS, (namespace, list(streams)))
            rows = await (await self._connection.execute(sql.READ_CURSORS, (namespace, list(streams)))).fetchall()
        return {stream: Cursor(entry, entries) for stream, entry, entries in rows}

    async def instrument_ids(self, headers: Mapping[InstrumentKey, Record]) -> dict[InstrumentKey, int]:
        """The instruments' numbers; those never seen get one, with the header's symbol and market."""
        unknown = [key for key in headers if key not in self._instruments]
        if unknown:
            async with _call():
                await self._find_instruments(unknown)
                if missing := [key for key in unknown if key not in self._instruments]:
                    await self._add_instruments([headers[key] for key in missing])
                    await self._find_instruments(missing)
        return self._instruments

    async def make_partitions(self, needed: Iterable[Partition]) -> int:
        """Makes those that are not there; how many that were."""
        missing = sorted(set(needed) - self._partitions)
        made = 0
        if missing:
            async with _call(), self._connection.transaction():
                for parent, at in missing:
                    cursor = await self._connection.execute(
                        "SELECT make_partition(%s, %s::timestamptz)", (parent, timestamp(at))
                    )
                    made += bool((await cursor.fetchone() or (False,))[0])
            self._partitions.update(missing)
        return made

    async def write(self, namespace: str, batch: Batch, bury: Bury) -> Written:
        """Writes the batch and moves its cursors, or does neither.

        `bury` puts dead letters away and is awaited before the cursors move. Raises StepRefused when the
        cursors are not where the batch began, TooManyFaults, PostgresAway.
        """
        ids = await self.instrument_ids(batch.headers())
        await self.make_partitions(batch.partitions())
        loading = Loading(self._connection, batch, ids)
        async with _call(), self._connection.transaction():
            await self._move(namespace, batch.moves)
            await loading.run()
            if loading.letters:
                await bury(loading.letters)
        return Written(loading.written, loading.known, len(loading.letters))

    async def _prepare(self) -> None:
        check_server(self._connection.info.server_version)
        async with _call():
            await self._connection.execute(_SESSION)
            rows = await (await self._connection.execute("SELECT number, checksum FROM migrations")).fetchall()
            if missing := pending(dict(rows), migrations()):
                raise PostgresAway(f"the schema is not ready: {len(missing)} migrations are still to be applied")
            for table in (TRADES, CANDLES, GAPS, COVERAGE, INSTRUMENTS):
                await self._connection.execute(sql.make_incoming(table).encode())

    async def _move(self, namespace: str, moves: Mapping[str, Moved]) -> None:
        ends = moves.values()
        columns = ([move.old for move in ends], [move.new for move in ends], [move.entries for move in ends])
        moved = await self._connection.execute(sql.MOVE_CURSORS, (list(moves), *columns, namespace))
        if moved.rowcount != len(moves):
            raise StepRefused(f"{len(moves) - moved.rowcount} cursors were moved by another owner")

    async def _find_instruments(self, keys: Sequence[InstrumentKey]) -> None:
        exchanges, instruments = [key[0] for key in keys], [key[1] for key in keys]
        found = await self._connection.execute(sql.FIND_INSTRUMENTS, (exchanges, instruments))
        self._instruments.update({(exchange, instrument): number async for exchange, instrument, number in found})

    async def _add_instruments(self, headers: Sequence[Record]) -> None:
        columns = [
            [getattr(header, name) for header in headers] for name in ("exchange", "instrument", "symbol", "market")
        ]
        await self._connection.execute(sql.ADD_INSTRUMENTS, columns)


class Loading:
    """The rows of one batch on their way into the tables, inside the batch's transaction."""

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


@contextlib.asynccontextmanager
async def _call() -> Any:
    """One call to the server, with a limit of time."""
    with _server_faults():
        async with asyncio.timeout(TIMEOUT):
            yield


@contextlib.contextmanager
def _server_faults() -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, TimeoutError, OSError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise PostgresAway(f"Postgres: {first_line or type(error).__name__}") from error
