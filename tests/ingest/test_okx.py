"""The OKX feed against texts as the exchange's documentation and recordings spell them."""

import json

import pytest

from ingest.exchanges.okx import MOST_ARGS_BYTES, Feed, instrument_type
from ingest.feed import Accepted, Data, Ended, Notice, Other, Pong, Refused, Subscription
from pipeline.errors import ExchangeError

BTC = Subscription("trades-all", "BTC-USDT")
SWAP = Subscription("trades-all", "BTC-USDT-SWAP")


@pytest.mark.parametrize(
    ("symbol", "native"),
    [
        ("BTC-USDT", "BTC-USDT"),
        ("btc-usdt-perp", "BTC-USDT-SWAP"),
        ("BTC-USD-PERP", "BTC-USD-SWAP"),
        ("BTC-USD_UM-PERP", "BTC-USD_UM-SWAP"),
        ("btc-usdt-swap", "BTC-USDT-SWAP"),
        ("BTC-USD-261225", "BTC-USD-261225"),
        ("BTC-USD-261225-90000-C", "BTC-USD-261225-90000-C"),
    ],
)
def test_symbols_become_native_ids(symbol: str, native: str) -> None:
    assert Feed().native(symbol) == native


@pytest.mark.parametrize(
    ("instrument", "kind"),
    [
        ("BTC-USDT", "SPOT"),
        ("BTC-USDT-SWAP", "SWAP"),
        ("BTC-USD-261225", "FUTURES"),
        ("BTC-USD_UM_XPERP-310404", "FUTURES"),
        ("BTC-USD-261225-90000-C", "OPTION"),
    ],
)
def test_instrument_type_follows_from_the_id(instrument: str, kind: str) -> None:
    assert instrument_type(instrument) == kind


def test_lists_are_asked_once_per_type_and_options_by_family() -> None:
    wanted = ["BTC-USDT", "ETH-USDT", "BTC-USDT-SWAP", "BTC-USD-261225-90000-C", "BTC-USD-261225-95000-P"]
    assert [request.path for request in Feed().listings(wanted)] == [
        "/api/v5/public/instruments?instType=SPOT",
        "/api/v5/public/instruments?instType=SWAP",
        "/api/v5/public/instruments?instType=OPTION&instFamily=BTC-USD",
    ]


def test_a_pattern_asks_for_all_types_but_options_which_need_a_family() -> None:
    assert [request.path.partition("=")[2] for request in Feed().listings(["*-usdt"])] == ["SPOT", "SWAP", "FUTURES"]
    assert [request.path.partition("?")[2] for request in Feed().listings(["BTC-USD-*-*-c"])] == [
        "instType=OPTION&instFamily=BTC-USD"
    ]


def test_trades_and_candles_share_one_channel_and_bars_are_cut_at_utc() -> None:
    feed = Feed()
    assert feed.channels("trade", ("1m",)) == feed.channels("candle", ("1m",)) == ("trades-all",)
    assert feed.channels("kline", ("1d", "1m", "5s", "4h")) == ("candle1m", "candle4H", "candle1Dutc")
    assert feed.channels("kline", ("5s",)) == ()


@pytest.mark.parametrize(
    ("channel", "path"),
    [
        ("trades-all", "/business"),
        ("candle1Dutc", "/business"),
        ("books", "/public"),
        ("bbo-tbt", "/public"),
        ("tickers", "/public"),
    ],
)
def test_each_channel_has_its_path_and_books_are_few_on_one_connection(channel: str, path: str) -> None:
    route = Feed().route(Subscription(channel, "BTC-USDT"))
    assert route.path == path
    assert (route.most < 30) == (channel == "books")


def test_batches_keep_the_limit_and_lose_nothing() -> None:
    feed = Feed()
    wanted = [Subscription("trades-all", f"COIN{number:04}-USDT") for number in range(2_500)]
    batches = feed.batches(wanted)
    assert [subscription for batch in batches for subscription in batch] == wanted
    assert len(batches) > 1
    assert all(len(feed.subscribe("r1", batch)) < MOST_ARGS_BYTES + 100 < 64 * 1024 for batch in batches)
    assert feed.batches([]) == []


def test_subscribe_is_the_documented_request() -> None:
    assert json.loads(Feed().subscribe("r7", [BTC, SWAP])) == {
        "id": "r7",
        "op": "subscribe",
        "args": [
            {"channel": "trades-all", "instId": "BTC-USDT"},
            {"channel": "trades-all", "instId": "BTC-USDT-SWAP"},
        ],
    }


TRADE = '{"instId":"BTC-USDT","tradeId":"130639474","px":"42219.9","sz":"0.1206","side":"buy","source":"0","ts":"1"}'


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("pong", Pong()),
        ('{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[' + TRADE + "]}", Data(BTC)),
        # A frame that is cut after its prefix is still that subscription's; normalize will name it.
        ('{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BT', Data(BTC)),
        (
            '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[]}',
            Data(Subscription("books", "BTC-USDT")),
        ),
        ('{"data":[' + TRADE + '],"arg":{"channel":"trades-all","instId":"BTC-USDT"}}', Data(BTC)),
        ('{"arg":{"channel":7},"data":[]}', Data()),
        (
            '{"id":"r1","event":"subscribe","arg":{"channel":"trades-all","instId":"BTC-USDT"},"connId":"accb8e21"}',
            Accepted(BTC, "r1"),
        ),
        (
            '{"event":"unsubscribe","arg":{"channel":"trades-all","instId":"BTC-USDT"},"connId":"d0b44253"}',
            Ended(BTC),
        ),
        ('{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"event":"subscribe","connId":"a"}', Accepted(BTC)),
        (
            '{"id":"r1","event":"error","code":"60018","msg":"Subscribe failed, wrong URL or '
            'channel:trades-all,instId:NOPE-USDT doesn\'t exist.","connId":"5e1f2fe5"}',
            Refused(
                "60018 Subscribe failed, wrong URL or channel:trades-all,instId:NOPE-USDT doesn't exist.",
                "r1",
                Subscription("trades-all", "NOPE-USDT"),
            ),
        ),
        (
            '{"event":"error","code":"60018","msg":"Wrong URL or channel:trades-all,instId:NOPE-USDT doesn\'t exist. '
            'Please use the correct URL, channel and parameters.","connId":"a"}',
            Refused(
                "60018 Wrong URL or channel:trades-all,instId:NOPE-USDT doesn't exist. "
                "Please use the correct URL, channel and parameters.",
                None,
                Subscription("trades-all", "NOPE-USDT"),
            ),
        ),
        (
            '{"id":"r2","event":"error","code":"60014","msg":"Requests too frequent","connId":"a"}',
            Refused("60014 Requests too frequent", "r2", None, temporary=True),
        ),
        (
            '{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade.",'
            '"connId":"a4d3ae55"}',
            Notice("64008 The connection will soon be closed for a service upgrade."),
        ),
        ('{"event":"channel-conn-count","channel":"orders","connCount":"2","connId":"a"}', Other()),
        ("", Other()),
        ("{", Other()),
        ("[1]", Other()),
        ('"\\ud800"', Other()),
    ],
)
def test_texts_are_classified(text: str, event: object) -> None:
    feed = Feed()
    assert feed.classify(text) == event
    assert feed.classify(text) == event, "the second time comes from what was learnt"


def test_time_is_the_middle_of_its_millisecond() -> None:
    assert Feed().read_time('{"code":"0","msg":"","data":[{"ts":"1597026383085"}]}') == 1597026383085_500_000
    for body in ("", '{"code":"0","data":[]}', '{"code":"0","data":[{"ts":"soon"}]}'):
        with pytest.raises(ExchangeError):
            Feed().read_time(body)


@pytest.mark.parametrize(
    ("status", "body", "temporary"),
    [
        (200, '{"code":"0","msg":"","data":[]}', None),
        (200, '{"code":"50011","msg":"Requests too frequent.","data":[]}', True),
        (429, '{"code":"50011","msg":"Too Many Requests"}', True),
        (503, '{"code":"50001","msg":"Service temporarily unavailable"}', True),
        (502, "<html>Bad Gateway</html>", True),
        (400, '{"code":"51001","msg":"Instrument ID doesn\'t exist.","data":[]}', False),
    ],
)
def test_rest_answers_are_judged(status: int, body: str, temporary: bool | None) -> None:
    fault = Feed().fault(status, body)
    assert (fault and fault.temporary) == temporary
