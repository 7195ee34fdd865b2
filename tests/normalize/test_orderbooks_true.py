"""Whatever is lost, late, doubled or cut: a valid record is the true book at its number, and a book heals."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normalize.saving import save
from pipeline.records import encode
from tests.normalize.booked import RULES, Run, in_order
from tests.normalize.booking import MS

VENUES = pytest.mark.parametrize("venue", sorted(RULES))


def hostile(random: Random, venue: str, events: int, *, asked: int = 1000, saving: bool = False) -> Run:
    run = Run(random, venue, count=events // 3, asked=asked, saving=saving)
    run.suffer(events)
    return run


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
    assert save(plain.play.book) == save(saved.play.book)


@VENUES
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_make_before_break_is_never_seen(venue: str, seed: int) -> None:
    """Rotation after rotation: no record that is not valid, nothing wanted but the first snapshot."""
    run = Run(Random(seed), venue, count=40)
    run.begin()
    asked = len(run.play.asked)
    run.rotate(120)
    assert [record for record in run.play.records if not record.valid] == []
    assert run.play.asked[asked:] == []
    in_order(run.play.records, 150 * MS)
