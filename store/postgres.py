"""One connection to Postgres and what `store` does over it: cursors, instruments, partitions, batches.

Every method raises PostgresAway when the server cannot or will not just now; what was under way is then
either wholly there or not at all, and only the cursors read anew can tell.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import psycopg

from pipeline.errors import ServerAway, StepRefused
from pipeline.records import DeadLetter, Rebuild, Record
from pipeline.sockets import enlarge
from store import statements as sql
from store.batch import Batch, Cursor, Moved, Partition, Validity
from store.copytext import timestamp
from store.faults import fault_of_row
from store.found import InstrumentKey
from store.loading import Loading
from store.migrate import check_server, migrations, pending
from store.recomputed import Bar, Key, Wanted, Window
from store.tables import TABLES

CONNECT_TIMEOUT = 5
TIMEOUT = 60.0
"""Seconds any one call may take; a checkpoint on a slow disk is shorter."""
COMPUTING = 600.0
"""Seconds that computing candles may take: one of a day reads all its trades."""

_CONNECTION: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

SEND_BUFFER = 4 * 1024 * 1024
"""Bytes: more than a batch. One that the kernel took whole is loaded while the next one is made."""

# A stopped owner must not hold the cursors' rows for ever: its transaction is ended for it.
_SESSION = "SET timezone = 'UTC'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '30s'"

Bury = Callable[[Sequence[DeadLetter]], Awaitable[None]]


class PostgresAway(ServerAway):
    """Postgres cannot be reached, timed out, or refuses for now."""


class Written(NamedTuple):
    """What a batch came to: rows written by table, rows that were there already (or newer), dead letters, order books
    that need not be stored."""

    rows: dict[str, int]
    known: int
    buried: int
    skipped: int = 0


class Database:
    """One connection. Not for use by two tasks at once."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._instruments: dict[InstrumentKey, int] = {}
        self._partitions: set[Partition] = set()
        self._validity: dict[InstrumentKey, Validity] = {}

    @classmethod
    async def open(cls, conninfo: str, name: str) -> Self:
        """Connects as `name` and checks the schema. Raises PostgresAway also while migrations are missing,
        SettingsError when the schema is newer than this program or was changed."""
        with _server_faults():
            connection = await psycopg.AsyncConnection.connect(
                conninfo, autocommit=True, application_name=name, **_CONNECTION
            )
        enlarge(connection.fileno(), SEND_BUFFER)
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
        async with calling():
            await self._connection.execute(sql.ADD_CURSORS, (namespace, list(streams)))
            rows = await (await self._connection.execute(sql.READ_CURSORS, (namespace, list(streams)))).fetchall()
        return {stream: Cursor(entry, entries) for stream, entry, entries in rows}

    async def stored(self, namespace: str, streams: Sequence[str]) -> dict[str, str]:
        """The entry up to which each of the streams is stored."""
        async with calling():
            rows = await (await self._connection.execute(sql.READ_CURSORS, (namespace, list(streams)))).fetchall()
        return {stream: entry for stream, entry, _ in rows}

    async def rewind(self, namespace: str, ids: Mapping[str, str]) -> None:
        """Sets streams' cursors back to these ids."""
        async with calling():
            await self._connection.execute(sql.REWIND_CURSORS, (list(ids), list(ids.values()), namespace))

    async def instrument_ids(self, headers: Mapping[InstrumentKey, Record]) -> dict[InstrumentKey, int]:
        """The instruments' numbers; those never seen get one, with the header's symbol and market."""
        unknown = [key for key in headers if key not in self._instruments]
        if unknown:
            async with calling():
                await self._find_instruments(unknown)
                if missing := [key for key in unknown if key not in self._instruments]:
                    await self._add_instruments([headers[key] for key in missing])
                    await self._find_instruments(missing)
        return self._instruments

    async def make_partitions(self, needed: Iterable[Partition]) -> int:
        """Makes those that are not there; how many that were."""
        missing = sorted(set(needed) - self._partitions)
        if not missing:
            return 0
        columns = ([parent for parent, _ in missing], [timestamp(at) for _, at in missing])
        async with calling():
            made = await (await self._connection.execute(sql.MAKE_PARTITIONS, columns)).fetchall()
        self._partitions.update(missing)
        return sum(new for (new,) in made)

    def render(self, batch: Batch) -> None:
        """Makes the lines of the trades, while the batch before is written, if all their instruments are known."""
        if batch.trades.headers().keys() <= self._instruments.keys():
            batch.trades.text(self._instruments)

    async def write(self, namespace: str, batch: Batch, bury: Bury) -> Written:
        """Writes the batch and moves its cursors, or does neither.

        `bury` puts dead letters away and is awaited before the cursors move. Raises StepRefused when the
        cursors are not where the batch began, TooManyFaults, PostgresAway.
        """
        ids = await self.instrument_ids(batch.headers())
        try:
            return await self._write(namespace, batch, bury, ids, careful=False)
        except PostgresAway as error:
            # Nothing of the batch was written.
            if _is_dropped(error.__cause__):
                # A partition of long ago was dropped since it was needed last.
                self._partitions.clear()
            elif not _is_of_a_row(error.__cause__):
                raise
        return await self._write(namespace, batch, bury, ids, careful=True)

    async def _write(
        self, namespace: str, batch: Batch, bury: Bury, ids: Mapping[InstrumentKey, int], *, careful: bool
    ) -> Written:
        await self.make_partitions(batch.partitions())
        loading = Loading(self._connection, batch, ids, self._validity, careful=careful)
        async with calling(), self._connection.transaction():
            await self._move(namespace, batch.moves)
            await loading.run()
            if loading.letters:
                await bury(loading.letters)
        self._validity = loading.validity
        return Written(loading.written, loading.known, len(loading.letters), loading.skipped)

    async def wanted(self, partition: str, most: int) -> tuple[list[Wanted], int]:
        """The oldest rows of windows to compute, and how many there are."""
        async with calling():
            count = await (await self._connection.execute(sql.COUNT_REBUILDS, (partition,))).fetchone()
            rows = await (await self._connection.execute(sql.REBUILDS, (partition, most))).fetchall()
        return [Wanted((row[:3],), row[0], _rebuild(row[3:-1]), row[-1]) for row in rows], count[0] if count else 0

    async def windows(self, number: int, timeframe: str, start: int, end: int) -> list[Window]:
        """Those that open in [start, end) (ns) whose stored candle is not what the stored trades make of it."""
        values = {"number": number, "timeframe": timeframe, "start": timestamp(start), "end": timestamp(end)}
        async with calling(COMPUTING):
            rows = await (await self._connection.execute(sql.WINDOWS.encode(), values)).fetchall()
        return [_window(row) for row in rows]

    async def rebuilt(self, keys: Sequence[Key]) -> None:
        """There is nothing left to compute for these rows."""
        async with calling():
            await self._connection.execute(sql.DROP_REBUILDS, [list(column) for column in zip(*keys, strict=True)])

    async def _prepare(self) -> None:
        check_server(self._connection.info.server_version)
        async with calling():
            await self._connection.execute(_SESSION)
            rows = await (await self._connection.execute("SELECT number, checksum FROM migrations")).fetchall()
            if missing := pending(dict(rows), migrations()):
                raise PostgresAway(f"the schema is not ready: {len(missing)} migrations are still to be applied")
            await self._connection.execute("; ".join(map(sql.make_incoming, TABLES)).encode())

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


def _rebuild(row: Sequence[Any]) -> Rebuild:
    names = (
        "exchange", "market", "symbol", "instrument", "time", "received", "from_time", "to_time", "timeframes",
        "quiet_from",
    )  # fmt: skip
    fields = dict(zip(names, row, strict=True))
    return Rebuild(**fields | {"timeframes": tuple(fields["timeframes"])})


def _window(row: Sequence[Any]) -> Window:
    columns = len(Bar._fields)
    there, computed, also, stored = row[1], row[2 : 2 + columns], row[2 + columns], row[3 + columns : 3 + 2 * columns]
    return Window(row[0], Bar(*computed) if there else None, Bar(*stored) if also else None, *row[-2:])


def _is_dropped(error: BaseException | None) -> bool:
    """Whether a row found no partition: that has no constraint to name."""
    return isinstance(error, psycopg.errors.CheckViolation) and error.diag.constraint_name is None


def _is_of_a_row(error: BaseException | None) -> bool:
    """Whether a row was refused, or was there already."""
    if isinstance(error, psycopg.errors.UniqueViolation):
        return True
    return isinstance(error, psycopg.Error) and fault_of_row(error) is not None


@contextlib.asynccontextmanager
async def calling(timeout: float = TIMEOUT) -> AsyncIterator[None]:
    """One call to the server, with a limit of time in seconds."""
    with _server_faults():
        async with asyncio.timeout(timeout):
            yield


@contextlib.contextmanager
def _server_faults() -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, TimeoutError, OSError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise PostgresAway(f"Postgres: {first_line or type(error).__name__}") from error


OpenDatabase = Callable[[], Awaitable[Database]]
"""Opens a connection of its own. Raises PostgresAway."""
