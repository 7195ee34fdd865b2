"""The SQL that `store` writes with. Text only."""

from store.tables import BAR, CANDLES, GAPS, KLINES, METADATA, Table


def copy(table: Table, into: str | None = None) -> str:
    """COPY of the table's lines, straight in or into a temporary table of its shape."""
    return f"COPY {into or table.name} ({', '.join(table.columns)}) FROM STDIN"


def incoming(table: Table) -> str:
    """The name of the temporary table in which lines of `table` wait to be merged."""
    return f"incoming_{table.name}"


def make_incoming(table: Table) -> str:
    return f"CREATE TEMPORARY TABLE {incoming(table)} (LIKE {table.name}) ON COMMIT DELETE ROWS"


def merge_new(table: Table) -> str:
    """Keeps rows whose key is there already; sorted, so that two writers never wait for each other crosswise."""
    columns = ", ".join(table.columns)
    return (
        f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {incoming(table)} "
        f"ORDER BY {', '.join(table.key)} ON CONFLICT DO NOTHING"
    )


def merge_newer(table: Table, *, keep: tuple[str, ...] = ()) -> str:
    """The row of the higher stream entry wins: ids of entries survive a Redis that lost its last second,
    revisions do not. `keep` are columns that stay as they were first written."""
    columns = ", ".join(table.columns)
    changed = [name for name in table.columns if name not in (*table.key, *keep)]
    return (
        f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {incoming(table)} ORDER BY {', '.join(table.key)} "
        f"ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET "
        + ", ".join(f"{name} = excluded.{name}" for name in changed)
        + f" WHERE (excluded.entry_ms, excluded.entry_seq) > ({table.name}.entry_ms, {table.name}.entry_seq)"
    )


MERGE_CANDLES = merge_newer(CANDLES)
MERGE_KLINES = merge_newer(KLINES)
MERGE_GAPS = merge_newer(GAPS, keep=("opened",))

_OLD = ", ".join(f"h.{name}" for name in METADATA)
_NEW = ", ".join(f"n.{name}" for name in METADATA)

CLOSE_HISTORY = f"""
    UPDATE instrument_history h SET valid_to = n.valid_from
    FROM incoming_instrument_history n
    WHERE h.instrument_id = n.instrument_id AND h.valid_to IS NULL AND n.valid_from > h.valid_from
      AND ({_OLD}) IS DISTINCT FROM ({_NEW})
"""

OPEN_HISTORY = f"""
    INSERT INTO instrument_history (instrument_id, valid_from, {", ".join(METADATA)})
    SELECT n.instrument_id, n.valid_from, {_NEW} FROM incoming_instrument_history n
    WHERE NOT EXISTS (
        SELECT FROM instrument_history h WHERE h.instrument_id = n.instrument_id AND h.valid_to IS NULL
    )
    ON CONFLICT DO NOTHING
"""

UPDATE_INSTRUMENTS = f"""
    UPDATE instruments i SET valid_from = h.valid_from, {", ".join(f"{name} = h.{name}" for name in METADATA)}
    FROM instrument_history h JOIN incoming_instrument_history n USING (instrument_id)
    WHERE i.id = h.instrument_id AND h.valid_to IS NULL AND h.valid_from IS DISTINCT FROM i.valid_from
"""

FIND_INSTRUMENTS = """
    SELECT i.exchange, i.instrument, i.id
    FROM unnest(%s::text[], %s::text[]) AS wanted (exchange, instrument) JOIN instruments i USING (exchange, instrument)
"""

ADD_INSTRUMENTS = """
    INSERT INTO instruments (exchange, instrument, symbol, market)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
    ON CONFLICT (exchange, instrument) DO NOTHING
"""

MAKE_PARTITIONS = """
    SELECT make_partition(parent, at) FROM unnest(%s::text[], %s::timestamptz[]) AS missing (parent, at)
"""

NEWEST_BOOKS = """
    SELECT wanted.id, newest.valid, newest.reason
    FROM unnest(%s::int[]) AS wanted (id) CROSS JOIN LATERAL (
        SELECT o.valid, o.reason FROM orderbooks o
        WHERE o.instrument_id = wanted.id AND o.at > (
            SELECT n.at FROM orderbooks n WHERE n.instrument_id = wanted.id ORDER BY n.at DESC LIMIT 1
        ) - interval '10 seconds'
        ORDER BY o.entry_ms DESC, o.entry_seq DESC LIMIT 1
    ) newest
"""

ADD_CURSORS = """
    INSERT INTO cursors (namespace, stream, id, entries)
    SELECT %s, stream, '0-0', 0 FROM unnest(%s::text[]) AS wanted (stream) ON CONFLICT DO NOTHING
"""

READ_CURSORS = "SELECT stream, id, entries FROM cursors WHERE namespace = %s AND stream = ANY (%s)"

REWIND_CURSORS = """
    UPDATE cursors c SET id = m.id, updated = now() FROM unnest(%s::text[], %s::text[]) AS m (stream, id)
    WHERE c.namespace = %s AND c.stream = m.stream
"""

MOVE_CURSORS = """
    UPDATE cursors c SET id = m.new, entries = c.entries + m.entries, updated = now()
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) AS m (stream, old, new, entries)
    WHERE c.namespace = %s AND c.stream = m.stream AND c.id = m.old
"""

SET_CLOCK = """
    INSERT INTO clocks (partition, exchange, time, received, uncertainty, connections)
    VALUES (%s, %s, %s::timestamptz, %s::timestamptz, %s, %s::jsonb)
    ON CONFLICT (partition) DO UPDATE SET
        exchange = excluded.exchange, time = excluded.time, received = excluded.received,
        uncertainty = excluded.uncertainty, connections = excluded.connections
"""

REBUILDS = """
    SELECT r.instrument_id, r.entry_ms, r.entry_seq, i.exchange, i.market, i.symbol, i.instrument,
           exact_nanoseconds(r.until), exact_nanoseconds(r.received), exact_nanoseconds(r.from_time),
           exact_nanoseconds(r.to_time), r.timeframes, r.quiet_from,
           EXISTS (
               SELECT FROM dropped d
               WHERE d.from_time <= r.to_time AND d.to_time > r.from_time
                 AND (d.kind = 'trade' OR d.kind = ANY (SELECT candle_kind(f) FROM unnest(r.timeframes) AS f))
           )
    FROM rebuilds r JOIN instruments i ON i.id = r.instrument_id
    WHERE r.partition = %s ORDER BY r.entry_ms, r.entry_seq LIMIT %s
"""

COUNT_REBUILDS = "SELECT count(*) FROM rebuilds WHERE partition = %s"

DROP_REBUILDS = """
    DELETE FROM rebuilds r USING unnest(%s::int[], %s::bigint[], %s::bigint[]) AS done (instrument_id, ms, seq)
    WHERE r.instrument_id = done.instrument_id AND r.entry_ms = done.ms AND r.entry_seq = done.seq
"""

_COMPUTED = ", ".join(f"t.{name}" for name in BAR)
_STORED = ", ".join(f"s.{name}" for name in BAR)

WINDOWS = f"""
    WITH stored AS MATERIALIZED (
        SELECT c.open_time, c.close_time, c.revision, {", ".join(f"c.{name}" for name in BAR)}
        FROM candles c
        WHERE c.instrument_id = %(number)s AND c.timeframe = %(timeframe)s
          AND c.open_time >= %(start)s::timestamptz AND c.open_time < %(end)s::timestamptz
    ),
    unknown AS MATERIALIZED (
        SELECT CASE WHEN EXISTS (SELECT FROM stored s WHERE s.trades_count = 0)
            THEN unknown_times(%(number)s, %(start)s::timestamptz, %(end)s::timestamptz) ELSE '{{}}' END AS times
    ),
    gone AS MATERIALIZED (
        SELECT dropped_times('trade') + dropped_times(candle_kind(%(timeframe)s)) AS times
    )
    SELECT exact_nanoseconds(coalesce(t.open_time, s.open_time)), t.open_time IS NOT NULL, {_COMPUTED},
           s.open_time IS NOT NULL, {_STORED}, s.revision,
           (
               SELECT coalesce(sum(upper(r.span) - lower(r.span)), 0)::bigint
               FROM unnest(u.times * int8multirange(
                   int8range(exact_nanoseconds(s.open_time), exact_nanoseconds(s.close_time))
               )) AS r (span)
           )
    FROM candles_of_trades(%(number)s, %(timeframe)s, %(start)s::timestamptz, %(end)s::timestamptz) t
    FULL JOIN stored s ON s.open_time = t.open_time CROSS JOIN unknown u CROSS JOIN gone g
    WHERE ROW({_COMPUTED}) IS DISTINCT FROM ROW({_STORED}) AND NOT g.times @> coalesce(t.open_time, s.open_time)
    ORDER BY 1
"""
"""Windows whose stored candle is not what their trades make of it. Those of which trades or candles were dropped are
left alone: what is stored of their trades is not all."""

HOLD_RETENTION = "SELECT pg_try_advisory_lock(7460031945210771202)"

DUE_PARTITIONS = """
    SELECT p.kind, p.name::text, exact_nanoseconds(p.from_time), exact_nanoseconds(p.to_time)
    FROM unnest(%s::text[], %s::int[]) AS k (kind, days)
    JOIN partitions p ON p.kind = k.kind
    CROSS JOIN (SELECT least(now(), max(c.time)) AS time FROM clocks c HAVING max(c.time) IS NOT NULL) present
    WHERE p.to_time <= present.time - k.days * interval '24 hours'
    ORDER BY p.from_time, p.kind
"""
"""A host whose clock is wrong must not delete: the time is that of the exchanges, and not in the future."""

DROP_PARTITION = "SELECT drop_partition(%s, exact_time(%s))"

MEASURE = """
    INSERT INTO sizes (kind, at, bytes, dropped, since)
    SELECT s.kind, now(), s.bytes, coalesce(d.bytes, 0), s.since
    FROM (
        SELECT p.kind, sum(p.bytes) AS bytes, min(p.from_time) AS since FROM partitions p GROUP BY p.kind
        UNION ALL SELECT 'database', pg_database_size(current_database()), NULL
    ) s
    LEFT JOIN (
        SELECT coalesce(kind, 'database') AS kind, sum(bytes) AS bytes FROM dropped GROUP BY ROLLUP (kind)
    ) d ON d.kind = s.kind
    WHERE NOT EXISTS (SELECT FROM sizes z WHERE z.at > now() - interval '1 hour' AND z.at <= now())
"""

FORGET_SIZES = "DELETE FROM sizes WHERE at < now() - interval '8 days'"
