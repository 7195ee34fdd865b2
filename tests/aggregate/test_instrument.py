"""Where the collection begins and ends, coverage, frames, what is kept. Times are seconds."""

import msgspec
import pytest

from pipeline.records import ENDED, Candle
from tests.aggregate.made import JUMP, MS, Player, at, brief, clock, covered, entries, played, told, trade, uncovered


def test_the_window_in_which_collection_began_is_partial() -> None:
    player = played(covered(20), trade(1, 30), trade(2, 60))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 20)]
    assert brief(player.candles("1s")) == [(30, "complete", 0, 0)]
    assert played(covered(20), clock(120)).candles() == []


def test_trades_of_the_first_frame_come_before_coverage() -> None:
    player = played(trade(1, 19.99, "7"), covered(20), trade(2, 21), trade(3, 60))
    assert brief(player.candles("1m")) == [(0, "partial", 0, 19.990000001)]
    assert player.candles("1m")[0].open == "7"
    assert brief(player.candles("1s")) == [(19, "partial", 0, 0.990000001), (21, "complete", 0, 0)]


def test_of_the_time_of_the_first_trade_there_may_be_more() -> None:
    """The collection begins with a trade: one that was printed before it may have the same time."""
    unproven = played(trade(5, 20), covered(20), trade(6, 20), trade(7, 21), trade(8, 22))
    assert brief(unproven.candles("1s")) == [(20, "partial", 0, 1e-9), (21, "complete", 0, 0)]
    later = played(trade(5, 20), covered(20.1), trade(6, 20), trade(7, 21), trade(8, 22))
    assert brief(later.candles("1s")) == brief(unproven.candles("1s"))
    known = played(trade(4, 19.5), trade(5, 20), covered(20), trade(7, 21, first_sequence=6), trade(8, 22))
    assert brief(known.candles("1s")) == [(20, "complete", 0, 0), (21, "complete", 0, 0)]
    between = played(trade(3, 19.5), trade(5, 20), covered(20), trade(6, 21), trade(7, 22))
    assert brief(between.candles("1s")) == brief(unproven.candles("1s"))


def test_a_frame_added_at_the_time_of_a_trade_does_not_have_it() -> None:
    first = (covered(0, ("1m",)), trade(1, 0.5), trade(2, 20))
    player = played(*first, covered(20, ("1s", "1m"), cause="settings"), trade(3, 20), trade(4, 21.5), trade(5, 60))
    assert brief(player.candles("1s")) == [(20, "partial", 0, 1e-9), (21, "complete", 0, 0)]
    assert brief(player.candles("1m")) == [(0, "complete", 0, 0)]


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


def test_uncovered_windows_with_trades_are_not_waited_for() -> None:
    cut = (covered(0), trade(1, 0.2), trade(2, 1.7), uncovered(1.9))
    player = played(*cut, clock(2.9), clock(3.0, connection="none"))
    assert brief(player.candles("1s")) == [(0, "complete", 0, 0), (1, "partial", 0, 0.3)]
    longer = played(*cut, *(clock(second) for second in range(3, 200)))
    assert brief(longer.candles("1m")) == [(0, "partial", 0, 58.3)]
    assert len(longer.candles("1s")) == 2, "uncovered time without trades has no candle"


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


def test_coverage_that_moves_takes_its_evidence_from_the_new_connection() -> None:
    moved = covered(0.9, cause="moved", connection="wss://example#2")
    still = [covered(0), trade(1, 0.5), moved, clock(5)]
    assert played(*still).candles() == []
    assert len(played(*still, clock(6, connection="wss://example#2")).candles("1s")) == 1


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
    broken = msgspec.structs.replace(good[0], fields={b"control": b"clock", b"data": b"{"})
    unknown = msgspec.structs.replace(good[0], fields={b"control": b"weather", b"data": b"rain"})
    player.play([*good, broken, unknown, msgspec.structs.replace(good[0], fields={b"symbol": b"X", b"data": b'"\xff'})])
    assert [b"unusable number" in letter or b"not understood" in letter for letter in player.dead] == [True] * 3
    assert player.stage.report()["instruments"] == 1
