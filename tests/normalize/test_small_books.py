"""A full channel and one of small snapshots of the same book, on one connection or on two (OKX `books` and `books5`,
Binance `depth` and `depth20`; only recordings have both): small ones never replace the full book."""

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normalize.mapper import BookUpdate
from normalize.saving import restore, save
from pipeline.records import OrderBook, encode
from tests.normalize.booked import HOSTILE, RULES, Market, Run, in_order
from tests.normalize.booking import MS, A, B, Binance, Bybit, C, Okx, Play, change, ns, snapshot, texts

SMALL = 5
VENUES = pytest.mark.parametrize("venue", sorted(RULES))


def small(bids: str, asks: str = "101@1", **fields: Any) -> BookUpdate:
    return snapshot(bids, asks, cut=SMALL, **fields)


def okx(previous: int, last: int, bids: str = "", **fields: Any) -> BookUpdate:
    return change(bids, previous=previous, last=last, **fields)


def spot(first: int, last: int, bids: str = "", **fields: Any) -> BookUpdate:
    return change(bids, first=first, last=last, **fields)


def at_once(rule: Any) -> Play:
    play = Play(rule)
    play.book.settings(20, 0, 0)
    return play


def test_after_a_full_book_the_small_ones_are_not_looked_at() -> None:
    play = at_once(Okx())
    play.update(snapshot(previous=-1, last=10), 0)
    play.update(small("100@1", last=11), 0.1)
    play.update(okx(10, 12, "98@1"), 0.2)
    assert play.shown() == [(10, None), (12, None)]
    assert texts(play.last.bids) == "100@1 99@1 98@1"
    assert play.asked == []


def test_not_while_the_full_book_is_broken_either() -> None:
    play = at_once(Okx())
    play.update(snapshot(previous=-1, last=10), 0)
    play.update(okx(12, 15), 1)
    play.update(small("100@1", last=16), 1.1)
    assert play.shown() == [(10, None), (10, "gap")]
    assert len(play.wants) == 1
    play.update(snapshot(previous=-1, last=20), 2)
    assert play.shown()[-1] == (20, None)
    assert play.wants == {}


def test_the_full_snapshot_takes_over_from_small_ones() -> None:
    play = at_once(Okx())
    play.update(small("100@1", last=9, time=ns(0)), 0)
    play.update(snapshot(previous=-1, last=10, time=ns(0.1)), 0.1)
    play.update(small("100@5", last=11, time=ns(0.2)), 0.2)
    assert play.shown() == [(9, None), (10, None)]
    assert texts(play.last.bids) == "100@1 99@1"


def test_a_change_is_never_put_on_a_small_book() -> None:
    """It is kept for the full one, which is wanted; what is shown meanwhile is small but right."""
    play = at_once(Binance())
    play.update(small("100@1", last=10), 0)
    assert play.asked == []
    play.update(spot(11, 12, "98@1"), 0.1)
    assert [(want.what, want.reason) for want in play.asked] == [("snapshot", "first")]
    play.update(small("100@2", last=12), 0.2)
    assert play.shown() == [(10, None), (12, None)]
    assert texts(play.last.bids) == "100@2"
    play.request("asked", 0.3)
    play.answer(snapshot(last=11, asked=1000), 0.4)
    assert (play.shown()[-1], texts(play.last.bids)) == ((12, None), "100@1 99@1 98@1")
    assert play.wants == {}
    play.update(small("100@3", last=13), 0.5)
    play.update(spot(13, 14, "97@1"), 0.6)
    assert texts(play.last.bids) == "100@1 99@1 98@1 97@1"


def test_a_full_book_that_is_behind_a_small_one_is_not_shown_before_it_is_not() -> None:
    play = at_once(Binance())
    play.update(spot(11, 12, "98@1"), 0)
    play.update(small("100@2", last=15), 0.1)
    play.answer(snapshot(last=12, asked=1000), 0.2)
    assert play.shown() == [(15, None)]
    play.update(spot(13, 16, "100@2"), 0.3)
    assert (play.shown()[-1], texts(play.last.bids)) == ((16, None), "100@2 99@1")


def test_a_change_without_a_snapshot_wants_a_resync_where_snapshots_come_by_themselves() -> None:
    for rule in (Okx(), Bybit()):
        play = at_once(rule)
        play.update(small("100@1", last=10), 0)
        play.update(okx(10, 11, "98@1"), 0.1)
        assert [(want.what, want.connection, want.reason) for want in play.asked] == [("resync", A, "gap")]
        assert play.last.valid
        play.request("asked", 0.2)
        play.closed(0.2, cause="unsubscribed")
        play.update(snapshot(previous=-1, last=20), 0.3)
        assert (play.last.valid, texts(play.last.bids), play.wants) == (True, "100@1 99@1", {})


def test_small_books_alone_want_nothing() -> None:
    play = at_once(Binance())
    play.answer(snapshot(last=9, asked=1000), 0)
    play.update(small("100@1", last=9), 1)
    play.update(small("101@1", last=10), 2)
    play.clocks(2, 15)
    assert (play.last.reason, play.asked) == ("crossed", [])
    play.update(small("100@1", last=11), 16)
    play.lost(17)
    assert play.last.reason == "lost"
    play.answer(snapshot(last=11, asked=1000), 18)
    play.update(small("100@2", last=12), 19)
    assert (play.last.valid, texts(play.last.bids)) == (True, "100@2")


def test_a_snapshot_that_came_before_any_change_is_kept_beside_small_books() -> None:
    play = at_once(Binance())
    play.update(small("100@1", last=10), 0)
    play.answer(snapshot(last=11, asked=1000), 0.1)
    assert play.last.sequence == 10
    play.update(spot(11, 13, "98@1"), 0.2)
    assert (play.last.sequence, texts(play.last.bids)) == (13, "100@1 99@1 98@1")
    assert play.asked == []


def test_another_connection_with_small_books_does_not_take_over() -> None:
    play = at_once(Okx())
    play.update(snapshot(previous=-1, last=10, time=ns(0)), 0)
    play.update(small("100@1", last=11, time=ns(0.1)), 0.1, B)
    play.update(okx(12, 13), 0.2)
    play.update(small("100@1", last=14, time=ns(0.3)), 0.3, B)
    assert (play.last.reason, play.book.chains.active, len(play.wants)) == ("gap", A, 1)
    play.closed(0.4)
    assert (play.last.valid, play.last.sequence, play.book.chains.active) == (True, 14, B)
    play.update(snapshot(previous=-1, last=15, time=ns(0.5)), 0.5, C)
    play.update(small("100@1", last=16, time=ns(0.6)), 0.6, B)
    assert (play.book.chains.active, texts(play.last.bids)) == (C, "100@1 99@1")


def test_another_connection_with_the_full_book_takes_over_whichever_came_first() -> None:
    play = at_once(Okx())
    play.update(snapshot(previous=-1, last=10, time=ns(0)), 0)
    play.update(okx(11, 12, time=ns(0.1)), 0.1)
    play.closed(0.2)
    play.opened(0.3)
    play.update(small("100@1", last=12, time=ns(0.4)), 0.4, B)
    assert play.book.chains.active == B
    play.update(snapshot(previous=-1, last=13, time=ns(0.5)), 0.5)
    assert (play.book.chains.active, texts(play.last.bids)) == (A, "100@1 99@1")


def test_changes_of_another_connection_do_not_go_on_from_a_small_book() -> None:
    play = at_once(Binance())
    play.update(small("100@1", last=10), 0)
    play.update(spot(11, 12, "98@1"), 0.1, B)
    play.update(spot(13, 14, "97@1"), 0.2, B)
    assert texts(play.last.bids) == "100@1"
    play.opened(0.3, C)
    play.closed(0.4)
    assert not play.last.valid


def without_later_fields(data: bytes) -> bytes:
    """What the program saved before it knew of small books."""
    saved = msgspec.msgpack.decode(data)
    saved["chains"] = [chain[:10] for chain in saved["chains"]]
    for chain in saved["chains"]:
        chain[4] = chain[4] and chain[4][:7]
        chain[7] = [update[:9] for update in chain[7]]
    saved["book"] = saved["book"] and saved["book"][:7]
    saved["kept"] = saved["kept"] and [saved["kept"][0], saved["kept"][1][:9]]
    del saved["turned"]
    return msgspec.msgpack.encode(saved)


@pytest.mark.parametrize("venue", ["okx", "binance"])
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 32))
def test_what_was_saved_before_small_books_were_known_is_still_read(venue: str, seed: int) -> None:
    runs = [Run(Random(seed), venue, count=20, saving=False) for _ in range(2)]
    for run in runs:
        run.suffer(40)
    old, new = (run.play for run in runs)
    old.book = restore(without_later_fields(save(old.book)), old.rule)
    for run in runs:
        run.settle()
    assert list(map(encode, old.records)) == list(map(encode, new.records))
    assert old.asked == new.asked


def small_of(market: Market, version: int) -> BookUpdate:
    told = market.snapshot(version, None)
    time = told.time if market.venue != "binance" else None
    return msgspec.structs.replace(told, bids=told.bids[:SMALL], asks=told.asks[:SMALL], time=time, cut=SMALL)


def contents(records: list[OrderBook]) -> list[OrderBook]:
    return [msgspec.structs.replace(record, received=0) for record in records]


@VENUES
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.lists(st.sampled_from(["change", "small", "clock", "lose"]), max_size=60))
def test_both_channels_show_what_the_full_one_shows(venue: str, seed: int, steps: list[str]) -> None:
    """Whatever comes between: the same records in the same order; only the frame at which one is shown is another."""
    market = Market(Random(seed), venue, 61)
    mixed, plain = Play(RULES[venue]), Play(RULES[venue])
    for play in (mixed, plain):
        play.book.settings(20, 0, 1000 * MS)
        if RULES[venue].by_request:
            play.update(market.frame(1), 0)
            play.answer(market.snapshot(1, 1000), 0)
        else:
            play.update(market.snapshot(1, None), 0)
    version = 1
    for step, what in enumerate(steps):
        at = step * 0.06
        if what == "small":
            mixed.update(small_of(market, version), at)
            continue
        version += what != "clock"
        for play in (mixed, plain):
            if what == "clock":
                play.clock(at)
            elif what == "change":
                play.update(market.frame(version), at)
    for play in (mixed, plain):
        play.clock(10)
        play.keep(play.book.end())
    assert contents(mixed.records) == contents(plain.records)


class Both(Run):
    """Each connection tells small snapshots too, also before and without the full book."""

    def small(self) -> None:
        if self.lines:
            line = self.random.choice(self.lines)
            self.play.update(small_of(self.market, line.next), self.at, line.name)

    @property
    def settled(self) -> bool:
        book = self.play.book.chains.book
        return super().settled and book is not None and not book.cut

    def suffer(self, events: int) -> None:
        self.step("open")
        for _ in range(events):
            self.step(self.random.choice([*HOSTILE, "small", "small", "small"]))


@VENUES
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_whatever_is_lost_what_is_shown_is_true_and_the_full_book_comes_back(venue: str, seed: int) -> None:
    run = Both(Random(seed), venue, count=30, saving=False)
    run.suffer(90)
    run.settle()
    in_order(run.play.records, 150 * MS)
    book = run.play.book.chains.book
    assert book is not None
    assert (tuple(book.bids.levels), tuple(book.asks.levels)) == run.market.ladders(run.version)


@VENUES
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 32))
def test_saved_and_restored_anywhere_nothing_is_different(venue: str, seed: int) -> None:
    runs = [Both(Random(seed), venue, count=20, saving=saving) for saving in (False, True)]
    for run in runs:
        run.suffer(60)
    plain, saved = (run.play for run in runs)
    assert list(map(encode, plain.records)) == list(map(encode, saved.records))
    assert plain.asked == saved.asked
    assert save(plain.book) == save(saved.book)
