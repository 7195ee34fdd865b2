"""The venue's bars against a plain recount of the fills."""

import random
from decimal import Decimal

import pytest

from simulator.bars import MINUTE_MS, Series
from simulator.listings import listings
from simulator.market import MILLISECOND, SECOND, Fill, Market

START = 1_790_000_000_123_456_789
UNTIL = START + 900 * SECOND


@pytest.fixture(scope="module")
def fills() -> list[Fill]:
    market = Market(random.Random(3), listings(), START, 20, history=0)
    return [fill for order in market.advance(UNTIL) for fill in order if fill.symbol == "SOL-USDT"]


@pytest.mark.parametrize(
    ("width", "shift"), [(1_000, 0), (MINUTE_MS, 0), (5 * MINUTE_MS, 0), (360 * MINUTE_MS, 480 * MINUTE_MS)]
)
def test_bars_equal_a_recount(fills: list[Fill], width: int, shift: int) -> None:
    series = Series(inverse=False)
    for fill in fills:
        series.add(fill)
    first = START // MILLISECOND - width
    bars = series.bars(width, shift, first, UNTIL // MILLISECOND)
    close = 0
    assert sum(bar.lots for bar in bars) == sum(fill.lots for fill in fills)
    for bar, later in zip(bars, [*bars[1:], None], strict=True):
        inside = [fill for fill in fills if bar.opened <= fill.time // MILLISECOND < bar.opened + width]
        prices = [fill.ticks for fill in inside] or [close]
        assert (bar.opened + shift) % width == 0
        assert later is None or later.opened == bar.opened + width
        assert (bar.open, bar.high, bar.low, bar.close) == (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
        )
        assert bar.turnover == sum(fill.ticks * fill.lots for fill in inside)
        close = bar.close


def test_inverse_bars_sum_the_reciprocals() -> None:
    series = Series(inverse=True)
    for number, (ticks, lots) in enumerate([(3, 6), (4, 10), (7, 7)]):
        series.add(Fill("X", number, 0, START, ticks, lots, "", "", "buy"))
    (bar,) = series.bars(MINUTE_MS, 0, START // MILLISECOND - MINUTE_MS, START // MILLISECOND)
    assert bar.reciprocal == Decimal("5.5")


def test_nothing_is_known_before_the_first_fill() -> None:
    assert Series(inverse=False).bars(MINUTE_MS, 0, 0, 10 * MINUTE_MS) == []
