"""What of a book is shown, and when."""

import msgspec

from normalize.output import MINUTE
from tests.normalize.begun import begun, okx, spot
from tests.normalize.booking import INVERSE, LINEAR, SECOND, B, Binance, Okx, Play, ns, snapshot, texts

FIRST_MINUTE = 40.0
"""Seconds after T0 at which a minute is full."""


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


def test_nothing_is_shown_before_the_first_valid_book() -> None:
    play = Play(Binance())
    play.update(spot(5, 10), 0)
    play.clocks(0, 90, 1)
    play.closed(91)
    assert play.records == []
    assert play.book.report()["reason"] == "closed"


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


def test_a_recording_of_an_earlier_day_shows_its_books() -> None:
    play = begun()
    play.lost(1, "writer")
    play.update(snapshot("90@1", "91@1", previous=-1, last=5, time=ns(-86400)), -86400, B)
    assert (play.last.valid, texts(play.last.bids)) == (True, "90@1")
    play.update(okx(5, 6, "90@2", time=ns(-86399)), -86399, B)
    play.update(okx(6, 7, "90@3", time=ns(-86399.5)), -86398, B)
    assert play.shown()[-1] == (6, None)
