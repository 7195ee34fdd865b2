"""Delays out of what an observer saw and what the streams hold."""

from bench.latency import Arrival, Closed, Passed, delays, percentile, waits

MS = 1_000_000


def passed(entry: tuple[int, int], received: int, time: int = 0, instrument: str = "A") -> Passed:
    return Passed(entry, Arrival(instrument, time, received))


def test_a_trade_waits_for_the_first_cursor_at_or_behind_it() -> None:
    trades = [passed((5, 0), 10 * MS), passed((5, 1), 20 * MS), passed((7, 0), 30 * MS)]
    samples = [(15 * MS, "4-9"), (25 * MS, "5-1"), (90 * MS, "10-0")]
    assert delays(trades, samples) == [5.0, 15.0, 60.0]


def test_a_candle_waits_since_the_first_trade_behind_its_window() -> None:
    trades = [
        passed((1, 0), 100 * MS, time=900),
        passed((1, 1), 110 * MS, time=1_000),
        passed((1, 2), 120 * MS, time=1_001),
    ]
    assert waits(trades, [((112, 0), Closed("A", 1_000))]) == [3.0]


def test_windows_of_others_and_those_no_trade_followed_are_left_out() -> None:
    trades = [passed((1, 0), 100 * MS, time=900), passed((1, 1), 110 * MS, time=1_000)]
    closed = [((112, 0), Closed("B", 1_000)), ((112, 1), Closed("A", 2_000)), ((112, 2), Closed("A", 800))]
    assert waits(trades, closed) == []


def test_a_candle_issued_again_or_closed_by_the_clock_is_left_out() -> None:
    trades = [passed((1, 0), 100 * MS, time=900), passed((1, 1), 110 * MS, time=1_000)]
    assert waits(trades, [((112, 0), Closed("A", 1_000, revision=1)), ((105, 0), Closed("A", 1_000))]) == []


def test_percentiles_are_values_that_were_there() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 51
    assert percentile(values, 0.99) == 100
    assert percentile([7.0], 0.99) == 7
