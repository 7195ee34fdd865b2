-- What is deleted by days, and what is known of it afterwards. Partitions go whole, by `drop_partition` alone, which
-- writes down what went: whoever computes or compares must tell deleted from missing.

CREATE TABLE dropped (
    kind      text NOT NULL,
    from_time timestamptz NOT NULL,
    to_time   timestamptz NOT NULL,
    bytes     bigint NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (kind, from_time),
    CONSTRAINT dropped_range CHECK (from_time < to_time)
);

-- Sizes as `store` measured them, once an hour: of the partitions of each kind, and (kind `database`) of the whole.
CREATE TABLE sizes (
    kind    text NOT NULL,
    at      timestamptz NOT NULL,
    bytes   bigint NOT NULL,
    dropped bigint NOT NULL,
    since   timestamptz,
    PRIMARY KEY (kind, at)
);

CREATE FUNCTION candle_kind(timeframe text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE right($1, 1) WHEN 's' THEN 'candle_seconds' ELSE 'candle' END
$$;

CREATE FUNCTION dropped_times(kind text) RETURNS tstzmultirange
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(range_agg(tstzrange(d.from_time, d.to_time)), '{}') FROM dropped d WHERE d.kind = $1
$$;

CREATE FUNCTION kept_since(kind text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT max(d.to_time) FROM dropped d WHERE d.kind = $1
$$;

-- One of another shape (a default partition, say) is not ours to drop, and not in here.
CREATE VIEW partitions AS
    SELECT k.kind, c.oid::regclass AS name, b.bounds[1]::timestamptz AS from_time, b.bounds[2]::timestamptz AS to_time,
           pg_total_relation_size(c.oid) AS bytes
    FROM (VALUES
        ('trade', 'trades'), ('quote', 'quotes'), ('orderbook', 'orderbooks'), ('ticker', 'tickers'),
        ('candle', 'candles_minutes'), ('candle_seconds', 'candles_seconds'),
        ('kline', 'klines_minutes'), ('kline_seconds', 'klines_seconds')
    ) AS k (kind, parent)
    JOIN pg_inherits i ON i.inhparent = k.parent::regclass
    JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL (
        SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid), $$^FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)$$)
    ) AS b (bounds)
    WHERE b.bounds IS NOT NULL;

-- Why time of a kind must not be dropped, null where it may. Trades and candles stay while trades of that time may still
-- come or are to be counted again. Trades that came of a gap tell where in it the lost ones lie: they stay as long as
-- the day on which it ends.
CREATE FUNCTION held_by(kind text, from_time timestamptz, to_time timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN $1 NOT IN ('trade', 'candle', 'candle_seconds') THEN NULL
        WHEN EXISTS (
            SELECT FROM trade_gaps g
            WHERE (g.state <> 'closed' OR g.received > now() - interval '1 hour')
              AND least(g.from_time, g.to_time) < $3 AND greatest(g.from_time, g.to_time) >= $2
        ) THEN 'an open gap, or one closed within the last hour'
        WHEN EXISTS (SELECT FROM rebuilds r WHERE r.from_time < $3 AND r.to_time >= $2)
        THEN 'candles that are to be computed'
        WHEN $1 = 'trade' AND EXISTS (
            SELECT FROM trade_gaps g JOIN partitions p ON p.kind = 'trade'
             AND greatest(g.from_time, g.to_time) >= p.from_time AND greatest(g.from_time, g.to_time) < p.to_time
            WHERE g.cause <> 'epoch' AND g.repaired > 0 AND NOT isempty(g.remaining)
              AND least(g.from_time, g.to_time) < $3 AND greatest(g.from_time, g.to_time) >= $3
        ) THEN 'a gap that ends on a later day'
    END
$$;

-- Drops the partition of `kind` that holds `at`; null, or why it stays. Waits for others at most a fifth of a second in
-- all, with the error lock_not_available (55P03) then; others wait for it as long, and for the drop itself.
CREATE FUNCTION drop_partition(kind text, at timestamptz) RETURNS text
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    leaf  regclass;
    first timestamptz;
    after timestamptz;
    size  bigint;
    held  text;
BEGIN
    SELECT p.name, p.from_time, p.to_time INTO leaf, first, after
    FROM partitions p WHERE p.kind = $1 AND p.from_time <= $2 AND p.to_time > $2;
    IF leaf IS NULL THEN
        RETURN 'there is none';
    END IF;
    held := held_by($1, first, after);
    IF held IS NOT NULL THEN
        RETURN held;
    END IF;
    -- In the order in which a batch of store takes them; once the first is had, nobody waits for another.
    EXECUTE format(
        'LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', (SELECT i.inhparent::regclass FROM pg_inherits i WHERE i.inhrelid = leaf)
    );
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', leaf);
    IF $1 IN ('trade', 'candle', 'candle_seconds') THEN
        LOCK TABLE trade_gaps, rebuilds IN SHARE MODE NOWAIT;
    END IF;
    held := held_by($1, first, after);
    IF held IS NOT NULL THEN
        RETURN held;
    END IF;
    size := pg_total_relation_size(leaf);
    EXECUTE format('DROP TABLE %s', leaf);
    INSERT INTO dropped AS d (kind, from_time, to_time, bytes, at) VALUES ($1, first, after, size, now())
    ON CONFLICT ON CONSTRAINT dropped_pkey DO UPDATE
        SET bytes = d.bytes + excluded.bytes, to_time = greatest(d.to_time, excluded.to_time), at = excluded.at;
    RETURN NULL;
END
$$;

-- The windows that have no candle and provably no trade: covered from end to end, outside every hole, no
-- trade stored. O = H = L = C = the close before. Windows after which nothing is known are left out.
CREATE OR REPLACE FUNCTION quiet_candles(
    exchange text, symbol text, timeframe text, from_time timestamptz, to_time timestamptz
)
RETURNS TABLE (open_time timestamptz, close_time timestamptz, close numeric, contracts numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10000 AS $$
    WITH target AS MATERIALIZED (
        SELECT instrument_id($1, $2) AS id, timeframe_width($3) AS width
    ),
    gone AS MATERIALIZED (SELECT dropped_times(candle_kind($3)) AS times),
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
          AND NOT EXISTS (SELECT FROM gone d WHERE d.times @> w.open_time)
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
    -- After time whose candles were dropped nobody knows the close before. No window opens a microsecond before a day.
    breaks AS (
        SELECT upper(r.span) - interval '1 microsecond' AS open_time
        FROM gone d CROSS JOIN LATERAL unnest(d.times) AS r (span) WHERE upper(r.span) < $5
    ),
    line AS (
        SELECT b.open_time, b.close, b.contracts, false AS quiet FROM before b
        UNION ALL SELECT s.open_time, s.close, s.contracts, false FROM stored s
        UNION ALL SELECT d.open_time, d.price, NULL, d.price IS NULL FROM traded d
        UNION ALL SELECT k.open_time, NULL, NULL, false FROM breaks k
    ),
    groups AS (
        SELECT l.open_time, l.close, l.contracts, l.quiet,
               count(*) FILTER (WHERE NOT l.quiet) OVER (ORDER BY l.open_time) AS known
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


-- The candles of the windows that open in [from_time, to_time), oldest first, each of all its stored trades. A window
-- without a trade is there (quiet) where it is known that there was none; and (partial, at the close before) where that
-- is not known but a candle of it is stored. Of a window whose trades were dropped nothing is said.
CREATE OR REPLACE FUNCTION candles_of_trades(instrument_id int, timeframe text, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    open_time timestamptz, close_time timestamptz, open numeric, high numeric, low numeric, close numeric,
    volume numeric, quote_volume numeric, buy_volume numeric, buy_quote_volume numeric,
    contracts numeric, trades_count bigint, first_id text, last_id text, quality text, missing bigint
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1440 AS $$
    WITH unknown AS MATERIALIZED (
        SELECT unknown_times($1, first_open($2, $3), first_open($2, $4)) AS times, timeframe_width($2) AS width
    ),
    gone AS MATERIALIZED (SELECT dropped_times('trade') AS times),
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
    -- Where what was printed before is not known from stored trades: at the beginning, and where trades kept no longer end.
    starts AS (
        SELECT first_open($2, $3) AS at
        UNION
        SELECT upper(r.span) FROM gone g CROSS JOIN LATERAL unnest(g.times) AS r (span)
        WHERE upper(r.span) > first_open($2, $3) AND upper(r.span) < first_open($2, $4)
    ),
    -- Where trades of long ago are no longer kept, the stored candle before tells the close, while candles are kept.
    before AS MATERIALIZED (
        SELECT s.at, coalesce(
            (
                SELECT n.price FROM (
                    SELECT t.price, t.time FROM trades t WHERE t.instrument_id = $1 AND t.time < s.at
                    ORDER BY t.time DESC, t.sequence DESC, t.epoch DESC LIMIT 1
                ) n CROSS JOIN gone g
                WHERE NOT g.times && tstzrange(n.time, s.at)
            ),
            (
                SELECT n.close FROM (
                    SELECT c.close, c.open_time FROM candles c
                    WHERE c.instrument_id = $1 AND c.timeframe = $2 AND c.open_time < s.at
                    ORDER BY c.open_time DESC LIMIT 1
                ) n
                WHERE NOT dropped_times(candle_kind($2)) && tstzrange(n.open_time, s.at)
            )
        ) AS price
        FROM starts s
    ),
    line AS (
        SELECT e.open_time, e.close, false AS empty FROM traded e
        UNION ALL SELECT s.open_time, NULL, true FROM empty s
        -- No window opens then.
        UNION ALL SELECT b.at - interval '1 microsecond', b.price, false FROM before b
    ),
    groups AS (
        SELECT l.open_time, l.close, l.empty, count(*) FILTER (WHERE NOT l.empty) OVER (ORDER BY l.open_time) AS number
        FROM line l
    ),
    quiet AS (
        SELECT g.open_time, first_value(g.close) OVER anchor AS price, g.empty
        FROM groups g
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
    FROM windows w CROSS JOIN unknown u CROSS JOIN gone d
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(upper(r.span) - lower(r.span)), 0)::bigint AS missing
        FROM unnest(u.times * int8multirange(
            int8range(exact_nanoseconds(w.open_time), exact_nanoseconds(w.open_time + u.width))
        )) AS r (span)
    ) m
    LEFT JOIN stored c ON c.open_time = w.open_time
    WHERE NOT d.times @> w.open_time
    ORDER BY w.open_time
$$;
