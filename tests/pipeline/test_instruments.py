"""Canonical symbols, and the golden conversions of the OKX reference."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.instruments import base_size, canonical_symbol, decimal_text
from pipeline.records import Instrument

EXPIRY = 1_798_156_800_000_000_000  # 2026-12-25 00:00 UTC


def instrument(**changes: Any) -> Instrument:
    fields: dict[str, Any] = {
        "exchange": "okx",
        "market": "perpetual",
        "symbol": "BTC-USDT-PERP",
        "instrument": "BTC-USDT-SWAP",
        "time": None,
        "received": 1,
        "base": "BTC",
        "quote": "USDT",
        "status": "live",
        "contract": "linear",
        "contract_value": "0.01",
    }
    return Instrument(**{**fields, **changes})


@pytest.mark.parametrize(
    ("arguments", "symbol"),
    [
        (("BTC", "USDT", "spot"), "BTC-USDT"),
        (("BTC", "USDT", "perpetual"), "BTC-USDT-PERP"),
        (("BTC", "USD_UM", "perpetual"), "BTC-USD_UM-PERP"),
        (("BTC", "USD", "future", EXPIRY), "BTC-USD-261225"),
        (("BTC", "USD", "option", EXPIRY, "90000", "call"), "BTC-USD-261225-90000-C"),
        (("BTC", "USD", "option", EXPIRY, "90000", "put"), "BTC-USD-261225-90000-P"),
    ],
)
def test_symbols(arguments: tuple[Any, ...], symbol: str) -> None:
    assert canonical_symbol(*arguments) == symbol


@pytest.mark.parametrize("arguments", [("BTC", "USD", "future"), ("BTC", "USD", "option", EXPIRY)])
def test_what_is_missing_is_not_made_up(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="has no"):
        canonical_symbol(*arguments)


def test_sizes_of_the_reference() -> None:
    inverse = instrument(contract="inverse", contract_value="100")
    option = instrument(market="option", contract=None, contract_value="0.01")
    assert base_size(instrument(), "5", "83725.9") == "0.05"
    assert base_size(instrument(), "8.55", "82655.7") == "0.0855"
    assert base_size(inverse, "3", "60000") == "0.005000000000"
    assert base_size(option, "7", "0.05") == "0.07"
    assert base_size(instrument(market="spot", contract=None, contract_value=None), "0.12060306", "1") == "0.12060306"


def test_a_derivative_without_contract_value_has_no_size() -> None:
    with pytest.raises(ValueError, match="contract value"):
        base_size(instrument(contract_value=None), "1", "1")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=0, max_value=10**12))
def test_text_is_plain_and_exact(value: Decimal) -> None:
    text = decimal_text(value)
    assert "E" not in text.upper()
    assert Decimal(text) == value
