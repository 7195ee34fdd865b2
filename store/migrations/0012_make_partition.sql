-- As before, for the tables that have come since. `parent`: trades, orderbooks, quotes, tickers, candles_seconds,
-- klines_seconds (a UTC day each), candles_minutes, klines_minutes (a UTC month).

CREATE OR REPLACE FUNCTION make_partition(parent text, at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    width    text := CASE WHEN parent IN ('candles_minutes', 'klines_minutes') THEN 'month' ELSE 'day' END;
    first    timestamp := date_trunc(width, at AT TIME ZONE 'UTC');
    after    timestamp := first + ('1 ' || width)::interval;
    fresh    text := parent || to_char(first, CASE width WHEN 'month' THEN '_YYYYMM' ELSE '_YYYYMMDD' END);
BEGIN
    IF parent NOT IN (
        'trades', 'orderbooks', 'quotes', 'tickers',
        'candles_seconds', 'candles_minutes', 'klines_seconds', 'klines_minutes'
    ) THEN
        RAISE EXCEPTION 'table % has no partitions of its own', parent USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('tapeline partitions'));
    IF to_regclass(fresh) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', fresh, parent);
    EXECUTE format(
        'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, fresh, first AT TIME ZONE 'UTC', after AT TIME ZONE 'UTC'
    );
    RETURN true;
END
$$;
