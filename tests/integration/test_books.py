"""Books against the truth: every record that says it is valid shows what the venue had at that number, to the level."""

from collections import Counter
from decimal import Decimal

import msgspec
import pytest

from pipeline.records import OrderBook
from tests.integration.bookfeed import DEPTH, Top
from tests.integration.rawstream import book_writer
from tests.normalize.playing import KEYS, play

FACE = {"BTC-USDT-SWAP": Decimal("0.01")}
"""Base units a contract of linear instruments; the others show what the venue sends."""

Shown = tuple[tuple[Decimal, Decimal], ...]


def scaled(top: Top, instrument: str) -> Shown:
    """Ticks are tenths."""
    return tuple((Decimal(price) / 10, quantity * FACE.get(instrument, Decimal(1))) for price, quantity in top)


def numbers(levels: tuple[tuple[str, str], ...]) -> Shown:
    return tuple((Decimal(price), Decimal(size)) for price, size in levels)


@pytest.mark.parametrize("exchange", ["okx", "binance"])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_called_valid_is_what_the_venue_had(exchange: str, seed: int) -> None:
    writer = book_writer(seed, 60, exchange)
    played = play(writer.entries, batch=50, exchange=exchange)
    reasons: Counter[str | None] = Counter()
    for *_, data in played.streams[KEYS.stream("orderbook")]:
        book = msgspec.json.decode(data, type=OrderBook)
        reasons[book.reason] += 1
        if book.valid:
            assert book.sequence is not None
            truth = writer.feed.truth[book.instrument, book.sequence]
            shown = numbers(book.bids), numbers(book.asks)
            assert shown in [tuple(scaled(side, book.instrument) for side in sides) for sides in truth], book
            assert len(book.bids) <= DEPTH == book.depth
    assert reasons[None] > 250
    assert len(reasons) >= 3
    assert sum(writer.feed.done.values()) >= 3
