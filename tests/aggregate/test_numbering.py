"""What numbers that are jumped over, filled or lost do to candles. Times are seconds."""

import pytest

from tests.aggregate.made import JUMP, START, brief, clock, covered, entries, gap, played, rebuilds, trade, uncovered


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


def test_silence_found_out_late_takes_back_quiet_windows_no_longer_kept() -> None:
    """Pongs came, trades did not: nothing was quiet, however long ago."""
    quiet = [(60.0 * minute, "quiet", 0, 0.0) for minute in range(1, 30)]
    player = played(trade(1, 30), covered(30), trade(2, 59.5), *(clock(60.0 * minute + 2) for minute in range(1, 31)))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 30.000000001), *quiet]
    player.play(entries([trade(9, 1810.5)]), restore=True)
    player.play(entries([clock(1811)]), restore=True)
    player.play(entries([gap("opened", 3, 8, 59.5, 1810.5, 1813), clock(1813)]), restore=True)
    taken = [(start, "partial", 1, 60.0) for start, *_ in quiet]
    assert brief(player.candles("1m"))[30:] == [(0, "partial", 1, 30.500000001), *taken]
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
    assert brief(player.candles("1m")) == [(0, "partial", 0, 30.000000001), (300, "partial", 0, 0.000000001)]


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


def test_a_gap_that_closes_with_nothing_missing_leaves_nothing_partial() -> None:
    """Only the exchange could tell that its new numbers begin at 1, not at 0."""
    seen = [covered(0), trade(500, 0.5), trade(1, 4.5, epoch=1), trade(2, 5.5, epoch=1), clock(7)]
    opened = gap("opened", 0, 0, 0.5, 4.5, 7.5, epoch=1, remaining=((0, 0),))
    player = played(*seen, opened, clock(7.5))
    assert {start: quality for start, quality, *_ in brief(player.candles("1s"))}[4] == "partial"
    player.play(entries([gap("closed", 0, 0, 0.5, 4.5, 30, epoch=1), clock(30), trade(3, 61, epoch=1), clock(63)]))
    newest = {start: (quality, missing) for start, quality, _, missing in brief(player.candles("1s"))}
    assert newest == {second: ("repaired" if second < 5 else "complete", 0) for second in (0, 4, 5, 61)}
    assert brief(player.candles("1m"))[-1][1] == "complete"
    lost = played(*seen, opened, clock(7.5), gap("closed", 0, 0, 0.5, 4.5, 30, epoch=1, remaining=((0, 0),)), clock(30))
    assert {start: quality for start, quality, *_ in brief(lost.candles("1s"))}[4] == "partial"


CLOSED = {
    "filled": [trade(3, 2.5, repaired=True), trade(4, 3.4, repaired=True)],
    "filled the other way round": [trade(4, 3.4, repaired=True), trade(3, 2.5, repaired=True)],
    "reordered": [trade(4, 3.4), trade(3, 2.5)],
    "at the border": [trade(3, 1.5, repaired=True), trade(4, 3.5, repaired=True)],
    "no trade had them": [],
}


@pytest.mark.parametrize("quiet_from", ["1s", "1m", "1h"])
@pytest.mark.parametrize("reason", CLOSED)
def test_nothing_stays_partial_where_a_gap_closes_long_after_its_windows(quiet_from: str, reason: str) -> None:
    """Also in frames that have no quiet candles, which nobody asks store for."""
    later = [one for n in range(8, 1600) for one in (trade(n, n - 1.5), clock(n - 1.25))]
    closed = gap("closed", 3, 4, 1.5, 3.5, 1600, reason=reason)
    first = covered(0, ("1s", "5s", "10s", "15s", "30s", "1m"), quiet_from=quiet_from)
    opened = (first, *JUMP[1:], gap("opened", 3, 4, 1.5, 3.5, 5.6, remaining=((3, 4),)), clock(5.75))
    player = played(*opened, *later)
    last = {(one.timeframe, one.open_time): one for one in player.candles()}
    doubted = {window for window, one in last.items() if one.quality == "partial"}
    assert {frame for frame, _ in doubted} == {"1s", "5s", "10s", "15s", "30s", "1m"}
    player.play(entries([*CLOSED[reason], closed, clock(1600)]), restore=True)
    player.play(entries([clock(1602), clock(1604)]), restore=True)
    last = {(one.timeframe, one.open_time): one for one in player.candles()}
    assert {last[window].quality for window in doubted} == {"repaired"}
    assert {one.quality for one in last.values()} <= {"complete", "repaired", "quiet"}


def test_a_record_of_several_numbers_continues_the_sequence() -> None:
    player = played(covered(0), trade(1, 0.5), trade(4, 1.5, first_sequence=2, fills=3), trade(5, 2.5), clock(4))
    assert [candle[1] for candle in brief(player.candles("1s"))] == ["complete"] * 3
    assert player.candles("1s")[1].trades_count == 3


def test_a_jump_that_normalize_never_heard_of_does_not_hold_candles_back_for_ever() -> None:
    player = played(*JUMP, clock(6), clock(64), clock(66))
    assert (1, "partial", 0, 0.5) in brief(player.candles("1s"))


def test_a_gap_from_just_before_our_first_number_counts() -> None:
    """normalize followed a live trade that came before coverage did; here numbers begin with the next one."""
    player = played(
        trade(1, 0.9), covered(0.95), trade(4, 2.5), gap("opened", 2, 3, 0.9, 2.5, 4.6), trade(5, 5), clock(5)
    )
    assert (2, "partial", 0, 0.500000001) in brief(player.candles("1s"))
