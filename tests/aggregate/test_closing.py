"""When a window gets its candle, first and again. Times are seconds."""

from tests.aggregate.made import MS, at, brief, clock, covered, entries, gap, played, rebuilds, trade, uncovered

SLOW = 0.3
"""Later than aggregate.instrument.LAG after the moment in question."""


def test_a_trade_of_a_later_window_closes_the_one_before_at_once() -> None:
    player = played(covered(0), trade(1, 0.5, "100"), trade(2, 0.9, "101.50"), trade(3, 1.0, "99"))
    (candle,) = player.candles("1s")
    assert brief([candle]) == [(0, "complete", 0, 0)]
    assert (candle.open, candle.high, candle.low, candle.close) == ("100", "101.5", "100", "101.5")
    assert (candle.first_id, candle.last_id, candle.trades_count) == ("1", "2", 2)
    assert candle.received == trade(3, 1.0).received
    assert candle.time == candle.close_time == candle.open_time + 1_000 * MS
    assert player.candles("1m") == []


def test_the_clock_closes_a_window_after_the_grace() -> None:
    early = played(covered(0), trade(1, 0.5), clock(1.9))
    assert early.candles("1s") == []
    late = played(covered(0), trade(1, 0.5), clock(1.9), clock(2.0))
    assert brief(late.candles("1s")) == [(0, "complete", 0, 0)]
    assert late.candles("1s")[0].received == clock(2.0).received


def test_uncertainty_of_the_clock_is_waited_for_as_well() -> None:
    player = played(covered(0), trade(1, 0.5), clock(2.0, uncertainty=10 * MS))
    assert player.candles("1s") == []
    assert len(played(covered(0), trade(1, 0.5), clock(2.01, uncertainty=10 * MS)).candles("1s")) == 1


def test_a_clock_without_the_exchanges_time_closes_nothing() -> None:
    assert played(covered(0), trade(1, 0.5), clock(100, time=None)).candles() == []


def test_a_clock_that_runs_ahead_closes_nothing_without_evidence() -> None:
    player = played(covered(0), trade(1, 0.5), clock(3600, heard=0.9))
    assert player.candles() == []


def test_a_window_waits_for_a_frame_on_its_connection_past_its_end() -> None:
    silent = [covered(0), trade(1, 0.5), clock(5, heard=0.7), clock(6, heard=0.9)]
    assert played(*silent).candles() == []
    assert brief(played(*silent, clock(6, heard=1 + SLOW)).candles("1s")) == [(0, "complete", 0, 0)]
    assert played(*silent, clock(6, heard=5.0, connection="another#1")).candles() == []


def test_a_silent_connection_makes_no_quiet_candle() -> None:
    heard = [covered(0), trade(1, 0.5), *(clock(second, heard=30) for second in range(31, 400))]
    assert played(*heard).candles("1m") == []


def test_quiet_candles_repeat_the_close_from_quiet_from_upwards() -> None:
    player = played(covered(0), trade(1, 59.5, "100.10"), clock(200))
    assert brief(player.candles("1m")) == [(0, "complete", 0, 0), (60, "quiet", 0, 0), (120, "quiet", 0, 0)]
    quiet = player.candles("1m")[1]
    assert {quiet.open, quiet.high, quiet.low, quiet.close} == {"100.1"}
    assert {quiet.volume, quiet.quote_volume, quiet.buy_volume, quiet.buy_quote_volume} == {"0"}
    assert (quiet.trades_count, quiet.first_id, quiet.last_id, quiet.contracts) == (0, None, None, None)
    assert brief(player.candles("1s")) == [(59, "complete", 0, 0)]
    assert len(played(covered(0, quiet_from="1s"), trade(1, 59.5), clock(70)).candles("1s")) == 10


def test_quiet_windows_before_a_trade_are_proven_by_its_number() -> None:
    player = played(covered(0), trade(1, 30), trade(2, 200))
    assert brief(player.candles("1m")) == [(0, "complete", 0, 0), (60, "quiet", 0, 0), (120, "quiet", 0, 0)]


def test_nothing_is_quiet_before_the_first_trade() -> None:
    assert played(covered(0), clock(300)).candles() == []


def test_a_long_silence_is_made_up_for_in_pieces() -> None:
    player = played(covered(0, ("1m",)), trade(1, 30), clock(1200 * 60, heard=1200 * 60))
    first = len(player.candles())
    assert 0 < first < 1_000
    player.play(entries([clock(1200 * 60 + 1)]))
    player.play(entries([clock(1200 * 60 + 2)]))
    assert brief(player.candles()) == [(0, "complete", 0, 0), *((60 * n, "quiet", 0, 0) for n in range(1, 1200))]


def test_a_trade_dated_far_ahead_closes_nothing_before_its_time() -> None:
    """The venue's glitch: all later trades would be too late, and the time between quiet."""
    player = played(covered(0), trade(1, 0.5), clock(30), trade(2, 72_000, received=at(30.1)), trade(3, 31), clock(62))
    assert brief(player.candles("1m")) == [(0, "complete", 0, 0)]
    assert (player.candles("1m")[0].trades_count, player.stage.report()["late"]) == (2, 0)
    player.play(entries([clock(63), trade(5, 64), gap("opened", 4, 4, 31, 64, 67), clock(122)]))
    assert brief(player.candles("1m"))[1:] == [(60, "partial", 0, 4.000000001), (0, "partial", 1, 29)]


def test_years_that_are_unknown_are_not_walked_through() -> None:
    years, again = 3 * 365 * 86_400.0, {"connection": "wss://example#2"}
    player = played(
        trade(1, 0), covered(0), trade(2, 30), clock(70), uncovered(71), trade(9, years), covered(years, **again)
    )
    player.play(
        entries([gap("opened", 3, 8, 30, years, years + 2), clock(years + 2, **again), clock(years + 3, **again)])
    )
    assert (years, "partial", 0, 0.000000001) in brief(player.candles("1s"))
    player.play(entries([clock(years + 130, **again)]))
    assert brief(player.candles("1m"))[-2:] == [(years, "partial", 0, 0.000000001), (years + 60, "quiet", 0, 0)]


def test_a_late_trade_is_merged_into_all_frames_and_issued_at_the_next_clock() -> None:
    """Within the sequence, but of an earlier time."""
    player = played(covered(0, ("1s", "5s", "1m")), trade(1, 0.5), trade(2, 1.5), trade(3, 0.7, "300"), trade(4, 7))
    assert [candle.high for candle in player.candles("1s")] == ["100", "100"]
    assert player.candles("5s")[0].high == "300"
    player.play(entries([clock(7.1), trade(5, 61)]))
    assert brief(player.candles("1s"))[2:3] == [(0, "complete", 1, 0)]
    assert [candle.high for candle in player.candles("1s")][2] == "300"
    assert len(player.candles("5s")) == 2
    assert player.candles("1m")[0].high == "300"


def test_a_late_trade_corrects_the_quiet_windows_after_it() -> None:
    player = played(covered(0, ("1m",)), trade(1, 30), trade(2, 190), trade(3, 55, "42"), clock(190.1))
    assert brief(player.candles())[3:] == [(0, "complete", 1, 0), (60, "quiet", 1, 0), (120, "quiet", 1, 0)]
    assert [candle.close for candle in player.candles()][3:] == ["42"] * 3


def test_a_window_is_issued_again_at_most_once_a_clock_second() -> None:
    player = played(covered(0), trade(1, 0.5), trade(2, 5))
    for step in range(8):
        late = trade(3 + step, 0.6 + step / 100)
        player.play(entries([late, clock(10 + step / 4)]))
    assert brief(player.candles("1s"))[:1] == [(0, "complete", 0, 0)]
    again = [candle for candle in player.candles("1s") if candle.open_time == player.candles("1s")[0].open_time][1:]
    assert [(candle.revision, candle.trades_count) for candle in again] == [(1, 2), (2, 6)]
    player.play(entries([clock(12)]))
    assert player.candles("1s")[-1].trades_count == 9


def test_a_trade_for_a_window_that_is_gone_makes_no_candle_there() -> None:
    """Ten minutes later the second and the minute are gone; the day still goes on."""
    stream = [covered(0, ("1s", "1m", "1d")), trade(1, 0.5), *(trade(n, n) for n in range(2, 700))]
    player = played(*stream, clock(700), trade(700, 0.7, "300"), clock(701), clock(702))
    assert [candle for candle in player.candles("1s") if candle.high == "300"] == []
    assert [candle for candle in player.candles("1m") if candle.high == "300"] == []
    assert player.stage.report()["late"] == 1
    assert rebuilds(player) == [(0.7, 0.7, ("1s", "1m"), 100.0)], "the day is still here"
    player.finish()
    assert player.candles("1d")[-1].high == "300"


def test_a_window_that_was_let_go_is_never_begun_anew_by_a_trade_that_continues_the_numbers() -> None:
    """Its time is of long ago; the next jump is taken to lie behind a window that is there."""
    stream = [covered(0), *(trade(n, n) for n in range(1, 700)), trade(700, 5.5), clock(699)]
    player = played(*stream, trade(702, 702), gap("opened", 701, 701, 5.5, 702, 704), clock(705))
    assert [c for c in player.candles("1s") if c.open_time == at(5)][1:] == []
    player.play(entries([trade(701, 5.6, repaired=True), clock(707)]))
    assert [c for c in player.candles("1s") if c.open_time == at(5)][1:] == []
    assert [asked[:2] for asked in rebuilds(player)] == [(5.5, 5.5), (5.6, 5.6)]
