"""The proof of order books finds every way in which a book can be wrong."""

from typing import Any

import pytest

from simulator.listings import NAMED, Listing
from simulator.proof.books import book_fault

LISTINGS = {listing.symbol: listing for listing in NAMED}
TRUE = {"bids": [["100", "8"], ["99.5", "2"]], "asks": [["101", "4"], ["102", "1"]]}
RIGHT = {
    "BTC-USDT": {"bids": [["100.0", "8.00"], ["99.5", "2"]], "asks": [["101", "4"], ["102", "1"]], "depth": 2},
    # Linear: 0.01 BTC a contract.
    "BTC-USDT-PERP": {
        "bids": [["100", "0.08"], ["99.5", "0.02"]],
        "asks": [["101", "0.04"], ["102", "0.01"]],
        "depth": 2,
    },
    "BTC-USD-PERP": {**TRUE, "unit": "contracts", "depth": 2},
}


def listing(symbol: str) -> Listing:
    return LISTINGS[symbol]


@pytest.mark.parametrize("symbol", RIGHT)
def test_a_true_book_passes(symbol: str) -> None:
    assert book_fault(symbol, listing(symbol), TRUE, RIGHT[symbol]) is None


def test_only_the_depth_that_is_shown_counts() -> None:
    shown = {"bids": [["100", "8"]], "asks": [["101", "4"]], "depth": 1}
    assert book_fault("BTC-USDT", listing("BTC-USDT"), TRUE, shown) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "no book"),
        ({"valid": False, "reason": "gap"}, "invalid: gap"),
        ({"unit": "contracts"}, "sizes are in contracts"),
        ({"bids": [["100", "8"], ["99.5", "2.1"]]}, "bids level 1: 99.5 x 2.1 shown, 99.5 x 2 at the exchange"),
        ({"bids": [["100", "8"]]}, "bids level 1: nothing shown"),
        ({"asks": [["101", "4"], ["102", "1"], ["103", "1"]]}, "asks level 2: 103 x 1 shown, nothing at the exchange"),
        ({"asks": []}, "asks level 0: nothing shown"),
    ],
)
def test_a_wrong_book_is_named(change: dict[str, Any] | None, reason: str) -> None:
    shown = None if change is None else {**RIGHT["BTC-USDT"], **change}
    fault = book_fault("okx BTC-USDT", listing("BTC-USDT"), TRUE, shown)
    assert fault is not None
    assert fault.instrument == "okx BTC-USDT"
    assert reason in fault.reason
