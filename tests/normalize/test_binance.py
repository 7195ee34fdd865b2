"""Binance spot frames to records: the golden conversions of the venue's reference, and everything that must be
refused."""

import json
from typing import Any

import pytest

from normalize.exchanges.binance import Mapper
from normalize.mapper import BookUpdate, Reading
from pipeline.errors import DecodeError
from pipeline.frames import Frame
from pipeline.records import Instrument, Kline, Quote, Ticker

RECEIVED = 1_723_161_255_700_000_000
MS = 1_000_000
CONN = "wss://stream.binance.com/stream#1"


def listing(symbol: str, base: str, quote: str, **fields: Any) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "isSpotTradingAllowed": True,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "minQty": "0.00010000", "maxQty": "9000.00", "stepSize": "0.00001000"},
            {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": "9.0", "stepSize": "0.00000000"},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        ],
    } | fields


ETH, BNB = listing("ETHUSDT", "ETH", "USDT"), listing("BNBBTC", "BNB", "BTC")
TRADE: dict[str, Any] = {
    "e": "trade",
    "E": 1723161255612,
    "s": "ETHUSDT",
    "t": 1520538925,
    "p": "2683.80000000",
    "q": "0.00200000",
    "T": 1723161255611,
    "m": True,
    "M": True,
}
AGGREGATE: dict[str, Any] = {
    "e": "aggTrade",
    "E": 1723161255636,
    "s": "BNBBTC",
    "a": 12345,
    "p": "0.001",
    "q": "100",
    "f": 100,
    "l": 105,
    "T": 1723161255635,
    "m": False,
    "M": True,
}
DEPTH: dict[str, Any] = {
    "e": "depthUpdate",
    "E": 1723161255308,
    "s": "ETHUSDT",
    "U": 35346513499,
    "u": 35346513505,
    "b": [["2683.80000000", "3.02920000"], ["61510.90", "0.000"]],
    "a": [["2733.70000000", "0.00000000"]],
}
BODY: dict[str, Any] = {"lastUpdateId": 160, "bids": [["0.0024", "10"]], "asks": [["0.0026", "100"]]}
BEST: dict[str, Any] = {
    "u": 35346513501,
    "s": "ETHUSDT",
    "b": "2683.80000000",
    "B": "3.02920000",
    "a": "2683.81000000",
    "A": "31.43950000",
}
TICKER: dict[str, Any] = {
    "e": "24hrTicker",
    "E": 1723161255136,
    "s": "BNBBTC",
    "p": "0.0015",
    "P": "250.00",
    "w": "0.0018",
    "x": "0.0009",
    "c": "0.0025",
    "Q": "10",
    "b": "0.0024",
    "B": "10",
    "a": "0.0026",
    "A": "100",
    "o": "0.0010",
    "h": "0.0025",
    "l": "0.0010",
    "v": "10000",
    "q": "18",
    "O": 0,
    "C": 86400000,
    "F": 0,
    "L": 18150,
    "n": 18151,
}
BAR: dict[str, Any] = {
    "t": 1723161180000,
    "T": 1723161239999,
    "s": "ETHUSDT",
    "i": "1m",
    "f": 100,
    "L": 200,
    "o": "0.0010",
    "c": "0.0020",
    "h": "0.0025",
    "l": "0.0010",
    "v": "1000",
    "n": 101,
    "x": True,
    "q": "1.0000",
    "V": "500",
    "Q": "0.500",
    "B": "123456",
}
mapper = Mapper()
rule = mapper.book_rule


def ws(message: Any, conn: str = CONN) -> Frame:
    return Frame(RECEIVED, conn, "in", "ws", message if isinstance(message, str) else json.dumps(message))


def combined(stream: str, data: Any) -> Frame:
    return ws({"stream": stream, "data": data})


def rest(body: Any, path: str = "/api/v3/exchangeInfo") -> Frame:
    return Frame(RECEIVED, "https://api.binance.com", "in", "rest", json.dumps(body), "https://api.binance.com" + path)


def kline(**fields: Any) -> dict[str, Any]:
    return {"e": "kline", "E": 1723161240005, "s": "ETHUSDT", "k": BAR | fields}


def listed(*elements: dict[str, Any]) -> dict[str, Instrument]:
    reading = mapper.read(rest({"timezone": "UTC", "symbols": elements}), {})
    assert reading.faults == ()
    return {instrument.instrument: instrument for instrument in reading.instruments}


ALL = listed(ETH, BNB)


def read(frame: Frame) -> Reading:
    return mapper.read(frame, ALL)


def reasons(frame: Frame) -> list[str]:
    try:
        return [fault.reason for fault in read(frame).faults]
    except DecodeError as error:
        return [error.reason]


def test_a_trade_whose_buyer_was_the_maker_is_a_sale() -> None:
    (trade,) = read(combined("ethusdt@trade", TRADE)).trades
    assert (trade.exchange, trade.market, trade.symbol, trade.instrument) == ("binance", "spot", "ETH-USDT", "ETHUSDT")
    assert (trade.side, trade.price, trade.size, trade.contracts) == ("sell", "2683.80000000", "0.00200000", None)
    assert (trade.id, trade.sequence, trade.first_sequence, trade.fills) == ("1520538925", 1520538925, None, 1)
    assert (trade.time, trade.received, trade.epoch) == (1723161255611 * MS, RECEIVED, 0)


def test_an_aggregate_covers_the_numbers_of_its_trades() -> None:
    (trade,) = read(combined("bnbbtc@aggTrade", AGGREGATE)).trades
    assert (trade.id, trade.sequence, trade.first_sequence, trade.fills) == ("12345", 105, 100, 6)
    assert (trade.symbol, trade.side, trade.size) == ("BNB-BTC", "buy", "100")
    (single,) = read(combined("bnbbtc@aggTrade", AGGREGATE | {"f": 105})).trades
    assert (single.sequence, single.first_sequence, single.fills) == (105, None, 1)


@pytest.mark.parametrize(
    ("stream", "event", "kind"),
    [
        ("ethusdt@trade", TRADE, "trades"),
        ("bnbbtc@aggTrade", AGGREGATE, "trades"),
        ("ethusdt@depth@100ms", DEPTH, "books"),
        ("ethusdt@bookTicker", BEST, "quotes"),
        ("bnbbtc@ticker", TICKER, "tickers"),
        ("ethusdt@kline_1m", kline(), "klines"),
    ],
)
def test_combined_and_raw_forms_say_the_same(stream: str, event: dict[str, Any], kind: str) -> None:
    reading = read(combined(stream, event))
    assert len(getattr(reading, kind)) == 1
    assert read(ws(event, "wss://stream.binance.com/ws")) == reading


def test_microseconds_are_told_by_their_size() -> None:
    (book,) = read(combined("ethusdt@depth", DEPTH | {"E": 1723161255308123})).books
    assert book.time == 1723161255308123 * 1000
    (trade,) = read(combined("ethusdt@trade", TRADE | {"T": 1723161255611999})).trades
    assert trade.time == 1723161255611 * MS, "as REST tells it"
    bar = kline(t=1723161180000000, T=1723161239999999)
    (closed,) = read(combined("ethusdt@kline_1m", bar)).klines
    assert (closed.open_time, closed.close_time) == (1723161180000 * MS, 1723161240000 * MS)


def test_a_change_of_a_book() -> None:
    assert read(combined("ethusdt@depth@100ms", DEPTH)).books == (
        BookUpdate(
            instrument=ALL["ETHUSDT"],
            snapshot=False,
            bids=(("2683.80000000", "3.02920000"), ("61510.90", "0.000")),
            asks=(("2733.70000000", "0.00000000"),),
            first=35346513499,
            last=35346513505,
            time=1723161255308 * MS,
        ),
    )
    assert read(combined("ethusdt@depth", DEPTH)) == read(combined("ethusdt@depth@100ms", DEPTH))


@pytest.mark.parametrize(("stream", "cut"), [("depth5", 5), ("depth10@100ms", 10), ("depth20", 20)])
def test_partial_books_are_snapshots_that_are_cut(stream: str, cut: int) -> None:
    (book,) = read(combined(f"ethusdt@{stream}", BODY)).books
    assert book == BookUpdate(
        instrument=ALL["ETHUSDT"],
        snapshot=True,
        bids=(("0.0024", "10"),),
        asks=(("0.0026", "100"),),
        last=160,
        cut=cut,
    )
    assert stream in mapper.book_channels
    (raw,) = read(ws(BODY, f"wss://stream.binance.com:9443/ws/ethusdt@{stream}#3")).books
    assert raw == book, "a connection for one stream has its name in the url"


@pytest.mark.parametrize("path", ["/api/v3/depth", "/api/v1/depth"])
def test_a_book_by_rest(path: str) -> None:
    (book,) = read(rest(BODY, f"{path}?symbol=BNBBTC&limit=1000")).books
    assert (book.instrument, book.snapshot, book.last, book.asked, book.time, book.cut) == (
        ALL["BNBBTC"],
        True,
        160,
        1000,
        None,
        None,
    )
    (default,) = read(rest(BODY, f"{path}?symbol=bnbbtc")).books
    assert default.asked == 100


def test_the_best_offer_has_no_time() -> None:
    assert read(combined("ethusdt@bookTicker", BEST)).quotes == (
        Quote(
            exchange="binance",
            market="spot",
            symbol="ETH-USDT",
            instrument="ETHUSDT",
            time=None,
            received=RECEIVED,
            bid="2683.80000000",
            bid_size="3.02920000",
            ask="2683.81000000",
            ask_size="31.43950000",
            sequence=35346513501,
        ),
    )
    (empty,) = read(combined("!bookTicker", BEST | {"b": "0.00000000", "B": "0.00000000"})).quotes
    assert (empty.bid, empty.bid_size, empty.ask) == (None, None, "2683.81000000")


def test_the_ticker() -> None:
    assert read(combined("bnbbtc@ticker", TICKER)).tickers == (
        Ticker(
            exchange="binance",
            market="spot",
            symbol="BNB-BTC",
            instrument="BNBBTC",
            time=1723161255136 * MS,
            received=RECEIVED,
            last="0.0025",
            bid="0.0024",
            bid_size="10",
            ask="0.0026",
            ask_size="100",
            open_24h="0.0010",
            high_24h="0.0025",
            low_24h="0.0010",
            volume_24h="10000",
            quote_volume_24h="18",
        ),
    )
    (quiet,) = read(combined("bnbbtc@ticker", TICKER | {"o": "0.00000000", "v": "0.00000000"})).tickers
    assert (quiet.open_24h, quiet.volume_24h) == (None, "0.00000000")


def test_a_closed_kline() -> None:
    assert read(combined("ethusdt@kline_1m", kline())).klines == (
        Kline(
            exchange="binance",
            market="spot",
            symbol="ETH-USDT",
            instrument="ETHUSDT",
            time=1723161240005 * MS,
            received=RECEIVED,
            timeframe="1m",
            open_time=1723161180000 * MS,
            close_time=1723161240000 * MS,
            open="0.0010",
            high="0.0025",
            low="0.0010",
            close="0.0020",
            volume="1000",
            quote_volume="1.0000",
            buy_volume="500",
            buy_quote_volume="0.500",
            trades_count=101,
            first_id="100",
            last_id="200",
        ),
    )


def test_open_klines_are_control_and_bars_without_trades_have_no_ids() -> None:
    assert read(combined("ethusdt@kline_1m", kline(x=False))) == Reading(control="kline open")
    (quiet,) = read(combined("ethusdt@kline_1m", kline(f=-1, L=-1, n=0, v="0.00000000"))).klines
    assert (quiet.first_id, quiet.last_id, quiet.trades_count, quiet.volume) == (None, None, 0, "0.00000000")


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ({"result": None, "id": 1}, "result"),
        ({"result": ["btcusdt@aggTrade"], "id": 3}, "result"),
        ({"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}, "error"),
        ({"code": 2, "msg": "Invalid request: unknown variant", "id": 7}, "error"),
        ({"error": {"code": 2, "msg": "Invalid request"}, "id": 7}, "error"),
        ({"e": "serverShutdown", "E": 1770123456789}, "serverShutdown"),
        ({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1770123456789}}, "serverShutdown"),
    ],
)
def test_control_frames_are_named(message: dict[str, Any], name: str) -> None:
    assert read(ws(message)) == Reading(control=name)


@pytest.mark.parametrize(
    ("text", "name"), [('{"method":"SUBSCRIBE","params":[],"id":1}', "out subscribe"), ("x", "out request")]
)
def test_what_the_client_sent_is_control(text: str, name: str) -> None:
    assert read(Frame(RECEIVED, CONN, "out", "ws", text)).control == name


@pytest.mark.parametrize("path", ["/api/v3/time", "/api/v3/ping"])
def test_replies_that_carry_no_market_data(path: str) -> None:
    assert read(rest({"serverTime": 1723161255611}, path)).control == path.rpartition("/")[2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"p": ""}, "p is not a decimal above zero"),
        ({"p": "0.00000000"}, "p is not a decimal above zero"),
        ({"p": "-1"}, "p is not a decimal above zero"),
        ({"p": "1e5"}, "p is not a decimal above zero"),
        ({"q": "0"}, "q is not a decimal above zero"),
        ({"q": "NaN"}, "q is not a decimal above zero"),
        ({"p": 2683.8}, "not a trade of Binance"),
        ({"t": "12"}, "not a trade of Binance"),
        ({"t": -1}, "not a trade of Binance"),
        ({"t": 2**63}, "not a trade of Binance"),
        ({"m": "true"}, "not a trade of Binance"),
        ({"T": 1681161255611}, "time is out of range"),
        ({"T": 1723961255611}, "time is out of range"),
        ({"T": 2**62}, "T is beyond 64 bits of nanoseconds"),
        ({"s": "NOPEUSDT"}, "unknown instrument"),
        ({"s": "ethusdt"}, "unknown instrument"),
        ({"X": "MARKET"}, "not an event of the spot exchange"),
    ],
)
def test_what_cannot_be_parsed_is_refused_with_the_reason(change: dict[str, Any], reason: str) -> None:
    assert reasons(combined("ethusdt@trade", TRADE | change)) == [reason]


@pytest.mark.parametrize(
    ("stream", "event", "reason"),
    [
        ("bnbbtc@aggTrade", AGGREGATE | {"f": 106}, "first trade behind the last"),
        ("bnbbtc@aggTrade", AGGREGATE | {"st": 1}, "not an event of the spot exchange"),
        ("ethusdt@depth", DEPTH | {"U": 35346513506}, "first change behind the last"),
        ("ethusdt@depth", DEPTH | {"pu": 35346513498}, "not an event of the spot exchange"),
        ("ethusdt@depth", DEPTH | {"b": [["x", "1"]]}, "a price of the bids is not a decimal above zero"),
        ("ethusdt@depth", DEPTH | {"a": [["1", "x"]]}, "a quantity of the asks is not a decimal"),
        ("ethusdt@depth", DEPTH | {"a": [["1"]]}, "not a book of Binance"),
        ("ethusdt@depth", DEPTH | {"s": "X"}, "unknown instrument"),
        ("ethusdt@depth20", DEPTH, "not a book of Binance"),
        ("nope@depth20", BODY, "unknown instrument"),
        ("ethusdt@bookTicker", BEST | {"e": "bookTicker"}, "not an event of the spot exchange"),
        ("ethusdt@bookTicker", BEST | {"b": "0.0", "B": "1"}, "bid has a quantity but no price"),
        ("ethusdt@bookTicker", BEST | {"A": "-1"}, "quantity of the ask is not a decimal"),
        ("bnbbtc@ticker", TICKER | {"c": "x"}, "c is not a decimal above zero"),
        ("bnbbtc@ticker", TICKER | {"v": ""}, "v is not a decimal"),
        ("bnbbtc@ticker", TICKER | {"E": 0}, "time is out of range"),
        ("ethusdt@kline_3m", kline(i="3m"), "bars of 3m are not collected"),
        ("ethusdt@kline_1m", kline(o="0"), "o is not a decimal above zero"),
        ("ethusdt@kline_1m", kline(t=1723161180001), "kline is not of its window"),
        ("ethusdt@kline_1m", kline(T=1723161240000), "kline is not of its window"),
        # Days of UTC+8 begin at 16:00 UTC.
        (
            "ethusdt@kline_1d@+08:00",
            kline(i="1d", t=1723132800000, T=1723219199999),
            "kline is not of its window",
        ),
        ("ethusdt@miniTicker", {}, "stream miniTicker is not collected yet"),
        ("!ticker@arr", [TICKER], "stream ticker@arr is not collected yet"),
        ("ethusdt@blockTrade", TRADE, "stream blockTrade is not collected yet"),
        ("", TRADE, "stream without a name is not collected yet"),
    ],
)
def test_bad_events(stream: str, event: Any, reason: str) -> None:
    assert reasons(combined(stream, event)) == [reason]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (ws("{"), "not JSON"),
        (ws(""), "not JSON"),
        (ws("[" * 100_000), "not a message of Binance"),
        (ws('{"stream":"ethusdt@trade","data":' + "[" * 100_000), "not JSON"),
        (ws("[1]"), "not a message of Binance"),
        (ws({}), "neither data nor event"),
        (ws({"stream": "ethusdt@trade"}), "neither data nor event"),
        (ws({"e": 5}), "not an event of Binance"),
        (ws({"e": "outboundAccountPosition"}), "stream outboundAccountPosition is not collected yet"),
        (ws(BODY, "wss://stream.binance.com/ws"), "stream without a name is not collected yet"),
        (rest({"code": -1121, "msg": "Invalid symbol."}, "/api/v3/depth?symbol=X"), "the exchange refused"),
        (rest({"code": -1003, "msg": "Too many requests"}), "the exchange refused"),
        (rest({"timezone": "UTC"}), "list without symbols"),
        (rest({"symbols": {}}), "data is not a list"),
        (rest(BODY, "/api/v3/depth"), "unknown instrument"),
        (rest(BODY, "/api/v3/depth?symbol=ETHUSDT&limit=all"), "limit is not a whole number"),
        (rest([], "/api/v3/klines?symbol=ETHUSDT"), "reply of /api/v3/klines is not collected yet"),
        (rest({}, "/fapi/v1/exchangeInfo"), "reply of /fapi/v1/exchangeInfo is not collected yet"),
        (Frame(RECEIVED, CONN, "in", "rest", "{}", None), "reply of no url is not collected yet"),
        (Frame(RECEIVED, CONN, "in", "rest", "{}", "https://[/"), "reply without a url"),
    ],
)
def test_frames_of_no_use_are_refused_with_the_reason(frame: Frame, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read(frame)
    assert caught.value.reason == reason


def test_instruments() -> None:
    eth = ALL["ETHUSDT"]
    assert (eth.exchange, eth.market, eth.symbol, eth.base, eth.quote) == ("binance", "spot", "ETH-USDT", "ETH", "USDT")
    assert (eth.tick_size, eth.lot_size, eth.min_size) == ("0.01000000", "0.00001000", "0.00010000")
    assert (eth.status, eth.time, eth.settle, eth.contract_value, eth.listed) == ("TRADING", None, None, None, None)


def test_base_and_quote_are_the_lists_never_guessed() -> None:
    known = listed(listing("1INCHBTC", "1INCH", "BTC"), listing("BTCUSDT", "BTCU", "SDT", status="BREAK"))
    assert {name: (found.symbol, found.status) for name, found in known.items()} == {
        "1INCHBTC": ("1INCH-BTC", "TRADING"),
        "BTCUSDT": ("BTCU-SDT", "BREAK"),
    }


def test_rules_that_are_off_or_missing_are_null() -> None:
    off = listing("AUSDT", "A", "USDT", filters=[{"filterType": "PRICE_FILTER", "tickSize": "0.00000000"}])
    bare = listing("BUSDT", "B", "USDT", filters=[])
    for found in listed(off, bare).values():
        assert (found.tick_size, found.lot_size, found.min_size) == (None, None, None)


def test_bare_lists_give_the_same_instruments() -> None:
    assert mapper.read(rest([ETH, BNB]), {}).instruments == tuple(ALL.values())
    assert mapper.read(rest({"symbols": [ETH, BNB]}, "/api/v1/exchangeInfo"), {}).instruments == tuple(ALL.values())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"contractType": "PERPETUAL"}, "not an instrument of the spot exchange"),
        ({"baseAsset": ""}, "instrument without base or quote"),
        ({"quoteAsset": 5}, "not a listing of Binance"),
        ({"filters": [{"filterType": "PRICE_FILTER", "tickSize": "x"}]}, "tickSize is not a decimal above zero"),
    ],
)
def test_bad_listings_cost_no_other(change: dict[str, Any], reason: str) -> None:
    reading = mapper.read(rest({"symbols": [ETH | change, BNB]}), {})
    assert [instrument.instrument for instrument in reading.instruments] == ["BNBBTC"]
    assert [fault.reason for fault in reading.faults] == [reason]


def change(first: int | None, last: int | None) -> BookUpdate:
    return BookUpdate(ALL["ETHUSDT"], False, (), (), first=first, last=last)


@pytest.mark.parametrize("joining", [True, False])
@pytest.mark.parametrize(
    ("last", "update", "expected"),
    [
        (100, change(90, 99), "skip"),
        (100, change(90, 100), "skip"),
        (100, change(90, 101), "apply"),
        # The border on which 15 of 17 recorded snapshots sit: the documented test of the first event fails here.
        (100, change(101, 105), "apply"),
        (100, change(102, 105), "gap"),
        (None, change(1, 5), "gap"),
        (100, change(None, 105), "gap"),
        (100, change(101, None), "gap"),
    ],
)
def test_the_chain(last: int | None, joining: bool, update: BookUpdate, expected: str) -> None:
    assert rule.link(last, joining, update) == expected
    assert rule.checksum([("1", "1")], []) is None


def test_the_venues_time_of_a_frame() -> None:
    assert mapper.time(combined("ethusdt@trade", TRADE)) == 1723161255612 * MS
    assert mapper.time(ws(TRADE | {"T": 1723161255613})) == 1723161255613 * MS
    assert mapper.time(combined("ethusdt@kline_1m", kline())) == 1723161240005 * MS
    assert mapper.time(rest({"serverTime": 1723161255611, "symbols": []})) == 1723161255611 * MS
    for frame in (combined("ethusdt@bookTicker", BEST), ws(BODY), ws("{"), ws({"E": "1"}), ws("[" * 100_000)):
        assert mapper.time(frame) is None
