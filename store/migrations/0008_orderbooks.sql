-- Order books: the points of the regular grid, and between them each record at which a book became valid or
-- invalid (or invalid for another reason). `at` is from when on the row holds: snapshot_time on the grid, elsewhere
-- the later of time and received. It is a function of the record alone, so that an entry is one row however often it
-- is read. There is no natural key: `entry_ms`, `entry_seq` are the id of the stream entry. Partitions of a UTC day.
-- Arrays of numeric take half the room of jsonb and need no parsing.

CREATE TABLE orderbooks (
    at             timestamptz NOT NULL,
    received       timestamptz NOT NULL,
    time           timestamptz,
    snapshot_time  timestamptz,
    sequence       bigint,
    entry_ms       bigint NOT NULL,
    entry_seq      bigint NOT NULL,
    instrument_id  int NOT NULL,
    depth          int NOT NULL,
    valid          boolean NOT NULL,
    unit           text NOT NULL,
    reason         text,
    bid            numeric,
    bid_size       numeric,
    ask            numeric,
    ask_size       numeric,
    bid_prices     numeric[] NOT NULL,
    bid_sizes      numeric[] NOT NULL,
    ask_prices     numeric[] NOT NULL,
    ask_sizes      numeric[] NOT NULL,
    PRIMARY KEY (instrument_id, at, entry_ms, entry_seq),
    CONSTRAINT orderbooks_unit CHECK (unit IN ('base', 'contracts')),
    CONSTRAINT orderbooks_bids CHECK (
        '-Infinity' < ALL (bid_prices) AND 'Infinity' > ALL (bid_prices)
        AND 0 <= ALL (bid_sizes) AND 'Infinity' > ALL (bid_sizes)
    ),
    CONSTRAINT orderbooks_asks CHECK (
        '-Infinity' < ALL (ask_prices) AND 'Infinity' > ALL (ask_prices)
        AND 0 <= ALL (ask_sizes) AND 'Infinity' > ALL (ask_sizes)
    )
) PARTITION BY RANGE (at);

CREATE FUNCTION orderbooks(exchange text, symbol text, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (
    "at" timestamptz, valid boolean, reason text, bid numeric, bid_size numeric, ask numeric, ask_size numeric,
    bid_prices numeric[], bid_sizes numeric[], ask_prices numeric[], ask_sizes numeric[],
    unit text, depth int, sequence bigint, snapshot_time timestamptz, "time" timestamptz, received timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT o.at, o.valid, o.reason, o.bid, o.bid_size, o.ask, o.ask_size,
           o.bid_prices, o.bid_sizes, o.ask_prices, o.ask_sizes,
           o.unit, o.depth, o.sequence, o.snapshot_time, o.time, o.received
    FROM orderbooks o
    WHERE o.instrument_id = instrument_id($1, $2) AND o.at >= $3 AND o.at < $4
    ORDER BY o.at, o.entry_ms, o.entry_seq
$$;

-- The grid runs on the exchange's clock, what lies between mostly on the host's: where they differ, `at` may tell the
-- order of two neighbours wrongly. The stream tells it rightly, so the last entry of the last 10 s is the state.
CREATE FUNCTION orderbook_at(exchange text, symbol text, at_time timestamptz)
RETURNS TABLE (
    "at" timestamptz, valid boolean, reason text, bid numeric, bid_size numeric, ask numeric, ask_size numeric,
    bid_prices numeric[], bid_sizes numeric[], ask_prices numeric[], ask_sizes numeric[],
    unit text, depth int, sequence bigint, snapshot_time timestamptz, "time" timestamptz, received timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT o.at, o.valid, o.reason, o.bid, o.bid_size, o.ask, o.ask_size,
           o.bid_prices, o.bid_sizes, o.ask_prices, o.ask_sizes,
           o.unit, o.depth, o.sequence, o.snapshot_time, o.time, o.received
    FROM orderbooks o
    WHERE o.instrument_id = instrument_id($1, $2) AND o.at <= $3
      AND o.at > (
        SELECT n.at FROM orderbooks n
        WHERE n.instrument_id = instrument_id($1, $2) AND n.at <= $3 ORDER BY n.at DESC LIMIT 1
      ) - interval '10 seconds'
    ORDER BY o.entry_ms DESC, o.entry_seq DESC
    LIMIT 1
$$;
