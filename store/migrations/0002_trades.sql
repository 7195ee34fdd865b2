-- Trades, one partition a UTC day. `time` is fixed by normalize and stands in the key, because a key of a
-- partitioned table must hold the partition column. Columns stand in the order that wastes least padding.

CREATE TABLE trades (
    time           timestamptz NOT NULL,
    received       timestamptz NOT NULL,
    sequence       bigint NOT NULL,
    first_sequence bigint,
    instrument_id  int NOT NULL,
    epoch          int NOT NULL,
    fills          int NOT NULL,
    repaired       boolean NOT NULL,
    side           text NOT NULL,
    price          numeric NOT NULL,
    size           numeric NOT NULL,
    contracts      numeric,
    id             text NOT NULL,
    conditions     text[] NOT NULL,
    PRIMARY KEY (instrument_id, time, sequence, epoch),
    CONSTRAINT trades_side CHECK (side IN ('buy', 'sell')),
    CONSTRAINT trades_fills CHECK (fills >= 1),
    CONSTRAINT trades_price CHECK (price > '-Infinity' AND price < 'Infinity'),
    CONSTRAINT trades_size CHECK (size >= 0 AND size < 'Infinity'),
    CONSTRAINT trades_contracts CHECK (contracts >= 0 AND contracts < 'Infinity')
) PARTITION BY RANGE (time);
