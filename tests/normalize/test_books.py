"""What the order books of every exchange must keep to: one suite, run for each of EXCHANGES under its mapper's rule.

A new exchange needs a row in STYLES: how its venue numbers the changes of a book (`booked.Market`).
"""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normalize.mapper import BookRule, BookUpdate, load
from normalize.orderbooks import InstrumentBook
from pipeline.exchanges import EXCHANGES
from pipeline.records import encode
from pipeline.wants import resync_key, snapshot_key
from tests.normalize.booked import Market, Run, in_order
from tests.normalize.booking import MS, SPOT, A, B, Play, ns, texts

STYLES = {"okx": "okx", "binance": "binance"}
VENUES = pytest.mark.parametrize("name", sorted(EXCHANGES))


def rule_of(name: str) -> BookRule:
    return load(EXCHANGES[name]).book_rule


class Story:
    """A market of the exchange's style, told into a book under its rule."""

    def __init__(self, name: str, seed: int = 1) -> None:
        self.rule = rule_of(name)
        self.market = Market(Random(seed), STYLES[name], 40)
        self.play = Play(self.rule)
        self.play.book.settings(20, 0, 1000 * MS)

    def begin(self, version: int = 0, conn: str = A) -> None:
        """A valid book at a version, the way the venue has it."""
        if self.rule.by_request:
            self.tell(version + 1, conn)
            self.heal(version)
        else:
            self.play.update(self.market.snapshot(version, None), self.at(version), conn)

    def tell(self, version: int, conn: str = A) -> None:
        self.play.update(self.market.frame(version), self.at(version), conn)

    def heal(self, version: int, conn: str = A) -> None:
        """What is wanted is done, as ingest does it."""
        at = self.at(version) + 0.05
        self.play.request("asked", at)
        if self.rule.by_request:
            self.play.answer(self.market.snapshot(version, 1000), at)
        else:
            self.play.closed(at, conn, "unsubscribed")
            self.play.opened(at, conn)
            self.play.request("answered", at)
            self.play.update(self.market.snapshot(version, None), at, conn)

    def at(self, version: int) -> float:
        return version / 10

    def check(self, version: int) -> None:
        """The last record is the true book, valid, at this version."""
        record = self.play.last
        self.market.check(record)
        assert (record.valid, record.sequence) == (True, self.market.numbers[version])
        bids, asks = self.market.ladders(version)
        assert (texts(record.bids), texts(record.asks)) == (texts(bids), texts(asks))


@VENUES
def test_the_rule_is_complete(name: str) -> None:
    assert name in STYLES, "how this venue numbers the changes of a book is not told here"
    rule = rule_of(name)
    assert rule.levels >= 20
    assert rule.checksum([("100", "1")], [("101", "1")]) == rule.checksum([("100", "1")], [("101", "1")])
    # A book that can only be had by asking has numbers by which the answer is joined.
    assert not rule.by_request or rule.shared


@VENUES
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_snapshot_and_the_changes_that_follow_it_are_a_valid_book(name: str, seed: int) -> None:
    story = Story(name, seed)
    story.begin()
    for version in range(1, 20):
        story.tell(version)
        if story.play.last.snapshot_time is None and story.play.last.sequence == story.market.numbers[version]:
            story.check(version)
    assert [record for record in story.play.records if not record.valid] == []
    assert story.play.wants == {}
    book = story.play.book.chains.book
    assert book is not None
    assert (tuple(book.bids.levels), tuple(book.asks.levels)) == story.market.ladders(19)


@VENUES
def test_a_missing_change_is_seen_wanted_and_healed(name: str) -> None:
    story = Story(name)
    story.begin()
    story.tell(1)
    story.tell(3)
    assert (story.play.last.valid, story.play.last.reason) == (False, "gap")
    assert story.play.last.sequence == story.market.numbers[1]
    key = snapshot_key("BTC-USDT") if story.rule.by_request else resync_key("BTC-USDT", A)
    assert list(story.play.wants) == [key]
    story.tell(4)
    assert not story.play.last.valid
    story.heal(4)
    story.check(4)
    assert story.play.wants == {}
    story.tell(5)
    story.tell(6)
    assert story.play.last.valid
    assert story.play.book.report()["sequence"] == story.market.numbers[6]


@VENUES
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 32), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_changes_told_twice_change_nothing(name: str, seed: int, again: list[int]) -> None:
    story = Story(name, seed)
    story.begin()
    for version in range(1, 6):
        story.tell(version)
    for version in again:
        story.play.update(story.market.frame(version), 0.6)
    assert [record for record in story.play.records if not record.valid] == []
    assert story.play.wants == {}
    story.tell(6)
    assert story.play.book.report()["sequence"] == story.market.numbers[6]
    book = story.play.book.chains.book
    assert book is not None
    assert (tuple(book.bids.levels), tuple(book.asks.levels)) == story.market.ladders(6)


@VENUES
@pytest.mark.parametrize("snapshot", range(4, 9))
def test_a_snapshot_by_rest_joins_wherever_it_stands(name: str, snapshot: int) -> None:
    """Just before what came since (the border), at any of it, at its end, ahead of it."""
    story = Story(name)
    if not (story.rule.by_request or story.rule.shared):
        # Numbers of a connection's own are no place in any other book.
        return
    for version in (5, 6, 7):
        story.tell(version)
    story.play.answer(story.market.snapshot(snapshot, 1000), 0.75)
    story.check(max(7, snapshot))
    story.tell(8)
    story.tell(9)
    assert story.play.book.report()["sequence"] == story.market.numbers[9]


@VENUES
def test_a_snapshot_by_rest_that_is_too_old_does_not_join(name: str) -> None:
    story = Story(name)
    story.tell(5)
    story.play.request("asked", 0.5)
    story.play.answer(story.market.snapshot(3, 1000), 0.5)
    assert story.play.records == []
    story.play.request("answered", 0.5)
    numbers = [want.number for want in story.play.asked]
    story.play.clocks(0.5, 8)
    assert [want.number for want in story.play.asked][: len(numbers) + 1] == [1, 2]


@VENUES
def test_a_snapshot_over_the_socket_replaces_the_book_at_any_time(name: str) -> None:
    story = Story(name)
    story.begin()
    story.tell(1)
    story.play.update(story.market.snapshot(9, None), 0.9)
    story.check(9)
    story.tell(10)
    assert story.play.last.valid


@VENUES
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_whatever_is_lost_a_valid_record_is_the_true_book_and_it_heals(name: str, seed: int) -> None:
    run = Run(Random(seed), STYLES[name], rule=rule_of(name), count=30, saving=False)
    run.suffer(90)
    run.settle()
    in_order(run.play.records, 150 * MS)
    assert run.play.last.valid


@VENUES
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 32))
def test_saved_and_restored_anywhere_nothing_is_different(name: str, seed: int) -> None:
    runs = [Run(Random(seed), STYLES[name], rule=rule_of(name), count=20, saving=saving) for saving in (False, True)]
    for run in runs:
        run.suffer(60)
    plain, saved = (run.play for run in runs)
    assert list(map(encode, plain.records)) == list(map(encode, saved.records))
    assert plain.asked == saved.asked


@VENUES
def test_a_rotation_of_fifty_books_is_never_seen(name: str) -> None:
    """Issue 3: 0 resyncs, 0 records that are not valid, but for the snapshots that first began the books."""
    for seed in range(50):
        run = Run(Random(seed), STYLES[name], rule=rule_of(name), count=40, saving=False)
        run.begin()
        asked = len(run.play.asked)
        run.rotate(120)
        assert [record.reason for record in run.play.records if not record.valid] == []
        assert len(run.play.asked) == asked


@VENUES
def test_a_quiet_book_outlives_a_rotation(name: str) -> None:
    """Nothing changes while one connection follows another: no record, nothing wanted."""
    story = Story(name)
    story.begin()
    shown, asked = len(story.play.records), len(story.play.asked)
    at = story.market.numbers.index(story.play.last.sequence or -1)
    story.play.opened(5, B)
    if not story.rule.by_request:
        story.play.update(msgspec.structs.replace(story.market.snapshot(at, None), time=ns(5)), 5.1, B)
    story.play.closed(6, A)
    story.play.update(story.market.frame(at + 1), 7, B)
    assert all(record.valid for record in story.play.records[shown:])
    assert len(story.play.asked) == asked
    assert story.play.book.report()["sequence"] == story.market.numbers[at + 1]


@VENUES
def test_a_book_of_another_connection_is_not_mixed_in(name: str) -> None:
    """Two connections at different places: what is shown follows one of them at a time."""
    story = Story(name)
    story.begin()
    if not story.rule.by_request:
        story.play.update(story.market.snapshot(0, None), 0.01, B)
    for version in range(2, 8):
        story.tell(version, A if version % 2 else B)
        story.tell(version - 1, B if version % 2 else A)
    for record in story.play.records:
        if record.valid:
            story.market.check(record)


@VENUES
def test_the_levels_kept_are_those_of_the_rule(name: str) -> None:
    rule = rule_of(name)
    book = InstrumentBook(SPOT, rule)
    count = rule.levels + 50
    bids = tuple((str(price), "1") for price in range(count, 0, -1))
    asks = tuple((str(price), "1") for price in range(count + 1, 2 * count + 1))
    book.update(A, BookUpdate(SPOT, True, bids, asks, last=5, previous=-1), ns(0))
    assert book.report()["levels"] == [rule.levels, rule.levels]
