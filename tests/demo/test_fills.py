"""The account of fills: every kind of harm to the stored trades is seen, and named as what it is."""

from decimal import Decimal

import msgspec
import pytest

from simulator.proof.evidence import Border, Link
from tests.demo.made import BEGUN, DELAY, ENDED, MS, OPENED, START, World, trade, world

MISSED = 6
"""Fills of the border but for the last, which the next connection replays."""


def numbers(line_part: tuple[object, ...]) -> list[int]:
    return [one.sequence for one in line_part]  # type: ignore[attr-defined]


def test_a_faultless_store_misses_only_what_was_printed_in_the_border() -> None:
    made = world()
    account = made.judge().account
    border = [fill.sequence for fill in made.printed if ENDED <= fill.time < BEGUN]
    assert numbers(account.missed) == border[:-1]
    assert len(account.missed) == MISSED
    assert (account.lost, account.altered, account.surplus) == ((), (), ())
    assert account.printed == len(made.trades) + len(border) - 1


def test_fills_before_the_first_stored_one_are_neither_lost_nor_missed() -> None:
    made = world()
    account = made.judge().account
    assert len(account.before) == 8
    assert account.before[-1].time < OPENED


@pytest.mark.parametrize("second", [20, 80, 119])
def test_a_fill_missing_on_a_live_connection_is_lost(second: int) -> None:
    made = world()
    gone = next(row for row in made.trades if row.time >= START + second * 1_000 * MS)
    made.without(lambda row: row is gone)
    account = made.judge().account
    assert numbers(account.lost) == [gone.sequence]


def test_a_hole_that_ends_before_the_border_is_lost_though_a_border_follows() -> None:
    made = world()
    last_before = max(row.sequence for row in made.trades if row.received < ENDED)
    made.without(lambda row: row.sequence == last_before - 1)
    assert numbers(made.judge().account.lost) == [last_before - 1]


def test_what_lay_in_the_buffer_of_the_connection_that_was_cut_is_missed() -> None:
    made = world()
    last_before = max(row.sequence for row in made.trades if row.received < ENDED)
    made.without(lambda row: row.sequence == last_before)
    account = made.judge().account
    assert account.lost == ()
    assert numbers(account.missed)[0] == last_before


def test_without_a_border_everything_missing_is_lost() -> None:
    made = world()
    made.link = Link(OPENED)
    account = made.judge().account
    assert account.missed == ()
    assert len(account.lost) == MISSED


def test_a_border_elsewhere_excuses_nothing() -> None:
    made = world()
    made.link = Link(OPENED, (Border(START + 20_000 * MS, START + 21_000 * MS),))
    account = made.judge().account
    assert account.missed == ()
    assert len(account.lost) == MISSED


def test_the_end_of_the_stream_is_no_border() -> None:
    made = world()
    made.link = Link(OPENED, (Border(ENDED, BEGUN), Border(START + 100_000 * MS, START + 101_000 * MS)))
    made.without(lambda row: row.time > START + 100_000 * MS)
    assert len(made.judge().account.lost) == len([fill for fill in made.printed if fill.time > START + 100_000 * MS])


def test_an_altered_price_is_a_lost_fill_and_a_row_too_many() -> None:
    made = world()
    made.trades[50] = msgspec.structs.replace(made.trades[50], price=Decimal("100.51"))
    account = made.judge().account
    assert numbers(account.lost) == numbers(account.altered) == numbers(account.surplus) == [made.trades[50].sequence]


@pytest.mark.parametrize(
    "change",
    [{"size": Decimal("0.1")}, {"side": "both"}, {"time": START}, {"id": "7"}, {"contracts": Decimal(1)}, {"fills": 2}],
)
def test_any_other_altered_field_is_seen(change: dict[str, object]) -> None:
    made = world()
    made.trades[50] = msgspec.structs.replace(made.trades[50], **change)
    account = made.judge().account
    assert len(account.lost) == len(account.altered) == len(account.surplus) == 1


def test_a_doubled_row_is_surplus_also_with_another_time() -> None:
    made = world()
    made.trades += [made.trades[9], msgspec.structs.replace(made.trades[12], time=made.trades[12].time + MS)]
    account = made.judge().account
    assert account.lost == ()
    assert sorted(numbers(account.surplus)) == [made.trades[9].sequence, made.trades[12].sequence]


def test_a_row_that_was_never_printed_is_surplus() -> None:
    made = world()
    made.trades.append(trade(9_999, 90_000, received=START + 90_000 * MS + DELAY))
    assert numbers(made.judge().account.surplus) == [9_999]


def test_an_empty_store_lost_everything_since_the_first_connection() -> None:
    made = World(printed=world().printed, trades=[], candles=[])
    account = made.judge().account
    assert len(account.lost) == len([fill for fill in made.printed if fill.time >= OPENED])
    assert len(account.before) + len(account.lost) == len(made.printed)


def test_a_new_epoch_may_begin_with_small_numbers() -> None:
    made = world()
    again = msgspec.structs.replace(trade(1, 119_700), epoch=1)
    made.printed.append(again)
    assert numbers(made.judge().account.lost) == [1]
    made.trades.append(msgspec.structs.replace(again, received=again.time + DELAY))
    assert made.judge().account.lost == ()
