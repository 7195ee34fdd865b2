-- Candles: time frames below a minute in partitions of a UTC day, those of a minute and more of a month
-- (years of daily bars in day partitions took 40 times as long to read). `entry_ms`, `entry_seq` are the id
-- of the stream entry the row came from: the row of the higher entry wins, whatever its revision.

CREATE TABLE candles (
    open_time        timestamptz NOT NULL,
    close_time       timestamptz NOT NULL,
    received         timestamptz NOT NULL,
    missing          bigint NOT NULL,
    trades_count     bigint NOT NULL,
    entry_ms         bigint NOT NULL,
    entry_seq        bigint NOT NULL,
    instrument_id    int NOT NULL,
    revision         int NOT NULL,
    timeframe        text NOT NULL,
    quality          text NOT NULL,
    open             numeric NOT NULL,
    high             numeric NOT NULL,
    low              numeric NOT NULL,
    close            numeric NOT NULL,
    volume           numeric NOT NULL,
    quote_volume     numeric NOT NULL,
    buy_volume       numeric NOT NULL,
    buy_quote_volume numeric NOT NULL,
    contracts        numeric,
    first_id         text,
    last_id          text,
    PRIMARY KEY (instrument_id, timeframe, open_time),
    CONSTRAINT candles_quality CHECK (quality IN ('complete', 'quiet', 'partial', 'repaired')),
    CONSTRAINT candles_window CHECK (open_time < close_time),
    CONSTRAINT candles_range CHECK (
        low > '-Infinity' AND high < 'Infinity' AND low <= open AND low <= close AND high >= open AND high >= close
    ),
    CONSTRAINT candles_volume CHECK (
        volume >= buy_volume AND volume < 'Infinity' AND quote_volume < 'Infinity'
        AND buy_volume >= 0 AND buy_quote_volume < 'Infinity'
    )
) PARTITION BY LIST (timeframe);

CREATE INDEX candles_not_whole ON candles (open_time, instrument_id) WHERE quality IN ('partial', 'repaired');

CREATE TABLE candles_seconds PARTITION OF candles
    FOR VALUES IN ('1s', '5s', '10s', '15s', '30s') PARTITION BY RANGE (open_time);

CREATE TABLE candles_minutes PARTITION OF candles
    FOR VALUES IN ('1m', '5m', '15m', '1h', '4h', '1d') PARTITION BY RANGE (open_time);
