"""Trades that REST brought, of a time that was not covered, before any connection showed the instrument again."""

import pytest

from tests.aggregate.made import Record, brief, clock, covered, played, trade, uncovered

CUT: list[Record] = [covered(0, ("1m",)), trade(1, 30), clock(40), uncovered(40)]
WAITED: list[Record] = [*CUT, *(clock(second, heard=40) for second in range(50, 201, 10))]
AGAIN: list[Record] = [trade(4, 250), covered(250, ("1m",)), clock(251), clock(301), clock(302)]
FETCHED = {"repaired": True}


def whole(*records: Record) -> dict[float, tuple[str, float, int]]:
    """The last that was said of each minute: quality, seconds missing, trades."""
    found = {}
    for candle, shown in zip(brief(player := played(*records).candles("1m")), player, strict=True):
        found[candle[0]] = candle[1], candle[3], shown.trades_count
    return found


@pytest.mark.parametrize("before", [CUT, WAITED], ids=["at once", "late"])
def test_candles_are_those_of_all_trades(before: list[Record]) -> None:
    tail = [trade(2, 50, received=trade(0, 201).time, **FETCHED), trade(3, 130, received=trade(0, 201).time, **FETCHED)]
    found = whole(*before, *tail, clock(202, heard=40), clock(203, heard=40), *AGAIN)
    assert {start: candle[1:] for start, candle in found.items()} == {
        0: (0, 2),
        60: (0, 0),
        120: (0, 1),
        180: (0, 0),
        240: (0, 1),
    }
    assert [found[start][0] for start in (0, 60, 120, 180, 240)] == [
        "repaired",
        "quiet",
        "repaired",
        "quiet",
        "complete",
    ]


def test_behind_them_nothing_is_known() -> None:
    tail = trade(2, 130, received=trade(0, 201).time, **FETCHED)
    found = whole(*WAITED, tail, clock(202, heard=40), clock(203, heard=40))
    assert found[0][:2] == ("repaired", 0), "it was said to be partial while they lacked"
    assert found[60][:2] == ("quiet", 0)
    assert found[120] == ("partial", 50, 1)
    assert 180 not in found


def test_another_numbering_after_them_leaves_the_time_between_unknown() -> None:
    """How the old numbers ended nobody saw."""
    tail = trade(2, 50, received=trade(0, 201).time, **FETCHED)
    anew: list[Record] = [trade(1, 250, epoch=1), covered(250, ("1m",)), clock(251), clock(301), clock(302)]
    found = whole(*WAITED, tail, clock(202, heard=40), *anew)
    assert found[0][:2] == ("partial", 10)
    assert 60 not in found
    assert 120 not in found
    assert found[240][0] == "partial"
