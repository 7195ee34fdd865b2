-- A missing number may be as old as the trade with the number before it, also where a trade with a lower number is newer.

-- The times of [from_time, to_time) of which nobody knows whether there were more trades than are stored. Known is what
-- lies between the first coverage and the last trade, because the numbers of an unbroken run prove it, and what is covered
-- after that; not known are in it the holes that the ledger names, and times without coverage in which numbers began again.
-- Where collection began with a trade, and the one before it is not stored, more trades may be of that very time. A hole
-- that was filled in part reaches from the stored trade before each missing run to the one after it; one that was not, from
-- the trade with the number before it, whose time may be a moment before the newest by then, from which the ledger counts.
CREATE OR REPLACE FUNCTION unknown_times(instrument_id int, from_time timestamptz, to_time timestamptz)
RETURNS int8multirange
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH begun AS MATERIALIZED (
        SELECT c.time FROM coverage c
        WHERE c.instrument_id = $1 AND c.state = 'covered' ORDER BY c.entry_ms, c.entry_seq LIMIT 1
    ),
    -- A quarter of a second: so much earlier than the message that began it may its trade be dated.
    head AS MATERIALIZED (
        SELECT t.time, t.epoch, t.first FROM begun b CROSS JOIN LATERAL (
            SELECT t.time, t.epoch, coalesce(t.first_sequence, t.sequence) AS first FROM trades t
            WHERE t.instrument_id = $1 AND t.time >= b.time - interval '250 milliseconds' AND t.time <= b.time
            ORDER BY t.time, t.epoch, t.sequence LIMIT 1
        ) t
    ),
    since AS MATERIALIZED (
        SELECT CASE WHEN h.time IS NULL THEN exact_nanoseconds(b.time)
                    WHEN EXISTS (
                        SELECT FROM trades t
                        WHERE t.instrument_id = $1 AND t.time <= h.time AND t.epoch = h.epoch AND t.sequence = h.first - 1
                    ) THEN exact_nanoseconds(h.time)
                    ELSE exact_nanoseconds(h.time) + 1 END AS time
        FROM begun b LEFT JOIN head h ON true
    ),
    newest AS MATERIALIZED (
        SELECT t.time FROM trades t WHERE t.instrument_id = $1 ORDER BY t.time DESC LIMIT 1
    ),
    seen AS MATERIALIZED (
        SELECT coalesce(
            range_agg(int8range(exact_nanoseconds(v.from_time), exact_nanoseconds(v.to_time))), '{}'
        ) AS times
        FROM coverage_intervals v WHERE v.instrument_id = $1
    ),
    known AS MATERIALIZED (
        SELECT (s.times + CASE WHEN exact_nanoseconds(n.time) >= b.time THEN
            int8multirange(int8range(b.time, exact_nanoseconds(n.time) + 1)) ELSE '{}' END)
            - int8multirange(int8range(NULL, coalesce(b.time, 0))) AS times
        FROM seen s LEFT JOIN since b ON true LEFT JOIN newest n ON true
    ),
    gaps AS MATERIALIZED (
        SELECT g.epoch, g.from_sequence, g.to_sequence, g.from_time, g.to_time, g.repaired, g.remaining
        FROM trade_gaps g
        WHERE g.instrument_id = $1 AND g.cause <> 'epoch' AND NOT isempty(g.remaining)
          AND g.from_time < $3 + interval '10 seconds' AND g.to_time >= $2 - interval '10 seconds'
    ),
    neighbours AS (
        SELECT g.epoch, g.from_sequence, g.remaining, t.time, t.sequence AS low,
               coalesce(t.first_sequence, t.sequence) AS first
        FROM gaps g JOIN trades t
          ON t.instrument_id = $1 AND t.time >= g.from_time AND t.time <= g.to_time AND t.epoch = g.epoch
         AND t.sequence >= g.from_sequence - 1 AND coalesce(t.first_sequence, t.sequence) <= g.to_sequence + 1
        WHERE g.repaired > 0
        UNION ALL
        SELECT g.epoch, g.from_sequence, g.remaining, coalesce(t.time, g.from_time), g.from_sequence - 1, g.from_sequence - 1
        FROM gaps g LEFT JOIN LATERAL (
            SELECT t.time FROM trades t
            WHERE t.instrument_id = $1 AND t.epoch = g.epoch AND t.sequence = g.from_sequence - 1
              AND t.time >= g.from_time - interval '10 seconds' AND t.time <= g.from_time + interval '10 seconds'
            LIMIT 1
        ) t ON true
        UNION ALL
        SELECT g.epoch, g.from_sequence, g.remaining, g.to_time, g.to_sequence + 1, g.to_sequence + 1 FROM gaps g
    ),
    runs AS (
        SELECT n.remaining, n.low, n.time, lead(n.first) OVER numbers AS next, lead(n.time) OVER numbers AS next_time
        FROM neighbours n
        WINDOW numbers AS (PARTITION BY n.epoch, n.from_sequence ORDER BY n.first, n.low, n.time)
    ),
    holes AS (
        SELECT r.time AS from_time, r.next_time AS to_time
        FROM runs r WHERE r.next > r.low + 1 AND r.remaining && int8range(r.low + 1, r.next)
        UNION ALL
        SELECT g.from_time, g.to_time
        FROM trade_gaps g CROSS JOIN seen s
        WHERE g.instrument_id = $1 AND g.cause = 'epoch' AND g.from_time < $3 AND g.to_time >= $2
          AND NOT s.times @> int8range(exact_nanoseconds(g.from_time), exact_nanoseconds(g.to_time) + 1)
    ),
    lost AS (
        SELECT coalesce(range_agg(int8range(
            exact_nanoseconds(least(h.from_time, h.to_time)), exact_nanoseconds(greatest(h.from_time, h.to_time)) + 1
        )), '{}') AS times
        FROM holes h
    )
    SELECT (int8multirange(int8range(NULL, NULL)) - k.times + l.times)
        * int8multirange(int8range(exact_nanoseconds($2), exact_nanoseconds($3)))
    FROM known k CROSS JOIN lost l
$$;
