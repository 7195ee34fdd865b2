-- The venue's rolling 24 hours, one row a record. Partition and key as those of quotes.

CREATE TABLE tickers (
    received         timestamptz NOT NULL,
    time             timestamptz,
    entry_ms         bigint NOT NULL,
    entry_seq        bigint NOT NULL,
    instrument_id    int NOT NULL,
    last             numeric,
    bid              numeric,
    bid_size         numeric,
    ask              numeric,
    ask_size         numeric,
    open_24h         numeric,
    high_24h         numeric,
    low_24h          numeric,
    volume_24h       numeric,
    quote_volume_24h numeric,
    PRIMARY KEY (instrument_id, received, entry_ms, entry_seq),
    CONSTRAINT tickers_finite CHECK (
        '-Infinity' < ALL (ARRAY[last, bid, ask, open_24h, high_24h, low_24h])
        AND 'Infinity' > ALL (ARRAY[last, bid, ask, open_24h, high_24h, low_24h])
        AND 0 <= ALL (ARRAY[bid_size, ask_size, volume_24h, quote_volume_24h])
        AND 'Infinity' > ALL (ARRAY[bid_size, ask_size, volume_24h, quote_volume_24h])
    )
) PARTITION BY RANGE (received);

CREATE FUNCTION tickers(exchange text, symbol text, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    received timestamptz, "time" timestamptz, last numeric, bid numeric, bid_size numeric, ask numeric,
    ask_size numeric, open_24h numeric, high_24h numeric, low_24h numeric, volume_24h numeric, quote_volume_24h numeric
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT t.received, t.time, t.last, t.bid, t.bid_size, t.ask, t.ask_size,
           t.open_24h, t.high_24h, t.low_24h, t.volume_24h, t.quote_volume_24h
    FROM tickers t
    WHERE t.instrument_id = instrument_id($1, $2) AND t.received >= $3 AND t.received < $4
    ORDER BY t.received, t.entry_ms, t.entry_seq
$$;

CREATE FUNCTION last_ticker(exchange text, symbol text)
RETURNS TABLE (
    received timestamptz, "time" timestamptz, last numeric, bid numeric, bid_size numeric, ask numeric,
    ask_size numeric, open_24h numeric, high_24h numeric, low_24h numeric, volume_24h numeric, quote_volume_24h numeric
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT t.received, t.time, t.last, t.bid, t.bid_size, t.ask, t.ask_size,
           t.open_24h, t.high_24h, t.low_24h, t.volume_24h, t.quote_volume_24h
    FROM tickers t
    WHERE t.instrument_id = instrument_id($1, $2)
    ORDER BY t.received DESC, t.entry_ms DESC, t.entry_seq DESC
    LIMIT 1
$$;
