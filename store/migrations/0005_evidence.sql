-- What is known about what was seen: changes of coverage, the stream's clock, the ledger of gaps.

CREATE TABLE coverage (
    instrument_id int NOT NULL REFERENCES instruments (id),
    entry_ms      bigint NOT NULL,
    entry_seq     bigint NOT NULL,
    time          timestamptz NOT NULL,
    received      timestamptz NOT NULL,
    partition     text NOT NULL,
    state         text NOT NULL,
    cause         text NOT NULL,
    connection    text,
    timeframes    text[],
    PRIMARY KEY (instrument_id, entry_ms, entry_seq),
    CONSTRAINT coverage_state CHECK (state IN ('covered', 'uncovered'))
);

CREATE TABLE clocks (
    partition   text PRIMARY KEY,
    exchange    text NOT NULL,
    time        timestamptz NOT NULL,
    received    timestamptz NOT NULL,
    uncertainty bigint NOT NULL,
    connections jsonb NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE trade_gaps (
    instrument_id int NOT NULL REFERENCES instruments (id),
    epoch         int NOT NULL,
    from_sequence bigint NOT NULL,
    to_sequence   bigint NOT NULL,
    from_time     timestamptz NOT NULL,
    to_time       timestamptz NOT NULL,
    cause         text NOT NULL,
    state         text NOT NULL,
    reason        text,
    repaired      bigint NOT NULL,
    remaining     int8multirange NOT NULL,
    opened        timestamptz NOT NULL,
    time          timestamptz,
    received      timestamptz NOT NULL,
    entry_ms      bigint NOT NULL,
    entry_seq     bigint NOT NULL,
    PRIMARY KEY (instrument_id, epoch, from_sequence),
    CONSTRAINT trade_gaps_state CHECK (state IN ('opened', 'shrunk', 'closed'))
);

CREATE INDEX trade_gaps_open ON trade_gaps (instrument_id) WHERE state <> 'closed';
