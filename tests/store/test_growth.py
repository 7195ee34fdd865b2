"""What docs/database.md says of the room that rows take is what a real Postgres needs for them."""

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.records import Record
from tests.store.made import NOON, SECOND, book, candle, kline, query, quote, ticker, trade, write
from tests.store.test_database_page import PAGE

ROUNDS = 150
INSTRUMENTS = 50
BATCH = 5_000
"""Entries: about what one read brings."""
DEPTH = 20
CLOSE = 0.2
"""The page may be wrong by this share."""


def records(rng: random.Random) -> Iterator[Record]:
    """A second of 50 instruments, again and again: as they come, one instrument after another, with prices of seven
    digits, sizes of up to eight decimals and 20 levels a side."""
    for second in range(ROUNDS):
        time = NOON + second * SECOND
        for number in range(INSTRUMENTS):
            name = f"C{number}-USDT"
            who: dict[str, Any] = {"instrument": name, "symbol": name, "received": time + rng.randrange(SECOND)}
            best = rng.randrange(600_000, 700_000)
            bid, ask = ({"price": f"{(best + step) / 10:.1f}", "size": _size(rng)} for step in (0, 1))
            top = {"bid": bid["price"], "bid_size": bid["size"], "ask": ask["price"], "ask_size": ask["size"]}
            day = {f"{field}_24h": f"{rng.randrange(600_000, 700_000) / 10:.1f}" for field in ("open", "high", "low")}
            volumes = {"volume_24h": _size(rng, 9999), "quote_volume_24h": _size(rng, 99_999_999)}
            bar = dict.fromkeys(("open", "high", "low", "close"), bid["price"]) | {"volume": _size(rng, 99)}
            taker = {"quote_volume": _size(rng, 99_999), "buy_volume": _size(rng), "buy_quote_volume": _size(rng, 9999)}
            ids = {"trades_count": rng.randrange(99), "first_id": str(rng.randrange(10**9)), "last_id": "1234567890"}
            yield trade(10**9 + second, **who, time=time, id=str(10**9 + second), price=bid["price"], size=bid["size"])
            yield quote(10**9 + second, **who, **top, time=time)
            yield ticker(second, **who, **top, **day, **volumes, time=time, last=bid["price"])
            yield kline(second, "1s", **who, **bar, **taker, **ids, time=time)
            yield candle(second, "1s", **who, **bar | {"volume": "99"}, **taker | {"buy_volume": "1"}, **ids)
            sides = ([[f"{(best + way * n) / 10:.1f}", _size(rng)] for n in range(DEPTH)] for way in (-1, 1))
            bids, asks = sides
            yield book(10 * second, **who, bids=bids, asks=asks, sequence=10**10 + second)


def _size(rng: random.Random, most: int = 3) -> str:
    return f"{rng.random() * most:.{rng.choice((4, 5, 8))}f}"


def documented() -> dict[str, int]:
    section = PAGE.partition("## What is kept")[2].partition("\n## ")[0]
    return {name: int(size.replace(",", "")) for name, size in re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", section, re.M)}


async def test_a_row_takes_the_room_that_the_page_says(database_url: str) -> None:
    made = list(records(random.Random(1)))
    for first in range(0, len(made), BATCH):
        await write(database_url, *made[first : first + BATCH])
    sizes = dict(
        query(
            database_url,
            "SELECT parent::text, sum(pg_total_relation_size(leaf))::float / %s FROM unnest(%s::text[]) AS parent,"
            " LATERAL (SELECT relid AS leaf FROM pg_partition_tree(parent::regclass) WHERE isleaf) leaves"
            " GROUP BY parent",
            ROUNDS * INSTRUMENTS,
            ["trades", "candles", "klines", "orderbooks", "quotes", "tickers"],
        )
    )
    assert documented() == {name: pytest.approx(size, rel=CLOSE) for name, size in sizes.items()}
