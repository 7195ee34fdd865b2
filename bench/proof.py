"""That every trade the exchange printed is stored once, that no gap is in the ledger, and that candles agree."""

from bench.exchange import Printed
from bench.part import expect
from bench.product import VENUE, Product
from pipeline.probes.redis import call

CLOSING = 60.0
"""Seconds for the last windows to close; the stream's clock does it a second after their end."""

_TRADES = b"""
SELECT i.instrument, count(*), count(DISTINCT (t.epoch, t.sequence)), min(t.sequence), max(t.sequence)
FROM trades t JOIN instruments i ON i.id = t.instrument_id GROUP BY i.instrument"""
_CANDLES = b"""
SELECT c.timeframe, sum(c.trades_count)::bigint, (SELECT count(*) FROM trades t WHERE t.time < max(c.close_time))
FROM candles c GROUP BY c.timeframe"""
_IN_SECONDS = b"SELECT coalesce(sum(trades_count), 0)::bigint FROM candles WHERE timeframe = '1s'"


def prove(product: Product) -> int:
    """The number of trades printed and stored, once the last candle of a second is stored too. Raises WrongResult."""
    printed = product.settle()
    with product.instance.postgres() as database:

        def closed() -> bool:
            row = database.execute(_IN_SECONDS).fetchone()
            return row is not None and row[0] >= printed.printed

        product.instance.until(closed, "the candles of the last second", CLOSING, 0.25)
        _trades({row[0]: row[1:] for row in database.execute(_TRADES)}, printed)
        for timeframe, counted, stored in database.execute(_CANDLES):
            expect(f"trades in candles of {timeframe}", counted, stored)
        (gaps,) = database.execute(b"SELECT count(*) FROM trade_gaps").fetchone() or (0,)
    expect("gaps in the ledger", gaps, 0)
    keys = product.instance.keys(VENUE)
    expect("dead letters", call(product.instance.redis, "XLEN", keys.dead), 0)
    return printed.printed


def _trades(stored: dict[str, tuple[int, int, int, int]], printed: Printed) -> None:
    expect("trades stored", sum(rows for rows, *_ in stored.values()), printed.printed)
    expect("different trades stored", sum(numbers for _, numbers, *_ in stored.values()), printed.printed)
    expect("instruments stored", len(stored), len(printed.numbers))
    for instrument, (first, last) in printed.numbers.items():
        rows, _, lowest, highest = stored[instrument]
        expect(f"{instrument}: first number", lowest, first)
        expect(f"{instrument}: last number", highest, last)
        expect(f"{instrument}: trades", rows, last - first + 1)
