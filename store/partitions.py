"""The connection that retention works over: which partitions are too old, dropping one, measuring all."""

from collections.abc import Mapping
from typing import NamedTuple

import psycopg

from store import statements as sql
from store.postgres import Database, calling

IN_USE = "in use"


class Due(NamedTuple):
    """A partition older than the days of its kind, as a whole; times in ns, `to_time` exclusive."""

    kind: str
    name: str
    from_time: int
    to_time: int


class Partitions(Database):
    """Every method raises PostgresAway."""

    async def hold(self) -> bool:
        """Whether this connection is the one of its database that drops, until it is closed."""
        async with calling():
            row = await (await self._connection.execute(sql.HOLD_RETENTION)).fetchone()
        return bool(row and row[0])

    async def due(self, days: Mapping[str, int]) -> list[Due]:
        """Those of the kinds in `days`, oldest first. None before the first clock of an exchange is stored."""
        async with calling():
            rows = await self._connection.execute(sql.DUE_PARTITIONS, (list(days), list(days.values())))
            return [Due(*row) async for row in rows]

    async def drop(self, due: Due) -> str | None:
        """Drops it, or says why it stays; IN_USE where others hold it for longer than anyone should wait."""
        async with calling():
            try:
                cursor = await self._connection.execute(sql.DROP_PARTITION, (due.kind, due.from_time))
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                return IN_USE
            row = await cursor.fetchone()
        return row[0] if row else None

    async def measure(self) -> None:
        """Writes down the sizes of all kinds, unless that was done within the last hour."""
        async with calling():
            await self._connection.execute(sql.MEASURE)
            await self._connection.execute(sql.FORGET_SIZES)
