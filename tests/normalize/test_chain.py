"""One connection's chain under the rules of five venues: their documented sequences, to the letter."""

from typing import Any

import pytest

from normalize.book import Book
from normalize.chain import MOST_HELD, MOST_HELD_LEVELS, Chain
from normalize.mapper import BookUpdate
from tests.normalize.booking import A, Binance, Bybit, Kraken, Okx, Usdm, change, snapshot, texts

# The two vectors of the OKX documentation: signed CRC32 of the raw texts.
LONG, SHORT = 1579316919, -1762451970


def told(rule: Any, *updates: BookUpdate) -> Chain:
    chain = Chain(A, 1)
    for update in updates:
        chain.take(update, rule, 0)
    return chain


def book_of(chain: Chain) -> tuple[str, str]:
    assert chain.book is not None
    return texts(chain.book.bids.levels), texts(chain.book.asks.levels)


def okx(previous: int, last: int, bids: str = "", **fields: Any) -> BookUpdate:
    """A frame of `books`; from -1 it is the snapshot."""
    if previous == -1:
        return snapshot(bids or "100@1", "101@1", previous=previous, last=last, **fields)
    return change(bids, previous=previous, last=last, **fields)


def test_the_documented_chain_of_okx() -> None:
    chain = Chain(A, 1)
    steps = [((-1, 10), "100@1"), ((10, 15), "99@2"), ((15, 15), ""), ((15, 3), "98@3"), ((3, 5), "100@0")]
    for (previous, last), bids in steps:
        chain.take(okx(previous, last, bids), Okx(), 0)
        assert chain.live
        assert chain.book is not None
        assert chain.book.sequence == last
    assert book_of(chain) == ("99@2 98@3", "101@1")


def test_anything_else_of_okx_is_a_gap_until_a_new_snapshot() -> None:
    chain = told(Okx(), okx(-1, 10), okx(12, 15, "99@2"))
    assert (chain.live, chain.reason) == (False, "gap")
    assert book_of(chain) == ("100@1", "101@1")
    chain.take(okx(15, 20, "98@1"), Okx(), 0)
    assert not chain.live
    chain.take(okx(-1, 20, "97@1"), Okx(), 0)
    assert chain.live
    assert book_of(chain) == ("97@1", "101@1")
    chain.take(okx(20, 22, "96@1"), Okx(), 0)
    assert book_of(chain) == ("97@1 96@1", "101@1")


def test_a_snapshot_at_any_time_replaces_the_book() -> None:
    chain = told(Okx(), okx(-1, 10), okx(10, 15, "99@2"), okx(-1, 4, "50@1"), okx(4, 6, "49@1"))
    assert book_of(chain) == ("50@1 49@1", "101@1")


def test_a_first_frame_that_is_a_change_is_a_gap_where_snapshots_come_by_themselves() -> None:
    assert told(Okx(), okx(10, 15, "99@2")).reason == "gap"


def test_an_okx_snapshot_by_rest_starts_a_chain_at_the_documented_place() -> None:
    """Drop seqId <= snap; the first kept: prevSeqId <= snap < seqId."""
    chain = told(Okx(), okx(8, 10, "1@1"), okx(10, 15, "2@1"), okx(15, 18, "3@1"))
    base = Book.of(snapshot("100@1", "101@1", last=12), 400, partial=False)
    assert chain.join(base, Okx(), 0)
    assert book_of(chain) == ("100@1 3@1 2@1", "101@1")
    late = told(Okx(), okx(15, 18, "3@1"))
    assert not late.join(Book.of(snapshot("100@1", "101@1", last=12), 400, partial=False), Okx(), 0)


@pytest.mark.parametrize(
    ("bids", "asks", "checksum"),
    [("101@2 100.5@3", "102@1 103@4", LONG), ("101@2 100.5@3 99@7", "102@1", SHORT)],
)
def test_checksums_of_old_recordings(bids: str, asks: str, checksum: int) -> None:
    """No numbers there: only the checksum can tell that the book is wrong."""
    good = told(Okx(), snapshot("101@2", "102@1"), change(bids, asks, checksum=checksum))
    assert good.live
    wrong = told(Okx(), snapshot("101@2", "102@1"), change(bids + " 98@1", asks, checksum=checksum))
    assert wrong.reason == "checksum"
    assert wrong.book is not None
    assert not wrong.book.sound


def test_a_wrong_snapshot_is_told_by_its_checksum() -> None:
    assert told(Okx(), snapshot("101@2 100.5@3", "102@1 103@5", checksum=LONG)).reason == "checksum"


def test_without_a_checksum_none_is_computed() -> None:
    class Never(Okx):
        def checksum(self, bids: object, asks: object) -> int | None:
            raise AssertionError("a checksum that nobody asked for")

    assert told(Never(), okx(-1, 10), okx(10, 15, "99@2")).live


def spot(first: int, last: int, bids: str = "", **fields: Any) -> BookUpdate:
    return change(bids, first=first, last=last, **fields)


def rest(last: int, bids: str = "100@1") -> Book:
    return Book.of(snapshot(bids, "101@1", last=last, asked=1000), 1000, partial=True)


@pytest.mark.parametrize(
    ("snap", "bids"),
    [
        (10, "100@1 98@1 97@1"),  # U == last + 1: the border, where the documented literal test fails
        (12, "100@1 98@1 97@1"),  # inside the event U … u
        (15, "100@1 97@1"),  # on the next border
        (20, "100@1"),  # all of them are older
        (25, "100@1"),  # the snapshot is ahead of the stream
    ],
)
def test_the_join_of_binance(snap: int, bids: str) -> None:
    chain = told(Binance(), spot(5, 10, "99@1"), spot(11, 15, "98@1"), spot(16, 20, "97@1"))
    assert (chain.live, chain.reason) == (False, "waiting")
    assert chain.join(rest(snap), Binance(), 0)
    assert chain.live
    assert book_of(chain)[0] == bids
    chain.take(spot(21, 30, "96@1"), Binance(), 0)
    assert chain.live
    assert chain.book is not None
    assert chain.book.sequence == 30


def test_a_snapshot_older_than_what_is_held_is_refused() -> None:
    chain = told(Binance(), spot(5, 10, "99@1"), spot(11, 15, "98@1"))
    assert not chain.join(rest(3), Binance(), 0)
    assert (chain.live, len(chain.held)) == (False, 2)
    assert chain.join(rest(4), Binance(), 0)
    assert book_of(chain)[0] == "100@1 99@1 98@1"


def test_a_snapshot_takes_the_time_of_the_change_it_stands_at() -> None:
    chain = told(Binance(), spot(5, 10, "99@1", time=7))
    chain.join(rest(10), Binance(), 0)
    chain.take(spot(5, 10, "99@1", time=7), Binance(), 0)
    assert chain.book is not None
    assert chain.book.time == 7


def test_a_gap_of_binance_holds_what_comes_for_the_next_snapshot() -> None:
    chain = told(Binance(), spot(5, 10))
    chain.join(rest(10), Binance(), 0)
    chain.take(spot(12, 15, "98@1"), Binance(), 0)
    assert chain.reason == "gap"
    chain.take(spot(16, 18, "97@1"), Binance(), 0)
    assert chain.join(rest(14), Binance(), 0)
    assert book_of(chain)[0] == "100@1 98@1 97@1"


def test_a_gap_among_what_is_held_drops_what_is_before() -> None:
    chain = told(Binance(), spot(5, 10, "99@1"), spot(12, 15, "98@1"))
    assert not chain.join(rest(8), Binance(), 0)
    assert chain.join(rest(11), Binance(), 0)


def test_duplicates_of_binance_are_skipped() -> None:
    chain = told(Binance(), spot(5, 10))
    chain.join(rest(10), Binance(), 0)
    for update in (spot(11, 15, "98@1"), spot(11, 15, "98@2"), spot(5, 10, "98@3")):
        chain.take(update, Binance(), 0)
    assert book_of(chain)[0] == "100@1 98@1"


def usdm(previous: int, first: int, last: int, bids: str = "") -> BookUpdate:
    return change(bids, previous=previous, first=first, last=last)


@pytest.mark.parametrize("snap", [18, 20, 25, 30])
def test_the_join_of_usdm(snap: int) -> None:
    """U <= last <= u, u == last too, or pu == last where that event was already dropped; U is not contiguous."""
    chain = told(Usdm(), usdm(5, 7, 10, "99@1"), usdm(10, 14, 20, "98@1"), usdm(20, 24, 30, "97@1"))
    assert chain.join(rest(snap), Usdm(), 0)
    chain.take(usdm(30, 36, 40, "96@1"), Usdm(), 0)
    assert chain.live
    assert book_of(chain)[0].endswith("96@1")
    chain.take(usdm(41, 42, 50, "95@1"), Usdm(), 0)
    assert chain.reason == "gap"


def test_the_chain_of_bybit() -> None:
    chain = told(Bybit(), snapshot(last=7), change("98@1", last=8), change("97@1", last=9))
    assert book_of(chain)[0] == "100@1 99@1 98@1 97@1"
    chain.take(change("96@1", last=11), Bybit(), 0)
    assert (chain.reason, len(chain.held)) == ("gap", 0)
    # u 1: the venue began anew.
    chain.take(snapshot(last=1), Bybit(), 0)
    assert chain.live


def test_the_chain_of_a_venue_without_numbers() -> None:
    chain = told(Kraken(), snapshot("101@2", "102@1 103@4"), change("100.5@3", checksum=LONG))
    assert chain.live
    chain.take(change("100.5@4", checksum=LONG), Kraken(), 0)
    assert chain.reason == "checksum"


def test_what_is_held_is_bounded_in_changes_and_in_levels() -> None:
    chain = Chain(A, 1)
    for number in range(1, MOST_HELD + 50):
        chain.take(spot(number, number), Binance(), 0)
    assert len(chain.held) == MOST_HELD
    assert not chain.join(rest(10), Binance(), 0)
    assert chain.join(rest(60), Binance(), 0)
    chain = Chain(A, 1)
    wide = " ".join(f"{price}@1" for price in range(1, 101))
    for number in range(1, MOST_HELD_LEVELS // 100 + 10):
        chain.take(spot(number, number, wide), Binance(), 0)
    assert sum(len(update.bids) for update in chain.held) == chain.held_levels == MOST_HELD_LEVELS


def test_a_renewing_chain_goes_on_and_takes_the_snapshot_with_what_came_since() -> None:
    chain = told(Binance(), spot(5, 10))
    chain.join(rest(10), Binance(), 0)
    chain.renew(True)
    chain.take(spot(11, 15, "98@1"), Binance(), 0)
    chain.take(spot(16, 20, "97@1"), Binance(), 0)
    assert book_of(chain)[0] == "100@1 98@1 97@1"
    assert not chain.join(rest(9), Binance(), 0)
    assert chain.live
    assert chain.join(rest(15, "50@1"), Binance(), 0)
    assert book_of(chain)[0] == "97@1 50@1"
    assert not chain.renewing


def test_a_renewing_chain_does_not_go_back() -> None:
    chain = told(Binance(), spot(5, 10))
    chain.join(rest(10), Binance(), 0)
    chain.renew(True)
    assert not chain.join(rest(9), Binance(), 0)
    assert chain.join(rest(12), Binance(), 0)


def test_another_chains_book_that_began_anew_is_not_taken_for_newer() -> None:
    """The numbers fell while frames were lost: 3 … 5 is not older than 15, its time tells."""
    chain = told(Okx(), okx(3, 5, "1@1", time=200))
    base = Book.of(snapshot(last=15, time=100), 400, partial=False)
    assert not chain.meets(base, Okx())
    older = told(Okx(), okx(3, 5, "1@1", time=90))
    assert older.meets(base, Okx())
    across = told(Okx(), okx(10, 15, time=100), okx(15, 3, time=200), okx(3, 5, time=300))
    assert across.meets(Book.of(snapshot(last=3, time=200), 400, partial=False), Okx())


def test_after_joining_at_the_very_number_nothing_is_skipped_any_more() -> None:
    chain = told(Okx(), okx(10, 15, time=100))
    assert chain.join(Book.of(snapshot(last=15, time=100), 400, partial=False), Okx(), 0)

    class Strict(Okx):
        def link(self, last: int | None, joining: bool, update: BookUpdate) -> Any:
            assert not joining
            return super().link(last, joining, update)

    chain.take(okx(15, 18, time=200), Strict(), 0)
    assert chain.live
