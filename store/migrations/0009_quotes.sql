-- Best bid and ask of the venue's own channel. Not every venue gives a time (Binance's bookTicker does not), so the
-- partition, a UTC day, is by `received`, which every record has and no second reading of its entry changes. There is
-- no natural key: `entry_ms`, `entry_seq` are the id of the stream entry.

CREATE TABLE quotes (
    received      timestamptz NOT NULL,
    time          timestamptz,
    sequence      bigint,
    entry_ms      bigint NOT NULL,
    entry_seq     bigint NOT NULL,
    instrument_id int NOT NULL,
    bid           numeric,
    bid_size      numeric,
    ask           numeric,
    ask_size      numeric,
    PRIMARY KEY (instrument_id, received, entry_ms, entry_seq),
    CONSTRAINT quotes_bid CHECK (bid > '-Infinity' AND bid < 'Infinity'),
    CONSTRAINT quotes_ask CHECK (ask > '-Infinity' AND ask < 'Infinity'),
    CONSTRAINT quotes_sizes CHECK (
        coalesce(bid_size, 0) >= 0 AND coalesce(bid_size, 0) < 'Infinity'
        AND coalesce(ask_size, 0) >= 0 AND coalesce(ask_size, 0) < 'Infinity'
    )
) PARTITION BY RANGE (received);

CREATE FUNCTION quotes(exchange text, symbol text, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    received timestamptz, "time" timestamptz, bid numeric, bid_size numeric, ask numeric, ask_size numeric,
    sequence bigint
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT q.received, q.time, q.bid, q.bid_size, q.ask, q.ask_size, q.sequence
    FROM quotes q
    WHERE q.instrument_id = instrument_id($1, $2) AND q.received >= $3 AND q.received < $4
    ORDER BY q.received, q.entry_ms, q.entry_seq
$$;

CREATE FUNCTION last_quotes(exchange text, symbol text, n int)
RETURNS TABLE (
    received timestamptz, "time" timestamptz, bid numeric, bid_size numeric, ask numeric, ask_size numeric,
    sequence bigint
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT q.received, q.time, q.bid, q.bid_size, q.ask, q.ask_size, q.sequence
    FROM quotes q
    WHERE q.instrument_id = instrument_id($1, $2)
    ORDER BY q.received DESC, q.entry_ms DESC, q.entry_seq DESC
    LIMIT $3
$$;
