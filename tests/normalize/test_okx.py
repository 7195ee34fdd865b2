"""OKX frames to records: the golden conversions of the venue's reference, and everything that must be refused."""

import json
from typing import Any

import pytest

from normalize.exchanges.okx import Mapper
from normalize.mapper import Reading
from pipeline.errors import DecodeError
from pipeline.frames import Frame
from pipeline.records import Instrument

RECEIVED = 1_791_369_350_800_000_000
CONN = "wss://ws.okx.com/ws/v5/business#1"

SWAP: dict[str, Any] = {
    "instType": "SWAP",
    "instId": "BTC-USDT-SWAP",
    "baseCcy": "",
    "quoteCcy": "",
    "settleCcy": "USDT",
    "uly": "BTC-USDT",
    "instFamily": "BTC-USDT",
    "ctVal": "0.01",
    "ctMult": "1",
    "ctValCcy": "BTC",
    "ctType": "linear",
    "tickSz": "0.1",
    "lotSz": "0.01",
    "minSz": "0.01",
    "listTime": "1611916828000",
    "expTime": "",
    "state": "live",
    "ruleType": "normal",
    "instIdCode": 10459,
    "upcChg": [],
}
INVERSE = SWAP | {
    "instId": "BTC-USD-SWAP",
    "settleCcy": "BTC",
    "uly": "BTC-USD",
    "instFamily": "BTC-USD",
    "ctVal": "100",
    "ctValCcy": "USD",
    "ctType": "inverse",
}
UM = INVERSE | {"instId": "BTC-USD_UM-SWAP", "settleCcy": "USD", "instFamily": "BTC-USD_UM", "ctType": "linear"}
XPERP = UM | {
    "instType": "FUTURES",
    "instId": "BTC-USD_UM_XPERP-310404",
    "instFamily": "BTC-USD_UM_XPERP",
    "expTime": "1933142400000",
    "ruleType": "xperp",
}
USDC = SWAP | {"instId": "BTC-USDC-SWAP", "settleCcy": "USDC", "uly": "BTC-USD", "instFamily": "BTC-USDC"}
FUTURE = SWAP | {"instType": "FUTURES", "instId": "BTC-USDT-261225", "expTime": "1798185600000"}
OPTION = INVERSE | {
    "instType": "OPTION",
    "instId": "BTC-USD-261225-90000-C",
    "ctVal": "1",
    "ctMult": "0.01",
    "ctValCcy": "BTC",
    "ctType": "",
    "expTime": "1798185600000",
    "stk": "90000",
    "optType": "C",
}
SPOT = {
    "instType": "SPOT",
    "instId": "BTC-USDT",
    "baseCcy": "BTC",
    "quoteCcy": "USDT",
    "settleCcy": "",
    "tickSz": "0.1",
    "lotSz": "0.00000001",
    "minSz": "0.00001",
    "listTime": "1606468572000",
    "expTime": "",
    "state": "live",
}
FILL = {
    "instId": "BTC-USDT-SWAP",
    "tradeId": "2978601964",
    "px": "83725.9",
    "sz": "5",
    "side": "buy",
    "ts": "1791369350776",
}
mapper = Mapper()


def ws(message: Any) -> Frame:
    text = message if isinstance(message, str) else json.dumps(message)
    return Frame(RECEIVED, CONN, "in", "ws", text)


def rest(body: Any, path: str = "/api/v5/public/instruments?instType=SWAP") -> Frame:
    return Frame(RECEIVED, "https://openapi.okx.com", "in", "rest", json.dumps(body), "https://openapi.okx.com" + path)


def listed(*elements: dict[str, Any]) -> dict[str, Instrument]:
    reading = mapper.read(rest({"code": "0", "msg": "", "data": elements}), {})
    assert reading.faults == ()
    return {instrument.instrument: instrument for instrument in reading.instruments}


def trades(*fills: dict[str, Any], channel: str = "trades-all") -> Frame:
    return ws({"arg": {"channel": channel, "instId": fills[0].get("instId")}, "data": fills})


ALL = listed(SPOT, SWAP, INVERSE, UM, XPERP, USDC, FUTURE, OPTION)


def one(fill: dict[str, Any], channel: str = "trades-all") -> Any:
    (trade,) = mapper.read(trades(fill, channel=channel), ALL).trades
    return trade


def test_linear_swap() -> None:
    trade = one(FILL | {"count": "1", "source": "0", "seqId": 344430848209}, "trades")
    assert (trade.exchange, trade.market, trade.symbol) == ("okx", "perpetual", "BTC-USDT-PERP")
    assert (trade.side, trade.price, trade.size, trade.contracts) == ("buy", "83725.9", "0.05", "5")
    assert (trade.id, trade.sequence, trade.first_sequence, trade.fills) == ("2978601964", 2978601964, None, 1)
    assert (trade.time, trade.received, trade.epoch) == (1_791_369_350_776_000_000, RECEIVED, 0)
    assert trade.conditions == ()


def test_spot_trade_of_merged_fills() -> None:
    trade = one(FILL | {"instId": "BTC-USDT", "sz": "0.12060306", "count": "3", "tradeId": "130639474"}, "trades")
    assert (trade.market, trade.size, trade.contracts) == ("spot", "0.12060306", None)
    assert (trade.first_sequence, trade.sequence, trade.fills) == (130639472, 130639474, 3)


def test_inverse_swap() -> None:
    trade = one(FILL | {"instId": "BTC-USD-SWAP", "px": "60000", "sz": "3"})
    assert (trade.size, trade.contracts) == ("0.005000000000", "3")


def test_option() -> None:
    trade = one(FILL | {"instId": "BTC-USD-261225-90000-C", "px": "0.05", "sz": "3"})
    assert (trade.symbol, trade.size, trade.contracts) == ("BTC-USD-261225-90000-C", "0.03", "3")


@pytest.mark.parametrize(("source", "conditions"), [("0", ()), ("1", ("rpi",)), ("", ()), ("7", ("source 7",))])
def test_conditions(source: str, conditions: tuple[str, ...]) -> None:
    assert one(FILL | {"source": source}).conditions == conditions


def test_spot_needs_no_list() -> None:
    (trade,) = mapper.read(trades(FILL | {"instId": "AAVE-EUR"}), {}).trades
    assert (trade.market, trade.symbol) == ("spot", "AAVE-EUR")


def test_every_element_of_a_frame_is_read_and_a_bad_one_costs_no_other() -> None:
    good = [FILL | {"tradeId": str(number)} for number in (1, 2, 3, 4)]
    bad: list[dict[str, Any]] = [FILL | {"px": "NaN"}, FILL | {"sz": 5}, {"instId": "BTC-USDT"}]
    reading = mapper.read(trades(good[0], bad[0], good[1], bad[1], good[2], bad[2], good[3]), ALL)
    assert [trade.sequence for trade in reading.trades] == [1, 2, 3, 4]
    assert sorted(fault.reason for fault in reading.faults) == [
        "not a fill of OKX",
        "not a fill of OKX",
        "px is not a decimal above zero",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"px": ""}, "px is not a decimal above zero"),
        ({"px": "0"}, "px is not a decimal above zero"),
        ({"px": "0.00"}, "px is not a decimal above zero"),
        ({"px": "-1"}, "px is not a decimal above zero"),
        ({"px": "1e5"}, "px is not a decimal above zero"),
        ({"px": "Infinity"}, "px is not a decimal above zero"),
        ({"px": " 1"}, "px is not a decimal above zero"),
        ({"px": "1."}, "px is not a decimal above zero"),
        ({"px": "١"}, "px is not a decimal above zero"),
        ({"px": "1\n"}, "px is not a decimal above zero"),
        ({"sz": "0"}, "sz is not a decimal above zero"),
        ({"sz": "NaN"}, "sz is not a decimal above zero"),
        ({"tradeId": "12a"}, "tradeId is not a whole number"),
        ({"tradeId": "-5"}, "tradeId is not a whole number"),
        ({"tradeId": "9" * 30}, "tradeId is not a whole number"),
        ({"count": "0"}, "count does not fit tradeId"),
        ({"count": "9", "tradeId": "3"}, "count does not fit tradeId"),
        ({"side": "SELL"}, "side is neither buy nor sell"),
        ({"ts": ""}, "ts is not a whole number"),
        ({"ts": "17913693507760000"}, "ts is beyond 64 bits of nanoseconds"),
        ({"ts": "1691369350776"}, "time is out of range"),
        ({"ts": "1791469350776"}, "time is out of range"),
        ({"instId": "BTC-USDT-991231"}, "unknown instrument"),
        ({"instId": "NOPE"}, "unknown instrument"),
        ({"instId": ""}, "unknown instrument"),
    ],
)
def test_what_cannot_be_parsed_is_refused_with_the_reason(change: dict[str, str], reason: str) -> None:
    reading = mapper.read(trades(FILL | change), ALL)
    assert reading.trades == ()
    assert [fault.reason for fault in reading.faults] == [reason]


def test_a_derivative_without_contract_value_is_refused() -> None:
    known = listed(SWAP | {"ctVal": ""})
    assert known["BTC-USDT-SWAP"].contract_value is None
    (fault,) = mapper.read(trades(FILL), known).faults
    assert fault.reason == "size cannot be converted"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pong", "pong"),
        ('{"id":"1","event":"subscribe","arg":{"channel":"trades-all","instId":"X"},"connId":"a"}', "subscribe"),
        ('{"event":"unsubscribe","arg":{"channel":"trades","instId":"X"},"connId":"a"}', "unsubscribe"),
        ('{"event":"error","code":"60012","msg":"Invalid request","connId":"a"}', "error"),
        ('{"event":"notice","code":"64008","msg":"The connection will soon be closed","connId":"a"}', "notice"),
        ('{"event":"channel-conn-count","channel":"orders","connCount":"2","connId":"a"}', "channel-conn-count"),
    ],
)
def test_control_frames_are_named(text: str, name: str) -> None:
    assert mapper.read(ws(text), {}) == Reading(control=name)


@pytest.mark.parametrize(
    ("text", "name"), [('{"op":"subscribe","args":[]}', "out subscribe"), ("ping", "out ping"), ("x", "out request")]
)
def test_what_the_client_sent_is_control(text: str, name: str) -> None:
    assert mapper.read(Frame(RECEIVED, CONN, "out", "ws", text), {}).control == name


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (ws({"arg": {"channel": "books-rpi"}, "data": []}), "channel books-rpi is not collected yet"),
        (ws({"arg": {"channel": "candle1D"}, "data": [["1"]]}), "bars of 1D are not collected"),
        (ws("{"), "not JSON"),
        (ws(""), "not JSON"),
        (ws("[1]"), "not a message of OKX"),
        (ws({"arg": 5}), "not a message of OKX"),
        (ws({}), "neither data nor event"),
        (ws({"arg": {"channel": "trades-all"}, "data": {"px": "1"}}), "data is not a list"),
        (rest({"code": "50011", "msg": "Too Many Requests", "data": []}), "the exchange refused"),
        (rest({"code": "0"}, "/api/v5/public/open-interest?x=1"), "reply of /api/v5/public/open-interest is not"),
    ],
)
def test_frames_of_no_use_are_refused_with_the_reason(frame: Frame, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        mapper.read(frame, {})
    assert caught.value.reason.startswith(reason)


def test_time_replies_are_control() -> None:
    assert mapper.read(rest({"code": "0", "data": [{"ts": "1"}]}, "/api/v5/public/time"), {}).control == "time"


def test_instruments_of_every_type() -> None:
    assert {name: (i.symbol, i.market, i.base, i.quote) for name, i in ALL.items()} == {
        "BTC-USDT": ("BTC-USDT", "spot", "BTC", "USDT"),
        "BTC-USDT-SWAP": ("BTC-USDT-PERP", "perpetual", "BTC", "USDT"),
        "BTC-USD-SWAP": ("BTC-USD-PERP", "perpetual", "BTC", "USD"),
        "BTC-USD_UM-SWAP": ("BTC-USD_UM-PERP", "perpetual", "BTC", "USD"),
        "BTC-USD_UM_XPERP-310404": ("BTC-USD_UM_XPERP-PERP", "perpetual", "BTC", "USD"),
        "BTC-USDC-SWAP": ("BTC-USDC-PERP", "perpetual", "BTC", "USDC"),
        "BTC-USDT-261225": ("BTC-USDT-261225", "future", "BTC", "USDT"),
        "BTC-USD-261225-90000-C": ("BTC-USD-261225-90000-C", "option", "BTC", "USD"),
    }
    option = ALL["BTC-USD-261225-90000-C"]
    assert (option.contract_value, option.strike, option.option, option.contract) == ("0.01", "90000", "call", None)
    assert (option.expiry, option.settle) == (1_798_185_600_000_000_000, "BTC")
    inverse = ALL["BTC-USD-SWAP"]
    assert (inverse.contract, inverse.contract_value, inverse.contract_currency) == ("inverse", "100", "USD")
    assert (inverse.expiry, inverse.listed, inverse.time) == (None, 1_611_916_828_000_000_000, None)
    spot = ALL["BTC-USDT"]
    assert (spot.tick_size, spot.lot_size, spot.min_size, spot.status) == ("0.1", "0.00000001", "0.00001", "live")
    assert (spot.settle, spot.contract, spot.contract_value) == (None, None, None)


def test_families_without_tag_and_old_lists_keep_symbols_apart() -> None:
    known = listed(UM | {"instFamily": "BTC-USD"}, INVERSE, XPERP | {"instFamily": ""})
    assert len({instrument.symbol for instrument in known.values()}) == 3


def test_bare_lists_and_the_channel_give_the_same_instruments() -> None:
    bare = mapper.read(rest([SWAP, OPTION]), {}).instruments
    pushed = mapper.read(ws({"arg": {"channel": "instruments", "instType": "SWAP"}, "data": [SWAP, OPTION]}), {})
    assert bare == pushed.instruments == (ALL["BTC-USDT-SWAP"], ALL["BTC-USD-261225-90000-C"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"instType": "EVENTS"}, "instruments of type EVENTS are not collected yet"),
        ({"ctVal": "x"}, "ctVal is not a decimal above zero"),
        ({"ctType": "quanto"}, "contracts of type quanto are not known"),
        ({"uly": "", "instFamily": ""}, "instrument without base or quote"),
        ({"instType": "FUTURES"}, "instrument without a symbol"),
        ({"listTime": "soon"}, "listTime is not a whole number"),
    ],
)
def test_bad_listings_cost_no_other(change: dict[str, str], reason: str) -> None:
    reading = mapper.read(rest({"code": "0", "data": [SWAP | change, SPOT]}), {})
    assert [instrument.instrument for instrument in reading.instruments] == ["BTC-USDT"]
    assert [fault.reason for fault in reading.faults] == [reason]


def test_the_venues_time_of_a_frame() -> None:
    assert mapper.time(trades(FILL, FILL | {"ts": "1791369350777"})) == 1_791_369_350_777_000_000
    assert mapper.time(ws("pong")) is None
    assert mapper.time(ws({"arg": {"channel": "candle1m"}, "data": [["1"]]})) is None
    assert mapper.time(ws({"event": "subscribe"})) is None
