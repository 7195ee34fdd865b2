"""Binance's REST over real sockets: rows, paging, weights and their headers, 429 and 418, errors."""

import random
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from simulator.exchanges.binance import Binance
from simulator.faults import Spells, fault_from
from simulator.listings import listings
from simulator.market import SECOND, Fill, Market
from simulator.rows.binance import lists, terms
from simulator.server import Simulator, serve
from tests.simulator.clients import START, Clock
from tests.simulator.venues import fetch


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(clock: Clock) -> AsyncIterator[Simulator]:
    async with serve(exchange="binance", rate=0, clock=clock, limits=50) as running:
        yield running


@pytest.fixture
def binance() -> Binance:
    listed = [terms(listing) for listing in listings() if lists(listing)]
    return Binance(Market(random.Random(1), listed, START, 0), Spells())


async def get(simulator: Simulator, path: str) -> Any:
    status, body, _ = await fetch(simulator, f"/api/v3/{path}")
    assert status == 200, body
    return body


def fills_of(simulator: Simulator, symbol: str = "BTC-USDT") -> list[Fill]:
    return list(simulator.market.pits[symbol].fills)


def row(fill: Fill) -> dict[str, Any]:
    price, size = Decimal(fill.price), Decimal(fill.size)
    return {
        "id": fill.sequence,
        "price": f"{price:.8f}",
        "qty": f"{size:.8f}",
        "quoteQty": f"{price * size:.8f}",
        "time": fill.time // 1_000_000,
        "isBuyerMaker": fill.side == "sell",
        "isBestMatch": True,
    }


async def test_time_is_the_exchange_s(simulator: Simulator) -> None:
    assert await get(simulator, "ping") == {}
    assert await get(simulator, "time") == {"serverTime": START // 1_000_000}


async def test_symbols_are_spot_with_binance_s_steps(simulator: Simulator) -> None:
    info = await get(simulator, "exchangeInfo")
    assert {limit["rateLimitType"]: limit["limit"] for limit in info["rateLimits"]} == {
        "REQUEST_WEIGHT": 6000 * 50,
        "RAW_REQUESTS": 300_000 * 50,
    }
    assert {row["symbol"] for row in info["symbols"]} == {"BTCUSDT", "ETHUSDT", "SOLUSDT", "DOGEUSDT", "QUIETUSDT"}
    (one,) = (await get(simulator, "exchangeInfo?symbol=BTCUSDT"))["symbols"]
    assert (one["status"], one["baseAsset"], one["quoteAsset"]) == ("TRADING", "BTC", "USDT")
    filters = {row["filterType"]: row for row in one["filters"]}
    assert filters["PRICE_FILTER"]["tickSize"] == "0.10000000"
    assert (filters["LOT_SIZE"]["stepSize"], filters["LOT_SIZE"]["minQty"]) == ("0.00000010", "0.00001000")
    two = await get(simulator, 'exchangeInfo?symbols=["SOLUSDT","ETHUSDT"]')
    assert [row["symbol"] for row in two["symbols"]] == ["SOLUSDT", "ETHUSDT"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("depth", 400, -1102),
        ("depth?symbol=", 400, -1102),
        ("depth?symbol=NOPEUSDT", 400, -1121),
        ("depth?symbol=btcusdt", 400, -1100),
        ("depth?symbol=BTCUSDT&limit=x", 400, -1100),
        ("depth?symbol=BTCUSDT&limit=-5", 400, -1100),
        ("depth?symbol=BTCUSDT&limit=0", 400, -1130),
        ("depth?symbol=BTCUSDT&levels=5", 400, -1104),
        ("time?symbol=BTCUSDT", 400, -1104),
        ("trades?symbol=BTCUSDT&fromId=5", 400, -1104),
        ("historicalTrades?symbol=BTCUSDT&fromId=x", 400, -1100),
        ("aggTrades?symbol=BTCUSDT&fromId=1&startTime=1", 400, -1128),
        ("klines?symbol=BTCUSDT", 400, -1102),
        ("klines?symbol=BTCUSDT&interval=7m", 400, -1120),
        ("klines?symbol=BTCUSDT&interval=1d&timeZone=8", 400, -1130),
        ("exchangeInfo?symbol=NOPE", 400, -1121),
        ("exchangeInfo?symbols=BTCUSDT", 400, -1100),
        ("exchangeInfo?symbols=[]", 400, -1100),
        ('exchangeInfo?symbols=["BTCUSDT","NOPE"]', 400, -1121),
        ('exchangeInfo?symbol=BTCUSDT&symbols=["BTCUSDT"]', 400, -1128),
        ("ticker/24hr?symbol=NOPE", 400, -1121),
        ("userDataStream", 404, 404),
    ],
)
async def test_bad_requests_get_the_error_binance_sends(
    simulator: Simulator, path: str, status: int, code: int
) -> None:
    answered, body, headers = await fetch(simulator, f"/api/v3/{path}")
    assert (answered, body["code"]) == (status, code)
    assert body["msg"]
    assert headers["X-MBX-USED-WEIGHT-1M"].isdigit()


async def test_trades_ascend_from_an_id_or_are_the_newest(simulator: Simulator, clock: Clock) -> None:
    for _ in range(9):
        clock.pass_(1)
        simulator.print("BTCUSDT", 100)
    fills = fills_of(simulator)
    assert len(fills) > 1100
    newest = [row(fill) for fill in fills]
    assert await get(simulator, "trades?symbol=BTCUSDT") == newest[-500:]
    assert await get(simulator, "trades?symbol=BTCUSDT&limit=5000") == newest[-1000:]
    assert await get(simulator, "historicalTrades?symbol=BTCUSDT&limit=3") == newest[-3:]
    middle = fills[100].sequence
    assert await get(simulator, f"historicalTrades?symbol=BTCUSDT&fromId={middle}&limit=1000") == newest[100:1100]
    assert await get(simulator, "historicalTrades?symbol=BTCUSDT&fromId=0&limit=2") == newest[:2]
    after = fills[-1].sequence + 1
    assert await get(simulator, f"historicalTrades?symbol=BTCUSDT&fromId={after}") == []
    simulator.market.jump("BTC-USDT", 50)
    ((jumped,),) = simulator.print("BTCUSDT", 1, 1)
    assert await get(simulator, f"historicalTrades?symbol=BTCUSDT&fromId={after}") == [row(jumped)]


async def test_aggregates_page_through_to_the_end(simulator: Simulator, clock: Clock) -> None:
    for _ in range(8):
        clock.pass_(1)
        simulator.print("ETHUSDT", 40)
    walked: list[dict[str, Any]] = []
    while page := await get(simulator, f"aggTrades?symbol=ETHUSDT&limit=100&fromId={len(walked)}"):
        walked += page
    fills = fills_of(simulator, "ETH-USDT")
    assert [row["a"] for row in walked] == list(range(len(walked)))
    assert [later["f"] for later in walked[1:]] == [row["l"] + 1 for row in walked[:-1]]
    assert (walked[0]["f"], walked[-1]["l"]) == (fills[0].sequence, fills[-1].sequence)
    assert sum(Decimal(row["q"]) for row in walked) == sum(Decimal(fill.size) for fill in fills)
    assert await get(simulator, "aggTrades?symbol=ETHUSDT") == walked[-500:]
    start, end = walked[50]["T"], walked[150]["T"]
    between = await get(simulator, f"aggTrades?symbol=ETHUSDT&startTime={start}&endTime={end}&limit=1000")
    assert between == [row for row in walked if start <= row["T"] <= end]
    assert walked[150] in between


async def test_klines_ascend_and_page_by_time(simulator: Simulator, clock: Clock) -> None:
    for _ in range(30):
        clock.pass_(37)
        simulator.print("SOLUSDT", 1)
    every = await get(simulator, "klines?symbol=SOLUSDT&interval=1m&limit=1000")
    opened = [row[0] for row in every]
    assert len(every) >= 18
    assert all(later - row == 60_000 for row, later in pairwise(opened))
    now = clock.now // 1_000_000
    assert [row[6] > now for row in every] == [False] * (len(every) - 1) + [True]
    fills = [fill for fill in fills_of(simulator, "SOL-USDT") if opened[5] <= fill.time // 1_000_000 <= every[5][6]]
    assert every[5][8] == len(fills)
    bought = sum((Decimal(fill.size) for fill in fills if fill.side == "buy"), Decimal(0))
    turnover = sum((Decimal(fill.price) * Decimal(fill.size) for fill in fills), Decimal(0))
    assert (Decimal(every[5][9]), Decimal(every[5][7])) == (bought, turnover)
    assert [len(row) for row in every] == [12] * len(every)
    since = await get(simulator, f"klines?symbol=SOLUSDT&interval=1m&startTime={opened[3]}&limit=4")
    assert since == every[3:7]
    between = await get(simulator, f"klines?symbol=SOLUSDT&interval=1m&startTime={opened[3] + 1}&endTime={opened[8]}")
    assert between == every[4:9]
    until = await get(simulator, f"klines?symbol=SOLUSDT&interval=1m&endTime={opened[8]}&limit=2")
    assert until == every[7:9]


async def test_tickers_of_one_some_and_all(simulator: Simulator, clock: Clock) -> None:
    simulator.print("BTCUSDT", 3)
    last = fills_of(simulator)[-1]
    one = await get(simulator, "ticker/24hr?symbol=BTCUSDT")
    assert (one["lastId"], one["lastPrice"], one["lastQty"]) == (last.sequence, row(last)["price"], row(last)["qty"])
    some = await get(simulator, 'ticker/24hr?symbols=["BTCUSDT","QUIETUSDT"]&type=MINI')
    assert [row["symbol"] for row in some] == ["BTCUSDT", "QUIETUSDT"]
    assert "priceChange" not in some[0]
    assert len(await get(simulator, "ticker/24hr")) == 5
    clock.pass_(0.25)
    simulator.turn()
    best = await get(simulator, "ticker/bookTicker?symbol=BTCUSDT")
    depth = await get(simulator, "depth?symbol=BTCUSDT&limit=1")
    assert [[best["bidPrice"], best["bidQty"]]] == depth["bids"]
    assert [[best["askPrice"], best["askQty"]]] == depth["asks"]
    assert len(await get(simulator, "ticker/bookTicker")) == 5
    clock.pass_(25 * 3600)
    quiet = await get(simulator, "ticker/24hr?symbol=BTCUSDT")
    assert (quiet["count"], quiet["firstId"], quiet["lastId"], quiet["volume"]) == (0, -1, -1, "0.00000000")
    assert quiet["lastPrice"] == quiet["openPrice"] == row(last)["price"]


async def test_a_snapshot_lies_behind_the_book_for_a_moment(simulator: Simulator, clock: Clock) -> None:
    simulator.turn()
    before = await get(simulator, "depth?symbol=BTCUSDT&limit=1000")
    simulator.stir("BTCUSDT", 50)
    simulator.turn()
    assert await get(simulator, "depth?symbol=BTCUSDT&limit=1000") == before
    clock.pass_(0.25)
    simulator.turn()
    after = await get(simulator, "depth?symbol=BTCUSDT&limit=1000")
    assert after["lastUpdateId"] == simulator.market.pits["BTC-USDT"].book.version > before["lastUpdateId"]
    assert (len(after["bids"]), len(after["asks"])) == (1000, 1000)
    assert len((await get(simulator, "depth?symbol=BTCUSDT"))["bids"]) == 100
    assert len((await get(simulator, "depth?symbol=BTCUSDT&limit=9999"))["bids"]) > 1000


@pytest.mark.parametrize(
    ("path", "query", "weight"),
    [
        ("ping", {}, 1),
        ("time", {}, 1),
        ("exchangeInfo", {}, 20),
        ("depth", {}, 5),
        ("depth", {"limit": "100"}, 5),
        ("depth", {"limit": "101"}, 25),
        ("depth", {"limit": "500"}, 25),
        ("depth", {"limit": "1000"}, 50),
        ("depth", {"limit": "1001"}, 250),
        ("depth", {"limit": "5000"}, 250),
        ("trades", {}, 25),
        ("historicalTrades", {}, 25),
        ("aggTrades", {}, 4),
        ("klines", {"interval": "1m"}, 2),
        ("ticker/24hr", {"symbol": "BTCUSDT"}, 2),
        ("ticker/24hr", {}, 80),
        ("ticker/24hr", {"symbols": '["BTCUSDT","ETHUSDT"]'}, 2),
        ("ticker/bookTicker", {"symbol": "BTCUSDT"}, 2),
        ("ticker/bookTicker", {}, 4),
    ],
)
def test_weights(binance: Binance, path: str, query: dict[str, str], weight: int) -> None:
    if path in ("depth", "trades", "historicalTrades", "aggTrades", "klines"):
        query = {"symbol": "BTCUSDT", **query}
    for number in (1, 2):
        answer = binance.respond(f"/api/v3/{path}", query, "a", START)
        assert (answer.status, answer.headers["X-MBX-USED-WEIGHT-1M"]) == (200, str(number * weight))


def test_weight_is_by_address_and_minute_of_the_clock(binance: Binance) -> None:
    def ask(address: str, now: int) -> tuple[int, str, str]:
        answer = binance.respond("/api/v3/depth", {"symbol": "BTCUSDT", "limit": "5000"}, address, now)
        return answer.status, answer.headers["X-MBX-USED-WEIGHT-1M"], answer.headers.get("Retry-After", "")

    minute = START - START % (60 * SECOND) + 60 * SECOND
    for number in range(1, 25):
        assert ask("a", minute + 10 * SECOND) == (200, str(number * 250), "")
    assert ask("a", minute + 10 * SECOND) == (429, "6000", "50")
    assert ask("b", minute + 10 * SECOND) == (200, "250", "")
    assert ask("a", minute + 59 * SECOND + SECOND // 2) == (429, "6000", "1")
    assert ask("a", minute + 60 * SECOND) == (200, "250", "")


def test_who_goes_on_after_429_is_banned_longer_each_time(binance: Binance) -> None:
    def ask(now: int) -> tuple[int, str]:
        answer = binance.respond("/api/v3/depth", {"symbol": "BTCUSDT", "limit": "5000"}, "a", now)
        return answer.status, answer.headers.get("Retry-After", "")

    now = START - START % (60 * SECOND) + 60 * SECOND
    for seconds in (120, 240, 480):
        assert [ask(now)[0] for _ in range(30)] == [200] * 24 + [429] * 5 + [418]
        assert ask(now + SECOND) == (418, str(seconds - 1))
        assert ask(now + seconds * SECOND - 1) == (418, "1")
        now += seconds * SECOND


async def test_rest_error_answers_everything_until_cleared(simulator: Simulator, clock: Clock) -> None:
    simulator.inject(fault_from({"fault": "rest_error", "status": 503}))
    status, body, _ = await fetch(simulator, "/api/v3/time")
    assert (status, body["code"]) == (503, -1000)
    simulator.inject(fault_from({"fault": "rest_error", "status": 418, "code": -1003, "seconds": 90}))
    status, body, headers = await fetch(simulator, "/api/v3/time")
    assert (status, body["code"], headers["Retry-After"]) == (418, -1003, "90")
    simulator.inject(fault_from({"fault": "clear"}))
    await get(simulator, "time")
