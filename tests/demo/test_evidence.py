"""Turning the simulator's logs into evidence: sizes in base units, and when an instrument was connected."""

from decimal import Decimal

import pytest

from simulator.listings import NAMED, Listing
from simulator.proof.evidence import Border, Link, link, true_trade
from simulator.truth import ConnectionChange, ConnectionEvent, TrueFill

LISTINGS = {listing.symbol: listing for listing in NAMED}


def fill(price: str, size: str) -> TrueFill:
    return TrueFill("okx", "X", "7", 7, 0, 1_000_000, price, size, "buy")


@pytest.mark.parametrize(
    ("symbol", "price", "native", "base", "contracts"),
    [
        ("BTC-USDT", "84000", "0.12060306", "0.12060306", None),
        ("BTC-USDT-PERP", "83725.9", "8.55", "0.0855", "8.55"),
        # 3 contracts of 100 USD at 60000; then one that has no finite decimal, to 12 places, half to even.
        ("BTC-USD-PERP", "60000", "3", "0.005", "3"),
        ("BTC-USD-PERP", "83725.9", "5", "0.005971867726", "5"),
        ("BTC-USD-301227-90000-C", "0.05", "7", "0.07", "7"),
    ],
)
def test_sizes_are_turned_into_base_units(
    symbol: str, price: str, native: str, base: str, contracts: str | None
) -> None:
    listing: Listing = LISTINGS[symbol]
    trade = true_trade(fill(price, native), listing)
    assert trade.size == Decimal(base)
    assert trade.contracts == (None if contracts is None else Decimal(contracts))
    assert (trade.price, trade.id, trade.number) == (Decimal(price), "7", (0, 7))


def change(event: ConnectionEvent, time: int, name: str, *instruments: str) -> ConnectionChange:
    return ConnectionChange(time, event, name, "/business", instruments)


def opened(time: int, name: str) -> ConnectionChange:
    return change("opened", time, name)


def subscribed(time: int, name: str, *instruments: str) -> ConnectionChange:
    return change("subscribed", time, name, *instruments)


def closed(time: int, name: str, *instruments: str) -> ConnectionChange:
    return change("closed", time, name, *instruments)


def test_no_subscription_no_link() -> None:
    assert link([], "X") is None
    assert link([opened(1, "a"), subscribed(2, "a", "Y"), closed(5, "a", "Y"), opened(6, "b")], "X") is None


def test_a_border_lies_between_two_connections_that_carried_the_instrument() -> None:
    changes = [
        opened(0, "a"),
        subscribed(1, "a", "X", "Y"),
        closed(5, "a", "X", "Y"),
        opened(6, "b"),
        subscribed(9, "b", "X"),
        closed(12, "b", "X"),
        opened(15, "c"),
        subscribed(20, "c", "X"),
    ]
    assert link(changes, "X") == Link(1, (Border(5, 9), Border(12, 20)))


def test_connections_of_others_and_those_cut_before_subscribing_do_not_end_a_border() -> None:
    changes = [
        subscribed(1, "a", "X"),
        closed(5, "a", "X"),
        opened(6, "b"),
        closed(7, "b"),
        subscribed(7, "c", "Y"),
        subscribed(8, "c", "X"),
        closed(30, "c", "X", "Y"),
    ]
    assert link(changes, "X") == Link(1, (Border(5, 8),))


def test_an_unsubscribed_instrument_is_not_carried_until_it_is_subscribed_again() -> None:
    changes = [subscribed(1, "a", "X", "Y"), change("unsubscribed", 3, "a", "X"), subscribed(6, "a", "X")]
    assert link(changes, "X") == Link(1, (Border(3, 6),))
    assert link(changes, "Y") == Link(1)


def test_overlapping_connections_leave_no_border() -> None:
    changes = [
        subscribed(1, "a", "X"),
        subscribed(4, "b", "X"),
        closed(5, "a", "X"),
        subscribed(8, "c", "X"),
        closed(9, "b", "X"),
        closed(11, "c", "X"),
    ]
    assert link(changes, "X") == Link(1)
    assert link([*changes, subscribed(15, "d", "X")], "X") == Link(1, (Border(11, 15),))
