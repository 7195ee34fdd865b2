"""The audit's pure parts: periods, numbers, frames, bars of each exchange as it writes them."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline.commands._audit import numbers
from pipeline.commands._audit.bars import Bar, differences
from pipeline.commands._audit.frames import made
from pipeline.commands._audit.kept import Dropped, candle_kind
from pipeline.commands._audit.ledger import Entry
from pipeline.commands._audit.numbers import Run
from pipeline.commands._audit.pages import Listing, load
from pipeline.commands._audit.period import Period
from pipeline.commands._audit.result import Day, Result
from pipeline.errors import ExchangeError
from pipeline.exchanges import EXCHANGES

NOW = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)
DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
SPOT = Listing("BTC-USDT", "spot", None)
LINEAR = Listing("BTC-USDT-SWAP", "perpetual", "linear")


@pytest.mark.parametrize(
    ("options", "start", "end"),
    [
        ((None, None, None), MIDNIGHT - DAY, MIDNIGHT + DAY),
        (("today", None, None), MIDNIGHT, MIDNIGHT + DAY),
        (("yesterday", None, None), MIDNIGHT - DAY, MIDNIGHT),
        (("2026-02-28", None, None), datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
        ((None, "2026-11-20T12:00", None), MIDNIGHT + DAY / 2, NOW),
        ((None, "2026-11-20T14:00+02:00", "2026-11-20T13:00Z"), MIDNIGHT + DAY / 2, MIDNIGHT + DAY * 13 / 24),
        ((None, "yesterday", "today"), MIDNIGHT - DAY, MIDNIGHT),
    ],
)
def test_a_period_is_what_the_options_say(options: tuple[str | None, ...], start: datetime, end: datetime) -> None:
    assert Period.asked(options[0], options[1], options[2], NOW) == (start, end)


def test_a_period_is_cut_at_midnights() -> None:
    days = list(Period(NOW, NOW + 2 * DAY).days())
    assert [day.start for day in days] == [NOW, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY]
    assert [day.end for day in days] == [MIDNIGHT + DAY, MIDNIGHT + 2 * DAY, NOW + 2 * DAY]
    assert [day.name for day in days][1] == "2026-11-21"
    assert days[0].name == "2026-11-20 15:30:00 to 2026-11-21 00:00:00"


def run(first: int, last: int, side: int = 0, day: int = 0, epoch: int = 0) -> Run:
    return Run(epoch, first, last, last - first + 1, NOW, NOW, side, day)


def entry(first: int, last: int, outcome: Any = "open", epoch: int = 0, reason: str | None = None) -> Entry:
    return Entry(
        epoch=epoch,
        first=first,
        last=last,
        from_time=NOW,
        to_time=NOW,
        outcome=outcome,
        reason=reason,
        remaining=[(first, last)],
    )


def holes(runs: list[Run], *ledger: Entry, begun: tuple[int, int] | None = None) -> list[tuple[int, int, str]]:
    merged, _ = numbers.merged(runs)
    return [(hole.first, hole.last, hole.state) for hole in numbers.missing(merged, ledger, begun)]


def test_runs_of_several_days_are_one() -> None:
    """At a midnight the order of times need not be that of numbers."""
    assert holes([run(1, 10), run(12, 12), run(11, 11, day=1), run(13, 20, day=1)]) == []
    assert holes([run(1, 10), run(12, 20, day=1)]) == [(11, 11, "unexplained")]


def test_what_is_outside_the_range_is_only_looked_at() -> None:
    before, inside, after = [run(1, 5, -1), run(8, 10, -1)], run(12, 20), [run(22, 25, 1), run(30, 31, 1)]
    assert holes([*before, inside, *after]) == [(11, 11, "unexplained"), (21, 21, "unexplained")]
    assert holes([*before, *after]) == [(11, 21, "unexplained")], "all of the range is gone"
    assert holes(before) == []


def test_each_epoch_has_its_own_numbers() -> None:
    assert holes([run(100, 200), run(1, 5, epoch=1), run(7, 9, epoch=1)]) == [(6, 6, "unexplained")]


def test_below_the_first_stored_number_of_an_epoch_only_the_ledger_knows_what_is_missing() -> None:
    runs, missed = [run(100, 200), run(57, 90, epoch=1)], entry(1, 56, epoch=1)
    assert holes(runs, missed) == [(1, 56, "open")]
    assert holes(runs, entry(1, 60, "unrecoverable", epoch=1)) == [(1, 56, "unrecoverable")]
    assert holes(runs, missed, begun=(1, 57)) == [], "older than the collection"
    before = [run(100, 200, -1), run(57, 90, -1, epoch=1), run(92, 95, epoch=1)]
    assert holes(before, missed, entry(91, 91, epoch=1)) == [(91, 91, "open")], "the epoch began before the range"
    assert holes(runs, entry(1, 56, epoch=2), entry(95, 99, epoch=1)) == []


def test_what_was_replayed_before_the_collection_began_says_nothing() -> None:
    runs = [run(10, 10), run(50, 60), run(62, 70)]
    assert holes(runs, begun=(0, 50)) == [(61, 61, "unexplained")]
    assert holes(runs, begun=(0, 62)) == []


def test_the_ledger_explains_a_hole_in_parts() -> None:
    ledger = [entry(13, 14), entry(15, 99, "unrecoverable", reason="gone"), entry(11, 12, epoch=1)]
    found = holes([run(1, 10), run(21, 30)], *ledger)
    assert found == [(11, 12, "unexplained"), (13, 14, "open"), (15, 20, "unrecoverable")]


def test_numbers_that_two_days_have_are_stored_twice() -> None:
    _, twice = numbers.merged([run(1, 10), run(9, 9, day=1), run(11, 12, day=1)])
    assert [(one.first, one.last) for one in twice] == [(9, 9)]
    _, twice = numbers.merged([run(1, 10), run(5, 7, 1)])
    assert [(one.first, one.last) for one in twice] == [(5, 7)]
    assert numbers.merged([run(1, 10, -1), run(5, 7, -1)])[1] == []


def test_a_ledger_is_contradicted_by_what_is_stored() -> None:
    ((found, stored),) = numbers.contradicted([run(1, 10), run(21, 30)], [entry(8, 25), entry(11, 20)])
    assert (found.first, stored) == (8, 8)


def test_time_frames_are_made_as_coverage_says() -> None:
    """A row without them changes nothing; what is dropped ends, what is added begins later than the collection."""
    rows = [(NOW, ["1m", "1h"]), (NOW + DAY, None), (NOW + 2 * DAY, ["1m", "1s"]), (NOW + 3 * DAY, ["1m", "1h"])]
    found = made(rows)
    assert [tuple(span) for span in found["1m"]] == [(NOW, None, True)]
    assert [tuple(span) for span in found["1h"]] == [(NOW, NOW + 2 * DAY, True), (NOW + 3 * DAY, None, False)]
    assert [tuple(span) for span in found["1s"]] == [(NOW + 2 * DAY, NOW + 3 * DAY, False)]
    assert set(made([(NOW, None)])) == {"1m", "5m", "15m", "1h", "4h", "1d"}


def test_every_exchange_says_how_to_ask_for_its_bars() -> None:
    for exchange in EXCHANGES.values():
        klines = load(exchange)
        assert {"1m", "1h", "1d"} <= klines.timeframes
        page = klines.page(SPOT, "1m", MIDNIGHT, MIDNIGHT + DAY, NOW)
        assert page.path.startswith("/api/")
        assert page.weight > 0


def test_pages_of_okx() -> None:
    """Backwards from the end; what is old is in another place. Days begin at midnight UTC."""
    klines = load(EXCHANGES["okx"])
    end = MIDNIGHT - 3 * DAY
    page = klines.page(LINEAR, "1d", end - DAY, end, NOW)
    assert page.path == "/api/v5/market/candles?instId=BTC-USDT-SWAP&bar=1Dutc&after=1794873600000&limit=300"
    assert klines.page(LINEAR, "1m", end - DAY, end, NOW).path.startswith("/api/v5/market/history-candles?")
    # A bar from the exchange's documentation, and one that goes on.
    rows = [
        ["1791369300000", "83720", "83745.1", "83712", "83725.9", "18234.55", "182.3455", "15266871.2", "1"],
        ["1791369360000", "83720", "83745.1", "83712", "83725.9", "1", "1", "1", "0"],
    ]
    body = json.dumps({"code": "0", "msg": "", "data": rows})
    (bar,) = klines.read(body, LINEAR)
    assert (bar.open_time, bar.volume, bar.quote_volume, bar.contracts) == (
        datetime(2026, 10, 7, 10, 35, tzinfo=UTC),
        Decimal("182.3455"),
        Decimal("15266871.2"),
        Decimal("18234.55"),
    )
    (bar,) = klines.read(body, SPOT)
    assert (bar.volume, bar.quote_volume, bar.contracts) == (Decimal("18234.55"), Decimal("15266871.2"), None)


def test_pages_of_binance() -> None:
    """Forwards from the start."""
    klines = load(EXCHANGES["binance"])
    page = klines.page(Listing("BTCUSDT", "spot", None), "1m", MIDNIGHT, MIDNIGHT + DAY, NOW)
    query = "symbol=BTCUSDT&interval=1m&startTime=1795132800000&endTime=1795219199999&limit=1000"
    assert (page.path, page.weight) == (f"/api/v3/klines?{query}", 2)
    # The bar of the exchange's documentation.
    row = [
        *(1499040000000, "0.01634790", "0.80000000", "0.01575800", "0.01577100", "148976.11427815", 1499644799999),
        *("2434.19055334", 308, "1756.87402397", "28.46694368", "0"),
    ]
    (bar,) = klines.read(json.dumps([row]), SPOT)
    assert bar == Bar(
        open_time=datetime(2017, 7, 3, tzinfo=UTC),
        open=Decimal("0.01634790"),
        high=Decimal("0.8"),
        low=Decimal("0.015758"),
        close=Decimal("0.015771"),
        volume=Decimal("148976.11427815"),
        quote_volume=Decimal("2434.19055334"),
        trades_count=308,
        buy_volume=Decimal("1756.87402397"),
        buy_quote_volume=Decimal("28.46694368"),
    )


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("body", ["", "<html>", "{}", "[[1]]", '{"data":[["1","2"]]}', '[["x","y"]]', '{"data":[[]]}'])
def test_what_is_no_list_of_bars_is_the_exchanges_fault(exchange: str, body: str) -> None:
    with pytest.raises(ExchangeError, match="bars are not readable"):
        load(EXCHANGES[exchange]).read(body, SPOT)


def candle(**changes: Any) -> dict[str, Any]:
    said = {"quality": "complete", "open": 5, "high": 7, "low": 4, "close": 6, "volume": 2, "quote_volume": 11}
    said |= {"buy_volume": 1, "buy_quote_volume": 5, "contracts": None, "trades_count": 3}
    return {key: Decimal(value) if isinstance(value, int) else value for key, value in said.items()} | changes


def bar(**changes: Any) -> Bar:
    values = {"open": 5, "high": 7, "low": 4, "close": 6, "volume": 2} | changes
    return Bar(open_time=NOW, **{key: Decimal(str(value)) for key, value in values.items()})  # type: ignore[arg-type]


def test_a_bar_must_be_ours_in_all_it_tells() -> None:
    assert differences(candle(), bar(), inverse=False) == {}
    assert set(differences(candle(), bar(volume="2.00000001", low=3), inverse=False)) == {"volume", "low"}
    assert set(differences(candle(), bar(trades_count=4, buy_volume=2), inverse=False)) == {
        "trades_count",
        "buy_volume",
    }


def test_turnover_may_be_rounded_at_each_trade() -> None:
    assert differences(candle(), bar(quote_volume="11.00000003"), inverse=False) == {}
    assert set(differences(candle(), bar(quote_volume="11.00000004"), inverse=False)) == {"quote_volume"}


def test_of_inverse_contracts_prices_and_contracts_count() -> None:
    ours = candle(contracts=Decimal(300))
    assert differences(ours, bar(volume="2.1", contracts=300), inverse=True) == {}
    assert set(differences(ours, bar(volume="2.1", contracts=301, close=5), inverse=True)) == {"contracts", "close"}


def test_a_quiet_candle_is_wrong_where_the_exchange_saw_trades() -> None:
    quiet = candle(quality="quiet", volume=Decimal(0))
    assert differences(quiet, bar(volume=0, open=1, trades_count=0), inverse=False) == {}
    assert set(differences(quiet, bar(volume=1, trades_count=2), inverse=False)) == {"volume", "trades_count"}


def test_what_only_was_dropped_is_no_hole() -> None:
    """The ledger's open numbers are named all the same."""
    gone = Dropped({"trade": (Period(MIDNIGHT, MIDNIGHT + DAY),)})
    early, late = MIDNIGHT - timedelta(hours=1), MIDNIGHT + DAY + timedelta(hours=1)
    runs = [Run(0, 1, 10, 10, early, early), Run(0, 21, 30, 10, late, late), Run(0, 33, 40, 8, late, late)]
    found = [(hole.first, hole.last, hole.state) for hole in numbers.missing(runs, [entry(12, 13)], None, gone)]
    assert found == [(12, 13, "open"), (31, 32, "unexplained")]
    # NOW, the entry's time, lies within the dropped day.
    assert numbers.missing(runs[:2], [entry(12, 13, "unrecoverable")], None, gone) == []
    assert [hole.count for hole in numbers.missing(runs[:2], [], None)] == [10]


@pytest.mark.parametrize(
    ("first", "last", "between", "covered"),
    [
        (timedelta(0), timedelta(hours=23), True, True),
        (timedelta(hours=-2), timedelta(hours=1), True, False),
        (timedelta(hours=-2), timedelta(hours=-1), False, False),
        (DAY + timedelta(milliseconds=500), DAY + timedelta(hours=1), True, False),
        (DAY + timedelta(seconds=2), DAY + timedelta(hours=1), False, False),
    ],
)
def test_dropped_time_lies_between_trades_or_round_them(
    first: timedelta, last: timedelta, between: bool, covered: bool
) -> None:
    gone = Dropped({"trade": (Period(MIDNIGHT, MIDNIGHT + DAY),), "candle": (Period(MIDNIGHT - DAY, MIDNIGHT + DAY),)})
    assert gone.between(MIDNIGHT + first, MIDNIGHT + last) is between
    assert gone.covers(MIDNIGHT + first, MIDNIGHT + last) is covered


def test_of_a_range_the_dropped_parts_are_told() -> None:
    gone = Dropped({"trade": (Period(MIDNIGHT, MIDNIGHT + DAY),), "candle": (Period(MIDNIGHT - DAY, MIDNIGHT),)})
    range_of = Period(MIDNIGHT - DAY / 2, MIDNIGHT + DAY / 2)
    assert list(gone.parts(range_of)) == [
        ("trade", Period(MIDNIGHT, range_of.end)),
        ("candle", Period(range_of.start, MIDNIGHT)),
    ]
    assert (candle_kind("30s"), candle_kind("1m")) == ("candle_seconds", "candle")


@pytest.mark.parametrize(
    ("days", "proves"),
    [
        ([(5, True)], True),
        ([(0, True)], True),
        ([(0, False)], False),
        ([(5, True), (0, False)], True),
        ([(0, True), (0, False)], False),
        ([], False),
    ],
    ids=["trades", "quiet", "dropped", "one dropped", "one from before collecting", "none"],
)
def test_what_is_kept_proves_something(days: list[tuple[int, bool]], proves: bool) -> None:
    result = Result("okx", "BTC-USDT", "BTC-USDT", [Day("2026-11-21", n, None, None, None, kept) for n, kept in days])
    assert result.proves is proves
