"""Every question of the audit, as SQL with its values in it: what is run is what `--explain` prints."""

from collections.abc import Iterable
from datetime import datetime
from typing import LiteralString

from psycopg import sql

from pipeline.commands._audit.period import Period

Statement = sql.Composed

MOST_RUNS = 10_000
"""Unbroken runs of numbers that are told apart in one day of an instrument."""
CONTEXT = 200
"""Trades before and after a range that are looked at: numbers and times need not have the same order at a midnight."""
MOST_TOLD = 100
MODULUS = 1 << 60

VALUES: tuple[LiteralString, ...] = (
    "open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume",
    "contracts", "trades_count", "first_id", "last_id",
)  # fmt: skip
"""What a candle says of its trades."""
BAR_VALUES: tuple[LiteralString, ...] = (
    "open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume", "contracts",
    "trades_count",
)  # fmt: skip
"""What an exchange's own bar may say of them."""

_INSTRUMENTS: LiteralString = """
    SELECT i.id, i.exchange, i.instrument, coalesce(i.symbol, i.instrument) AS symbol, i.market, i.contract
    FROM instruments i
    WHERE ({exchange}::text IS NULL OR i.exchange = lower({exchange}))
      AND ({symbol}::text IS NULL OR upper({symbol}) IN (upper(i.symbol), upper(i.instrument)))
      AND (EXISTS (SELECT FROM coverage c WHERE c.instrument_id = i.id)
           OR EXISTS (SELECT FROM trades t WHERE t.instrument_id = i.id AND t.time >= {start} AND t.time < {end}))
    ORDER BY i.exchange, symbol, i.id"""

_DIGEST: LiteralString = """
    SELECT count(*) AS trades, min(sequence) AS first, max(sequence) AS last,
           lpad(to_hex(mod(sum(('x' || left(md5(concat_ws('|',
               sequence, (extract(epoch FROM time) * 1000000)::bigint, trim_scale(price), trim_scale(size), side
           )), 15))::bit(60)::bigint), 1152921504606846976)::bigint), 15, '0') AS digest
    FROM trades
    WHERE instrument_id = {instrument} AND time >= {start} AND time < {end}"""

_RUNS: LiteralString = """
    SELECT epoch, min(first) AS first, max(last) AS last, count(*) AS trades,
           count(*) FILTER (WHERE first <= before) AS doubled, min(time) AS from_time, max(time) AS to_time
    FROM (
        SELECT *, count(*) FILTER (WHERE before IS NULL OR first > before + 1)
                      OVER (PARTITION BY epoch ORDER BY first, last, time ROWS UNBOUNDED PRECEDING) AS run
        FROM (
            SELECT epoch, coalesce(first_sequence, sequence) AS first, sequence AS last, time,
                   max(sequence) OVER (
                       PARTITION BY epoch ORDER BY coalesce(first_sequence, sequence), sequence, time
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                   ) AS before
            FROM trades
            WHERE instrument_id = {instrument} AND time >= {start} AND time < {end}
        ) AS printed
    ) AS runs
    GROUP BY epoch, run
    ORDER BY epoch, first
    LIMIT {most}"""

_DOUBLED: LiteralString = """
    SELECT epoch, sequence, array_agg(time ORDER BY time) AS times
    FROM trades
    WHERE instrument_id = {instrument} AND time >= {start} AND time < {end}
    GROUP BY epoch, sequence HAVING count(*) > 1
    ORDER BY epoch, sequence
    LIMIT {most}"""

_RENAMED: LiteralString = """
    SELECT min(epoch) AS epoch, sequence, array_agg(time) AS times
    FROM trades
    WHERE instrument_id = {instrument} AND time >= {start} AND time < {end}
    GROUP BY time, sequence HAVING count(*) > 1
    ORDER BY time, sequence"""

_AROUND: LiteralString = """
    (SELECT epoch, coalesce(first_sequence, sequence) AS first, sequence AS last, time, -1 AS side
     FROM trades WHERE instrument_id = {instrument} AND time < {start} ORDER BY time DESC, sequence DESC LIMIT {most})
    UNION ALL
    (SELECT epoch, coalesce(first_sequence, sequence), sequence, time, 1
     FROM trades WHERE instrument_id = {instrument} AND time >= {end} ORDER BY time, sequence LIMIT {most})"""

_LEDGER: LiteralString = """
    SELECT g.epoch, g.from_sequence, g.to_sequence, g.from_time, g.to_time, g.reason, g.outcome,
           (SELECT coalesce(array_agg(ARRAY[lower(r), upper(r) - 1] ORDER BY lower(r)), '{{}}')
            FROM unnest(g.remaining) AS r) AS remaining
    FROM gaps g
    WHERE g.instrument_id = {instrument} AND g.from_time < {end} AND g.to_time >= {start}
    ORDER BY g.epoch, g.from_sequence"""

_COLLECTION: LiteralString = """
    WITH begun AS (
        SELECT time FROM coverage WHERE instrument_id = {instrument} AND state = 'covered'
        ORDER BY entry_ms, entry_seq LIMIT 1
    )
    SELECT b.time AS since, f.epoch, f.first, f.time AS first_time,
           (SELECT time FROM trades WHERE instrument_id = {instrument} ORDER BY time DESC LIMIT 1) AS newest,
           (SELECT k.time - k.uncertainty / 1000 * interval '1 microsecond' FROM clocks k WHERE k.partition = (
               SELECT partition FROM coverage WHERE instrument_id = {instrument}
               ORDER BY entry_ms DESC, entry_seq DESC LIMIT 1
           )) AS clock
    FROM begun b LEFT JOIN LATERAL (
        SELECT epoch, coalesce(first_sequence, sequence) AS first, time FROM trades
        WHERE instrument_id = {instrument} AND time >= b.time ORDER BY time, sequence LIMIT 1
    ) f ON true"""

_FRAMES: LiteralString = """
    SELECT time, timeframes FROM coverage
    WHERE instrument_id = {instrument} AND state = 'covered' ORDER BY entry_ms, entry_seq"""

_DROPPED: LiteralString = """
    SELECT k.kind, lower(r.span) AS from_time, upper(r.span) AS to_time
    FROM unnest(ARRAY['trade', 'candle', 'candle_seconds']) AS k (kind)
    CROSS JOIN LATERAL unnest(dropped_times(k.kind)) AS r (span)
    ORDER BY k.kind, from_time"""

_COUNT: LiteralString = """
    SELECT count(*) AS candles FROM candles
    WHERE instrument_id = {instrument} AND timeframe = {timeframe} AND open_time >= {start} AND open_time < {end}"""

_WINDOWS: LiteralString = """
    SELECT w.*, p.price AS before, coalesce(p.forgotten, false) AS forgotten
    FROM (
        SELECT coalesce(c.open_time, t.open_time) AS open_time, c.open_time IS NOT NULL AS stored,
               t.open_time IS NOT NULL AS made, c.close_time AS close_time, {both},
               c.quality AS quality, t.quality AS made_quality, c.missing AS missing
        FROM (SELECT * FROM candles WHERE instrument_id = {instrument} AND timeframe = {timeframe}
                                      AND open_time >= {start} AND open_time < {end}) AS c
        FULL JOIN candles_of_trades({instrument}, {timeframe}, {start}, {end}) AS t ON t.open_time = c.open_time
        CROSS JOIN (
            SELECT min(open_time) AS first, max(open_time) AS last FROM candles
            WHERE instrument_id = {instrument} AND timeframe = {timeframe} AND quality = 'quiet'
              AND open_time >= {start} - interval '1 day' AND open_time < {end} + interval '1 day'
        ) AS quiet
        WHERE (c.open_time IS NULL AND t.trades_count > 0) OR (t.open_time IS NULL)
           OR (c.open_time IS NULL AND t.quality = 'quiet' AND t.open_time > quiet.first AND t.open_time < quiet.last)
           OR (c.close_time, {ours}) IS DISTINCT FROM (t.close_time, {theirs}) AND c.open_time IS NOT NULL
           OR (c.quality = 'partial') <> (t.quality = 'partial') OR (c.quality = 'quiet') <> (t.quality = 'quiet')
           OR (c.quality = 'partial') <> (c.missing > 0)
    ) AS w
    LEFT JOIN LATERAL (
        SELECT CASE WHEN NOT q.forgotten THEN q.price END AS price, q.forgotten
        FROM (
            SELECT price, dropped_times('trade') && tstzrange(time, w.open_time) AS forgotten
            FROM trades WHERE instrument_id = {instrument} AND time < w.open_time
            ORDER BY time DESC, sequence DESC, epoch DESC LIMIT 1
        ) AS q
    ) AS p ON NOT w.made
    ORDER BY w.open_time"""

_CANDLES: LiteralString = """
    SELECT open_time, quality, {values}
    FROM candles
    WHERE instrument_id = {instrument} AND timeframe = {timeframe} AND open_time >= {start} AND open_time < {end}
      AND quality <> 'partial'
    ORDER BY open_time"""

_STORED_BARS: LiteralString = """
    SELECT k.open_time, {bars}, {candles}, c.quality
    FROM klines k JOIN candles c
      ON c.instrument_id = k.instrument_id AND c.timeframe = k.timeframe AND c.open_time = k.open_time
     AND c.open_time >= {start} AND c.open_time < {end}
    WHERE k.instrument_id = {instrument} AND k.timeframe = {timeframe}
      AND k.open_time >= {start} AND k.open_time < {end} AND c.quality <> 'partial'
    ORDER BY k.open_time"""


def instruments(exchange: str | None, symbol: str | None, period: Period) -> Statement:
    """What has ever been covered, or has a trade in the range."""
    return _filled(_INSTRUMENTS, exchange=exchange, symbol=symbol, **_ends(period))


def digest(instrument: int, period: Period) -> Statement:
    """Count, first and last number, digest."""
    return _filled(_DIGEST, instrument=instrument, **_ends(period))


def runs(instrument: int, period: Period) -> Statement:
    """The unbroken runs of numbers of each epoch, and how many rows tell numbers that others tell too."""
    return _filled(_RUNS, instrument=instrument, most=MOST_RUNS + 1, **_ends(period))


def doubled(instrument: int, period: Period) -> Statement:
    """Numbers that more than one row tells."""
    return _filled(_DOUBLED, instrument=instrument, most=MOST_TOLD, **_ends(period))


def renamed(instrument: int, period: Period) -> Statement:
    """Trades that stand under more than one epoch: the same number at the same time."""
    return _filled(_RENAMED, instrument=instrument, **_ends(period))


def around(instrument: int, period: Period) -> Statement:
    """Numbers right before (`side` -1) and after (1) the range."""
    return _filled(_AROUND, instrument=instrument, most=CONTEXT, **_ends(period))


def ledger(instrument: int, period: Period) -> Statement:
    """The entries that touch the range."""
    return _filled(_LEDGER, instrument=instrument, **_ends(period))


def collection(instrument: int) -> Statement:
    """When it began to be covered, the first number from then on, its newest trade, and the stream's clock."""
    return _filled(_COLLECTION, instrument=instrument)


def frames(instrument: int) -> Statement:
    """From when on which time frames were made."""
    return _filled(_FRAMES, instrument=instrument)


def dropped() -> Statement:
    """The times of which trades or candles are no longer kept."""
    return _filled(_DROPPED)


def count(instrument: int, timeframe: str, period: Period) -> Statement:
    """How many candles of a time frame there are."""
    return _filled(_COUNT, instrument=instrument, timeframe=timeframe, **_ends(period))


def windows(instrument: int, timeframe: str, period: Period) -> Statement:
    """The windows whose candle is not what the stored trades make of it, or that may be so. From which time frame on
    windows without trades have candles is a setting: they must where others before and after them do."""
    columns = {
        "both": _columns(f"c.{name} AS {name}, t.{name} AS made_{name}" for name in VALUES),
        "ours": _columns(f"c.{name}" for name in VALUES),
        "theirs": _columns(f"t.{name}" for name in VALUES),
    }
    return _filled(_WINDOWS, columns, instrument=instrument, timeframe=timeframe, **_ends(period))


def candles(instrument: int, timeframe: str, period: Period) -> Statement:
    """The candles that can be compared with the exchange's bars."""
    columns = {"values": _columns(BAR_VALUES)}
    return _filled(_CANDLES, columns, instrument=instrument, timeframe=timeframe, **_ends(period))


def stored_bars(instrument: int, timeframe: str, period: Period) -> Statement:
    """The exchange's bars that are stored, beside our candles of the same windows."""
    columns = {
        "bars": _columns(f"k.{name} AS bar_{name}" for name in BAR_VALUES),
        "candles": _columns(f"c.{name} AS {name}" for name in BAR_VALUES),
    }
    return _filled(_STORED_BARS, columns, instrument=instrument, timeframe=timeframe, **_ends(period))


def _columns(names: Iterable[LiteralString]) -> sql.Composable:
    return sql.SQL(", ".join(names))


def _ends(period: Period) -> dict[str, datetime]:
    return {"start": period.start, "end": period.end}


def _filled(
    text: LiteralString, columns: dict[str, sql.Composable] | None = None, /, **values: int | str | datetime | None
) -> Statement:
    literals = {name: sql.Literal(value) for name, value in values.items()}
    return sql.SQL(text).format(**(columns or {}), **literals)
