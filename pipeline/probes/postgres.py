"""What Postgres says of our database: its size, the newest rows, the open gaps. Reads only, each query bounded."""

from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from pipeline.facts import Postgres, Size
from pipeline.settings import Settings
from pipeline.timeframes import WIDTHS

TIMEOUT_MS = 500

Connection = psycopg.Connection[tuple[object, ...]]

_RECENT: LiteralString = """
    WITH RECURSIVE seen(id) AS (
        SELECT min(t.instrument_id) FROM {table} t WHERE {which}
        UNION ALL
        SELECT (SELECT min(t.instrument_id) FROM {table} t WHERE t.instrument_id > seen.id AND {which})
        FROM seen WHERE seen.id IS NOT NULL)
    SELECT max(newest.received) FROM seen CROSS JOIN LATERAL (
        SELECT t.received FROM {table} t WHERE t.instrument_id = seen.id AND {which} ORDER BY t.{column} DESC LIMIT 1
    ) newest"""
"""From instrument to instrument by the primary key, in the partitions of the last days: to scan a day of quotes would
take seconds."""


def _recent(table: LiteralString, column: LiteralString, also: LiteralString = "") -> LiteralString:
    which = f"t.{column} > now() - interval '2 days'{also}"
    return _RECENT.replace("{table}", table).replace("{column}", column).replace("{which}", which)


_NEWEST: dict[str, LiteralString] = {
    # Only instruments that were ever covered: the list holds thousands that were not.
    "trades": """
        SELECT max(newest.received) FROM (SELECT DISTINCT instrument_id AS id FROM coverage) seen
        CROSS JOIN LATERAL (
            SELECT t.received FROM trades t WHERE t.instrument_id = seen.id ORDER BY t.time DESC LIMIT 1
        ) newest""",
    "candles": """
        SELECT max(newest.received) FROM (SELECT DISTINCT instrument_id AS id FROM coverage) seen
        CROSS JOIN LATERAL (
            SELECT c.received FROM candles c WHERE c.instrument_id = seen.id AND c.timeframe = %(timeframe)s
            ORDER BY c.open_time DESC LIMIT 1
        ) newest""",
    "klines": _recent("klines", "open_time", " AND t.timeframe = %(bar)s"),
    "orderbooks": _recent("orderbooks", "at"),
    "quotes": _recent("quotes", "received"),
    "tickers": _recent("tickers", "received"),
    "instruments": "SELECT max(valid_from) FROM instruments",
    "trade_gaps": "SELECT max(received) FROM trade_gaps",
    "coverage": "SELECT max(received) FROM coverage",
}

_OPEN_GAPS: LiteralString = """
    SELECT i.exchange, coalesce(i.symbol, i.instrument), count(*)
    FROM trade_gaps g JOIN instruments i ON i.id = g.instrument_id WHERE g.state <> 'closed' GROUP BY 1, 2"""

_SIZES: LiteralString = """
    SELECT n.kind, n.bytes, n.since,
           (n.bytes + n.dropped - o.bytes - o.dropped) / extract(epoch FROM n.at - o.at) * 86400
    FROM (SELECT DISTINCT ON (kind) * FROM sizes ORDER BY kind, at DESC) n
    LEFT JOIN LATERAL (
        SELECT * FROM sizes s
        WHERE s.kind = n.kind AND s.at BETWEEN n.at - interval '8 days' AND n.at - interval '1 day'
        ORDER BY s.at LIMIT 1
    ) o ON n.at > now() - interval '1 day'"""
"""What was measured over less than a day, or not within the last one, says nothing of a day's growth."""

_DROPPED: LiteralString = "SELECT kind, max(to_time), sum(bytes) FROM dropped GROUP BY kind"


def connect(settings: Settings, timeout_ms: int = TIMEOUT_MS) -> Connection:
    """A read-only connection for people's commands. Raises psycopg.Error."""
    options = f"-c statement_timeout={timeout_ms} -c default_transaction_read_only=on"
    conninfo = make_conninfo(settings.database_address(), options=options, connect_timeout=2)
    return psycopg.connect(conninfo, autocommit=True, application_name="pipeline-cli")


def read(settings: Settings) -> Postgres:
    """The facts; `error` where there are none."""
    try:
        with connect(settings) as connection:
            return _facts(connection, settings)
    except psycopg.Error as error:
        return Postgres(error=short(error))


def short(error: psycopg.Error) -> str:
    """The error on one line, without the addresses that were tried."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def _facts(connection: Connection, settings: Settings) -> Postgres:
    size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert size is not None
    asked = _timeframes(settings)
    shortest = min(asked, key=WIDTHS.__getitem__)
    # Few exchanges have klines below 1m.
    names = {"timeframe": shortest, "bar": "1m" if "1m" in asked else shortest}
    return Postgres(
        bytes=int(str(size[0])),
        newest={
            table: newest for table, query in _NEWEST.items() if (newest := _time(connection, query, names)) is not None
        },
        open_gaps=_open_gaps(connection),
        sizes=_sizes(connection),
        **_dropped(connection),
    )


def _timeframes(settings: Settings) -> set[str]:
    pairs = (pair for exchange in settings.enabled_exchanges().values() for pair in exchange.trading_pairs)
    return {timeframe for pair in pairs for timeframe in pair.timeframes} or {"1m"}


def _time(connection: Connection, query: LiteralString, arguments: dict[str, str]) -> int | None:
    """The time (ns) the query gives, or None: no row, no such table yet (a fresh database), or no answer in time."""
    try:
        row = connection.execute(query, arguments).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.QueryCanceled):
        return None
    return nanoseconds(row[0]) if row and isinstance(row[0], datetime) else None


def _open_gaps(connection: Connection) -> dict[tuple[str, str], int]:
    try:
        rows = connection.execute(_OPEN_GAPS).fetchall()
    except psycopg.errors.UndefinedTable:
        return {}
    return {(str(exchange), str(symbol)): int(str(count)) for exchange, symbol, count in rows}


def _sizes(connection: Connection) -> dict[str, Size]:
    return {
        str(kind): Size(
            bytes=int(str(count)),
            since=nanoseconds(since) if isinstance(since, datetime) else None,
            growth=None if growth is None else float(str(growth)),
        )
        for kind, count, since, growth in _rows(connection, _SIZES)
    }


def _dropped(connection: Connection) -> dict[str, Any]:
    rows = _rows(connection, _DROPPED)
    since = {str(kind): nanoseconds(until) for kind, until, _ in rows if isinstance(until, datetime)}
    return {"kept_since": since, "freed": sum(int(str(freed)) for *_, freed in rows)}


def _rows(connection: Connection, query: LiteralString) -> list[tuple[object, ...]]:
    """None where the schema is older than the table."""
    try:
        return connection.execute(query).fetchall()
    except psycopg.errors.UndefinedTable:
        return []


def nanoseconds(time: datetime) -> int:
    """Exact, unlike `timestamp()`: microseconds are kept by integers."""
    return int(time.timestamp()) * 1_000_000_000 + time.microsecond * 1_000
