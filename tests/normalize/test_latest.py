"""Quotes, tickers and klines: each passes once, only forwards, however many connections bring it."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalize.latest import MOST_ALIKE, NEWER, PATIENCE, Latest, Seen, kind_of
from pipeline.frames import Frame
from pipeline.records import Kline, Quote, Ticker
from tests.normalize.playing import KEYS, SECOND, SPOT, T0, A, B, clock, entries, opened, play, run, stage

NAMED: dict[str, Any] = {"exchange": "okx", "market": "spot", "symbol": "BTC-USDT", "instrument": "BTC-USDT"}


def quote(sequence: int | None, bid: str = "1", time: int | None = None, received: int = 0) -> Quote:
    return Quote(**NAMED, time=time, received=received, bid=bid, sequence=sequence)


def ticker(time: int, last: str = "1") -> Ticker:
    return Ticker(**NAMED, time=time, received=time, last=last)


def kline(opened_at: int, close: str = "1", timeframe: str = "1m", time: int | None = None) -> Kline:
    bar: dict[str, Any] = {"open": "1", "high": "9", "low": "1", "close": close, "volume": "1"}
    return Kline(
        **NAMED, **bar, time=time, received=0, timeframe=timeframe, open_time=opened_at, close_time=opened_at + 60
    )


def passed(*records: Quote | Ticker | Kline, now: int = 0) -> list[bool]:
    latest = Latest({})
    return [latest.passes(kind_of(record), record, now) for record in records]


def test_numbers_order_quotes_whatever_their_times() -> None:
    found = passed(quote(5), quote(7, time=1), quote(6, time=2), quote(7, time=1, received=9), quote(8, time=0))
    assert found == [True, True, False, False, True]


def test_times_order_what_has_no_number() -> None:
    assert passed(ticker(10), ticker(9), ticker(10), ticker(11)) == [True, False, False, True]


def test_what_has_neither_passes_when_it_says_something_else() -> None:
    found = passed(quote(None, "1"), quote(None, "1", received=5), quote(None, "2"), quote(None, "1"))
    assert found == [True, False, True, True]


def test_two_of_one_time_pass_once_each_over_two_connections() -> None:
    both = [ticker(10, "1"), ticker(10, "2")]
    assert passed(*both, *both) == [True, True, False, False]


def test_a_bar_passes_once_and_again_when_it_was_corrected() -> None:
    first, corrected = kline(60, "1", time=121), kline(60, "2")
    assert passed(kline(0), first, kline(60, "1", time=122), corrected, kline(0, "5"), kline(60, timeframe="5m")) == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]


def test_numbers_that_began_again_are_believed_after_a_minute_without_others() -> None:
    latest = Latest({})
    assert latest.passes("quote", quote(1_000), 0)
    assert not latest.passes("quote", quote(3), PATIENCE - 1)
    assert latest.passes("quote", quote(4), PATIENCE)
    assert latest.passes("quote", quote(5), PATIENCE)


def test_numbers_that_began_again_pass_at_once_where_the_venue_tells_newer_times() -> None:
    latest = Latest({})
    assert latest.passes("quote", quote(1_000, time=T0), 0)
    assert not latest.passes("quote", quote(998, time=T0 - 1), 0)
    assert not latest.passes("quote", quote(999, time=T0 + NEWER), 0), "within what a slow connection may differ by"
    assert latest.passes("quote", quote(3, time=T0 + NEWER + 1), 0)
    assert latest.passes("quote", quote(4, time=T0 + NEWER + 1), 0)
    assert not latest.passes("quote", quote(3, time=T0 + NEWER + 1), 0)


@pytest.mark.parametrize(("timeframe", "hours"), [("1h", 2), ("1d", 48)])
def test_an_older_bar_told_again_within_two_widths_is_none(timeframe: str, hours: int) -> None:
    latest, patience = Latest({}), hours * 60 * PATIENCE
    kind = f"kline:{timeframe}"
    assert latest.passes(kind, kline(60, timeframe=timeframe), 0)
    assert not latest.passes(kind, kline(0, timeframe=timeframe), patience - 1)
    assert latest.passes(kind, kline(0, timeframe=timeframe), patience)


def test_memory_is_bounded() -> None:
    seen = Seen("BTC-USDT")
    for number in range(3 * MOST_ALIKE):
        assert seen.passes(quote(7, str(number)), 0)
    assert len(seen.alike) == MOST_ALIKE
    assert not seen.passes(quote(7, str(3 * MOST_ALIKE - 1)), 0)
    assert not seen.passes(quote(7, str(2 * MOST_ALIKE)), 0)


@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from("ab")), max_size=40), st.integers(0, 40))
def test_a_second_connection_behind_the_first_adds_nothing(rows: list[tuple[int, str]], delay: int) -> None:
    """One connection's records in the venue's order, and the same again later, interleaved in any way."""
    times = sorted(row[0] for row in rows)
    first = [ticker(time, last) for time, (_, last) in zip(times, rows, strict=True)]
    latest, alone = Latest({}), Latest({})
    expected = [record for record in first if alone.passes("ticker", record, 0)]
    found = []
    for index in range(len(first) + delay):
        for position in (index, index - delay):
            if 0 <= position < len(first) and latest.passes("ticker", first[position], 0):
                found.append(first[position])
    assert found == expected


def frame(arg: dict[str, str], data: Any, at: float, conn: str = A) -> Frame:
    return Frame(T0 + round(at * SECOND), conn, "in", "ws", json.dumps({"arg": arg, "data": data}))


def best(number: int, at: float, conn: str = A, price: str = "100") -> Frame:
    rows = [{"bids": [[price, "1", "0", "1"]], "asks": [], "ts": str(T0 // 1_000_000), "seqId": number}]
    return frame({"channel": "bbo-tbt", "instId": SPOT}, rows, at, conn)


def bar(minute: int, at: float, confirm: str = "1", conn: str = A) -> Frame:
    begin = T0 // (60 * SECOND) * 60_000 + minute * 60_000
    row = [str(begin), "1", "3", "1", "2", "10", "20", "20", confirm]
    return frame({"channel": "candle1m", "instId": SPOT}, [row], at, conn)


def test_the_stage_sends_them_to_streams_of_their_own_and_counts_repeats() -> None:
    frames = [opened(0), opened(0, B), best(5, 1), best(5, 1.1, B), best(6, 2), bar(-1, 3), bar(-1, 3.5, conn=B)]
    played = run(*frames, bar(0, 4, confirm="0"), clock(5))
    assert [found["sequence"] for found in played.stream("quote")] == [5, 6]
    assert [found["open_time"] % (60 * SECOND) for found in played.stream("kline:1m")] == [0]
    assert played.stream("dead") == []
    assert played.stage.report()["latest"] == {
        "kline": {SPOT: {"symbol": SPOT, "last_message": T0 + 3_500_000_000, "records": 1, "duplicates": 1}},
        "quote": {SPOT: {"symbol": SPOT, "last_message": T0 + 2 * SECOND, "records": 2, "duplicates": 1}},
    }
    assert played.stage.last_data == T0 + 3_500_000_000


def test_other_channels_say_nothing_about_trades_but_that_the_connection_lives() -> None:
    played = run(opened(0), best(5, 1), bar(-1, 3), clock(5))
    assert [label for label, _ in played.ordered()] == ["clock"]
    assert played.stage.report()["subscriptions"] == {}
    connection = msgspec.json.decode(played.state[f"connection:{A}".encode()])
    assert connection["last"] == T0 + 3 * SECOND


def test_only_what_changed_is_saved() -> None:
    played = play(entries([opened(0), best(5, 1), bar(-1, 2)]), batch=1)
    fields = {f"latest:quote {SPOT}", f"latest:kline:1m {SPOT}", f"instrument:{SPOT}"}
    assert {field.encode() for field in fields} <= set(played.state)
    again = stage()
    again.restore(played.state)
    assert again.report()["latest"] == played.stage.report()["latest"]


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_same_however_the_stream_is_cut(batch: int) -> None:
    frames = [opened(0), *(best(n // 2, n / 10, B if n % 2 else A, str(n % 3 + 1)) for n in range(2, 40)), clock(9)]
    expected = run(*frames)
    found = play(entries(frames), batch=batch, restore=True)
    assert found.streams == expected.streams
    assert found.state == expected.state
    assert KEYS.stream("quote") in found.streams
