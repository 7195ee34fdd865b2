"""Streams to rows on real servers: what is on the streams is in Postgres, once."""

from pathlib import Path

from tests.store.made import NOON, SECOND, candle, clock, coverage, eventually, gap, instrument, publish, query, ready
from tests.store.made import start, trade


async def test_records_of_every_kind_land(redis_url: str, database_url: str, tmp_path: Path) -> None:
    records = [
        instrument(),
        coverage("covered", NOON),
        *(trade(number) for number in range(1, 501)),
        clock(NOON + 60 * SECOND),
        gap(),
        candle(0),
        candle(0, "1s"),
    ]
    running = start(redis_url, ready(database_url), tmp_path)
    await publish(redis_url, records)
    await eventually(database_url, "SELECT count(*) FROM trades", 500)
    await eventually(database_url, "SELECT count(*) FROM candles", 2)
    await running.finish()
    counts = query(
        database_url,
        "SELECT (SELECT count(*) FROM trade_gaps), (SELECT count(*) FROM coverage), (SELECT count(*) FROM clocks),"
        " (SELECT count(*) FROM instrument_history), (SELECT count(*) FROM instruments)",
    )
    assert counts == [(1, 1, 1, 1, 1)]
