"""What an audit must have said of what was spoilt by hand."""

import pytest

from pipeline.commands._chaos.auditing import Audited
from pipeline.commands._chaos.tampering import Spoilt, Thing

SPOILT = Spoilt(Thing("okx BTC-USDT", "trade 123,"), Thing("binance ETH-USDT", "1s 2026-11-21 19:04:09:"))
PAGE = """SYMBOL            TRADES  MISSING
binance ETH-USDT     567        0
okx BTC-USDT       5,589        1

binance ETH-USDT
  candle   1s 2026-11-21 19:04:09: high 2 for 1

okx BTC-USDT
  missing  trade 123, between 2026-11-21 19:04:05.1 and
           2026-11-21 19:04:05.3: not in the ledger

audited    2026-11-21 UTC: 2 instruments
"""


def test_both_are_named() -> None:
    assert list(Audited(1, PAGE, 1.0).names(SPOILT)) == []


@pytest.mark.parametrize(
    ("code", "was", "becomes", "told"),
    [
        (0, "", "", "its exit code is 0, not 1"),
        (1, "trade 123,", "trade 1234,", "it does not name okx BTC-USDT: trade 123"),
        (1, "19:04:09: high", "19:04:19: high", "it does not name binance ETH-USDT: 1s 2026-11-21 19:04:09"),
        (1, "\n\nokx BTC-USDT\n", "\n\nokx ETH-USDT\n", "it does not name okx BTC-USDT: trade 123"),
    ],
)
def test_what_it_does_not_say_is_told(code: int, was: str, becomes: str, told: str) -> None:
    assert list(Audited(code, PAGE.replace(was, becomes), 1.0).names(SPOILT)) == [told]


def test_what_was_done_is_told() -> None:
    deleted, doubled = "deleted okx BTC-USDT trade 123", "doubled the high of the candle binance ETH-USDT 1s 2026-"
    assert SPOILT.told.startswith(f"by hand: {deleted}; {doubled}")
