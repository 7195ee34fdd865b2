-- What is traded. An instrument gets its number with its first row of any kind; its metadata follow when
-- the venue's list has come. Every other table is keyed by that number.

CREATE TABLE instruments (
    id                int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange          text NOT NULL,
    instrument        text NOT NULL,
    symbol            text,
    market            text,
    base              text,
    quote             text,
    settle            text,
    contract          text,
    contract_value    numeric,
    contract_currency text,
    tick_size         numeric,
    lot_size          numeric,
    min_size          numeric,
    expiry            timestamptz,
    strike            numeric,
    option            text,
    status            text,
    listed            timestamptz,
    valid_from        timestamptz,
    UNIQUE (exchange, instrument)
);

CREATE INDEX instruments_by_instrument ON instruments (exchange, upper(instrument));
CREATE INDEX instruments_by_symbol ON instruments (exchange, upper(symbol));

CREATE TABLE instrument_history (
    instrument_id     int NOT NULL REFERENCES instruments (id),
    valid_from        timestamptz NOT NULL,
    valid_to          timestamptz,
    symbol            text NOT NULL,
    market            text NOT NULL,
    base              text NOT NULL,
    quote             text NOT NULL,
    settle            text,
    contract          text,
    contract_value    numeric,
    contract_currency text,
    tick_size         numeric,
    lot_size          numeric,
    min_size          numeric,
    expiry            timestamptz,
    strike            numeric,
    option            text,
    status            text NOT NULL,
    listed            timestamptz,
    PRIMARY KEY (instrument_id, valid_from)
);
