"""A book is what a plain dict of its levels, sorted, would be; texts as spelt; unknown depths stay unknown."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from normalize.book import UNTOUCHED, Book, Side
from normalize.mapper import BookUpdate, Level
from tests.normalize.booking import SPOT, change, levels, snapshot, texts

ZEROS = ("0", "0.0", "0.00000000", "00")
SPELLINGS = st.sampled_from(("{}", "{}.0", "{}.00", "0{}"))
PRICES = st.builds(lambda spelling, price: spelling.format(price), SPELLINGS, st.integers(1, 30))
QUANTITIES = st.one_of(st.sampled_from(ZEROS), st.integers(1, 5).map(str))
ROWS = st.lists(st.tuples(PRICES, QUANTITIES), max_size=6)


def ordered(model: dict[Decimal, Level], bid: bool) -> list[Level]:
    return [model[price] for price in sorted(model, reverse=bid)]


def put(model: dict[Decimal, Level], level: Level) -> None:
    if Decimal(level[1]) == 0:
        model.pop(Decimal(level[0]), None)
    else:
        model[Decimal(level[0])] = level


@settings(max_examples=150, deadline=None)
@given(st.booleans(), ROWS, st.lists(st.tuples(PRICES, QUANTITIES), max_size=40))
def test_any_changes_equal_a_dict_sorted_at_every_step(bid: bool, first: list[Level], rows: list[Level]) -> None:
    side, model = Side(bid), dict[Decimal, Level]()
    side.fill(first)
    for level in first:
        put(model, level)
    assert side.levels == ordered(model, bid)
    for level in rows:
        before = ordered(model, bid)
        put(model, level)
        rank = side.put(level)
        after = ordered(model, bid)
        assert side.levels == after
        assert side.keys == sorted(side.keys)
        assert len(side.keys) == len(side.levels)
        # The rank is the first at which anything is different.
        differs = [at for at in range(max(len(before), len(after))) if before[at : at + 1] != after[at : at + 1]]
        assert rank == (differs[0] if differs else UNTOUCHED)


@settings(max_examples=100, deadline=None)
@given(st.lists(ROWS, max_size=12), st.integers(1, 8), st.booleans())
def test_a_side_that_was_cut_knows_nothing_beyond_its_worst(
    changes: list[list[Level]], most: int, partial: bool
) -> None:
    """Partial: what is shown is always the true best of the venue's whole book. Else: the venue deletes for us."""
    book, model = Book.of(snapshot("10@1 9@1", "", asked=50), most, partial), dict[Decimal, Level]()
    for level in levels("10@1", "9@1"):
        put(model, level)
    for rows in changes:
        book.apply(BookUpdate(SPOT, False, tuple(rows), ()), most, partial)
        for level in rows:
            put(model, level)
        known = book.bids.levels
        assert len(known) <= most
        if partial:
            assert known == ordered(model, True)[: len(known)]
            if book.bids.bound is None:
                assert known == ordered(model, True)


def test_texts_stay_as_they_are_spelt_and_any_zero_deletes() -> None:
    book = Book.of(snapshot("100.10@1.50 99@2", "101@1"), 400, partial=False)
    assert texts(book.bids.levels) == "100.10@1.50 99@2"
    book.apply(change("100.1@2.500 99.0@0.00000000"), 400, partial=False)
    assert texts(book.bids.levels) == "100.1@2.500"


def test_prices_of_any_length_are_compared_exactly() -> None:
    one, other = "1.0000000000000000000000000000000000000001", "1.0000000000000000000000000000000000000002"
    side = Side(bid=True)
    side.put((one, "1"))
    side.put((other, "2"))
    assert side.levels == [(other, "2"), (one, "1")]
    side.put((one, "0"))
    assert side.levels == [(other, "2")]


def test_levels_worse_than_a_full_snapshot_are_not_taken() -> None:
    book = Book.of(snapshot("100@1 99@1", "101@1 102@1", asked=2), 1000, partial=True)
    assert book.known() == 2
    assert book.apply(change("98@5", "103@5"), 1000, partial=True) == UNTOUCHED
    assert book.apply(change("99.5@5 100@0", "101@0"), 1000, partial=True) == 0
    assert (texts(book.bids.levels), texts(book.asks.levels)) == ("99.5@5 99@1", "102@1")
    assert book.known() == 1


def test_a_snapshot_with_fewer_levels_than_asked_is_the_whole_book() -> None:
    book = Book.of(snapshot("100@1 99@1", "101@1", asked=3), 1000, partial=True)
    book.apply(change("50@5", "200@1"), 1000, partial=True)
    assert book.known() is None
    assert (texts(book.bids.levels), texts(book.asks.levels)) == ("100@1 99@1 50@5", "101@1 200@1")


def test_levels_above_the_most_go_and_are_unknown_where_the_venue_does_not_keep_count() -> None:
    for partial in (True, False):
        book = Book.of(snapshot("100@1 99@1 98@1", "101@1", asked=5), 3, partial)
        book.apply(change("100.5@1"), 3, partial)
        assert texts(book.bids.levels) == "100.5@1 100@1 99@1"
        book.apply(change("100.5@0"), 3, partial)
        book.apply(change("98@2"), 3, partial)
        assert texts(book.bids.levels) == ("100@1 99@1" if partial else "100@1 99@1 98@2")


def test_all_levels_of_a_change_count_before_the_worst_go() -> None:
    """Insert, then delete, in one frame: nothing of what stays may be cut in between."""
    book = Book.of(snapshot("100@1 99@1 98@1", "101@1"), 3, partial=False)
    book.apply(change("100.5@1 100@0"), 3, partial=False)
    assert texts(book.bids.levels) == "100.5@1 99@1 98@1"


def test_crossed_is_best_bid_at_or_above_best_ask() -> None:
    assert Book.of(snapshot("100@1", "100.0@1"), 400, partial=False).crossed
    assert not Book.of(snapshot("100@1", "100.1@1"), 400, partial=False).crossed
    assert not Book.of(snapshot("100@1", ""), 400, partial=False).crossed


def test_a_copy_is_a_book_of_its_own() -> None:
    book = Book.of(snapshot(last=5, time=7, asked=2), 1000, partial=True)
    copy = book.copy()
    book.apply(change("100@9", last=6), 1000, partial=True)
    assert (texts(copy.bids.levels), copy.sequence, copy.time, copy.known()) == ("100@1 99@1", 5, 7, 2)
