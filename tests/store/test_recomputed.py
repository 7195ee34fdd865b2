"""Which windows are computed in what pieces, and what of the result is published."""

import itertools
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Rebuild
from pipeline.timeframes import DAY, HOUR, MINUTE, SECOND, TIMEFRAMES, WIDTHS
from store.recomputed import LONGEST, MOST_WINDOWS, Bar, Wanted, Window, corrected, pieces, together
from tests.store.made import BTC

TIMES = st.integers(0, 3 * DAY)


def rebuild(first: int, last: int, until: int = 10 * DAY, **fields: Any) -> Rebuild:
    span = {"from_time": first, "to_time": last, "time": until, "received": 10 * DAY, "timeframes": ("1m",)}
    return msgspec.convert(BTC | span | fields, Rebuild)


def bar(**fields: Any) -> Bar:
    prices = dict.fromkeys(("open", "high", "low", "close"), Decimal("100.10"))
    volumes = dict.fromkeys(("volume", "quote_volume", "buy_volume", "buy_quote_volume"), Decimal("1.500"))
    rest = {"contracts": None, "trades_count": 2, "first_id": "1", "last_id": "2", "quality": "complete", "missing": 0}
    return Bar(**(prices | volumes | rest | fields))


def quiet(**fields: Any) -> Bar:
    return bar(trades_count=0, quality="quiet", first_id=None, last_id=None, **fields)


@settings(deadline=None, max_examples=50)
@given(TIMES, TIMES, TIMES, st.sampled_from(TIMEFRAMES))
def test_pieces_are_the_windows_that_are_meant_each_once(one: int, other: int, until: int, timeframe: str) -> None:
    first, last = sorted((one, other))
    width = WIDTHS[timeframe]
    found = list(pieces(rebuild(first, last, until), timeframe))
    for start, end in found:
        assert start % width == end % width == 0
        assert 0 < (end - start) // width <= MOST_WINDOWS
        assert end - start <= max(width, LONGEST)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(found))
    opens = [start for start in range(0, 3 * DAY + 1, width) if start <= last and start + width > first]
    meant = [start for start in opens if start + width <= until]
    assert (found[0][0], found[-1][1] - width) == (meant[0], meant[-1]) if meant else not found


def test_requests_of_the_same_windows_are_one_piece_of_work() -> None:
    wanted = [
        Wanted(((1, 1, 0),), 1, rebuild(5 * MINUTE, 6 * MINUTE)),
        Wanted(((1, 2, 0),), 1, rebuild(6 * MINUTE, 7 * MINUTE, until=11 * DAY)),
        Wanted(((1, 3, 0),), 1, rebuild(2 * HOUR, 3 * HOUR)),
        Wanted(((2, 1, 0),), 2, rebuild(5 * MINUTE, 6 * MINUTE)),
        Wanted(((1, 4, 0),), 1, rebuild(0, 9 * MINUTE, timeframes=("1s",))),
    ]
    found = {one.keys: (one.rebuild.from_time, one.rebuild.to_time, one.rebuild.time) for one in together(wanted)}
    assert found == {
        ((1, 1, 0), (1, 2, 0)): (5 * MINUTE, 7 * MINUTE, 11 * DAY),
        ((1, 3, 0),): (2 * HOUR, 3 * HOUR, 10 * DAY),
        ((2, 1, 0),): (5 * MINUTE, 6 * MINUTE, 10 * DAY),
        ((1, 4, 0),): (0, 9 * MINUTE, 10 * DAY),
    }


def test_a_candle_says_sums_as_aggregate_does() -> None:
    made = corrected(rebuild(0, 1), "1m", Window(MINUTE, bar(), None, None, 0))
    assert made is not None
    assert (made.open, made.volume, made.revision, made.time) == ("100.1", "1.5", 0, 2 * MINUTE)


def test_what_is_stored_already_is_not_said_again() -> None:
    assert corrected(rebuild(0, 1), "1m", Window(0, bar(), bar(), 3, 0)) is None
    again = corrected(rebuild(0, 1), "1m", Window(0, bar(quality="repaired"), bar(), 3, 0))
    assert again is not None
    assert (again.revision, again.quality) == (4, "repaired")


def test_quiet_windows_have_candles_from_a_time_frame_on_or_where_they_had_one() -> None:
    assert corrected(rebuild(0, 1), "30s", Window(0, quiet(), None, None, 0)) is None
    assert corrected(rebuild(0, 1), "1m", Window(0, quiet(), None, None, 0)) is not None
    assert corrected(rebuild(0, 1, quiet_from="5m"), "1m", Window(0, quiet(), None, None, 0)) is None
    assert corrected(rebuild(0, 1), "30s", Window(0, quiet(), quiet(open=Decimal(1)), 0, 0)) is not None


def test_a_stored_candle_without_trades_in_unknown_time_is_partial() -> None:
    made = corrected(rebuild(0, 1), "1m", Window(0, None, quiet(), 0, 7 * SECOND))
    assert made is not None
    assert (made.quality, made.missing, made.trades_count, made.close) == ("partial", 7 * SECOND, 0, "100.1")
    known = quiet(missing=7 * SECOND)._replace(quality="partial")
    assert corrected(rebuild(0, 1), "1m", Window(0, None, known, 1, 7 * SECOND)) is None


def test_trades_that_are_no_longer_stored_take_nothing_from_a_candle() -> None:
    for computed in (None, bar(trades_count=1), quiet()):
        assert corrected(rebuild(0, 1), "1m", Window(0, computed, bar(), 0, 9)) is None
