"""The order book: exact, reproducible, never crossed; what was pushed of it rebuilds it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import book as books
from simulator.book import Book, Level
from simulator.depth import Depth
from simulator.listings import Listing, listings
from simulator.market import SECOND, Market
from tests.simulator.clients import START

NAMED = {listing.symbol: listing for listing in listings(2)}


def made(symbol: str = "ETH-USDT", seed: int = 1, rate: float = 0) -> Book:
    return Book(random.Random(seed), NAMED[symbol], START, rate)


def market(seed: int = 7, rate: float = 200) -> Market:
    return Market(random.Random(seed), listings(3), START, rate)


def state(book: Book) -> tuple[int, list[Level], list[Level]]:
    return book.version, book.side("bid"), book.side("ask")


def sound(book: Book) -> None:
    """Sorted, positive, and not crossed."""
    bids, asks = book.side("bid"), book.side("ask")
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert all(ticks > 0 and lots > 0 for ticks, lots in bids + asks)
    assert len(dict(bids)) == len(bids)
    assert len(dict(asks)) == len(asks)
    assert not bids or not asks or bids[0][0] < asks[0][0]


def applied(sides: list[dict[int, int]], changes: tuple[list[Level], list[Level]]) -> None:
    for side, levels in zip(sides, changes, strict=True):
        for ticks, lots in levels:
            if lots:
                side[ticks] = lots
            else:
                side.pop(ticks, None)


@pytest.mark.parametrize("listing", NAMED.values(), ids=lambda listing: listing.symbol)
def test_a_book_begins_deep_and_around_the_price(listing: Listing) -> None:
    book = Book(random.Random(3), listing, START, 0)
    sound(book)
    bids, asks = book.side("bid"), book.side("ask")
    assert book.version == 0
    assert len(asks) == listing.levels
    assert len(bids) == listing.levels
    assert listing.levels >= 400 or listing.market == "option" or listing.symbol.startswith("SIM")
    assert bids[0][0] * listing.tick < listing.price < asks[0][0] * listing.tick


def test_same_seed_same_books_however_time_is_sliced() -> None:
    whole, sliced = market(), market()
    whole.advance(START + 20 * SECOND)
    for turn in range(1, 1734):
        sliced.advance(START + 20 * SECOND * turn // 1733)
    for symbol, pit in whole.pits.items():
        assert state(pit.book) == state(sliced.pits[symbol].book)
    assert state(whole.pits["BTC-USDT"].book) != state(market(8).pits["BTC-USDT"].book)


def test_books_change_as_much_as_their_instrument_trades() -> None:
    made = market(rate=400)
    made.advance(START + 20 * SECOND)
    changes = {symbol: pit.book.version for symbol, pit in made.pits.items()}
    assert changes["BTC-USDT"] > changes["ETH-USDT"] > changes["DOGE-USDT"] > changes["BTC-USD_UM-PERP"] > 0
    assert changes["QUIET-USDT"] <= 10


def test_books_stay_sound_deep_and_near_the_price() -> None:
    made = market(rate=2000)
    for second in range(1, 31):
        made.advance(START + second * SECOND)
        for pit in made.pits.values():
            sound(pit.book)
            listing = pit.listing
            best = [side[0][0] for side in (pit.book.side("bid", 1), pit.book.side("ask", 1)) if side]
            assert all(abs(ticks - pit.ticks) <= max(20, pit.ticks * 5e-4) for ticks in best)
            if listing.market != "option":
                sides = pit.book.side("bid"), pit.book.side("ask")
                assert all(listing.levels // 2 <= len(side) <= listing.levels * 1.3 for side in sides)


def test_a_print_takes_what_was_better_and_its_own_share() -> None:
    book = made()
    (first, _), (second, lots), (third, more) = book.side("ask", 3)
    best_bid = book.side("bid", 1)[0][0]
    book.trade("buy", second, lots - 1)
    sound(book)
    asks = dict(book.side("ask"))
    assert first not in asks
    assert (asks[second], asks[third]) == (1, more)
    assert book.side("bid", 1)[0][0] >= best_bid
    book.trade("buy", second, 5)
    assert second not in dict(book.side("ask"))
    (bid, _), (lower, left) = book.side("bid", 2)
    book.trade("sell", lower, left)
    assert not {bid, lower} & dict(book.side("bid")).keys()
    sound(book)


@given(
    st.lists(st.tuples(st.sampled_from(["buy", "sell"]), st.integers(-400, 400), st.integers(1, 10**6)), max_size=40)
)
def test_prints_anywhere_leave_it_sound(prints: list[tuple[str, int, int]]) -> None:
    book = made("BTC-USD-301227-90000-C")
    ticks = 100
    for side, move, lots in prints:
        ticks = max(1, ticks + move)
        book.trade("buy" if side == "buy" else "sell", ticks, lots)
        sound(book)
        book.stir(3)
        sound(book)
        assert all(price > ticks for price, _ in book.side("ask", 1)) or side == "buy"


@given(st.integers(0, 2**32), st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_changes_since_a_version_rebuild_the_book(seed: int, rounds: list[int]) -> None:
    book = made(seed=seed)
    old = book.version
    sides = [dict(book.side("bid")), dict(book.side("ask"))]
    for changes in rounds:
        book.stir(changes)
        book.trade("buy", book.side("ask", 3)[-1][0], 1)
    changed = book.changed(old)
    assert changed is not None
    assert changed[0] == sorted(changed[0], reverse=True)
    assert changed[1] == sorted(changed[1])
    applied(sides, changed)
    assert sides == [dict(book.side("bid")), dict(book.side("ask"))]
    assert book.changed(book.version) == ([], [])
    assert book.changed(book.version + 1) is None


def test_every_changed_level_counts_one() -> None:
    book = made()
    for _ in range(500):
        before = {(side, *level) for side in ("bid", "ask") for level in book.side("bid" if side == "bid" else "ask")}
        old = book.version
        book.stir()
        after = {(side, *level) for side in ("bid", "ask") for level in book.side("bid" if side == "bid" else "ask")}
        assert book.version - old == len({(side, ticks) for side, ticks, _ in before ^ after}) <= 1


def test_what_is_too_old_is_forgotten_and_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "KEPT", 100)
    book = made()
    book.stir(300)
    assert book.changed(book.version - 101) is None
    assert book.changed(book.version - 100) is not None


def test_crossed_until_its_time_whatever_trades() -> None:
    book = made(rate=50)
    book.advance(START + SECOND)
    book.cross(START + 3 * SECOND)
    for tenth in range(1, 20):
        book.advance(START + SECOND + tenth * SECOND // 10)
        book.trade("buy" if tenth % 2 else "sell", book.side("ask", 2)[-1][0], 100)
        assert book.side("bid", 1)[0][0] > book.side("ask", 1)[0][0]
    book.advance(START + 3 * SECOND)
    sound(book)
    book.cross(START + 9 * SECOND)
    book.clear()
    sound(book)
    book.cross(START + 9 * SECOND)
    book.skip(START + 9 * SECOND)
    sound(book)


def test_skipped_time_changes_nothing() -> None:
    book = made(rate=100)
    before = state(book)
    book.skip(START + 100 * SECOND)
    assert state(book) == before
    book.advance(START + 101 * SECOND)
    assert 50 < book.version < 200


def test_frozen_snapshots_tell_of_the_past_until_their_time() -> None:
    book = made()
    old = book.snapshot(START, 10)
    book.freeze(START + SECOND)
    book.stir(100)
    assert book.snapshot(START + SECOND - 1, 10) == old
    assert book.snapshot(START + SECOND).version == book.version
    book.freeze(START + 9 * SECOND)
    book.stir(10)
    book.clear()
    assert book.snapshot(START, 5).bids == book.side("bid", 5)


@given(st.integers(0, 2**32), st.sampled_from([1, 5, 50, 449, 451, None]))
def test_pushes_rebuild_the_window(seed: int, limit: int | None) -> None:
    rng = random.Random(seed)
    book = made(seed=seed)
    depth = Depth(book, limit)
    sides = [dict(depth.side("bid")), dict(depth.side("ask"))]
    version = depth.version
    for _ in range(30):
        book.stir(rng.randint(0, 20))
        if rng.random() < 0.5:
            book.trade("buy", book.side("ask", rng.randint(1, 9))[-1][0], 10**6)
        else:
            book.trade("sell", book.side("bid", rng.randint(1, 9))[-1][0], 10**6)
        change = depth.push()
        if change is not None:
            assert (change.since, change.until) == (version, depth.version)
            assert change.bids or change.asks
            applied(sides, (change.bids, change.asks))
        version = depth.version
        window = [dict(book.side("bid", limit)), dict(book.side("ask", limit))]
        assert sides == window == [dict(depth.side("bid")), dict(depth.side("ask"))]
    assert depth.push() is None


def test_a_push_of_more_changes_than_are_remembered_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "KEPT", 100)
    book = made()
    depth = Depth(book, 400)
    sides = [dict(depth.side("bid")), dict(depth.side("ask"))]
    book.stir(1000)
    change = depth.push()
    assert change is not None
    applied(sides, (change.bids, change.asks))
    assert sides == [dict(book.side("bid", 400)), dict(book.side("ask", 400))]
