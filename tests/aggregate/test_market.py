"""Properties over made markets: no candle depends on batches or restarts, none says what is not so."""

from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.records import Candle, Trade
from pipeline.timeframes import DEFAULT_TIMEFRAMES, TIMEFRAMES, WIDTHS
from tests.aggregate.made import START, Player, entries, naive, told
from tests.aggregate.market import Market

SEEDS = st.integers(0, 10**9)
FRAMES = st.one_of(
    st.just(TIMEFRAMES), st.just(DEFAULT_TIMEFRAMES), st.sets(st.sampled_from(TIMEFRAMES), min_size=1).map(tuple)
)
QUIET = st.sampled_from(["1s", "1m", "1h"])


def straight(market: Market) -> Player:
    player = Player()
    player.play(entries(market.records))
    return player


def final(candles: Iterable[Candle]) -> dict[tuple[str, str, int], Candle]:
    """The last revision of each window; revisions rise by one."""
    found: dict[tuple[str, str, int], Candle] = {}
    for candle in candles:
        key = (candle.instrument, candle.timeframe, candle.open_time)
        assert candle.revision == (found[key].revision + 1 if key in found else 0)
        found[key] = candle
    return found


def of(trades: Iterable[Trade], instrument: str) -> list[Trade]:
    return [trade for trade in trades if trade.instrument == instrument]


@settings(deadline=None, max_examples=40)
@given(SEEDS, FRAMES, QUIET, st.lists(st.integers(1, 400), max_size=12), st.floats(0.05, 90))
def test_batches_and_restarts_change_no_byte(
    seed: int, frames: tuple[str, ...], quiet_from: str, sizes: list[int], pace: float
) -> None:
    market = Market(seed, frames, quiet_from=quiet_from, pace=pace).run(120)
    expected, split = straight(market), Player()
    rest = entries(market.records)
    for size in sizes:
        split.play(rest[:size], restore=True)
        rest = rest[size:]
    split.play(rest, restore=bool(sizes))
    for player in (expected, split):
        player.finish()
    assert split.lines == expected.lines
    assert split.newest == expected.newest
    assert split.saved.keys() == expected.saved.keys()
    assert split.stage.report() == expected.stage.report()
    assert split.dead == expected.dead == []


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_any_number_of_entries_a_step_gives_the_same_bytes(size: int) -> None:
    market = Market(size, TIMEFRAMES, pace=20).run(1_500)
    expected, split = straight(market), Player()
    rest = entries(market.records)
    for start in range(0, len(rest), size):
        split.play(rest[start : start + size], restore=start % 5 == 0)
    assert split.lines == expected.lines
    assert split.newest == expected.newest


@settings(deadline=None, max_examples=60)
@given(SEEDS, FRAMES, QUIET)
def test_every_candle_is_the_candle_of_the_trades_that_passed(
    seed: int, frames: tuple[str, ...], quiet_from: str
) -> None:
    market = Market(seed, frames, quiet_from=quiet_from).run(100)
    player = straight(market)
    player.finish()
    found = final(player.candles())
    assert player.stage.report()["late"] == 0
    for (instrument, frame, start), candle in found.items():
        expected = naive(of(market.passed, instrument), frame, start)
        if expected is None:
            assert candle.trades_count == 0
        else:
            assert told(candle) == expected
        assert candle.close_time == start + WIDTHS[frame]
        assert (candle.quality == "partial") == (candle.missing > 0)
    for trade in market.passed:
        began = next(one.time for one in market.passed if one.instrument == trade.instrument)
        for frame in frames:
            start = trade.time - trade.time % WIDTHS[frame]
            if start + WIDTHS[frame] > began:
                assert (trade.instrument, frame, start) in found


@settings(deadline=None, max_examples=60)
@given(SEEDS, FRAMES, QUIET, st.floats(0.05, 20))
@example(3060, TIMEFRAMES, "1s", 20.0)
def test_what_is_not_partial_equals_all_that_was_printed(
    seed: int, frames: tuple[str, ...], quiet_from: str, pace: float
) -> None:
    market = Market(seed, frames, quiet_from=quiet_from, pace=pace).run(100)
    player = straight(market)
    for candle in final(player.candles()).values():
        expected = naive(of(market.truth, candle.instrument), candle.timeframe, candle.open_time)
        if candle.quality == "quiet":
            assert expected is None
        elif candle.quality != "partial":
            assert told(candle) == expected


@settings(deadline=None, max_examples=40)
@given(SEEDS, QUIET, st.floats(0.05, 20))
def test_known_time_has_its_candles(seed: int, quiet_from: str, pace: float) -> None:
    """Without cuts and skipped trades every window from the second on has a candle, complete or quiet."""
    market = Market(seed, TIMEFRAMES, quiet_from=quiet_from, pace=pace)
    line = market.lines[0]
    market.join(line)
    since = market.now
    for _ in range(100):
        market.sleep(market.random.random() * pace)
        market.deliver(line, market.print(line))
    market.sleep(2)
    found = final(straight(market).candles())
    known = market.passed[-1].time or 0
    for frame in TIMEFRAMES:
        width = WIDTHS[frame]
        for start in range(START, known - known % width, width):
            candle = found.get((line.name, frame, start))
            traded = naive(market.passed, frame, start) is not None
            if start <= START + since:
                continue
            if traded or width >= WIDTHS[quiet_from]:
                assert candle is not None
                assert candle.quality == ("complete" if traded else "quiet")
            else:
                assert candle is None
