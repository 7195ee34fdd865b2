"""The market: the same seed prints the same fills, numbered without holes, on tick and lot."""

import random
from decimal import Decimal

import pytest

from simulator.listings import listings
from simulator.market import MILLISECOND, SECOND, Fill, Market

START = 1_790_000_000_123_456_789


def market(seed: int = 7, rate: float = 200, symbols: int = 3) -> Market:
    return Market(random.Random(seed), listings(symbols), START, rate)


def run(made: Market, seconds: int, turns: int) -> list[Fill]:
    fills: list[Fill] = []
    for turn in range(1, turns + 1):
        for order in made.advance(START + seconds * SECOND * turn // turns):
            fills += order
    return fills


def test_same_seed_same_fills_however_time_is_sliced() -> None:
    assert run(market(), 20, 1) == run(market(), 20, 1733)


def test_another_seed_prints_others() -> None:
    assert run(market(7), 5, 1) != run(market(8), 5, 1)


def test_numbers_are_consecutive_and_times_never_go_back() -> None:
    made = market()
    last = {fill.symbol: fill for fill in made.history}
    fills = run(made, 30, 50)
    assert last.keys() == {listing.symbol for listing in listings(3)}
    previous = START - SECOND
    for fill in fills:
        assert fill.sequence == last[fill.symbol].sequence + 1
        assert fill.time % MILLISECOND == 0
        assert previous <= fill.time <= START + 30 * SECOND
        previous = fill.time
        last[fill.symbol] = fill


def test_prices_are_on_the_tick_and_sizes_on_the_lot() -> None:
    by_symbol = {listing.symbol: listing for listing in listings(3)}
    for fill in run(market(), 30, 1):
        listing = by_symbol[fill.symbol]
        assert Decimal(fill.price) == fill.ticks * listing.tick > 0
        assert Decimal(fill.size) == fill.lots * listing.lot >= listing.minimum
        assert "E" not in fill.price + fill.size


def test_rate_is_fills_per_second_and_orders_have_several_fills_now_and_then() -> None:
    made = market(rate=100)
    orders = made.advance(START + 200 * SECOND)
    fills = sum(map(len, orders))
    assert fills == pytest.approx(20_000, rel=0.05)
    several = [order for order in orders if len(order) > 1]
    assert 0.2 < len(several) / len(orders) < 0.3
    assert all(len({(fill.symbol, fill.side, fill.time) for fill in order}) == 1 for order in several)


def test_quiet_pair_has_an_hours_old_trade_and_next_to_no_others() -> None:
    made = market()
    old = made.pits["QUIET-USDT"].fills[-1]
    assert START - 10 * 3600 * SECOND < old.time < START - 3 * 3600 * SECOND
    assert len([fill for fill in run(made, 60, 1) if fill.symbol == "QUIET-USDT"]) <= 3


def test_rate_zero_prints_only_what_is_asked_for() -> None:
    made = market(rate=0)
    assert made.advance(START + 3600 * SECOND) == []
    assert len(made.order("BTC-USDT", START + 3600 * SECOND, fills=4)) == 4


def test_an_order_is_never_before_the_market() -> None:
    made = market(rate=0)
    made.advance(START + 10 * SECOND)
    assert made.order("BTC-USDT", START)[0].time >= START + 9 * SECOND


def test_skipped_time_has_no_trades() -> None:
    made = market()
    made.skip(START + 100 * SECOND)
    orders = made.advance(START + 101 * SECOND)
    assert orders
    assert all(order[0].time >= START + 99 * SECOND for order in orders)


def test_relisting_restarts_the_numbers_in_a_new_epoch() -> None:
    made = market(rate=0)
    before = made.order("BTC-USDT", START + SECOND, fills=2)
    made.relist("BTC-USDT", START + 2 * SECOND)
    after = made.order("BTC-USDT", START + 3 * SECOND, fills=2)
    assert [(fill.sequence, fill.epoch) for fill in after] == [(1, 1), (2, 1)]
    assert before[0].epoch == 0
    assert list(made.pits["BTC-USDT"].fills) == list(after)
    assert made.pits["BTC-USDT"].listed // MILLISECOND == (START + 2 * SECOND) // MILLISECOND


def test_jump_leaves_numbers_out() -> None:
    made = market(rate=0)
    first = made.order("BTC-USDT", START, fills=1)[0]
    made.jump("BTC-USDT", 5)
    assert made.order("BTC-USDT", START, fills=1)[0].sequence == first.sequence + 6
