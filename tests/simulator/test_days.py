"""The rolling 24 hours against a plain recount of the fills."""

import random

import pytest

from simulator.bars import HOUR_MS, MINUTE_MS, Series
from simulator.days import DAY_MS, UTC_8, Days
from simulator.market import MILLISECOND, Fill

MIDNIGHT = 1_790_000_000_000 - 1_790_000_000_000 % DAY_MS


def fill(number: int, ms: int, ticks: int, lots: int = 1) -> Fill:
    return Fill("X", number, 0, ms * MILLISECOND, ticks, lots, "", "", "buy" if number % 2 else "sell")


def test_nothing_is_known_before_the_first_fill() -> None:
    assert Days(Series(inverse=False)).at(MIDNIGHT) is None


@pytest.mark.parametrize("seed", range(5))
def test_every_figure_equals_a_recount(seed: int) -> None:
    rng = random.Random(seed)
    series = Series(inverse=False)
    days = Days(series)
    fills: list[Fill] = []
    now = MIDNIGHT + rng.randrange(DAY_MS)
    for number in range(600):
        now += int(rng.expovariate(1 / (12 * MINUTE_MS)))
        fills.append(fill(number, now, rng.randint(90, 110), rng.randint(1, 9)))
        series.add(fills[-1])
        now += rng.choice([0, 0, 100, MINUTE_MS])
        day = days.at(now)
        assert day is not None
        first = now - now % MINUTE_MS - DAY_MS + MINUTE_MS
        inside = [one for one in fills if one.time // MILLISECOND >= first]
        earlier = [one for one in fills if one.time // MILLISECOND < first]
        prices = [one.ticks for one in inside]
        assert (day.bar.open, day.bar.high, day.bar.low, day.bar.close) == (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
        )
        assert day.bar.lots == sum(one.lots for one in inside)
        assert day.bar.turnover == sum(one.lots * one.ticks for one in inside)
        assert (day.bar.fills, day.bar.first, day.bar.last) == (len(inside), inside[0].sequence, number)
        assert day.bar.bought == sum(one.lots for one in inside if one.side == "buy")
        assert day.previous == (earlier[-1].ticks if earlier else None)
        assert day.utc0 == opening(fills, now - now % DAY_MS)
        assert day.utc8 == opening(fills, now - (now + UTC_8) % DAY_MS)


def opening(fills: list[Fill], start: int) -> int:
    """The day's first price; the last one before it where it has none; the first ever where there is no other."""
    today = [one.ticks for one in fills if one.time // MILLISECOND >= start]
    before = [one.ticks for one in fills if one.time // MILLISECOND < start]
    return today[0] if today else before[-1]


def test_a_day_without_a_trade_repeats_the_last_price() -> None:
    series = Series(inverse=False)
    days = Days(series)
    series.add(fill(1, MIDNIGHT + HOUR_MS, 55, 7))
    day = days.at(MIDNIGHT + 30 * HOUR_MS)
    assert day is not None
    assert (day.bar.open, day.bar.high, day.bar.low, day.bar.close, day.bar.lots) == (55, 55, 55, 55, 0)
    assert (day.previous, day.utc0, day.utc8) == (55, 55, 55)
