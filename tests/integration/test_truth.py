"""Normalize and aggregate over a made exchange: what they say is compared with what the exchange printed.

Every trade once; from the first one followed each number is here or in the ledger; a candle that is not partial is
the candle of all trades printed, a partial one that of the trades that came.
"""

from collections.abc import Iterable, Iterator

import msgspec
import pytest

from pipeline.records import Candle, Gap, Trade
from pipeline.steps import Entry
from tests.aggregate.made import Player
from tests.integration.venue import SECOND, Faults, Venue
from tests.normalize.playing import KEYS, Played, play

NEVER = 1e9
SHORT, BUSY = ("1s", "5s", "1m"), {"AA-USDT": 0.4, "BB-USDT": 8.0}
CASES = {
    "everything": Faults(),
    "every subscription replays": Faults(replays=1),
    "no subscription replays": Faults(replays=0),
    "subscriptions fall silent": Faults(silences=0.2),
    "only cuts": Faults(frames=0, entries=0, kills=0, silences=0),
    "host ahead": Faults(skew=3 * SECOND),
    "host ahead, the exchange's clock unknown": Faults(skew=30 * SECOND, measured=NEVER),
    "host behind, the exchange's clock unknown": Faults(skew=-30 * SECOND, measured=NEVER),
    "host ahead, the exchange's clock known late": Faults(skew=30 * SECOND, measured=20),
    "host behind, the exchange's clock known late": Faults(skew=-30 * SECOND, measured=20),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_said_that_is_not_so(name: str) -> None:
    for seed in range(40):
        venue = Venue(seed, CASES[name], SHORT, BUSY).run(120)
        assert not list(wrong(venue)), f"seed {seed}"


def test_long_silences_of_quiet_instruments() -> None:
    """Longer than closed windows are kept."""
    faults = Faults(frames=0, silences=0.3, silent_for=1_500, pace=60)
    for seed in range(5):
        venue = Venue(seed, faults, ("1s", "1m", "5m"), {"AA-USDT": 40.0, "BB-USDT": 400.0}).run(3_000)
        assert not list(wrong(venue)), f"seed {seed}"


def wrong(venue: Venue) -> Iterator[str]:
    normalized = play(venue.entries, batch=50)
    rows = normalized.streams[KEYS.trade]
    trades = [msgspec.json.decode(row[-1], type=Trade) for row in rows if row[1] == b"symbol"]
    assert len(trades) > len(venue.truth["AA-USDT"]) / 4, "hardly anything came through"
    if normalized.streams.get(KEYS.dead):
        yield "dead letters"
    aggregated = Player()
    aggregated.play(Entry(f"{at}-1".encode(), _fields(row)) for at, row in enumerate(rows, start=1))
    if aggregated.dead or aggregated.stage.report()["late"]:
        yield f"dead or late: {aggregated.dead} {aggregated.stage.report()}"
    for name, truth in venue.truth.items():
        passed = [trade.sequence for trade in trades if trade.instrument == name and trade.epoch == 0]
        yield from wrong_trades(name, truth, passed, normalized)
        yield from wrong_candles(name, truth, set(passed), aggregated)


def wrong_trades(name: str, truth: list[tuple[int, int]], passed: list[int], normalized: Played) -> Iterator[str]:
    if len(passed) != len(set(passed)):
        yield f"{name}: a trade passed twice"
    first = normalized.stage._state.continuity[name].first
    missing = {number for number, _ in truth if first is None or number >= first} - set(passed)
    gaps = (msgspec.convert(row, Gap) for row in normalized.stream("gap"))
    ledger = {gap.from_sequence: gap for gap in gaps if gap.instrument == name}
    named = {n for gap in ledger.values() for low, high in gap.remaining for n in range(low, high + 1)}
    if missing - named:
        yield f"{name}: not here and not in the ledger: {sorted(missing - named)}"


def wrong_candles(name: str, truth: list[tuple[int, int]], passed: set[int], aggregated: Player) -> Iterator[str]:
    for candle in final(candle for candle in aggregated.candles() if candle.instrument == name):
        printed = [number for number, time in truth if candle.open_time <= time < candle.close_time]
        expected = [number for number in printed if number in passed] if candle.quality == "partial" else printed
        ends = (str(expected[0]), str(expected[-1])) if expected else (None, None)
        if (candle.trades_count, candle.first_id, candle.last_id) != (len(expected), *ends):
            window = f"{name} {candle.timeframe} {candle.open_time}"
            yield f"{window}: {candle.quality} of {candle.trades_count} trades, not {expected}"


def final(candles: Iterable[Candle]) -> Iterable[Candle]:
    """The last revision of each window of an instrument; revisions rise."""
    found: dict[tuple[str, int], Candle] = {}
    for candle in candles:
        before = found.get((candle.timeframe, candle.open_time))
        assert before is None or before.revision < candle.revision, (before, candle)
        found[candle.timeframe, candle.open_time] = candle
    return found.values()


def _fields(row: tuple[bytes | str, ...]) -> dict[bytes, bytes]:
    _, field, label, _, data = (part if isinstance(part, bytes) else part.encode() for part in row)
    return {field: label, b"data": data}
