"""Whatever is lost, late, doubled or cut: a valid record is the true book at its number, and a book heals."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import OrderBook, encode
from tests.normalize.booked import RULES, Run
from tests.normalize.booking import MS

QUIET = ["advance"] * 4 + ["deliver"] * 6 + ["clock"]
HOSTILE = [*QUIET, "open", "lose", "repeat", "cut", "mislay", "replace", "serve", "serve", "unasked"]
VENUES = pytest.mark.parametrize("venue", sorted(RULES))


def hostile(random: Random, venue: str, events: int, *, asked: int = 1000, saving: bool = False) -> Run:
    run = Run(random, venue, count=events // 3, asked=asked, saving=saving)
    run.step("open")
    for _ in range(events):
        run.step(random.choice(HOSTILE))
    return run


def in_order(records: list[OrderBook], interval: int) -> None:
    """Time does not go back, and changes come no faster than the interval."""
    times = [record.time for record in records if record.time is not None]
    assert times == sorted(times)
    marks = [record.snapshot_time for record in records if record.snapshot_time is not None]
    assert marks == sorted(set(marks))
    valid, shown = None, None
    for record in records:
        if record.snapshot_time is None:
            if record.valid == valid and shown is not None:
                assert record.received - shown >= interval
            valid, shown = record.valid, record.received


@VENUES
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_valid_records_are_the_true_book_and_every_book_heals(venue: str, seed: int) -> None:
    run = hostile(Random(seed), venue, 90)
    run.settle()
    in_order(run.play.records, 150 * MS)
    book = run.play.book.chains.book
    assert book is not None
    bids, asks = run.market.ladders(run.version)
    assert (tuple(book.bids.levels), tuple(book.asks.levels)) == (bids, asks)
    assert run.play.last.valid


@pytest.mark.parametrize("venue", ["binance", "usdm"])
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(4, 8))
def test_what_a_cut_snapshot_does_not_tell_is_never_shown_as_known(venue: str, seed: int, asked: int) -> None:
    run = hostile(Random(seed), venue, 90, asked=asked)
    in_order(run.play.records, 150 * MS)


@VENUES
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_saved_and_restored_anywhere_nothing_is_different(venue: str, seed: int) -> None:
    plain = hostile(Random(seed), venue, 60)
    saved = hostile(Random(seed), venue, 60, saving=True)
    assert list(map(encode, plain.play.records)) == list(map(encode, saved.play.records))
    assert plain.play.asked == saved.play.asked
    assert plain.play.book.saved() == saved.play.book.saved()


@VENUES
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_make_before_break_is_never_seen(venue: str, seed: int) -> None:
    """Rotation after rotation: no record that is not valid, nothing wanted but the first snapshot."""
    random = Random(seed)
    run = Run(random, venue, count=40)
    run.step("open")
    while not run.play.records:
        for what in ("advance", "deliver", "serve"):
            run.step(what)
    asked = len(run.play.asked)
    for _ in range(120):
        if len(run.lines) == 1 and random.random() < 0.1:
            run.step("open")
        elif len(run.lines) == 2 and random.random() < 0.2:
            old, new = run.lines
            # The old one has told what came before the new one was there; the new one its snapshot.
            if old.next >= new.start and not new.first:
                run.step("cut")
        else:
            run.step(random.choice(QUIET))
    assert [record for record in run.play.records if not record.valid] == []
    assert run.play.asked[asked:] == []
    in_order(run.play.records, 150 * MS)
