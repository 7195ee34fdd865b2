-- What a candle must say, computed from stored trades alone: for the audit, and for windows that are built again after
-- a repair. The same rules as those of the candles on the streams.

CREATE FUNCTION exact_nanoseconds("time" timestamptz) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM $1) * 1000000)::bigint * 1000
$$;

CREATE FUNCTION first_open(timeframe text, from_time timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT date_bin(timeframe_width($1), $2 - interval '1 microsecond', timestamptz 'epoch') + timeframe_width($1)
$$;

-- The times of [from_time, to_time) of which nobody knows whether there were more trades than are stored. Known is what
-- lies between the first coverage and the last trade, because the numbers of an unbroken run prove it, and what is covered
-- after that; not known are in it the holes that the ledger names, and times without coverage in which numbers began again.
-- A hole that was filled in part reaches from the stored trade before each missing run to the one after it.
CREATE FUNCTION unknown_times(instrument_id int, from_time timestamptz, to_time timestamptz) RETURNS int8multirange
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH begun AS MATERIALIZED (
        SELECT c.time FROM coverage c
        WHERE c.instrument_id = $1 AND c.state = 'covered' ORDER BY c.entry_ms, c.entry_seq LIMIT 1
    ),
    -- A quarter of a second: so much earlier than the message that began it may its trade be dated.
    since AS MATERIALIZED (
        SELECT coalesce((
            SELECT t.time FROM trades t
            WHERE t.instrument_id = $1 AND t.time >= b.time - interval '250 milliseconds' AND t.time < b.time
            ORDER BY t.time LIMIT 1
        ), b.time) AS time
        FROM begun b
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
        SELECT s.times + CASE WHEN n.time > b.time THEN
            int8multirange(int8range(exact_nanoseconds(b.time), exact_nanoseconds(n.time) + 1)) ELSE '{}' END AS times
        FROM seen s LEFT JOIN since b ON true LEFT JOIN newest n ON true
    ),
    gaps AS MATERIALIZED (
        SELECT g.epoch, g.from_sequence, g.to_sequence, g.from_time, g.to_time, g.repaired, g.remaining
        FROM trade_gaps g
        WHERE g.instrument_id = $1 AND g.cause <> 'epoch' AND NOT isempty(g.remaining)
          AND g.from_time < $3 AND g.to_time >= $2
    ),
    neighbours AS (
        SELECT g.epoch, g.from_sequence, g.remaining, t.time, t.sequence AS low,
               coalesce(t.first_sequence, t.sequence) AS first
        FROM gaps g JOIN trades t
          ON t.instrument_id = $1 AND t.time >= g.from_time AND t.time <= g.to_time AND t.epoch = g.epoch
         AND t.sequence >= g.from_sequence - 1 AND coalesce(t.first_sequence, t.sequence) <= g.to_sequence + 1
        WHERE g.repaired > 0
        UNION ALL
        SELECT g.epoch, g.from_sequence, g.remaining, g.from_time, g.from_sequence - 1, g.from_sequence - 1 FROM gaps g
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

-- The candles of the windows that open in [from_time, to_time), oldest first, each of all its stored trades. A window
-- without a trade is there (quiet) where it is known that there was none; and (partial, at the close before) where that
-- is not known but a candle of it is stored.
CREATE FUNCTION candles_of_trades(instrument_id int, timeframe text, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    open_time timestamptz, close_time timestamptz, open numeric, high numeric, low numeric, close numeric,
    volume numeric, quote_volume numeric, buy_volume numeric, buy_quote_volume numeric,
    contracts numeric, trades_count bigint, first_id text, last_id text, quality text, missing bigint
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1440 AS $$
    WITH unknown AS MATERIALIZED (
        SELECT unknown_times($1, first_open($2, $3), first_open($2, $4)) AS times, timeframe_width($2) AS width
    ),
    placed AS (
        SELECT p.open_time, p.price, p.size, p.side, p.contracts, p.fills, p.id, p.repaired,
               lag(p.open_time) OVER printed IS DISTINCT FROM p.open_time AS first,
               lead(p.open_time) OVER printed IS DISTINCT FROM p.open_time AS last
        FROM (
            SELECT date_bin(timeframe_width($2), t.time, timestamptz 'epoch') AS open_time, t.*
            FROM trades t
            WHERE t.instrument_id = $1 AND t.time >= first_open($2, $3) AND t.time < first_open($2, $4)
        ) p
        WINDOW printed AS (ORDER BY p.time, p.sequence, p.epoch)
    ),
    traded AS MATERIALIZED (
        SELECT p.open_time,
               min(p.price) FILTER (WHERE p.first) AS open, max(p.price) AS high,
               min(p.price) AS low, min(p.price) FILTER (WHERE p.last) AS close,
               sum(p.size) AS volume, sum(p.price * p.size) AS quote_volume,
               coalesce(sum(p.size) FILTER (WHERE p.side = 'buy'), 0) AS buy_volume,
               coalesce(sum(p.price * p.size) FILTER (WHERE p.side = 'buy'), 0) AS buy_quote_volume,
               sum(p.contracts) AS contracts, sum(p.fills) AS trades_count,
               min(p.id) FILTER (WHERE p.first) AS first_id, min(p.id) FILTER (WHERE p.last) AS last_id,
               bool_or(p.repaired) AS repaired
        FROM placed p
        GROUP BY p.open_time
    ),
    stored AS MATERIALIZED (
        SELECT c.open_time, c.quality FROM candles c
        WHERE c.instrument_id = $1 AND c.timeframe = $2
          AND c.open_time >= first_open($2, $3) AND c.open_time < first_open($2, $4)
    ),
    empty AS (
        SELECT s.open_time
        FROM unknown u
        CROSS JOIN LATERAL generate_series(first_open($2, $3), first_open($2, $4) - u.width, u.width) AS s (open_time)
        LEFT JOIN stored c ON c.open_time = s.open_time
        WHERE (c.open_time IS NOT NULL
               OR NOT u.times && int8range(exact_nanoseconds(s.open_time), exact_nanoseconds(s.open_time + u.width)))
          AND NOT EXISTS (SELECT FROM traded w WHERE w.open_time = s.open_time)
    ),
    -- Where trades of long ago are no longer kept, the stored candle before tells the close.
    before AS MATERIALIZED (
        SELECT coalesce(
            (
                SELECT t.price FROM trades t WHERE t.instrument_id = $1 AND t.time < first_open($2, $3)
                ORDER BY t.time DESC, t.sequence DESC, t.epoch DESC LIMIT 1
            ),
            (
                SELECT c.close FROM candles c
                WHERE c.instrument_id = $1 AND c.timeframe = $2 AND c.open_time < first_open($2, $3)
                ORDER BY c.open_time DESC LIMIT 1
            )
        ) AS price
    ),
    line AS (
        SELECT e.open_time, e.close FROM traded e UNION ALL SELECT s.open_time, NULL FROM empty s
    ),
    groups AS (
        SELECT l.open_time, l.close, count(l.close) OVER (ORDER BY l.open_time) AS number FROM line l
    ),
    quiet AS (
        SELECT g.open_time, coalesce(first_value(g.close) OVER anchor, CASE g.number WHEN 0 THEN b.price END) AS price,
               g.close IS NULL AS empty
        FROM groups g CROSS JOIN before b
        WINDOW anchor AS (PARTITION BY g.number ORDER BY g.open_time)
    ),
    windows AS (
        SELECT e.open_time, e.open, e.high, e.low, e.close, e.volume, e.quote_volume, e.buy_volume, e.buy_quote_volume,
               e.contracts, e.trades_count, e.first_id, e.last_id, e.repaired
        FROM traded e
        UNION ALL
        SELECT q.open_time, q.price, q.price, q.price, q.price, 0, 0, 0, 0, NULL, 0, NULL, NULL, false
        FROM quiet q WHERE q.empty AND q.price IS NOT NULL
    )
    SELECT w.open_time, w.open_time + u.width, w.open, w.high, w.low, w.close,
           w.volume, w.quote_volume, w.buy_volume, w.buy_quote_volume,
           w.contracts, w.trades_count, w.first_id, w.last_id,
           CASE WHEN m.missing > 0 THEN 'partial'
                WHEN w.trades_count = 0 THEN 'quiet'
                WHEN w.repaired OR c.quality IN ('partial', 'repaired') THEN 'repaired'
                ELSE 'complete' END,
           m.missing
    FROM windows w CROSS JOIN unknown u
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(upper(r.span) - lower(r.span)), 0)::bigint AS missing
        FROM unnest(u.times * int8multirange(
            int8range(exact_nanoseconds(w.open_time), exact_nanoseconds(w.open_time + u.width))
        )) AS r (span)
    ) m
    LEFT JOIN stored c ON c.open_time = w.open_time
    ORDER BY w.open_time
$$;
