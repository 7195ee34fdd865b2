"""The Binance feed against texts as the exchange's documentation and recordings spell them."""

import json

import pytest

from ingest.exchanges.binance import Feed
from ingest.feed import Accepted, Data, Listed, Notice, Other, Refused, Request, Subscription
from pipeline.errors import ExchangeError
from pipeline.timeframes import MINUTE, SECOND

TRADE = Subscription("trade", "BTCUSDT")
BOOK = Subscription("depth@100ms", "BTCUSDT")


def test_requests_name_streams_in_small_letters() -> None:
    assert json.loads(Feed().subscribe("r7", [TRADE, BOOK])) == {
        "method": "SUBSCRIBE",
        "params": ["btcusdt@trade", "btcusdt@depth@100ms"],
        "id": "r7",
    }
    assert json.loads(Feed().unsubscribe("r8", [BOOK]))["method"] == "UNSUBSCRIBE"


def test_every_kind_has_its_channel() -> None:
    feed = Feed()
    assert feed.channels("trade", ()) == feed.channels("candle", ()) == ("trade",)
    assert [feed.channels(kind, ()) for kind in ("orderbook", "quote", "ticker")] == [
        ("depth@100ms",),
        ("bookTicker",),
        ("ticker",),
    ]
    assert feed.channels("kline", ("1d", "5s", "1s", "4h")) == ("kline_1s", "kline_4h", "kline_1d")


def test_batches_are_of_a_hundred_and_connections_of_three_hundred() -> None:
    feed = Feed()
    wanted = [Subscription("trade", f"C{number}USDT") for number in range(250)]
    assert [len(batch) for batch in feed.batches(wanted)] == [100, 100, 50]
    assert {feed.route(subscription).most for subscription in (TRADE, BOOK)} == {300}
    assert feed.requests.count * SECOND <= 3 * feed.requests.period, "of 5 messages a second some are left for pongs"


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ('{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT"', Data(TRADE)),
        ('{"stream":"btcusdt@depth@100ms","data":{}}', Data(BOOK)),
        ('{"stream":"btcusdt@kline_1m","data":{}}', Data(Subscription("kline_1m", "BTCUSDT"))),
        ('{"stream":"1000satsusdt@bookTicker","data":{}}', Data(Subscription("bookTicker", "1000SATSUSDT"))),
        ('{"stream":"币安人生usdt@trade","data":{}}', Data(Subscription("trade", "币安人生USDT"))),
        ('{"data":{"e":"trade"},"stream":"btcusdt@trade"}', Data(TRADE)),
        ('{"result":null,"id":"r1"}', Accepted(request="r1")),
        ('{"result":null,"id":312}', Accepted(request="312")),
        ('{"result":["btcusdt@trade"],"id":3}', Other()),
        (
            '{"code":2,"msg":"Invalid request: unknown variant SUBSCRIB","id":7}',
            Refused("2 Invalid request: unknown variant SUBSCRIB", "7"),
        ),
        ('{"code":3,"msg":"Invalid JSON: expected value"}', Refused("3 Invalid JSON: expected value")),
        ('{"error":{"code":2,"msg":"Invalid request"},"id":"r7"}', Refused("2 Invalid request", "r7")),
        ('{"e":"serverShutdown","E":1770123456789}', Notice("server shutdown")),
        ('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}', Notice("server shutdown")),
        ('{"id":null,"result":null}', Other()),
        ('{"stream":"","data":{}}', Other()),
        ('{"stream":', Other()),
        ("pong", Other()),
        ("", Other()),
        ("[1]", Other()),
        ('"\\ud800"', Other()),
    ],
)
def test_texts_are_classified(text: str, event: object) -> None:
    feed = Feed()
    assert feed.classify(text) == event
    assert feed.classify(text) == event, "the second time comes from what was learnt"


def test_one_list_has_all_and_tells_names() -> None:
    feed = Feed()
    assert feed.listings(["BTCUSDT", "*-USDT"]) == [Request("/api/v3/exchangeInfo", "weight", 20)]
    assert feed.listings([]) == []
    body = (
        '{"symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT"},{"symbol":7},'
        '{"symbol":"LUNAUSDT","status":"BREAK","baseAsset":"LUNA","quoteAsset":"USDT"}]}'
    )
    assert feed.listed(body) == [Listed("BTCUSDT", "BTC-USDT", True), Listed("LUNAUSDT", "LUNA-USDT", False)]
    for nothing in ("", "[]", '{"code":-1003,"msg":"Too many requests"}'):
        with pytest.raises(ExchangeError):
            feed.listed(nothing)


def test_time_is_the_middle_of_its_millisecond() -> None:
    assert Feed().read_time('{"serverTime":1499827319559}') == 1499827319559_500_000
    for body in ("", "{}", '{"serverTime":"soon"}'):
        with pytest.raises(ExchangeError):
            Feed().read_time(body)


@pytest.mark.parametrize(
    ("status", "body", "temporary", "pause"),
    [
        (200, '{"lastUpdateId":1}', None, 0),
        (429, '{"code":-1003,"msg":"Too many requests"}', True, 10 * SECOND),
        (418, '{"code":-1003,"msg":"IP banned"}', True, 2 * MINUTE),
        (403, "<html>WAF</html>", True, MINUTE),
        (503, '{"code":-1000,"msg":"unknown"}', True, 0),
        (502, "<html>Bad Gateway</html>", True, 0),
        (400, '{"code":-1121,"msg":"Invalid symbol."}', False, 0),
        (451, '{"code":0,"msg":"Service unavailable from a restricted location"}', False, 0),
    ],
)
def test_rest_answers_are_judged(status: int, body: str, temporary: bool | None, pause: int) -> None:
    fault = Feed().fault(status, body)
    assert (fault and fault.temporary) == temporary
    assert (fault.pause if fault else 0) == pause


def test_the_used_weight_is_read_from_the_header() -> None:
    assert Feed().used({"X-MBX-USED-WEIGHT-1M": "5432"}) == {"weight": 5432}
    assert Feed().used({"x-mbx-used-weight-1m": "x"}) == {}
    assert Feed().used({}) == {}
