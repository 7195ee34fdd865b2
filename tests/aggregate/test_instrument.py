"""One test a rule: when a window gets its candle, of which quality, and when again. Times are seconds."""

import msgspec
import pytest

from pipeline.records import ENDED, Candle, Rebuild
from tests.aggregate.made import (
    MS,
    START,
    Player,
    at,
    brief,
    clock,
    covered,
    entries,
    gap,
    played,
    told,
    trade,
    uncovered,
)

SLOW = 0.3
"""Later than aggregate.instrument.LAG after the moment in question."""


def rebuilds(player: Player) -> list[tuple[float, float, tuple[str, ...], float]]:
    """From, to and horizon in seconds since START, and the time frames."""
    lines = player.lines.get("md:rebuild:{okx}", [])
    found = [msgspec.json.decode(line, type=Rebuild) for line in lines]
    times = [[(time - START) / 10**9 for time in (one.from_time, one.to_time, one.time or 0)] for one in found]
    return [(low, high, one.timeframes, horizon) for one, (low, high, horizon) in zip(found, times, strict=True)]


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


def test_the_window_in_which_collection_began_is_partial() -> None:
    player = played(covered(20), trade(1, 30), trade(2, 60))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 20)]
    assert brief(player.candles("1s")) == [(30, "complete", 0, 0)]
    assert played(covered(20), clock(120)).candles() == []


def test_trades_of_the_first_frame_come_before_coverage() -> None:
    player = played(trade(1, 19.99, "7"), covered(20), trade(2, 21), trade(3, 60))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 19.99)]
    assert player.candles("1m")[0].open == "7"
    assert brief(player.candles("1s")) == [(19, "partial", 0, 0.99), (21, "complete", 0, 0)]


def test_an_old_trade_replayed_on_subscribing_covers_nothing() -> None:
    """Its own second has no candle and its number opens no hole, but the time to the next one is not proven; in the
    minute that still goes on it counts."""
    player = played(trade(1, -100, "5"), trade(2, 3, "7"), covered(20), trade(900, 20.5), trade(901, 60), clock(200))
    assert brief(player.candles("1m"))[0] == (0, "partial", 0, 20.500000001)
    assert player.candles("1m")[0].open == "7"
    assert brief(player.candles("1s")) == [(20, "partial", 0, 0.500000001), (60, "complete", 0, 0)]
    assert player.stage.report()["late"] == 0


def test_the_number_after_a_replayed_one_proves_the_time_between() -> None:
    """Whatever became of the connections in between."""
    cut = (trade(1, -100), covered(0), uncovered(30), covered(90, connection="wss://example#2"))
    player = played(*cut, trade(2, 130), clock(200, connection="wss://example#2"))
    assert brief(player.candles("1m")) == [(0, "quiet", 0, 0), (60, "quiet", 0, 0), (120, "complete", 0, 0)]
    player = played(*cut, trade(3, 130), clock(200, connection="wss://example#2"))
    assert brief(player.candles("1m"))[-1] == (120, "partial", 0, 10.000000001)
    assert {candle.quality for candle in player.candles("1m")} == {"partial"}


def test_a_replayed_trade_gives_quiet_windows_their_price() -> None:
    player = played(trade(1, -100, "5"), covered(20), clock(200))
    assert brief(player.candles("1m")) == [(60, "quiet", 0, 0), (120, "quiet", 0, 0)]
    assert player.candles("1m")[0].close == "5"


JUMP = (covered(0), trade(1, 0.2), trade(2, 1.5), trade(5, 3.5), trade(6, 4.5), trade(7, 5.5))


def test_windows_touched_by_a_jump_wait() -> None:
    player = played(*JUMP)
    assert brief(player.candles("1s")) == [(0, "complete", 0, 0), (4, "complete", 0, 0)]


def test_the_clock_closes_nothing_while_a_jump_is_unexplained() -> None:
    player = played(*JUMP, clock(7), clock(8))
    assert [candle[0] for candle in brief(player.candles("1s"))] == [0, 4]


def test_a_hole_filled_in_time_leaves_no_trace() -> None:
    player = played(*JUMP, trade(4, 3.4), trade(3, 2.5), clock(5.75))
    assert sorted(brief(player.candles("1s"))) == [(second, "complete", 0, 0) for second in range(5)]


def test_a_confirmed_gap_makes_the_touched_windows_partial() -> None:
    player = played(*JUMP, gap("opened", 3, 4, 1.5, 3.5, 5.6, remaining=((3, 4),)), clock(5.75))
    found = brief(player.candles("1s"))
    assert found[2:] == [(1, "partial", 0, 0.5), (3, "partial", 0, 0.500000001)]
    assert 2 not in [start for start, *_ in found], "no trade is known of it: unknown is not empty"
    again = played(*JUMP, gap("opened", 3, 4, 1.5, 3.5, 5.6), clock(5.75), clock(62), clock(63))
    assert brief(again.candles("1m")) == [(0, "partial", 0, 2.000000001)]


def test_a_gap_touches_windows_at_both_borders_inclusively() -> None:
    borders = (covered(0), trade(1, 0.999), trade(3, 1.0), trade(4, 2.5))
    player = played(*borders, gap("opened", 2, 2, 0.999, 1.0, 3), clock(3))
    assert brief(player.candles("1s")) == [(0, "partial", 0, 0.001), (1, "partial", 0, 0.000000001)]


def test_filled_windows_are_issued_again_as_repaired() -> None:
    opened = (*JUMP, gap("opened", 3, 4, 1.5, 3.5, 5.6), clock(5.75))
    player = played(*opened, trade(3, 2.5), trade(4, 3.4), gap("closed", 3, 4, 1.5, 3.5, 6.5, reason="filled"))
    assert len(player.candles("1s")) == 4, "issued again at a clock record only"
    player.play(entries([clock(6.6)]))
    assert brief(player.candles("1s"))[4:] == [(1, "repaired", 1, 0), (2, "complete", 0, 0), (3, "repaired", 1, 0)]
    assert [candle.first_id for candle in player.candles("1s")][4:] == ["2", "3", "4"]


def test_quiet_windows_inside_a_filled_gap_appear() -> None:
    player = played(
        covered(0, ("1m",)),
        trade(1, 30),
        trade(3, 310),
        gap("opened", 2, 2, 30, 310, 312),
        clock(362),
        trade(2, 150, "90"),
        clock(363),
    )
    assert brief(player.candles()) == [
        (300, "partial", 0, 10.000000001),
        (0, "partial", 0, 30),
        (0, "repaired", 1, 0),
        (60, "quiet", 0, 0),
        (120, "complete", 0, 0),
        (180, "quiet", 0, 0),
        (240, "quiet", 0, 0),
        (300, "repaired", 1, 0),
    ]
    assert [candle.close for candle in player.candles()][2:] == ["100", "100", "90", "90", "90", "100"]


def test_a_gap_that_shrinks_frees_what_lies_outside_again() -> None:
    player = played(*JUMP, gap("opened", 3, 4, 1.5, 3.5, 5.6), clock(5.75), trade(3, 2.5), clock(6.75))
    assert brief(player.candles("1s"))[4:] == [(1, "repaired", 1, 0), (2, "partial", 0, 0.5)]


def test_what_is_lost_for_good_stays_partial() -> None:
    opened = (*JUMP, gap("opened", 3, 4, 1.5, 3.5, 5.6), clock(5.75))
    closed = gap("closed", 3, 4, 1.5, 3.5, 6, reason="unrecoverable", remaining=((3, 4),))
    player = played(*opened, closed, *(clock(second) for second in range(7, 64)))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 2.000000001)]
    assert all(candle.revision == 0 for candle in player.candles())


def test_a_jump_after_windows_were_closed_by_the_clock_takes_them_back() -> None:
    """A frame was skipped on a live connection: what the clock had closed since the last trade is in doubt."""
    player = played(covered(0), trade(1, 0.5), clock(130), trade(3, 130.5))
    assert brief(player.candles("1m")) == [(0, "complete", 0, 0), (60, "quiet", 0, 0)]
    player.play(entries([gap("opened", 2, 2, 0.5, 130.5, 132.6), clock(132.6)]))
    assert brief(player.candles("1m"))[2:] == [(0, "partial", 1, 59.5), (60, "partial", 1, 60)]
    assert brief(player.candles("1s")) == [
        (0, "complete", 0, 0),
        (130, "partial", 0, 0.500000001),
        (0, "partial", 1, 0.5),
    ]


def test_a_jump_after_a_cut_takes_back_what_the_connection_seemed_to_prove() -> None:
    """It may have carried nothing since the last trade: silence after an acknowledgement ends in a reconnect."""
    player = played(
        covered(0),
        trade(1, 0.5),
        clock(130),
        uncovered(130),
        trade(3, 135),
        covered(135.1, connection="wss://example#2"),
        gap("opened", 2, 2, 0.5, 135, 137.2),
        clock(137.2, connection="wss://example#2"),
        trade(4, 181),
    )
    assert brief(player.candles("1m")) == [
        (0, "complete", 0, 0),
        (60, "quiet", 0, 0),
        (0, "partial", 1, 59.5),
        (60, "partial", 1, 60),
        (120, "partial", 0, 15.000000001),
    ]


def test_uncovered_windows_with_trades_are_not_waited_for() -> None:
    cut = (covered(0), trade(1, 0.2), trade(2, 1.7), uncovered(1.9))
    player = played(*cut, clock(2.9), clock(3.0, connection="none"))
    assert brief(player.candles("1s")) == [(0, "complete", 0, 0), (1, "partial", 0, 0.3)]
    longer = played(*cut, *(clock(second) for second in range(3, 200)))
    assert brief(longer.candles("1m")) == [(0, "partial", 0, 58.3)]
    assert len(longer.candles("1s")) == 2, "uncovered time without trades has no candle"


def test_uncovered_windows_are_repaired_when_the_next_number_proves_them() -> None:
    cut = (covered(0), trade(1, 0.2), trade(2, 1.7), uncovered(1.9), clock(61), clock(70))
    player = played(*cut, trade(3, 130), covered(130.1), clock(130.2))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 58.3), (60, "quiet", 0, 0), (0, "repaired", 1, 0)]
    assert brief(player.candles("1s"))[-1] == (1, "repaired", 1, 0)


def test_after_a_cut_a_jump_makes_the_time_between_partial() -> None:
    cut = (covered(0), trade(1, 0.2), trade(2, 1.7), uncovered(1.9), clock(70))
    player = played(*cut, trade(9, 130), covered(130.1), gap("opened", 3, 8, 1.7, 130, 132.1), clock(132.2))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 58.3)]
    player.play(entries([clock(182)]))
    assert brief(player.candles("1m"))[-1] == (120, "partial", 0, 10.000000001)


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


def test_quiet_windows_of_an_old_gap_are_asked_for_in_one_piece_at_most_once_a_second() -> None:
    stream = [covered(0, ("1s", "1m")), trade(1, 30), trade(9, 1800.5), gap("opened", 2, 8, 30, 1800.5, 1803)]
    later = [trade(9 + n, 1800.5 + n) for n in range(1, 900)]
    player = played(*stream, clock(1803), *later, clock(2800))
    assert rebuilds(player) == []
    pages = [trade(8, 1500, repaired=True), trade(7, 1000, repaired=True), clock(2801), trade(6, 500, repaired=True)]
    player.play(entries([*pages, clock(2801.25), clock(2801.5), clock(2802)]))
    wanted = [(1000, 1800.5, ("1m",), 2098.5), (500, 1000, ("1m",), 2098.5)]
    assert [(low, high, frames) for low, high, frames, _ in rebuilds(player)] == [one[:3] for one in wanted]
    whole = [start for start, quality, *_ in brief(player.candles("1m")) if quality == "repaired"]
    assert sorted(whole) == [960, 1500, 1800]


def test_windows_at_the_borders_of_an_open_gap_are_kept() -> None:
    stream = [covered(0), trade(1, 0.5), trade(5, 100.5), gap("opened", 2, 4, 0.5, 100.5, 103), clock(103)]
    later = [trade(4 + n, 100.5 + n) for n in range(2, 900)]
    fetched = [trade(n, seconds, repaired=True) for n, seconds in ((2, 0.9), (4, 100.1), (3, 50))]
    player = played(*stream, *later, clock(1000), *fetched, clock(1002))
    repaired = [candle for candle in brief(player.candles("1s")) if candle[1] == "repaired"]
    # The one in the middle has its candle too: until it came nobody knew a trade of its window.
    assert repaired == [(0, "repaired", 1, 0), (50, "repaired", 0, 0), (100, "repaired", 1, 0)]
    assert player.stage.report()["late"] == 0


def test_state_is_small() -> None:
    stream = [covered(0, ("1s", "1m")), *(trade(n, n) for n in range(1, 3_000)), clock(3_000), clock(3_010)]
    player = played(*stream)
    assert 600 < len(player.saved) < 640
    assert player.stage.report()["windows"] == len(player.saved) - 2


@pytest.mark.parametrize(("batch", "restore"), [(1, True), (1, False), (3, True), (100, False)])
def test_a_contract_that_is_no_more_leaves_the_state_and_the_others_go_on(batch: int, restore: bool) -> None:
    stream = [
        *(covered(0, instrument=name) for name in ("A", "B", "C")),
        *(trade(1, 1, instrument=name) for name in ("A", "B", "C")),
        clock(5),
        trade(2, 6, instrument="A"),
        trade(2, 6, instrument="C"),
        uncovered(7, "A", ENDED),
        uncovered(7, "A", ENDED),
        uncovered(7, "C", ENDED),
        covered(8, instrument="D"),
        covered(8, instrument="C"),
        *(trade(9, 9, instrument=name) for name in ("D", "C", "B")),
        clock(70),
    ]
    player = Player()
    every = entries(stream)
    for start in range(0, len(every), batch):
        player.play(every[start : start + batch], restore=restore)
    assert not any(field.endswith(b"|A") for field in player.saved)
    assert {field for field in player.saved if field.startswith(b"i|")} == {b"i|B", b"i|C", b"i|D"}
    assert player.stage.report()["instruments"] == 3
    assert (at(6), "A") in [(candle.open_time, candle.instrument) for candle in player.candles("1s")]
    whole = [candle.instrument for candle in player.candles("1m") if candle.received == at(70)]
    assert whole == ["B", "D", "C"], "in the order in which they were met"


def test_silence_found_out_late_takes_back_quiet_windows_no_longer_kept() -> None:
    """Pongs came, trades did not: nothing was quiet, however long ago."""
    quiet = [(60.0 * minute, "quiet", 0, 0.0) for minute in range(1, 30)]
    player = played(trade(1, 30), covered(30), trade(2, 59.5), *(clock(60.0 * minute + 2) for minute in range(1, 31)))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 30), *quiet]
    player.play(entries([trade(9, 1810.5)]), restore=True)
    player.play(entries([clock(1811)]), restore=True)
    player.play(entries([gap("opened", 3, 8, 59.5, 1810.5, 1813), clock(1813)]), restore=True)
    taken = [(start, "partial", 1, 60.0) for start, *_ in quiet]
    assert brief(player.candles("1m"))[30:] == [(0, "partial", 1, 30.5), *taken]
    assert brief(player.candles("1s"))[-1] == (59, "partial", 1, 0.5)


def test_a_trade_missed_long_ago_never_replaces_the_candle_of_the_last_one() -> None:
    player = played(trade(1, 0), covered(0), trade(2, 10), clock(1000), trade(4, 1000.5), trade(3, 10.5))
    player.play(entries([clock(1002)]))
    told_of = [(c.revision, c.first_id, c.last_id) for c in player.candles("1m") if c.open_time == START]
    assert told_of == [(0, "1", "2"), (1, "1", "3")]


def test_numbers_that_began_again_while_nothing_was_covered_prove_nothing_of_that_time() -> None:
    cut = (trade(50, 0), covered(0), trade(51, 30), clock(60), uncovered(60))
    player = played(*cut, trade(1, 300, epoch=1), covered(300.1, connection="wss://example#2"))
    player.play(entries([clock(362, connection="wss://example#2")]))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 30), (300, "partial", 0, 0.000000001)]


def test_a_new_epoch_opens_no_hole() -> None:
    player = played(covered(0), trade(500, 0.5), trade(1, 1.5, epoch=1), trade(2, 2.5, epoch=1), clock(4))
    assert brief(player.candles("1s")) == [(second, "complete", 0, 0) for second in range(3)]


def test_a_gap_below_the_first_number_seen_of_an_epoch_counts_until_it_is_filled() -> None:
    """Where the exchange began its new numbers only normalize knows."""
    seen = [covered(0), trade(500, 0.5), trade(3, 4.5, epoch=1), trade(4, 5.5, epoch=1), clock(7)]
    missed = {"epoch": 1, "remaining": ((1, 2),)}
    player = played(*seen, gap("opened", 1, 2, 0.5, 4.5, 7.5, **missed), clock(7.5))
    newest = {start: (quality, missing) for start, quality, _, missing in brief(player.candles("1s"))}
    assert newest == {0: ("partial", 0.5), 4: ("partial", 0.500000001), 5: ("complete", 0)}
    player.play(entries([trade(1, 2.2, epoch=1, repaired=True), trade(2, 4.1, epoch=1, repaired=True)]))
    player.play(entries([gap("closed", 1, 2, 0.5, 4.5, 9, epoch=1), clock(9)]))
    newest = {start: (quality, missing) for start, quality, _, missing in brief(player.candles("1s"))}
    assert newest == {0: ("repaired", 0), 2: ("repaired", 0), 4: ("repaired", 0), 5: ("complete", 0)}


def test_a_record_of_several_numbers_continues_the_sequence() -> None:
    player = played(covered(0), trade(1, 0.5), trade(4, 1.5, first_sequence=2, fills=3), trade(5, 2.5), clock(4))
    assert [candle[1] for candle in brief(player.candles("1s"))] == ["complete"] * 3
    assert player.candles("1s")[1].trades_count == 3


def test_coverage_that_moves_takes_its_evidence_from_the_new_connection() -> None:
    moved = covered(0.9, cause="moved", connection="wss://example#2")
    still = [covered(0), trade(1, 0.5), moved, clock(5)]
    assert played(*still).candles() == []
    assert len(played(*still, clock(6, connection="wss://example#2")).candles("1s")) == 1


def test_a_jump_that_normalize_never_heard_of_does_not_hold_candles_back_for_ever() -> None:
    player = played(*JUMP, clock(6), clock(64), clock(66))
    assert (1, "partial", 0, 0.5) in brief(player.candles("1s"))


def test_a_gap_from_just_before_our_first_number_counts() -> None:
    """normalize followed a live trade that came before coverage did; here numbers begin with the next one."""
    player = played(
        trade(1, 0.9), covered(0.95), trade(4, 2.5), gap("opened", 2, 3, 0.9, 2.5, 4.6), trade(5, 5), clock(5)
    )
    assert (2, "partial", 0, 0.500000001) in brief(player.candles("1s"))


@pytest.mark.parametrize(
    "frames", [("1m", "5m"), ("1s", "1m"), ("1s", "5s", "1m", "15m"), ("10s", "15s", "30s", "1m"), ()]
)
def test_other_frames_from_now_on(frames: tuple[str, ...]) -> None:
    """Settings changed: frames that stay tell of every trade once; a new one begins partial."""
    trades = [trade(n, n * 0.7) for n in range(1, 400)]
    change = 150
    stream = [covered(0, ("1s", "5s", "10s", "15s", "1m")), *trades[:change]]
    player = played(*stream, covered(change * 0.7 + 0.1, frames, cause="settings"), *trades[change:])
    minutes = {candle.open_time: candle.trades_count for candle in player.candles("1m")}
    if "1m" in frames:
        assert minutes == {
            start: sum(start <= (one.time or 0) < start + 60_000 * MS for one in trades) for start in minutes
        }
        assert len(minutes) == 4
    if "5m" in frames:
        player.finish()
        assert player.candles("5m")[0].quality == "partial"
    if not frames:
        assert len(minutes) == 1


def test_the_end_of_a_replay_writes_what_is_open_as_partial() -> None:
    player = played(covered(0), trade(1, 0.2), trade(2, 1.25), clock(1.5))
    player.finish()
    assert brief(player.candles("1s")) == [(0, "complete", 0, 0), (1, "partial", 0, 0.75)]
    assert brief(player.candles("1m")) == [(0, "partial", 0, 58.75)]
    waiting = played(*JUMP)
    waiting.finish()
    assert (1, "partial", 0, 0.5) in brief(waiting.candles("1s"))
    assert (3, "partial", 0, 0.500000001) in brief(waiting.candles("1s"))


def test_the_newest_candle_is_not_an_older_ones_revision() -> None:
    player = played(covered(0), trade(1, 0.5), trade(2, 1.5), trade(3, 2.5), trade(4, 0.6), clock(2.6))
    (line,) = [line for (key, _), line in player.newest.items() if key == "md:last:candle:1s:{okx}"]
    assert told(player.candles("1s")[1]) == told(msgspec.json.decode(line, type=Candle))


def test_what_cannot_be_used_is_buried() -> None:
    player = Player()
    good = entries([covered(0), trade(1, 0.5, "NaN"), trade(1, 0.5)])
    broken = good[0]._replace(fields={b"control": b"clock", b"data": b"{"})
    unknown = good[0]._replace(fields={b"control": b"weather", b"data": b"rain"})
    player.play([*good, broken, unknown, good[0]._replace(fields={b"symbol": b"X", b"data": b'"\xff'})])
    assert [b"unusable number" in letter or b"not understood" in letter for letter in player.dead] == [True] * 3
    assert player.stage.report()["instruments"] == 1
