"""Whatever goes missing and in whatever order it comes again: in the end every candle is that of all trades."""

from collections import defaultdict

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.records import Candle, Rebuild, Trade
from pipeline.timeframes import DEFAULT_TIMEFRAMES, WIDTHS
from tests.aggregate.made import MINUTE, SECOND, Player, entries
from tests.aggregate.outages import Outages, all_windows, judged, known, same, windows

SEEDS = st.integers(0, 10**9)
FRAMES = st.sampled_from([("1s", "5s", "1m", "5m", "1h", "1d"), DEFAULT_TIMEFRAMES, ("1s",), ("1m", "4h")])
QUIET = st.sampled_from(["1m", "1m", "5m", "1h"])
LONGEST = st.sampled_from([30.0, 1_500.0, 8_000.0, 60_000.0])
REBUILDS = "md:rebuild:{okx}"


class Stored:
    """The table of candles: the newest entry wins, and what is asked for is computed at once from what is known."""

    def __init__(self, market: Outages) -> None:
        self.market = market
        self.player = Player()
        self.rows: dict[tuple[str, int], Candle] = {}
        self.issued: defaultdict[tuple[str, int], list[Candle]] = defaultdict(list)
        self.rebuilt: set[tuple[str, int]] = set()
        self.taken = 0

    def play(self, sizes: list[int]) -> "Stored":
        """All records in steps of these sizes, over and over, with a restart before each but the first."""
        every = entries(self.market.records)
        place, turn = 0, 0
        while place < len(every):
            size = sizes[turn % len(sizes)]
            self.player.play(every[place : place + size], restore=turn > 0)
            place, turn = place + size, turn + 1
            self.take(place)
        return self

    def take(self, place: int) -> None:
        """What the last step wrote; `place` records are known by then."""
        for frame in self.market.frames:
            lines = self.player.lines.pop(f"md:candle:{frame}:{{okx}}", [])
            for line in lines:
                candle = msgspec.json.decode(line, type=Candle)
                self.rows[frame, candle.open_time] = candle
                self.issued[frame, candle.open_time].append(candle)
        asked = [msgspec.json.decode(line, type=Rebuild) for line in self.player.lines.pop(REBUILDS, [])]
        if asked:
            now = known(self.market.records[:place])
            for window in {window for rebuild in asked for window in windows(rebuild)}:
                found = judged(now, *window, self.market.quiet_from, self.rows.get(window))
                self.rebuilt.add(window)
                if found is not None:
                    self.rows[window] = found


@settings(deadline=None, max_examples=40)
@given(SEEDS, FRAMES, QUIET, LONGEST, st.integers(5, 120), st.lists(st.integers(5, 300), min_size=1, max_size=5))
@example(2880, ("1m", "4h"), "1m", 60_000.0, 120, [300, 1])
def test_in_the_end_every_candle_is_that_of_all_trades(
    seed: int, frames: tuple[str, ...], quiet_from: str, longest: float, events: int, sizes: list[int]
) -> None:
    stored = Stored(Outages(seed, frames, quiet_from, longest).run(events)).play(sizes)
    newest = max(one.time or 0 for one in stored.market.truth)
    check_candles(stored, newest)
    check_revisions(stored)
    check_state(stored)


@settings(deadline=None, max_examples=30)
@given(SEEDS, FRAMES, QUIET, LONGEST, st.integers(5, 120), st.lists(st.integers(5, 300), min_size=1, max_size=5))
@example(286, ("1m", "4h"), "1m", 60_000.0, 120, [60])
@example(39558, ("1s", "5s", "1m", "5m", "1h", "1d"), "1m", 60_000.0, 14, [5])
def test_trades_whose_times_are_not_in_the_order_of_their_numbers_are_in_their_candles_in_the_end(
    seed: int, frames: tuple[str, ...], quiet_from: str, longest: float, events: int, sizes: list[int]
) -> None:
    stored = Stored(Outages(seed, frames, quiet_from, longest, jitter=True).run(events)).play(sizes)
    newest = max(one.time or 0 for one in stored.market.truth)
    check_candles(stored, newest - 2 * SECOND)


@settings(deadline=None, max_examples=30)
@given(SEEDS, FRAMES, st.sampled_from(["1s", "1m", "5m"]), LONGEST, st.integers(5, 100), st.booleans())
def test_gaps_that_close_late_for_any_reason_leave_every_candle_as_it_should_be(
    seed: int, frames: tuple[str, ...], quiet_from: str, longest: float, events: int, jitter: bool
) -> None:
    market = Outages(seed, frames, quiet_from, min(longest, 8_000.0), jitter=jitter, late=True).run(events)
    stored = Stored(market).play([50, 7, 300])
    check_candles(stored, max(one.time or 0 for one in market.truth) - 2 * SECOND)


def check_candles(stored: Stored, until: int) -> None:
    """Those of windows that end by `until`."""
    market = stored.market
    frames, quiet_from = market.frames, market.quiet_from
    now = known(market.records)
    wanted_at = {(frame, start) for frame in frames for start in all_windows(now, frame, quiet_from, until)}
    shown = {window for window, row in stored.rows.items() if row.close_time <= until}
    for window in sorted(wanted_at | shown):
        row = stored.rows.get(window)
        wanted = judged(now, *window, quiet_from, row)
        if wanted is None:
            assert row is None, window
            continue
        assert row is not None, window
        assert same(row, wanted), (window, row, wanted)


def check_revisions(stored: Stored) -> None:
    """They rise by one, but where store had a hand in it; again at most once a clock second."""
    for window, candles in stored.issued.items():
        if window not in stored.rebuilt:
            assert [one.revision for one in candles] == list(range(len(candles))), window
        seconds = [one.received // SECOND for one in candles[1:]]
        assert len(set(seconds)) == len(seconds), window


def check_state(stored: Stored) -> None:
    """What was repaired or given up is gone from it: ten minutes and the last windows are left."""
    report = stored.player.stage.report()
    young = sum(10 * MINUTE // WIDTHS[frame] + 5 for frame in stored.market.frames)
    assert int(str(report["windows"])) <= young


@settings(deadline=None, max_examples=20)
@given(SEEDS, LONGEST, st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_batches_and_restarts_change_no_byte(seed: int, longest: float, sizes: list[int]) -> None:
    market = Outages(seed, ("1s", "1m", "1h"), "1m", longest).run(120)
    expected, split = Player(), Player()
    every = entries(market.records)
    expected.play(every)
    place, turn = 0, 0
    while place < len(every):
        size = sizes[turn % len(sizes)]
        split.play(every[place : place + size], restore=True)
        place, turn = place + size, turn + 1
    for player in (expected, split):
        player.finish()
    assert split.lines == expected.lines
    assert split.newest == expected.newest
    assert split.saved.keys() == expected.saved.keys()
    assert any(isinstance(one, Trade) and one.repaired for one in market.records) or not market.holes or market.lost
