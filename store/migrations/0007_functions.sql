-- The documented way in. All but quiet_candles are inlined by the planner, which then reads index ranges of
-- only those partitions that the range touches.

CREATE FUNCTION instrument_id(exchange text, symbol_or_instrument text) RETURNS int
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT i.id FROM instruments i
    WHERE i.exchange = lower($1) AND (upper(i.instrument) = upper($2) OR upper(i.symbol) = upper($2))
    ORDER BY upper(i.instrument) = upper($2) DESC, i.valid_from DESC NULLS LAST, i.id DESC
    LIMIT 1
$$;

CREATE FUNCTION timeframe_width(timeframe text) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE right($1, 1)
        WHEN 's' THEN rtrim($1, 's')::int * interval '1 second'
        WHEN 'm' THEN rtrim($1, 'm')::int * interval '1 minute'
        WHEN 'h' THEN rtrim($1, 'h')::int * interval '1 hour'
        WHEN 'd' THEN rtrim($1, 'd')::int * interval '24 hours'
    END
$$;

CREATE FUNCTION trades(exchange text, symbol text, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    "time" timestamptz, sequence bigint, epoch int, id text, price numeric, size numeric, side text,
    contracts numeric, fills int, first_sequence bigint, conditions text[], repaired boolean, received timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT t.time, t.sequence, t.epoch, t.id, t.price, t.size, t.side,
           t.contracts, t.fills, t.first_sequence, t.conditions, t.repaired, t.received
    FROM trades t
    WHERE t.instrument_id = instrument_id($1, $2) AND t.time >= $3 AND t.time < $4
    ORDER BY t.time, t.sequence
$$;

CREATE FUNCTION last_trades(exchange text, symbol text, n int)
RETURNS TABLE (
    "time" timestamptz, sequence bigint, epoch int, id text, price numeric, size numeric, side text,
    contracts numeric, fills int, first_sequence bigint, conditions text[], repaired boolean, received timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT t.time, t.sequence, t.epoch, t.id, t.price, t.size, t.side,
           t.contracts, t.fills, t.first_sequence, t.conditions, t.repaired, t.received
    FROM trades t
    WHERE t.instrument_id = instrument_id($1, $2)
    ORDER BY t.time DESC, t.sequence DESC
    LIMIT $3
$$;

CREATE FUNCTION exact_time(nanoseconds bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT timestamptz 'epoch' + ($1 / 1000000000) * interval '1 second' + ($1 % 1000000000 / 1000) * interval '1 microsecond'
$$;

-- From when to when each instrument's trades were seen. An interval that has not ended reaches to what the
-- stream proves: the last frame on its connection, less the clock's uncertainty and 3 s (trades may be a
-- second late, and a hole in the numbers is written down only after 2 s).
CREATE VIEW coverage_intervals AS
WITH steps AS (
    SELECT c.instrument_id, c.state, c.time, c.partition, c.connection, c.timeframes, lead(c.time) OVER changes AS next_time
    FROM coverage c
    WINDOW changes AS (PARTITION BY c.instrument_id ORDER BY c.entry_ms, c.entry_seq)
),
spans AS (
    SELECT s.instrument_id, s.timeframes, s.time,
        coalesce(
            s.next_time,
            least(
                k.time - k.uncertainty / 1000 * interval '1 microsecond',
                exact_time((k.connections ->> s.connection)::bigint)
            ) - interval '3 seconds'
                + CASE WHEN k.connections ? s.connection THEN interval '0' END,
            s.time
        ) AS until
    FROM steps s LEFT JOIN clocks k ON k.partition = s.partition
    WHERE s.state = 'covered'
),
unions AS (
    SELECT p.instrument_id, p.timeframes, range_agg(tstzrange(p.time, p.until)) AS seen
    FROM spans p
    WHERE p.until > p.time
    GROUP BY p.instrument_id, p.timeframes
)
SELECT u.instrument_id, u.timeframes, lower(r.span) AS from_time, upper(r.span) AS to_time
FROM unions u CROSS JOIN LATERAL unnest(u.seen) AS r (span);

-- The windows that have no candle and provably no trade: covered from end to end, outside every hole, no
-- trade stored. O = H = L = C = the close before. Windows after which nothing is known are left out.
CREATE FUNCTION quiet_candles(
    exchange text, symbol text, timeframe text, from_time timestamptz, to_time timestamptz
)
RETURNS TABLE (open_time timestamptz, close_time timestamptz, close numeric, contracts numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10000 AS $$
    WITH target AS MATERIALIZED (
        SELECT instrument_id($1, $2) AS id, timeframe_width($3) AS width
    ),
    stored AS MATERIALIZED (
        SELECT c.open_time, c.close, c.contracts
        FROM candles c
        WHERE c.instrument_id = instrument_id($1, $2) AND c.timeframe = $3 AND c.open_time >= $4 AND c.open_time < $5
    ),
    covered AS (
        SELECT s.from_time, s.to_time, t.id, t.width,
               date_bin(t.width, greatest(s.from_time, $4), timestamptz 'epoch') AS first
        FROM target t CROSS JOIN coverage_intervals s
        WHERE s.instrument_id = instrument_id($1, $2) AND s.to_time > $4 AND s.from_time < $5 AND (s.timeframes IS NULL OR $3 = ANY (s.timeframes))
    ),
    windows AS (
        SELECT v.id, v.width, w.open_time
        FROM covered v
        CROSS JOIN LATERAL generate_series(v.first, least(v.to_time - v.width, $5 - interval '1 microsecond'), v.width)
            AS w (open_time)
        WHERE w.open_time >= v.from_time AND w.open_time >= $4
    ),
    missing AS (
        SELECT w.id, w.width, w.open_time
        FROM windows w
        WHERE NOT EXISTS (SELECT FROM stored s WHERE s.open_time = w.open_time)
          AND NOT EXISTS (
            SELECT FROM trade_gaps g
            WHERE g.instrument_id = instrument_id($1, $2) AND (g.state <> 'closed' OR NOT isempty(g.remaining))
              AND g.from_time < w.open_time + w.width AND g.to_time >= w.open_time
          )
    ),
    -- A trade may be stored a moment before its candle: that window is no quiet one, and its close counts.
    traded AS (
        SELECT m.open_time, m.width, p.price
        FROM missing m
        LEFT JOIN LATERAL (
            SELECT t.price FROM trades t
            WHERE t.instrument_id = m.id AND t.time >= m.open_time AND t.time < m.open_time + m.width
            ORDER BY t.time DESC, t.sequence DESC LIMIT 1
        ) p ON true
    ),
    before AS (
        SELECT c.open_time, c.close, c.contracts
        FROM candles c
        WHERE c.instrument_id = instrument_id($1, $2) AND c.timeframe = $3 AND c.open_time < $4
        ORDER BY c.open_time DESC LIMIT 1
    ),
    line AS (
        SELECT b.open_time, b.close, b.contracts, false AS quiet FROM before b
        UNION ALL SELECT s.open_time, s.close, s.contracts, false FROM stored s
        UNION ALL SELECT d.open_time, d.price, NULL, d.price IS NULL FROM traded d
    ),
    groups AS (
        SELECT l.open_time, l.close, l.contracts, l.quiet, count(l.close) OVER (ORDER BY l.open_time) AS known
        FROM line l
    ),
    filled AS (
        SELECT g.open_time, g.quiet,
               first_value(g.close) OVER anchor AS close, first_value(g.contracts) OVER anchor AS contracts
        FROM groups g
        WINDOW anchor AS (PARTITION BY g.known ORDER BY g.open_time)
    )
    SELECT f.open_time, f.open_time + t.width, f.close, f.contracts * 0
    FROM filled f CROSS JOIN target t
    WHERE f.quiet AND f.close IS NOT NULL
$$;

CREATE FUNCTION candles(
    exchange text, symbol text, timeframe text, from_time timestamptz, to_time timestamptz, fill boolean DEFAULT false
)
RETURNS TABLE (
    open_time timestamptz, close_time timestamptz, open numeric, high numeric, low numeric, close numeric,
    volume numeric, quote_volume numeric, buy_volume numeric, buy_quote_volume numeric, vwap numeric,
    contracts numeric, trades_count bigint, first_id text, last_id text,
    quality text, revision int, missing bigint, received timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT c.open_time, c.close_time, c.open, c.high, c.low, c.close,
           c.volume, c.quote_volume, c.buy_volume, c.buy_quote_volume, c.quote_volume / nullif(c.volume, 0),
           c.contracts, c.trades_count, c.first_id, c.last_id,
           c.quality, c.revision, c.missing, c.received
    FROM candles c
    WHERE c.instrument_id = instrument_id($1, $2) AND c.timeframe = $3 AND c.open_time >= $4 AND c.open_time < $5
    UNION ALL
    SELECT q.open_time, q.close_time, q.close, q.close, q.close, q.close,
           0, 0, 0, 0, NULL,
           q.contracts, 0, NULL, NULL,
           'quiet', 0, 0, NULL
    FROM quiet_candles($1, $2, $3, $4, $5) q
    WHERE $6
    ORDER BY 1
$$;

CREATE VIEW raw_trades AS
    SELECT i.exchange, i.symbol, i.instrument, t.id AS trade_id, t.time AS timestamp, t.price, t.size, t.side,
           t.sequence, t.epoch, t.contracts, t.fills, t.conditions, t.repaired, t.received
    FROM trades t JOIN instruments i ON i.id = t.instrument_id;

CREATE VIEW market_data AS
    SELECT i.exchange, i.symbol, i.instrument, c.timeframe, c.open_time AS timestamp, c.open, c.high, c.low, c.close,
           c.volume, c.quote_volume, c.trades_count, c.quality, c.received
    FROM candles c JOIN instruments i ON i.id = c.instrument_id;
