"""What somebody does to a database by hand: one trade is deleted and one candle of another instrument altered, so that
an audit can show that it sees it. Only ever the database of a run."""

from datetime import UTC
from typing import Any, LiteralString, NamedTuple

import psycopg

from pipeline.errors import ServerAway
from pipeline.probes import postgres as postgres_probe
from pipeline.settings import Settings

_TRADE: LiteralString = """
    WITH busiest AS (SELECT instrument_id, count(*) FROM trades GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1)
    DELETE FROM trades WHERE (instrument_id, time, sequence, epoch) IN (
        SELECT t.instrument_id, t.time, t.sequence, t.epoch FROM trades t JOIN busiest b USING (instrument_id)
        WHERE t.fills = 1 ORDER BY t.epoch DESC, t.sequence OFFSET (SELECT count / 2 FROM busiest) LIMIT 1)
    RETURNING instrument_id, sequence, epoch"""
_CANDLE: LiteralString = """
    UPDATE candles SET high = high * 2 WHERE (instrument_id, timeframe, open_time) IN (
        SELECT instrument_id, timeframe, open_time FROM candles
        WHERE timeframe = '1s' AND trades_count > 0 AND quality = 'complete' AND instrument_id <> %s
        ORDER BY open_time OFFSET (
            SELECT count(*) / 2 FROM candles
            WHERE timeframe = '1s' AND trades_count > 0 AND quality = 'complete' AND instrument_id <> %s
        ) LIMIT 1)
    RETURNING instrument_id, timeframe, open_time"""
_NAME: LiteralString = "SELECT exchange, coalesce(symbol, instrument) FROM instruments WHERE id = %s"


class Thing(NamedTuple):
    """Something spoilt: the instrument as an audit's page heads it, and the words that it must say below."""

    heading: str
    words: str


class Spoilt(NamedTuple):
    """What was spoilt."""

    trade: Thing
    candle: Thing

    @property
    def told(self) -> str:
        deleted, altered = (f"{thing.heading} {thing.words.rstrip(',:')}" for thing in self)
        return f"by hand: deleted {deleted}; doubled the high of the candle {altered}"


def spoil(settings: Settings) -> Spoilt:
    """Deletes one trade in the midst of the busiest instrument's, alters one candle in the midst of all others'. Raises
    ServerAway where there is nothing to spoil."""
    try:
        with psycopg.connect(settings.database_address(), autocommit=True) as connection:
            instrument, sequence, epoch = _one(connection, _TRADE, ())
            trade = Thing(_heading(connection, instrument), _trade_words(sequence, epoch))
            other, timeframe, opened = _one(connection, _CANDLE, (instrument, instrument))
            moment = opened.astimezone(UTC).isoformat(sep=" ", timespec="auto").removesuffix("+00:00")
            return Spoilt(trade, Thing(_heading(connection, other), f"{timeframe} {moment}:"))
    except psycopg.Error as error:
        raise ServerAway(f"postgres: {postgres_probe.short(error)}") from error


def _trade_words(sequence: int, epoch: int) -> str:
    return f"trade {sequence} of epoch {epoch}," if epoch else f"trade {sequence},"


def _heading(connection: postgres_probe.Connection, instrument: int) -> str:
    return " ".join(map(str, _one(connection, _NAME, (instrument,))))


def _one(connection: postgres_probe.Connection, query: LiteralString, values: tuple[int, ...]) -> tuple[Any, ...]:
    row = connection.execute(query, values).fetchone()
    if row is None:
        raise ServerAway("nothing is stored that could be spoilt")
    return row
