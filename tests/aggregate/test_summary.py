"""Summaries are exact, and the same in whatever order and grouping trades come."""

import functools
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregate.summary import Summary, text
from pipeline.errors import DecodeError
from pipeline.records import Trade
from tests.aggregate.made import START, naive, trade

DECIMALS = st.decimals(min_value="0.000000000001", max_value="99999999", places=12).map(
    lambda value: format(value, "f")
)
SPELLINGS = st.sampled_from(["1.5", "1.50", "1.500", "2", "2.0", "0.00000001"])


@st.composite
def trades(draw: st.DrawFn) -> list[Trade]:
    numbers = draw(st.lists(st.integers(1, 10_000), min_size=1, max_size=30, unique=True))
    return [
        trade(
            number,
            draw(st.integers(0, 3)) / 1000,
            draw(st.one_of(DECIMALS, SPELLINGS)),
            draw(st.one_of(DECIMALS, SPELLINGS)),
            side=draw(st.sampled_from(["buy", "sell"])),
            fills=draw(st.integers(1, 3)),
            contracts=draw(SPELLINGS),
        )
        for number in numbers
    ]


def merged(parts: list[Summary]) -> Summary:
    return functools.reduce(Summary.merge, parts)


def texts(summary: Summary) -> list[str]:
    """Every spelling that a candle shows."""
    return [text(value) for value in msgspec.structs.astuple(summary) if isinstance(value, Decimal)] + [
        text(summary.first.price),
        text(summary.last.price),
    ]


@given(trades(), st.data())
def test_any_order_and_any_grouping_gives_the_same(found: list[Trade], data: st.DataObject) -> None:
    straight = merged([Summary.of(one) for one in found])
    shuffled = data.draw(st.permutations(found))
    cut = data.draw(st.integers(0, len(found)))
    groups = [[Summary.of(one) for one in part] for part in (shuffled[:cut], shuffled[cut:]) if part]
    other = merged([merged(group) for group in groups])
    assert other == straight
    assert texts(other) == texts(straight)


@given(trades())
def test_it_says_what_the_trades_say(found: list[Trade]) -> None:
    summary, expected = merged([Summary.of(one) for one in found]), naive(found, "1s", START)
    assert expected is not None
    with_point = {
        "open": summary.first.price,
        "close": summary.last.price,
        "first_id": summary.first.id,
        "last_id": summary.last.id,
        "trades_count": summary.trades,
    }
    amounts = ("high", "low", "volume", "quote_volume", "buy_volume", "buy_quote_volume")
    told = with_point | {name: getattr(summary, name) for name in amounts}
    assert told == expected


def test_sums_keep_every_digit() -> None:
    parts = [Summary.of(trade(n, 0, "98765432.123456789012", "98765432.210987654321")) for n in range(1, 1001)]
    digits = str(98765432123456789012 * 98765432210987654321 * 1000)
    assert text(merged(parts).quote_volume) == f"{digits[:-24]}.{digits[-24:]}".rstrip("0")


def test_contracts_are_summed_where_given() -> None:
    with_them = [Summary.of(trade(1, 0, contracts="2.50")), Summary.of(trade(2, 0, contracts="1"))]
    assert text(merged(with_them).contracts or Decimal(0)) == "3.5"
    assert merged([Summary.of(trade(1, 0)), Summary.of(trade(2, 0))]).contracts is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1.50", "1.5"), ("100", "100"), ("1E+3", "1000"), ("0.00000001", "0.00000001"), ("0.000", "0"), ("7.0", "7")],
)
def test_one_spelling_for_a_value(value: str, expected: str) -> None:
    assert text(Decimal(value)) == expected


@pytest.mark.parametrize("price", ["", "abc", "NaN", "Infinity", "1e30", "0." + "0" * 40 + "1", "--1"])
def test_a_number_that_would_have_to_be_rounded_is_refused(price: str) -> None:
    with pytest.raises(DecodeError):
        Summary.of(trade(1, 0, price))


def test_a_trade_without_a_time_is_refused() -> None:
    with pytest.raises(DecodeError):
        Summary.of(msgspec.structs.replace(trade(1, 0), time=None))
