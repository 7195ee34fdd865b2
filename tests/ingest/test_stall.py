"""When collecting has come to nothing: only where everything was tried, the exchange answers, and silence is odd."""

import msgspec
import pytest

from ingest.stall import Sight, Stall, last_given_up
from pipeline.timeframes import MINUTE, SECOND

SEEN = Sight(
    given_up=100 * SECOND, answered=101 * SECOND, heard=10 * SECOND, instruments=5, steady=False, waiting=False
)
NOW = 120 * SECOND


def test_all_was_tried_and_the_exchange_answers() -> None:
    found = Stall().look(SEEN, NOW)
    assert found is not None
    assert found[0] == 10 * SECOND
    assert "110 s" in found[1]


@pytest.mark.parametrize(
    "change",
    [
        {"given_up": None},
        {"answered": None},
        {"answered": 100 * SECOND},
        {"waiting": True},
        {"instruments": 1},
    ],
    ids=str,
)
def test_otherwise_nothing_is_said(change: dict[str, int | bool | None]) -> None:
    assert Stall().look(msgspec.structs.replace(SEEN, **change), NOW) is None


def test_one_instrument_is_enough_where_something_comes_even_if_nobody_trades() -> None:
    assert Stall().look(msgspec.structs.replace(SEEN, instruments=1, steady=True), NOW) is not None


def test_without_any_data_it_counts_from_when_it_was_given_up() -> None:
    found = Stall().look(msgspec.structs.replace(SEEN, heard=0), NOW)
    assert found is not None
    assert found[0] == 100 * SECOND


def test_silence_that_is_usual_here_is_none() -> None:
    """A few instruments that trade each ten minutes."""
    stall = Stall()
    for number in range(100):
        assert stall.look(msgspec.structs.replace(SEEN, given_up=None, heard=1 + number * 10 * MINUTE), NOW) is None
    last = 1 + 99 * 10 * MINUTE
    silent = Sight(last + 30 * MINUTE, last + 31 * MINUTE, last, 5, False, False)
    assert stall.look(silent, last + 32 * MINUTE) is None
    assert stall.look(silent, last + 101 * MINUTE) is not None


def test_it_is_given_up_when_every_connection_is() -> None:
    assert last_given_up([]) is None
    assert last_given_up([3, None]) is None
    assert last_given_up([3, 9, 5]) == 9
