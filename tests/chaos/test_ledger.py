"""The ledger against the truth: what it excuses, what it does not, and what it says that is not so."""

from collections.abc import Iterator

import msgspec
import pytest

from simulator.proof.evidence import Candle, Evidence, Trade
from simulator.proof.ledger import GapRow, Judged, judge
from simulator.proof.windows import WIDTHS, by_window
from tests.demo.made import FRAMES, MS, OPENED, TERMS, World, candle, world
from tests.demo.made import at as place_of


def whole() -> World:
    """A product that was cut off and has repaired everything: the windows of the break are marked."""
    made = world()
    repaired = missing_of(made)
    made.trades += [msgspec.structs.replace(fill, received=fill.time + 20_000 * MS) for fill in repaired]
    made.candles = list(_all_candles(made.trades, repaired))
    return made


def _all_candles(trades: list[Trade], repaired: list[Trade]) -> Iterator[Candle]:
    """Of every window with a trade; the first one of a collection is partial, what was repaired says so."""
    for frame in FRAMES:
        touched = by_window(repaired, WIDTHS[frame])
        for start, held in by_window(trades, WIDTHS[frame]).items():
            if OPENED < start + WIDTHS[frame] <= TERMS.horizon:
                quality = "partial" if start < OPENED else "repaired" if start in touched else "complete"
                yield candle(frame, start, held, quality)


def run(made: World, *gaps: GapRow) -> Judged:
    evidence = Evidence(
        instrument="BTC-USDT", printed=made.printed, trades=made.trades, candles=made.candles, link=made.link
    )
    return judge(evidence, gaps, made.terms)


def missing_of(made: World) -> list[Trade]:
    """What was printed in the break and is not stored, but for the last, which was replayed."""
    kept = {row.sequence for row in made.trades}
    return [fill for fill in made.printed if fill.sequence > min(kept) and fill.sequence not in kept]


def gap(missing: list[Trade], **change: object) -> GapRow:
    """The row of the ledger for a run of missing fills."""
    first, last = missing[0].sequence, missing[-1].sequence
    row = GapRow(
        epoch=0,
        first=first,
        last=last,
        from_time=missing[0].time - 400 * MS,
        to_time=missing[-1].time + 400 * MS,
        cause="sequence",
        state="opened",
        reason=None,
        remaining=((first, last),),
    )
    return msgspec.structs.replace(row, **change)


def faults(judged: Judged) -> list[tuple[str, int]]:
    return [place_of(fault) for fault in judged.line.faults]


def test_a_break_that_was_repaired_leaves_no_trace() -> None:
    made = whole()
    closed = gap(missing_of(world()), state="closed", reason="filled", remaining=())
    judged = run(made, closed)
    assert (judged.line.account.lost, judged.line.account.missed, judged.line.faults) == ((), (), ())
    assert (judged.opened, judged.open, judged.unrecoverable, judged.faults) == (1, 0, 0, ())
    assert judged.line.candles_checked > 100


def test_what_an_open_gap_names_is_not_lost_and_its_windows_may_be_partial() -> None:
    made = world()
    absent = missing_of(made)
    judged = run(made, gap(absent))
    assert [one.sequence for one in judged.line.account.missed] == [one.sequence for one in absent]
    assert judged.line.account.lost == ()
    assert faults(judged) == []
    assert (judged.opened, judged.open) == (1, 1)


def test_a_connection_that_was_away_excuses_nothing() -> None:
    made = world()
    judged = run(made)
    assert len(judged.line.account.lost) == len(missing_of(made)) > 0
    assert faults(judged) != []


def test_a_gap_that_shrank_names_only_the_rest() -> None:
    made = world()
    absent = missing_of(made)
    rest = ((absent[2].sequence, absent[-1].sequence),)
    judged = run(made, gap(absent, state="shrunk", remaining=rest))
    assert [one.sequence for one in judged.line.account.lost] == [one.sequence for one in absent[:2]]


@pytest.mark.parametrize(
    ("reason", "excused"), [("unrecoverable: the exchange has forgotten", True), ("given up", False), ("filled", False)]
)
def test_a_closed_gap_excuses_only_what_is_unrecoverable(reason: str, excused: bool) -> None:
    made = world()
    absent = missing_of(made)
    judged = run(made, gap(absent, state="closed", reason=reason))
    assert len(judged.line.account.lost) == (0 if excused else len(absent))
    assert judged.unrecoverable == excused
    assert [fault.reason.split(" with")[0] for fault in judged.faults] == (
        [] if excused else [f"gap {absent[0].sequence}-{absent[-1].sequence} is closed ({reason})"]
    )


def test_a_gap_of_another_epoch_excuses_nothing() -> None:
    made = world()
    assert run(made, gap(missing_of(made), epoch=1)).line.account.lost != ()


def test_a_number_that_is_called_missing_and_stored_is_told() -> None:
    made = whole()
    (fault,) = run(made, gap(made.trades[50:52])).faults
    assert "2 numbers are called missing and stored" in fault.reason


def test_an_altered_row_is_lost_though_a_gap_names_it() -> None:
    made = whole()
    wrong = made.trades[60]
    made.trades[60] = msgspec.structs.replace(wrong, side="sell" if wrong.side == "buy" else "buy")
    judged = run(made, gap([wrong]))
    assert [one.sequence for one in judged.line.account.lost] == [wrong.sequence]


def test_without_a_gap_no_window_may_be_partial_or_absent() -> None:
    made = whole()
    made.spoil("5s", 20_000, quality="partial", missing=1)
    del made.candles[made.place("1s", 40_000)]
    assert sorted(faults(run(made))) == [("1s", 40_000), ("5s", 20_000)]


def test_a_repaired_window_says_what_was_printed() -> None:
    made = whole()
    made.spoil("5s", 40_000, trades_count=3)
    assert faults(run(made)) == [("5s", 40_000)]


def test_a_new_epoch_is_no_gap() -> None:
    made = whole()
    entry = gap(made.trades[-1:], epoch=1, cause="epoch", state="closed", reason="listed anew", remaining=())
    judged = run(made, entry)
    assert (judged.opened, judged.epochs, judged.faults) == (0, 1, ())
