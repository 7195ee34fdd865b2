-- The exchange's own bars, once closed; partitions as those of candles. What the venue does not tell is null, and what
-- it tells is kept even where it contradicts itself: comparing is the reader's. A bar that is told again replaces its
-- row: the higher stream entry wins.

CREATE TABLE klines (
    open_time        timestamptz NOT NULL,
    close_time       timestamptz NOT NULL,
    received         timestamptz NOT NULL,
    time             timestamptz,
    trades_count     bigint,
    entry_ms         bigint NOT NULL,
    entry_seq        bigint NOT NULL,
    instrument_id    int NOT NULL,
    timeframe        text NOT NULL,
    open             numeric NOT NULL,
    high             numeric NOT NULL,
    low              numeric NOT NULL,
    close            numeric NOT NULL,
    volume           numeric NOT NULL,
    quote_volume     numeric,
    buy_volume       numeric,
    buy_quote_volume numeric,
    contracts        numeric,
    first_id         text,
    last_id          text,
    PRIMARY KEY (instrument_id, timeframe, open_time),
    CONSTRAINT klines_window CHECK (open_time < close_time),
    CONSTRAINT klines_finite CHECK (
        '-Infinity' < ALL (ARRAY[open, high, low, close])
        AND 'Infinity' > ALL (ARRAY[open, high, low, close])
        AND 0 <= ALL (ARRAY[volume, quote_volume, buy_volume, buy_quote_volume, contracts])
        AND 'Infinity' > ALL (ARRAY[volume, quote_volume, buy_volume, buy_quote_volume, contracts])
    )
) PARTITION BY LIST (timeframe);

CREATE TABLE klines_seconds PARTITION OF klines
    FOR VALUES IN ('1s', '5s', '10s', '15s', '30s') PARTITION BY RANGE (open_time);

CREATE TABLE klines_minutes PARTITION OF klines
    FOR VALUES IN ('1m', '5m', '15m', '1h', '4h', '1d') PARTITION BY RANGE (open_time);

CREATE FUNCTION klines(exchange text, symbol text, timeframe text, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    open_time timestamptz, close_time timestamptz, open numeric, high numeric, low numeric, close numeric,
    volume numeric, quote_volume numeric, buy_volume numeric, buy_quote_volume numeric,
    contracts numeric, trades_count bigint, first_id text, last_id text, "time" timestamptz, received timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT k.open_time, k.close_time, k.open, k.high, k.low, k.close,
           k.volume, k.quote_volume, k.buy_volume, k.buy_quote_volume,
           k.contracts, k.trades_count, k.first_id, k.last_id, k.time, k.received
    FROM klines k
    WHERE k.instrument_id = instrument_id($1, $2) AND k.timeframe = $3 AND k.open_time >= $4 AND k.open_time < $5
    ORDER BY k.open_time
$$;
