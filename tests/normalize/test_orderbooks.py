"""What of a book is shown and when, what is wanted and when anew, and who takes over from whom."""

from typing import Any

import msgspec
import pytest

from normalize.output import MINUTE
from normalize.saving import restore, save
from pipeline.errors import ContractBroken
from pipeline.frames import RequestData
from pipeline.wants import resync_key, snapshot_key
from tests.normalize.booking import (
    INVERSE,
    LINEAR,
    SECOND,
    SPOT,
    A,
    B,
    Binance,
    Bybit,
    C,
    Kraken,
    Okx,
    Play,
    change,
    ns,
    snapshot,
    texts,
)

FIRST_MINUTE = 40.0
"""Seconds after T0 at which a minute is full."""
SNAPSHOT = snapshot_key("BTC-USDT")
ladder = " ".join


def okx(previous: int, last: int, bids: str = "", asks: str = "", **fields: Any) -> Any:
    return change(bids, asks, previous=previous, last=last, **fields)


def begun(rule: Any = None, instrument: Any = SPOT, **fields: Any) -> Play:
    """A book of OKX that is live at 10 since second 0."""
    play = Play(rule or Okx(), instrument)
    play.update(snapshot(previous=-1, last=10, time=ns(0), **fields), 0)
    return play


def joined(asked: int = 1000, bids: str = "100@1 99@1", asks: str = "101@1 102@1") -> Play:
    """A book of Binance that is live at 10 since second 0."""
    play = Play(Binance())
    play.update(spot(5, 10, "90@1"), 0)
    play.request("asked", 0)
    play.answer(snapshot(bids, asks, last=10, asked=asked), 0)
    assert play.wants == {}
    return play


def spot(first: int, last: int, bids: str = "", asks: str = "", **fields: Any) -> Any:
    return change(bids, asks, first=first, last=last, **fields)


def test_a_record_says_what_the_book_is() -> None:
    record = begun().last
    assert (record.exchange, record.market, record.symbol, record.instrument) == ("okx", "spot", "BTC-USDT", "BTC-USDT")
    assert (record.time, record.received, record.sequence, record.depth) == (ns(0), ns(0), 10, 20)
    assert (texts(record.bids), texts(record.asks)) == ("100@1 99@1", "101@1 102@1")
    assert (record.valid, record.reason, record.unit, record.snapshot_time) == (True, None, "base", None)


def test_changes_are_shown_at_most_once_an_interval_and_none_is_forgotten() -> None:
    play = begun()
    play.update(okx(10, 11, "99@2"), 0.05)
    play.update(okx(11, 12, "99@3"), 0.099)
    assert play.shown() == [(10, None)]
    play.update(okx(12, 13, "99@4"), 0.1)
    play.update(okx(13, 14, "99@5"), 0.15)
    assert play.shown() == [(10, None), (13, None)]
    play.clock(0.25)
    assert play.shown() == [(10, None), (13, None), (14, None)]
    play.clock(0.5)
    assert len(play.records) == 3


def test_a_change_below_the_depth_or_one_taken_back_is_no_change() -> None:
    play = begun()
    play.book.settings(2, 0, 0)
    play.clock(0.5)
    play.update(okx(10, 11, "98@5"), 1)
    assert play.shown() == [(10, None)]
    play.book.settings(2, SECOND, 0)
    play.update(okx(11, 12, "99@2"), 1.1)
    assert play.shown() == [(10, None), (12, None)]
    play.update(okx(12, 13, "99@7"), 1.2)
    play.update(okx(13, 14, "99@2"), 1.3)
    play.clock(5)
    assert play.shown() == [(10, None), (12, None)]


def test_depth_is_what_the_settings_say_and_no_more_than_the_rule_keeps() -> None:
    play = begun()
    play.book.settings(1, 0, SECOND)
    play.clock(0.5)
    assert (texts(play.last.bids), play.last.depth) == ("100@1", 1)
    play.book.settings(5000, 0, SECOND)
    play.clock(0.6)
    assert (texts(play.last.bids), play.last.depth) == ("100@1 99@1", 400)


def test_sizes_are_base_units_contracts_only_where_base_depends_on_the_price() -> None:
    linear = begun(instrument=LINEAR).last
    assert (texts(linear.bids), linear.unit) == ("100@0.01 99@0.01", "base")
    inverse = begun(instrument=INVERSE).last
    assert (texts(inverse.bids), inverse.unit) == ("100@1 99@1", "contracts")
    unknown = begun(instrument=msgspec.structs.replace(LINEAR, contract_value=None)).last
    assert (texts(unknown.bids), unknown.unit) == ("100@1 99@1", "contracts")


def test_new_facts_of_the_contract_are_shown_with_the_next_frame() -> None:
    play = begun(instrument=LINEAR)
    play.book.know(msgspec.structs.replace(LINEAR, received=7))
    play.clock(1)
    assert len(play.shown()) == 1
    play.book.know(msgspec.structs.replace(LINEAR, contract_value="0.1"))
    play.clock(2)
    assert texts(play.last.bids) == "100@0.1 99@0.1"


def test_the_grid_shows_the_book_as_it_stood_before_the_frame() -> None:
    play = begun()
    play.update(okx(10, 11, "99@2"), 0.99)
    play.update(okx(11, 12, "99@3"), 1.01)
    grid = [record for record in play.records if record.snapshot_time is not None]
    assert [(record.snapshot_time, record.sequence) for record in grid] == [(ns(1), 11)]
    # Nothing new at 2 s; then the change of 1.01.
    play.clock(2.25)
    play.update(okx(12, 13, "99@4"), 2.5)
    play.clock(3)
    grid = [record for record in play.records if record.snapshot_time is not None]
    assert [(record.snapshot_time, record.sequence) for record in grid] == [(ns(1), 11), (ns(2), 12), (ns(3), 13)]


def test_the_grid_is_the_exchanges_clock() -> None:
    play = begun()
    play.clock(0.1, offset=500_000_000)
    play.clock(0.4, offset=500_000_000)
    assert [record.snapshot_time for record in play.records] == [None]
    play.clock(0.5, offset=500_000_000)
    assert play.last.snapshot_time == ns(1)


def test_a_full_minute_is_shown_when_the_connection_is_known_to_have_lived_past_it() -> None:
    play = begun()
    play.clock(1)
    play.clock(FIRST_MINUTE + 0.25, a=FIRST_MINUTE - 1)
    assert [record.snapshot_time for record in play.records] == [None, ns(1)]
    play.clock(FIRST_MINUTE + 5, a=FIRST_MINUTE + 4)
    assert [record.snapshot_time for record in play.records] == [None, ns(1), ns(FIRST_MINUTE)]
    play.clock(FIRST_MINUTE + 60, a=FIRST_MINUTE + 60)
    assert play.last.snapshot_time == ns(FIRST_MINUTE) + MINUTE
    play.closed(FIRST_MINUTE + 61)
    count = len(play.records)
    play.clock(FIRST_MINUTE + 121, a=FIRST_MINUTE + 121)
    # That it is closed is a change of the grid too; nothing lives that could prove another minute.
    assert [record.valid for record in play.records[count:]] == [False]
    play.clock(FIRST_MINUTE + 200)
    assert len(play.records) == count + 1


def test_a_full_minute_at_which_something_is_new_is_shown_once() -> None:
    play = begun()
    play.clock(1)
    play.update(okx(10, 11, "99@2"), FIRST_MINUTE - 0.5)
    play.clock(FIRST_MINUTE + 0.25, a=FIRST_MINUTE + 0.25)
    grid = [record.snapshot_time for record in play.records if record.snapshot_time is not None]
    assert grid == [ns(1), ns(FIRST_MINUTE)]


def test_a_minute_between_two_points_of_a_coarser_grid_is_shown_too() -> None:
    play = Play(Okx())
    play.book.settings(20, 0, 7 * SECOND)
    play.update(snapshot(previous=-1, last=10), FIRST_MINUTE - 3)
    for tick in range(1, 9):
        play.clock(FIRST_MINUTE - 3 + tick, a=FIRST_MINUTE - 3 + tick)
    assert ns(FIRST_MINUTE) in [record.snapshot_time for record in play.records]


def test_an_estimate_of_the_clock_that_was_far_off_does_not_stop_the_grid() -> None:
    play = begun()
    play.clock(0.25, offset=3600 * SECOND)
    play.update(okx(10, 11, "99@2"), 0.5)
    play.clock(1.5, offset=3600 * SECOND)
    play.clock(2, offset=0)
    play.update(okx(11, 12, "99@3"), 2.5)
    play.clock(3.25, offset=0)
    assert play.last.snapshot_time == ns(3)


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


def test_the_unsubscription_of_our_own_resync_does_not_end_the_want() -> None:
    play = begun()
    play.update(okx(12, 15), 1)
    play.request("asked", 1.1)
    play.closed(1.2, cause="unsubscribed")
    play.opened(1.3)
    play.request("answered", 1.3)
    assert list(play.wants) == [resync_key("BTC-USDT", A)]
    play.update(snapshot(previous=-1, last=30), 1.4)
    assert play.wants == {}
    play.closed(2, cause="unsubscribed")
    assert play.last.reason == "unsubscribed"


def test_a_resync_that_brings_no_snapshot_is_wanted_anew_after_5_s_and_a_pause() -> None:
    play = begun()
    play.update(okx(12, 15), 1)
    play.request("asked", 1)
    play.request("answered", 1)
    play.clocks(1, 6.75)
    assert [want.number for want in play.asked] == [1]
    play.clock(7)
    assert [want.number for want in play.asked] == [1, 2]
    play.request("asked", 7)
    play.request("answered", 7)
    play.clocks(7, 13.75)
    play.clock(14)
    assert [want.number for want in play.asked] == [1, 2, 3]
    assert {want.since for want in play.asked} == {ns(1)}


def test_a_resync_refused_for_good_gives_the_chain_up() -> None:
    play = begun()
    play.update(okx(12, 15), 1)
    play.request("refused", 1.5, permanent=True, reason="no such connection")
    assert (play.wants, play.book.report()["chains"]) == ({}, 0)
    play.clocks(2, 10)
    assert len(play.asked) == 1


def test_a_first_frame_that_is_a_change_wants_a_resync() -> None:
    play = Play(Okx())
    play.update(okx(10, 11), 0)
    assert [(want.what, want.reason) for want in play.asked] == [("resync", "gap")]
    assert play.records == []


def test_a_subscription_without_a_snapshot_is_wanted_anew_in_time() -> None:
    play = Play(Okx())
    play.opened(0)
    play.clock(4.75)
    assert play.wants == {}
    play.clock(5)
    assert [want.what for want in play.asked] == ["resync"]


def test_the_first_snapshot_of_binance_is_wanted_and_joined() -> None:
    play = Play(Binance())
    play.opened(0)
    assert play.wants[SNAPSHOT].reason == "first"
    play.update(spot(5, 10, "99@2"), 0.1)
    play.update(spot(11, 12, "98@2"), 0.2)
    play.request("asked", 0.3)
    play.answer(snapshot(last=8, asked=1000), 0.4)
    assert play.shown() == [(12, None)]
    assert texts(play.last.bids) == "100@1 99@2 98@2"
    assert play.wants == {}
    assert play.book.request(RequestData(key=SNAPSHOT, number=1, state="answered"), ns(0.5)).wants == {}


def test_a_snapshot_too_old_is_wanted_anew_with_backoff() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    at = 0.0
    for number, pause in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=1):
        assert [want.number for want in play.asked][-1] == number
        play.request("asked", at)
        play.answer(snapshot(last=40, asked=1000), at)
        play.request("answered", at)
        play.clock(at + pause - 0.25)
        assert len(play.asked) == number
        at += pause
        play.clock(at)
    assert play.records == []
    play.answer(snapshot(last=55, asked=1000), at)
    assert play.shown() == [(60, None)]
    assert play.wants == {}


def test_a_refusal_for_now_pauses_one_for_good_ends_it_until_another_connection() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    play.request("refused", 1, reason="429")
    play.clock(1.75)
    assert len(play.asked) == 1
    play.clock(2)
    assert len(play.asked) == 2
    play.request("refused", 2.5, reason="-1121", permanent=True)
    assert play.wants == {}
    play.clocks(3, 200, 1)
    assert len(play.asked) == 2
    play.opened(201, B)
    play.closed(202)
    play.clock(203)
    assert [(want.number, want.reason) for want in play.asked] == [(1, "first"), (2, "first"), (3, "closed")]


def test_what_was_told_of_another_number_is_not_ours() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    play.request("refused", 1, number=7, permanent=True)
    assert len(play.wants) == 1


def test_an_answer_that_was_begun_is_not_waited_for_without_end() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    play.clock(300)
    assert len(play.asked) == 1
    play.request("asked", 300)
    play.clock(359)
    assert len(play.asked) == 1
    play.clock(360)
    assert len(play.asked) == 2


def test_a_book_that_breaks_again_and_again_is_healed_more_slowly() -> None:
    play = Play(Bybit())
    play.update(snapshot(last=1), 0)
    begins = []
    for round_ in range(1, 5):
        at = round_ * 10.0
        play.update(change(last=1000), at)
        play.clocks(at, at + 9, 0.25)
        begins.append((play.asked[-1].number, play.book.asking.failures))
        play.update(snapshot(last=1), at + 9.5)
    assert begins == [(1, 0), (2, 1), (3, 2), (4, 3)]
    play.update(change(last=1000), 200)
    assert play.asked[-1].number == 5


def test_a_book_that_breaks_soon_after_failed_answers_goes_on_pausing() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    play.request("refused", 1)
    play.clock(2)
    play.answer(snapshot(last=60, asked=1000), 3)
    play.update(spot(70, 71), 4)
    play.clock(5.75)
    assert play.wants == {}
    play.clock(6)
    assert len(play.wants) == 1


def test_trouble_of_long_ago_delays_no_first_snapshot() -> None:
    play = Play(Binance())
    play.update(spot(50, 60), 0)
    for at in (1, 10):
        play.request("refused", at)
        play.clock(at + 5)
    play.answer(snapshot(last=60, asked=1000), 20)
    play.closed(500)
    play.update(spot(500, 510), 501, B)
    assert play.asked[-1].number == 4
    assert play.asked[-1].since == ns(501)


def test_a_snapshot_that_came_first_is_kept_a_while() -> None:
    play = Play(Binance())
    play.answer(snapshot(last=10, asked=1000), 0)
    play.update(spot(9, 12, "99@5"), 5)
    assert play.shown() == [(12, None)]
    assert play.asked == []
    late = Play(Binance())
    late.answer(snapshot(last=10, asked=1000), 0)
    late.update(spot(9, 12, "99@5"), 61)
    assert late.records == []
    assert len(late.asked) == 1
    gone = Play(Binance())
    gone.answer(snapshot(last=10, asked=1000), 0)
    gone.update(spot(12, 13, "99@5"), 5)
    assert gone.records == []
    assert len(gone.asked) == 1


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


def test_a_rotation_of_a_shared_book_needs_no_snapshot() -> None:
    play = joined()
    play.opened(1, B)
    play.update(spot(13, 14, "97@1"), 1.1, B)
    assert play.book.chains.active == A
    play.update(spot(11, 14, "97@1 98@1"), 1.2)
    assert play.book.chains.active == B
    play.closed(1.3)
    play.update(spot(15, 16, "96@1"), 1.4, B)
    assert play.shown() == [(10, None), (14, None), (16, None)]
    assert texts(play.last.bids) == "100@1 99@1 98@1 97@1 96@1"
    assert len(play.asked) == 1


def test_a_quiet_book_is_handed_over_to_a_connection_subscribed_in_its_time() -> None:
    play = joined()
    play.opened(1, B)
    play.closed(2)
    play.update(spot(11, 12, "98@1"), 3, B)
    assert play.shown() == [(10, None), (12, None)]
    assert len(play.asked) == 1


def test_a_rotation_with_snapshots_by_themselves() -> None:
    play = begun()
    play.opened(1, B)
    play.update(snapshot("100@1 99@7", previous=-1, last=9, time=ns(-1)), 1.1, B)
    assert play.book.chains.active == A
    play.update(okx(10, 12, "98@1", time=ns(1)), 1.2)
    play.update(okx(9, 10, "99@1", time=ns(0)), 1.3, B)
    assert play.book.chains.active == A
    play.update(okx(10, 12, "98@1", time=ns(1)), 1.4, B)
    assert play.book.chains.active == B
    # The older one does not take it back.
    play.update(okx(12, 13, "98@2", time=ns(2)), 1.5)
    assert play.book.chains.active == B
    play.closed(1.6)
    play.update(okx(12, 13, "98@2", time=ns(2)), 1.7, B)
    assert play.shown() == [(10, None), (12, None), (13, None)]
    assert play.asked == []


def test_a_candidate_that_breaks_wants_nothing() -> None:
    play = begun()
    play.update(snapshot(previous=-1, last=4, time=ns(-2)), 1, B)
    play.update(okx(7, 9, time=ns(-1)), 1.1, B)
    assert play.asked == []
    assert play.last.valid


def test_a_valid_candidate_takes_over_from_a_broken_chain_and_nothing_goes_back() -> None:
    play = begun()
    play.update(okx(10, 12, "98@1", time=ns(1)), 1)
    play.update(snapshot(previous=-1, last=9, time=ns(-1)), 1.1, B)
    play.update(okx(14, 16, time=ns(2)), 1.2)
    assert play.book.chains.active == B
    assert play.shown() == [(10, None), (12, None)]
    play.update(okx(9, 10, "99@1", time=ns(0)), 1.4, B)
    assert play.shown() == [(10, None), (12, None)]
    play.update(okx(10, 12, "98@1", time=ns(1)), 1.6, B)
    play.update(okx(12, 14, "97@1", time=ns(2)), 1.8, B)
    assert play.shown() == [(10, None), (12, None), (14, None)]
    # The broken one joins again by its numbers.
    assert play.book.report()["chains"] == 2
    assert play.book.chains.every[A].live
    assert play.asked == []


def test_numbers_that_begin_anew_on_one_connection_first() -> None:
    play = begun()
    play.update(snapshot(previous=-1, last=10, time=ns(0)), 0.5, B)
    assert play.book.chains.active == B
    play.update(okx(10, 3, "98@1", time=ns(1)), 1, B)
    play.update(okx(3, 5, "97@1", time=ns(2)), 2, B)
    play.update(okx(10, 3, "98@1", time=ns(1)), 2.1)
    play.update(snapshot("100@1 99@1 98@1", previous=-1, last=3, time=ns(1)), 2.2, C)
    assert play.book.chains.active == B
    play.update(okx(3, 5, "97@1", time=ns(2)), 2.3, C)
    assert play.book.chains.active == C
    assert play.shown() == [(10, None), (3, None), (5, None)]


def test_a_connection_that_has_not_heard_of_new_numbers_does_not_take_over() -> None:
    play = begun()
    play.update(okx(10, 3, "98@1", time=ns(1)), 1)
    play.update(snapshot(previous=-1, last=8, time=ns(-1)), 1.1, B)
    assert play.book.chains.active == A
    play.update(okx(8, 10, time=ns(0)), 1.2, B)
    play.update(okx(10, 3, "98@1", time=ns(1)), 1.3, B)
    assert play.book.chains.active == B
    assert [sequence for sequence, _ in play.shown()] == [10, 3]


def test_without_times_the_numbers_keep_what_is_shown_from_going_back() -> None:
    play = joined()
    play.update(spot(11, 14, "98@1"), 1)
    play.opened(1.1, B)
    play.answer(snapshot(last=12, asked=1000), 1.2)
    assert play.book.chains.active == A
    play.closed(1.3)
    play.clock(2)
    assert play.shown() == [(10, None), (14, None)]
    assert play.book.chains.active == B
    play.update(spot(13, 13, "97@1"), 2.1, B)
    assert play.shown() == [(10, None), (14, None)]
    play.update(spot(14, 14, "97@1"), 2.2, B)
    assert play.shown() == [(10, None), (14, None), (14, None)]


def test_a_time_older_than_a_snapshot_without_one_does_not_make_a_book_newer() -> None:
    """The snapshot's own time is not known: that of an earlier record says nothing about it."""
    play = joined()
    play.update(spot(11, 14, "98@1", time=ns(1)), 1)
    play.opened(1.02, B)
    play.update(spot(15, 16, "97@1", time=ns(2)), 1.05)
    play.answer(snapshot(last=20, asked=1000), 1.2)
    assert play.shown() == [(10, None), (14, None), (20, None)]
    play.update(spot(25, 26, "96@1", time=ns(3)), 3, B)
    assert (play.book.chains.active, play.shown()[-1]) == (A, (20, None))
    play.update(spot(17, 24, "95@1", time=ns(2.5)), 3.1)
    assert play.shown()[-1] == (26, None)


def test_a_book_with_a_wrong_checksum_is_no_ground_to_go_on_from() -> None:
    play = begun()
    play.update(okx(10, 11, "98@1", checksum=7), 1)
    play.update(okx(11, 12, "97@1"), 2)
    play.update(okx(11, 12, "97@1"), 2.1, B)
    assert play.shown()[-1] == (11, "checksum")
    assert len(play.wants) == 1


def test_a_chain_that_is_not_shown_any_more_holds_nothing() -> None:
    play = joined()
    play.update(spot(11, 12, "101@1"), 1)
    play.clock(11.25)
    play.update(spot(13, 14, "97@1"), 12)
    assert len(play.book.chains.every[A].held) == 1
    play.update(snapshot(last=14), 13, B)
    assert play.book.chains.active == B
    assert len(play.book.chains.every[A].held) == 0
    assert play.wants == {}


def test_a_venue_without_numbers_hands_over_by_time() -> None:
    play = Play(Kraken())
    play.update(snapshot(time=ns(1)), 1)
    play.update(snapshot("100@5 99@1", time=ns(0.5)), 1.1, B)
    assert play.book.chains.active == A
    play.update(change("100@3", time=ns(2)), 2, B)
    assert play.book.chains.active == B
    play.closed(3, B)
    assert play.book.chains.active == A
    # Its book is older than what was shown: nothing goes back.
    assert [record.time for record in play.records if record.snapshot_time is None] == [ns(1), ns(2)]
    play.update(change("100@4", time=ns(3)), 3.5)
    assert texts(play.last.bids) == "100@4 99@1"


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


def test_a_want_whose_answer_may_be_lost_is_wanted_anew() -> None:
    play = Play(Binance())
    play.update(spot(5, 10), 0)
    play.request("asked", 0.1)
    play.lost(1)
    play.clock(2)
    assert [want.number for want in play.asked] == [1, 2]


def test_another_writer_takes_all_connections_and_their_resyncs_with_it() -> None:
    play = begun()
    play.update(okx(12, 15), 1)
    assert len(play.wants) == 1
    play.lost(2, "writer")
    assert (play.wants, play.book.report()["chains"]) == ({}, 0)
    assert play.book.report()["reason"] == "writer"
    play.update(snapshot(previous=-1, last=20), 3)
    assert play.last.valid


def test_time_never_goes_back_in_what_is_shown() -> None:
    play = begun()
    play.update(okx(10, 11, "98@1", time=ns(5)), 5)
    play.update(okx(11, 12, "97@1", time=ns(4)), 6)
    assert play.shown() == [(10, None), (11, None)]
    play.update(okx(12, 13, time=ns(5)), 7)
    assert play.shown() == [(10, None), (11, None), (13, None)]


def test_one_time_far_ahead_does_not_hide_the_book() -> None:
    play = begun()
    play.update(okx(10, 11, "98@1", time=ns(3600)), 1)
    play.update(okx(11, 12, "97@1", time=ns(2)), 2)
    assert play.shown()[-1] == (11, None)
    play.update(okx(12, 13, "96@1", time=ns(13)), 13)
    assert play.shown()[-1] == (13, None)


def test_a_hosts_clock_that_steps_back_holds_nothing_up() -> None:
    play = begun()
    play.update(okx(10, 11, "98@1"), -3600)
    play.update(okx(11, 12, "97@1"), -3599)
    assert play.shown()[-1] == (12, None)


def test_times_out_of_order_shorten_no_interval() -> None:
    """Two connections' frames may come in another order than that of their times."""
    play = begun()
    for number in range(10, 30):
        play.update(okx(number, number + 1, f"98@{number}"), 0.09 if number % 2 else 0.05)
    assert play.shown() == [(10, None)]
    play.clock(0.1)
    assert play.shown() == [(10, None), (30, None)]


def test_a_book_crossed_for_hours_is_not_resynced_each_time() -> None:
    """OKX allows 480 requests in an hour on a connection; in an auction the books of many instruments are crossed."""
    play = begun()
    play.saving = False
    last, asked = 10, 0
    for second in range(3600):
        last += 1
        play.update(okx(last - 1, last, "102@1"), second)
        play.clock(second + 0.5)
        if play.wants:
            asked += 1
            play.request("asked", second + 0.6)
            play.closed(second + 0.6, cause="unsubscribed")
            play.opened(second + 0.6)
            play.request("answered", second + 0.6)
            play.update(snapshot("102@1", "101@1", previous=-1, last=last), second + 0.7)
    assert 40 < asked < 70


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


def test_nothing_is_shown_before_the_first_valid_book() -> None:
    play = Play(Binance())
    play.update(spot(5, 10), 0)
    play.clocks(0, 90, 1)
    play.closed(91)
    assert play.records == []
    assert play.book.report()["reason"] == "closed"


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


def test_at_the_end_a_change_held_back_is_shown_and_no_point_of_the_grid_made_up() -> None:
    play = begun()
    play.update(okx(10, 11, "99@2"), 0.05)
    assert play.shown() == [(10, None)]
    for _ in range(2):
        play.keep(play.book.end())
        assert play.shown() == [(10, None), (11, None)]
    assert (play.last.received, play.last.snapshot_time, len(play.records)) == (ns(0.05), None, 2)


def test_at_the_end_nothing_is_shown_that_is_not_new_or_was_never_valid() -> None:
    play = begun()
    play.update(okx(10, 11, "99@2"), 0.05)
    play.update(okx(11, 12, "99@1"), 0.06)
    assert play.keep(play.book.end()).records == ()
    play.update(okx(14, 15), 0.07)
    assert play.last.reason == "gap"
    assert play.keep(play.book.end()).records == ()
    assert Play(Okx()).book.end().records == ()
    waiting = Play(Binance())
    waiting.update(spot(1, 2, "99@2"), 0)
    assert waiting.book.end().records == ()


def test_a_stale_snapshot_does_not_heal_a_book_that_was_further_already() -> None:
    play = joined()
    play.update(spot(11, 20, "98@1"), 1)
    play.lost(2)
    play.clock(4)
    play.answer(snapshot(last=15, asked=1000), 4.5)
    assert play.shown()[-1] == (20, "lost")
    play.answer(snapshot("100@7", last=20, asked=1000), 5)
    assert (play.shown()[-1], texts(play.last.bids)) == ((20, None), "100@7")


def test_of_two_stale_snapshots_none_is_shown() -> None:
    play = joined()
    play.update(spot(11, 20, "98@1"), 1)
    play.lost(2, "writer")
    play.opened(3, B)
    play.answer(snapshot(last=15, asked=1000), 4)
    play.lost(5)
    play.answer(snapshot(last=17, asked=1000), 6)
    assert play.shown()[-1] == (20, "writer")
    play.update(spot(18, 22, "97@1"), 7, B)
    assert play.shown()[-1] == (22, None)


def test_numbers_that_begin_anew_unsaid_do_not_freeze_the_book() -> None:
    """A symbol of Binance that was listed anew: its changes are not old ones, though their numbers are lower."""
    play = joined()
    play.update(spot(11, 12, "98@1", time=ns(1)), 1)
    play.update(spot(9, 10, "97@1", time=ns(0.9)), 1.1)
    assert play.last.valid
    play.update(spot(1, 2, "50@1", time=ns(60)), 60)
    assert play.shown()[-1] == (12, "gap")
    play.answer(snapshot("50@1", "51@1", last=2, asked=1000), 61)
    play.update(spot(3, 4, "49@1", time=ns(62)), 62)
    assert (play.last.valid, play.last.sequence, texts(play.last.bids)) == (True, 4, "50@1 49@1")


def test_a_recording_of_an_earlier_day_shows_its_books() -> None:
    play = begun()
    play.lost(1, "writer")
    play.update(snapshot("90@1", "91@1", previous=-1, last=5, time=ns(-86400)), -86400, B)
    assert (play.last.valid, texts(play.last.bids)) == (True, "90@1")
    play.update(okx(5, 6, "90@2", time=ns(-86399)), -86399, B)
    play.update(okx(6, 7, "90@3", time=ns(-86399.5)), -86398, B)
    assert play.shown()[-1] == (6, None)


def test_what_another_version_saved_is_refused() -> None:
    saved = msgspec.msgpack.decode(save(begun().book))
    saved["version"] = 99
    with pytest.raises(ContractBroken):
        restore(msgspec.msgpack.encode(saved), Okx())
    with pytest.raises(ContractBroken):
        restore(b"\xc1", Okx())
