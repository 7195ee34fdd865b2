-- Windows that `store` has to compute from stored trades: those of `timeframes` that hold a time of from_time...to_time
-- (both inclusive) and end by `until`. A row goes once a computation finds nothing to correct.

CREATE TABLE rebuilds (
    instrument_id int NOT NULL REFERENCES instruments (id),
    entry_ms      bigint NOT NULL,
    entry_seq     bigint NOT NULL,
    from_time     timestamptz NOT NULL,
    to_time       timestamptz NOT NULL,
    until         timestamptz NOT NULL,
    received      timestamptz NOT NULL,
    partition     text NOT NULL,
    quiet_from    text NOT NULL,
    timeframes    text[] NOT NULL,
    PRIMARY KEY (instrument_id, entry_ms, entry_seq),
    CONSTRAINT rebuilds_range CHECK (from_time <= to_time)
);
