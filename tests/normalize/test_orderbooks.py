"""When a book is valid: what breaks it, what heals it, what is lost with frames."""

import msgspec
import pytest

from normalize.saving import restore, save
from pipeline.errors import ContractBroken
from pipeline.wants import resync_key
from tests.normalize.begun import SNAPSHOT, begun, joined, ladder, okx, spot
from tests.normalize.booking import A, B, Bybit, Okx, Play, change, ns, snapshot, texts


def test_a_broken_chain_is_said_at_once_and_healed_at_once() -> None:
    play = begun()
    play.update(okx(12, 15, "99@2"), 0.01)
    assert play.shown() == [(10, None), (10, "gap")]
    assert not play.last.valid
    (want,) = play.wants.values()
    assert (want.what, want.connection, want.number, want.reason, want.since) == ("resync", A, 1, "gap", ns(0.01))
    play.update(okx(15, 16, "99@3"), 0.02)
    play.update(snapshot(previous=-1, last=20), 0.03)
    assert play.shown() == [(10, None), (10, "gap"), (20, None)]
    assert play.wants == {}
    report = play.book.report()
    assert (report["valid"], report["resyncs"], report["invalid"], report["sequence"]) == (True, 1, 1, 20)


def test_a_wrong_checksum_breaks_the_chain() -> None:
    play = Play(Okx())
    play.update(snapshot("101@2", "102@1"), 0)
    play.update(change("100.5@3", "103@4", checksum=1579316919), 1)
    play.update(change("100.5@2", checksum=1579316919), 2)
    assert [record.reason for record in play.records if record.snapshot_time is None] == [None, None, "checksum"]
    assert list(play.wants) == [resync_key("BTC-USDT", A)]


def test_crossed_is_not_valid_until_it_is_uncrossed() -> None:
    play = begun()
    play.update(okx(10, 11, "101@1"), 0.01)
    assert play.shown()[-1] == (11, "crossed")
    assert texts(play.last.bids) == "101@1 100@1 99@1"
    play.update(okx(11, 12, "101@0"), 0.02)
    assert play.shown()[-1] == (12, None)
    assert play.wants == {}


def test_crossed_for_too_long_is_wanted_anew() -> None:
    play = begun()
    play.update(okx(10, 11, "101@1"), 1)
    play.clocks(1, 11)
    assert play.wants == {}
    play.clock(11.25)
    assert [want.reason for want in play.wants.values()] == ["crossed"]
    play.update(okx(11, 12, "101@0"), 12)
    assert play.wants == {}
    assert play.last.valid


def test_a_book_that_stays_crossed_is_crossed_since_it_became_so() -> None:
    play = begun()
    play.update(okx(10, 11, "101@1"), 1)
    play.update(okx(11, 12, "101.5@1"), 6)
    play.clock(11.25)
    assert len(play.wants) == 1


def test_crossed_for_too_long_is_replaced_by_a_snapshot_with_what_came_since() -> None:
    play = joined()
    play.update(spot(11, 12, "101@1"), 1)
    play.clock(11.25)
    assert play.wants[SNAPSHOT].reason == "crossed"
    play.update(spot(13, 14, "98@1"), 11.5)
    play.update(spot(15, 16, "97@1"), 11.6)
    play.answer(snapshot(last=13, asked=1000), 12)
    assert play.last.valid
    assert texts(play.last.bids) == "100@1 99@1 98@1 97@1"
    assert play.last.sequence == 16
    assert play.wants == {}


def wide(side: str, count: int) -> str:
    prices = range(1000, 1000 - count, -1) if side == "bid" else range(1001, 1001 + count)
    return ladder(f"{price}@1" for price in prices)


def test_a_book_that_runs_out_of_known_levels_is_fetched_anew_before_it_is_not_valid() -> None:
    play = joined(100, wide("bid", 100), wide("ask", 100))
    assert play.wants == {}
    gone = ladder(f"{price}@0" for price in range(1000, 949, -1))
    play.update(spot(11, 12, gone), 1)
    assert play.last.valid
    assert play.wants[SNAPSHOT].reason == "exhausted"
    gone = ladder(f"{price}@0" for price in range(949, 919, -1))
    play.update(spot(13, 14, gone), 2)
    assert play.shown()[-1] == (14, "exhausted")
    # A level beyond the worst of the snapshot is not the next best.
    play.update(spot(15, 16, "900@5"), 3)
    assert texts(play.last.bids).endswith("901@1")
    play.update(spot(17, 18, "900@5"), 3.5)
    play.answer(snapshot(wide("bid", 100), wide("ask", 100), last=16, asked=100), 4)
    assert play.shown()[-1] == (18, None)
    assert play.wants == {}


def test_a_whole_book_does_not_run_out() -> None:
    play = joined(1000)
    play.update(spot(11, 12, "100@0"), 1)
    assert play.last.valid
    assert play.wants == {}


def test_closed_is_said_at_once_and_what_comes_next_heals() -> None:
    play = begun()
    play.closed(1)
    assert play.shown()[-1] == (10, "closed")
    play.update(snapshot(previous=-1, last=12), 2, B)
    assert play.shown()[-1] == (12, None)
    assert play.asked == []


def test_a_book_goes_on_over_a_break_that_lost_nothing() -> None:
    play = joined()
    play.closed(1)
    play.opened(1.5, B)
    play.update(spot(9, 12, "98@1"), 2, B)
    assert play.shown() == [(10, None), (10, "closed"), (12, None)]
    assert texts(play.last.bids) == "100@1 99@1 98@1"


def test_after_a_break_a_quiet_book_may_first_prove_itself_by_its_numbers() -> None:
    play = joined()
    play.closed(1)
    play.opened(2, B)
    play.clock(3.75)
    assert play.wants == {}
    play.clock(4)
    assert [want.reason for want in play.wants.values()] == ["closed"]
    play.answer(snapshot(last=11, asked=1000), 5)
    assert play.shown()[-1] == (11, None)


def test_frames_lost_on_the_way_break_every_chain_until_the_numbers_prove_them() -> None:
    play = joined()
    play.lost(1)
    assert play.shown()[-1] == (10, "lost")
    play.clock(1.5)
    play.update(spot(11, 12, "98@1"), 2)
    assert play.shown()[-1] == (12, None)
    assert len(play.asked) == 1


def test_lost_frames_that_mattered_want_a_snapshot_at_the_next_change() -> None:
    play = joined()
    play.lost(1)
    play.update(spot(12, 13, "98@1"), 1.5)
    assert play.wants[SNAPSHOT].reason == "lost"
    play.answer(snapshot(last=12, asked=1000), 2)
    assert play.shown()[-1] == (13, None)


def test_a_quiet_book_after_lost_frames_is_fetched_anew() -> None:
    play = joined()
    play.lost(1)
    play.clock(2.75)
    assert play.wants == {}
    play.clock(3)
    assert len(play.wants) == 1
    play.answer(snapshot(last=11, asked=1000), 4)
    assert play.shown()[-1] == (11, None)


def test_lost_frames_break_a_venue_whose_numbers_are_each_connections_own() -> None:
    play = Play(Bybit())
    play.update(snapshot(last=7), 0)
    play.lost(1)
    play.update(change(last=8), 2)
    assert play.shown()[-1] == (7, "lost")
    assert len(play.wants) == 1


def test_another_writer_takes_all_connections_and_their_resyncs_with_it() -> None:
    play = begun()
    play.update(okx(12, 15), 1)
    assert len(play.wants) == 1
    play.lost(2, "writer")
    assert (play.wants, play.book.report()["chains"]) == ({}, 0)
    assert play.book.report()["reason"] == "writer"
    play.update(snapshot(previous=-1, last=20), 3)
    assert play.last.valid


def test_snapshots_only() -> None:
    """books5 and the like: each replaces the book; one that says the same is not shown."""
    play = Play(Okx())
    for at, bids in enumerate(("100@1", "100@1", "100@2")):
        play.update(snapshot(bids, "101@1", last=5 + at, time=ns(at)), at)
    assert [(record.sequence, texts(record.bids)) for record in play.records if record.snapshot_time is None] == [
        (5, "100@1"),
        (7, "100@2"),
    ]


def test_an_empty_side_is_a_book() -> None:
    play = Play(Okx())
    play.update(snapshot("100@1", "", previous=-1, last=10), 0)
    assert (play.last.valid, play.last.asks) == (True, ())


def test_the_report() -> None:
    play = joined()
    assert play.book.report() == {
        "symbol": "BTC-USDT",
        "connection": A,
        "valid": True,
        "reason": None,
        "since": ns(0),
        "sequence": 10,
        "last_message": ns(0),
        "resyncs": 0,
        "snapshots": 1,
        "invalid": 0,
        "chains": 1,
        "levels": [2, 2],
    }


def test_the_report_says_since_when_a_book_is_valid_or_not() -> None:
    play = begun()
    play.update(okx(10, 11, "98@1"), 1)
    assert play.book.report()["since"] == ns(0)
    play.update(okx(14, 15), 2)
    play.update(okx(15, 16), 3)
    assert (play.book.report()["valid"], play.book.report()["since"]) == (False, ns(2))
    play.update(snapshot(previous=-1, last=20), 4)
    play.clock(5)
    assert (play.book.report()["valid"], play.book.report()["since"]) == (True, ns(4))


def test_what_another_version_saved_is_refused() -> None:
    saved = msgspec.msgpack.decode(save(begun().book))
    saved["version"] = 99
    with pytest.raises(ContractBroken):
        restore(msgspec.msgpack.encode(saved), Okx())
    with pytest.raises(ContractBroken):
        restore(b"\xc1", Okx())
