"""Trading pairs against lists of instruments: canonical and native spellings, patterns, what is not there."""

import pytest

from ingest.exchanges import binance, okx
from ingest.feed import Feed, Listed, Request, Subscription
from ingest.symbols import Symbols, Target
from pipeline.errors import SettingsError
from pipeline.settings import TradingPair

LIST = Request("/list", "weight")
SPOT = [Listed("BTCUSDT", "BTC-USDT", True), Listed("ETHUSDT", "ETH-USDT", True), Listed("ETHBTC", "ETH-BTC", True)]


def symbols(feed: Feed, *pairs: str) -> Symbols:
    return Symbols(feed, [TradingPair(symbol=pair) for pair in pairs])


def names(targets: list[Target]) -> list[tuple[str, str, str]]:
    return [(target.instrument, target.symbol, target.pair.symbol) for target in targets]


def test_a_canonical_symbol_is_found_in_the_list_and_never_by_splitting() -> None:
    account = symbols(binance.Feed(), "btc-usdt", "ETHUSDT")
    assert account.resolve(complete=False) == []
    assert set(account.waiting) == {"BTC-USDT", "ETHUSDT"}
    account.learn(LIST, SPOT)
    assert names(account.resolve(complete=True)) == [
        ("BTCUSDT", "BTC-USDT", "btc-usdt"),
        ("ETHUSDT", "ETH-USDT", "ETHUSDT"),
    ]
    assert account.resolve(complete=True) == [], "said once"
    assert not account.waiting
    assert not account.faults


def test_what_the_list_lacks_is_told_and_comes_with_a_later_list() -> None:
    account = symbols(binance.Feed(), "NEW-USDT", "BTC-USDT")
    account.learn(LIST, SPOT)
    assert [target.instrument for target in account.resolve(complete=True)] == ["BTCUSDT"]
    assert set(account.unlisted) == {"NEW-USDT"}
    assert account.faults == ["NEW-USDT is not listed"]
    account.learn(LIST, [*SPOT, Listed("NEWUSDT", "NEW-USDT", True)])
    assert [target.instrument for target in account.resolve(complete=True)] == ["NEWUSDT"]
    assert not account.unlisted


def test_an_exchange_that_refuses_by_itself_is_asked_without_a_list_and_the_list_tells_the_symbol() -> None:
    account = symbols(okx.Feed(), "BTC-USDT-SWAP", "BTC-USD_UM_XPERP-PERP")
    assert [target.instrument for target in account.resolve(complete=False)] == [
        "BTC-USDT-SWAP",
        "BTC-USD_UM_XPERP-SWAP",
    ]
    account.learn(LIST, [Listed("BTC-USDT-SWAP", "BTC-USDT-PERP", True)])
    assert account.resolve(complete=True) == []
    assert account.targets["BTC-USDT-SWAP"].symbol == "BTC-USDT-PERP"


def test_with_the_list_there_a_symbol_is_what_the_list_says() -> None:
    account = symbols(okx.Feed(), "BTC-USD_UM_XPERP-PERP")
    account.learn(LIST, [Listed("BTC-USD_UM_XPERP-310404", "BTC-USD_UM_XPERP-PERP", True)])
    assert [target.instrument for target in account.resolve(complete=True)] == ["BTC-USD_UM_XPERP-310404"]


def test_patterns_take_what_is_traded_by_symbol_or_id_in_either_case() -> None:
    account = symbols(binance.Feed(), "*-usdt", "ethb*")
    account.learn(LIST, [*SPOT, Listed("LUNAUSDT", "LUNA-USDT", False)])
    assert names(account.resolve(complete=True)) == [
        ("BTCUSDT", "BTC-USDT", "*-usdt"),
        ("ETHUSDT", "ETH-USDT", "*-usdt"),
        ("ETHBTC", "ETH-BTC", "ethb*"),
    ]
    assert account.matches == {"*-usdt": 2, "ethb*": 1}


def test_a_pair_spelt_out_wins_over_a_pattern_and_the_first_pattern_over_the_second() -> None:
    account = symbols(binance.Feed(), "*", "ETH-*", "BTC-USDT")
    account.learn(LIST, SPOT)
    assert {name: pair for name, _, pair in names(account.resolve(complete=True))} == {
        "BTCUSDT": "BTC-USDT",
        "ETHUSDT": "*",
        "ETHBTC": "*",
    }
    assert account.matches == {"*": 3, "ETH-*": 2}


def test_a_new_listing_matches_and_one_that_pauses_stays() -> None:
    account = symbols(binance.Feed(), "*-USDT")
    account.learn(LIST, SPOT)
    account.resolve(complete=True)
    paused = [Listed("BTCUSDT", "BTC-USDT", False), *SPOT[1:], Listed("NEWUSDT", "NEW-USDT", True)]
    account.learn(LIST, paused)
    assert [target.instrument for target in account.resolve(complete=True)] == ["NEWUSDT"]
    assert "BTCUSDT" in account.targets


def test_a_pattern_without_a_match_is_said_once_all_lists_are_there() -> None:
    account = symbols(binance.Feed(), "*-DOGE")
    account.learn(LIST, SPOT)
    account.resolve(complete=False)
    assert account.faults == []
    account.resolve(complete=True)
    account.resolve(complete=True)
    assert account.faults == ["pattern *-DOGE matches no instrument that is traded"]


def test_two_spellings_of_one_instrument_are_refused_or_told() -> None:
    with pytest.raises(SettingsError, match="same instrument"):
        symbols(okx.Feed(), "BTC-USDT-PERP", "BTC-USDT-SWAP")
    account = symbols(binance.Feed(), "BTC-USDT", "BTCUSDT")
    account.learn(LIST, SPOT)
    assert len(account.resolve(complete=True)) == 1
    assert account.faults == ["BTC-USDT and BTCUSDT are the same instrument: the first one counts"]


def test_a_pair_that_is_listed_but_not_traded_is_subscribed_and_told() -> None:
    account = symbols(binance.Feed(), "LUNA-USDT")
    account.learn(LIST, [Listed("LUNAUSDT", "LUNA-USDT", False)])
    assert len(account.resolve(complete=True)) == 1
    assert account.faults == ["LUNA-USDT is listed, but not traded now"]


def test_pairs_that_are_off_are_nothing() -> None:
    account = Symbols(okx.Feed(), [TradingPair(symbol="BTC-USDT", enabled=False)])
    assert account.wanted == []
    assert account.resolve(complete=True) == []


def test_what_one_channel_serves_is_subscribed_once() -> None:
    pair = TradingPair(symbol="BTC-USDT", data_types=("trade", "candle", "orderbook", "kline"), timeframes=("1m", "5s"))
    assert Target("BTCUSDT", "BTC-USDT", pair).subscriptions(binance.Feed()) == {
        Subscription("trade", "BTCUSDT"): ("trade", "candle"),
        Subscription("depth@100ms", "BTCUSDT"): ("orderbook",),
        Subscription("kline_1m", "BTCUSDT"): ("kline",),
    }


def test_what_was_collected_and_leaves_its_list_is_gone_and_not_unlisted() -> None:
    account = symbols(binance.Feed(), "BTC-USDT", "ETH-*")
    account.learn(LIST, SPOT)
    account.resolve(complete=True)
    account.learn(LIST, SPOT[:2])
    assert account.resolve(complete=True) == []
    account.learn(LIST, SPOT[2:])
    assert account.resolve(complete=True) == []
    assert account.gone == {"BTCUSDT", "ETHUSDT"}
    assert not account.unlisted
    account.learn(LIST, SPOT)
    assert not account.gone


def test_what_is_remembered_serves_until_the_lists_have_come() -> None:
    account = symbols(binance.Feed(), "BTC-USDT", "OLD-USDT", "NEW-USDT", "*-BTC")
    account.remember([*SPOT, Listed("OLDUSDT", "OLD-USDT", True)])
    assert [target.instrument for target in account.resolve(complete=False)] == ["BTCUSDT", "OLDUSDT", "ETHBTC"]
    assert set(account.waiting) == {"NEW-USDT"}
    assert not account.unlisted
    account.learn(LIST, SPOT)
    assert account.resolve(complete=True) == []
    assert account.gone == {"OLDUSDT"}
    assert account.matches == {"*-BTC": 1}
    assert set(account.unlisted) == {"NEW-USDT"}


def test_what_was_never_collected_is_not_missed() -> None:
    account = symbols(binance.Feed(), "BTC-USDT")
    account.learn(LIST, SPOT)
    account.resolve(complete=True)
    account.learn(LIST, SPOT[:1])
    assert account.gone == set()
