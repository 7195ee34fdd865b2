"""The verdict on candles: a faultless set passes, every kind of harm is seen at its window."""

from collections.abc import Callable
from decimal import Decimal

import msgspec
import pytest

from simulator.proof.evidence import Border, Link
from simulator.proof.windows import SECOND, WIDTHS, by_window, values
from tests.demo.made import (
    BEGUN,
    DELAY,
    ENDED,
    FRAMES,
    HORIZON,
    MS,
    OPENED,
    READ,
    START,
    World,
    at,
    candle,
    candles,
    received,
    trade,
    world,
)


def faults(made: World) -> list[tuple[str, int]]:
    return [at(fault) for fault in made.judge().faults]


def test_a_candle_worked_out_by_hand() -> None:
    trades = [
        msgspec.structs.replace(trade(3, 700, price="101.5"), size=Decimal("0.2"), side="sell"),
        msgspec.structs.replace(trade(1, 100, price="100.1"), size=Decimal("1.5"), side="buy"),
        msgspec.structs.replace(trade(2, 700, price="99.95"), size=Decimal("0.05"), side="buy"),
    ]
    told = values(trades)
    assert (told.open, told.high, told.low, told.close) == tuple(map(Decimal, ("100.1", "101.5", "99.95", "101.5")))
    assert (told.volume, told.buy_volume) == (Decimal("1.75"), Decimal("1.55"))
    assert (told.quote_volume, told.buy_quote_volume) == (Decimal("175.4475"), Decimal("155.1475"))
    assert (told.trades_count, told.first_id, told.last_id, told.contracts) == (3, "1", "3", None)


def test_a_faultless_set_passes_and_every_window_was_looked_at() -> None:
    made = world()
    line = made.judge()
    assert line.faults == ()
    assert line.candles_checked == len(made.candles) > 100


@pytest.mark.parametrize(
    "change",
    [
        {"open": Decimal(1)},
        {"high": Decimal(1000)},
        {"low": Decimal(1)},
        {"close": Decimal(1)},
        {"volume": Decimal("0.1")},
        {"quote_volume": Decimal("0.1")},
        {"buy_volume": Decimal("0.1")},
        {"buy_quote_volume": Decimal("0.1")},
        {"trades_count": 99},
        {"contracts": Decimal(1)},
        {"first_id": "1"},
        {"last_id": None},
        {"missing": 5},
        {"quality": "quiet"},
        {"quality": "partial"},
        {"quality": "repaired"},
        {"close_time": START},
    ],
)
def test_any_wrong_field_is_seen(change: dict[str, object]) -> None:
    made = world()
    made.spoil("5s", 20_000, **change)
    assert faults(made) == [("5s", 20_000)]


@pytest.mark.parametrize(("timeframe", "second"), [("1s", 20), ("1m", 0), ("5s", 40), ("1s", 40)])
def test_a_missing_candle_is_wrong(timeframe: str, second: int) -> None:
    made = world()
    del made.candles[made.place(timeframe, second * 1_000)]
    assert faults(made) == [(timeframe, second * 1_000)]


def test_a_window_that_ends_after_the_horizon_may_be_there_but_then_it_is_right() -> None:
    made = world()
    last = made.trades[-1:]
    assert START + 115 * SECOND < last[0].time < HORIZON + MS
    made.candles.append(candle("5s", START + 115 * SECOND, last, "complete"))
    assert faults(made) == []
    made.spoil("5s", 115_000, volume=Decimal(9))
    assert faults(made) == [("5s", 115_000)]


def test_a_doubled_candle_is_judged_twice() -> None:
    made = world()
    made.candles.append(msgspec.structs.replace(made.candles[30], volume=Decimal(3)))
    assert len(faults(made)) == 1


def test_a_window_touched_by_a_miss_must_be_partial() -> None:
    made = world()
    made.spoil("1m", 0, quality="complete", missing=0)
    made.spoil("1s", 40_000, quality="complete", missing=0)
    assert sorted(faults(made)) == [("1m", 0), ("1s", 40_000)]


def test_a_window_touched_by_a_miss_holds_the_stored_trades_only() -> None:
    made = world()
    truth = [fill for fill in made.printed if START + 40 * SECOND <= fill.time < START + 41 * SECOND]
    made.spoil("1s", 40_000, **{name: getattr(values(truth), name) for name in ("volume", "trades_count")})
    assert faults(made) == [("1s", 40_000)]


def test_a_window_the_collector_never_saw_has_no_candle_of_its_own_making() -> None:
    made = world()
    made.candles.append(candle("1s", START + 41 * SECOND, [], "quiet", Decimal(1)))
    assert faults(made) == [("1s", 41_000)]


def test_a_lost_fill_makes_its_windows_wrong() -> None:
    made = world()
    gone = made.trades[60]
    kept = [row for row in made.trades if row is not gone]
    spoilt = World(printed=made.printed, trades=kept, candles=candles(kept))
    assert sorted(timeframe for timeframe, _ in faults(spoilt)) == sorted(FRAMES[:2])


def test_the_window_in_which_collection_began_is_partial() -> None:
    made = world()
    made.spoil("5s", 0, quality="complete", missing=0)
    assert faults(made) == [("5s", 0)]


def test_the_first_window_may_leave_out_the_trade_that_was_replayed() -> None:
    made = world()
    live = [row for row in made.trades if OPENED <= row.time < START + 5 * SECOND]
    assert len(live) < len(by_window(made.trades, WIDTHS["5s"])[START])
    made.candles[made.place("5s", 0)] = candle("5s", START, live, "partial")
    assert faults(made) == []
    made.candles[made.place("5s", 0)] = candle("5s", START, live[1:], "partial")
    assert faults(made) == [("5s", 0)]


def test_no_candle_from_before_collection_began() -> None:
    made = world()
    made.candles.append(candle("1s", START + SECOND, [trade(1, 1_000)], "partial"))
    assert faults(made) == [("1s", 1_000)]


def test_a_trade_replayed_from_a_moment_before_the_connection_may_have_its_partial_candle() -> None:
    made = world()
    made.link = Link(OPENED + SECOND, made.link.borders if made.link else ())
    assert [row.quality for row in made.candles if row.open_time == START + 3 * SECOND] == ["partial"]
    assert faults(made) == []
    made.spoil("1s", 3_250, quality="complete", missing=0)
    assert faults(made) == [("1s", 3_000)]


def test_what_begins_after_the_first_stored_trade_may_be_complete() -> None:
    made = world()
    made.link = Link(OPENED + SECOND, made.link.borders if made.link else ())
    made.spoil("1s", 4_000, quality="complete", missing=0)
    assert faults(made) == []
    made.spoil("1s", 4_000, trades_count=1)
    assert faults(made) == [("1s", 4_000)]


def test_no_candle_before_its_end() -> None:
    made = world()
    made.candles.append(candle("1m", START + 120 * SECOND, [trade(1, 120_000)], "partial"))
    assert faults(made) == [("1m", 120_000)]


def test_below_quiet_from_a_window_without_a_trade_has_no_candle() -> None:
    made = world()
    made.candles.append(candle("5s", START + 62 * SECOND // 5 * 5, [], "quiet", Decimal(1)))
    assert len(faults(made)) == 1


def quiet(close: Callable[[World], Decimal], quality: str = "quiet") -> World:
    """A market that was silent for the minute from 60 s to 120 s, and the row of that minute."""
    made = world()
    fills = [fill for fill in made.printed if fill.time < START + 60 * SECOND]
    fills.append(trade(fills[-1].sequence + 1, 121_000))
    kept = [row for row in received(fills) if row.time < START + 60 * SECOND]
    kept.append(msgspec.structs.replace(fills[-1], received=fills[-1].time + DELAY))
    made.printed, made.trades, made.candles = fills, kept, candles(kept)
    made.terms = msgspec.structs.replace(made.terms, horizon=START + 121 * SECOND)
    made.candles.append(candle("1m", START + 60 * SECOND, [], quality, close(made)))
    return made


def last_close(made: World) -> Decimal:
    return max((row for row in made.trades if row.time < START + 60 * SECOND), key=lambda row: row.time).price


def test_a_quiet_minute_stands_at_the_close_before() -> None:
    assert faults(quiet(last_close)) == []


def test_a_quiet_minute_at_another_price_is_wrong() -> None:
    assert faults(quiet(lambda made: last_close(made) + 1)) == [("1m", 60_000)]


def test_a_quiet_minute_called_anything_else_is_wrong() -> None:
    assert faults(quiet(last_close, "complete")) == [("1m", 60_000)]


def test_a_quiet_minute_must_be_there() -> None:
    made = quiet(last_close)
    del made.candles[made.place("1m", 60_000)]
    assert faults(made) == [("1m", 60_000)]


def test_a_quiet_minute_that_was_not_seen_need_not_be_there() -> None:
    made = quiet(last_close)
    del made.candles[made.place("1m", 60_000)]
    made.link = Link(OPENED, (Border(ENDED, BEGUN), Border(START + 80 * SECOND, START + 82 * SECOND)))
    assert faults(made) == []


def test_complete_windows_beside_a_border_are_right_as_well() -> None:
    made = world()
    made.spoil("1s", 39_000, quality="partial")
    made.spoil("1s", 38_000, quality="partial")
    assert faults(made) == [("1s", 38_000)]


def test_the_border_lies_where_it_should() -> None:
    assert START < OPENED < ENDED < BEGUN < HORIZON < READ
    assert (ENDED - START) // MS == 40_500
