"""REST over real sockets: envelope, paging back to the first trade, bars, rate limits."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from simulator.exchanges.okx import Okx
from simulator.faults import Spells, fault_from
from simulator.listings import listings
from simulator.market import Fill, Market
from simulator.server import Simulator, serve
from tests.simulator.clients import SECOND, START, Clock, get


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(clock: Clock) -> AsyncIterator[Simulator]:
    async with serve(rate=0, clock=clock, limits=50) as running:
        yield running


def row(fill: Fill, instrument: str) -> dict[str, str]:
    return {
        "instId": instrument,
        "tradeId": str(fill.sequence),
        "px": fill.price,
        "sz": fill.size,
        "side": fill.side,
        "source": "0",
        "ts": str(fill.time // 1_000_000),
    }


async def test_time_is_the_exchange_s(simulator: Simulator, clock: Clock) -> None:
    assert await get(simulator, "public/time") == (
        200,
        {"code": "0", "msg": "", "data": [{"ts": str(START // 1_000_000)}]},
    )


async def test_instruments_of_every_type(simulator: Simulator) -> None:
    found: dict[str, dict[str, Any]] = {}
    for query in (
        {"instType": "SPOT"},
        {"instType": "SWAP"},
        {"instType": "FUTURES"},
        {"instType": "OPTION", "instFamily": "BTC-USD"},
    ):
        status, body = await get(simulator, "public/instruments", **query)
        assert (status, body["code"]) == (200, "0")
        found |= {row["instId"]: row for row in body["data"]}
        assert {row["instType"] for row in body["data"]} == {query["instType"]}
    assert found.keys() == {simulator.dialect.instrument(symbol) for symbol in simulator.market.pits}
    spot, linear, inverse = (found[name] for name in ("BTC-USDT", "BTC-USDT-SWAP", "BTC-USD-SWAP"))
    assert (spot["baseCcy"], spot["quoteCcy"], spot["ctVal"], spot["instFamily"]) == ("BTC", "USDT", "", "")
    assert (linear["baseCcy"], linear["ctType"], linear["ctVal"], linear["ctValCcy"]) == ("", "linear", "0.01", "BTC")
    assert (inverse["ctType"], inverse["ctVal"], inverse["ctValCcy"], inverse["settleCcy"]) == (
        "inverse",
        "100",
        "USD",
        "BTC",
    )
    assert found["BTC-USD-301227"]["expTime"] == "1924588800000"
    option = found["BTC-USD-301227-90000-C"]
    assert (option["stk"], option["optType"], option["ctMult"], option["ctType"]) == ("90000", "C", "0.01", "")
    assert found["BTC-USD_UM-SWAP"]["instFamily"] == "BTC-USD_UM"


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("public/instruments", {}, 400, "50014"),
        ("public/instruments", {"instType": "STOCK"}, 400, "51000"),
        ("public/instruments", {"instType": "OPTION"}, 400, "50014"),
        ("public/instruments", {"instType": "SPOT", "instId": "NOPE-USDT"}, 200, "51001"),
        ("market/trades", {}, 400, "50014"),
        ("market/trades", {"instId": "NOPE-USDT"}, 200, "51001"),
        ("market/trades", {"instId": "BTC-USDT", "limit": 501}, 400, "51000"),
        ("market/history-trades", {"instId": "BTC-USDT", "limit": 101}, 400, "51000"),
        ("market/history-trades", {"instId": "BTC-USDT", "limit": 0}, 400, "51000"),
        ("market/history-trades", {"instId": "BTC-USDT", "after": "x"}, 400, "51000"),
        ("market/history-trades", {"instId": "BTC-USDT", "type": 3}, 400, "51000"),
        ("market/history-trades", {"instId": "BTC-USDT", "type": 2, "before": 5}, 400, "51000"),
        ("market/candles", {"instId": "BTC-USDT", "bar": "7m"}, 400, "51000"),
        ("market/nothing", {}, 404, "404"),
    ],
)
async def test_bad_requests_get_the_envelope(
    simulator: Simulator, path: str, query: dict[str, object], status: int, code: str
) -> None:
    answered, body = await get(simulator, path, **query)
    assert (answered, body["code"], body["data"]) == (status, code, [])
    assert body["msg"]


async def test_paging_walks_back_to_the_first_trade(simulator: Simulator, clock: Clock) -> None:
    for _ in range(90):
        clock.pass_(0.25)
        simulator.print("ETH-USDT-SWAP", 2)
    fills = list(simulator.market.pits["ETH-USDT-PERP"].fills)
    walked: list[dict[str, str]] = []
    query: dict[str, object] = {"instId": "ETH-USDT-SWAP"}
    while page := (await get(simulator, "market/history-trades", **query))[1]["data"]:
        walked += page
        query["after"] = min(int(row["tradeId"]) for row in page)
    assert len(fills) > 200
    assert walked == [row(fill, "ETH-USDT-SWAP") for fill in reversed(fills)]


async def test_before_alone_gives_the_latest_page_and_type_2_pages_by_time(simulator: Simulator, clock: Clock) -> None:
    for _ in range(8):
        clock.pass_(1)
        simulator.print("BTC-USDT", 1, 1)
    fills = list(simulator.market.pits["BTC-USDT"].fills)
    first = fills[0].sequence
    latest = await get(simulator, "market/history-trades", instId="BTC-USDT", before=first, limit=3)
    assert [row["tradeId"] for row in latest[1]["data"]] == [str(fill.sequence) for fill in reversed(fills[-3:])]
    between = await get(simulator, "market/history-trades", instId="BTC-USDT", before=first + 3, after=first + 6)
    assert [row["tradeId"] for row in between[1]["data"]] == [str(first + 5), str(first + 4)]
    ms = fills[-2].time // 1_000_000
    older = await get(simulator, "market/history-trades", instId="BTC-USDT", type=2, after=ms, limit=1)
    assert older[1]["data"] == [row(fills[-3], "BTC-USDT")]


async def test_newest_trades(simulator: Simulator) -> None:
    simulator.print("BTC-USD-SWAP", 600, 1)
    fills = list(simulator.market.pits["BTC-USD-PERP"].fills)
    for limit, count in ((None, 100), (500, 500)):
        query = {"instId": "BTC-USD-SWAP"} | ({} if limit is None else {"limit": limit})
        _, body = await get(simulator, "market/trades", **query)
        assert body["data"] == [row(fill, "BTC-USD-SWAP") for fill in reversed(fills[-count:])]


async def test_bars_page_back_without_holes(simulator: Simulator, clock: Clock) -> None:
    for _ in range(12):
        clock.pass_(37)
        simulator.print("SOL-USDT", 1)
    _, body = await get(simulator, "market/candles", instId="SOL-USDT", bar="1m", limit=300)
    opened = [int(row[0]) for row in body["data"]]
    assert opened == list(range(opened[0], opened[-1] - 1, -60_000))
    assert [row[-1] for row in body["data"]] == ["0"] + ["1"] * (len(opened) - 1)
    _, page = await get(simulator, "market/history-candles", instId="SOL-USDT", after=opened[2], limit=2)
    assert page["data"] == body["data"][3:5]
    _, newer = await get(simulator, "market/candles", instId="SOL-USDT", before=opened[2])
    assert newer["data"] == body["data"][:2]


async def test_rest_error_answers_everything_until_cleared(simulator: Simulator) -> None:
    simulator.inject(fault_from({"fault": "rest_error", "status": 503, "code": 50001}))
    assert (await get(simulator, "public/time"))[0] == 503
    simulator.inject(fault_from({"fault": "clear"}))
    assert (await get(simulator, "public/time"))[0] == 200


async def test_rate_limit_refuses_over_the_socket() -> None:
    async with serve(rate=0, clock=Clock()) as simulator:
        answers = Counter([(await get(simulator, "public/time"))[0] for _ in range(12)])
        status, body = await get(simulator, "public/time")
    assert answers == {200: 10, 429: 2}
    assert (status, body["code"], body["data"]) == (429, "50011", [])


@pytest.fixture
def okx() -> Okx:
    return Okx(Market(random.Random(1), listings(), START, 0), Spells())


@pytest.mark.parametrize(
    ("path", "query", "allowed"),
    [
        ("public/time", {}, 10),
        ("public/instruments", {"instType": "SPOT"}, 20),
        ("market/trades", {"instId": "BTC-USDT"}, 100),
        ("market/history-trades", {"instId": "BTC-USDT"}, 20),
        ("market/candles", {"instId": "BTC-USDT"}, 40),
        ("market/history-candles", {"instId": "BTC-USDT"}, 20),
    ],
)
def test_allowances_per_2_seconds(okx: Okx, path: str, query: dict[str, str], allowed: int) -> None:
    def ask(address: str, now: int, **more: str) -> int:
        return okx.respond(f"/api/v5/{path}", {**query, **more}, address, now).status

    assert [ask("a", START) for _ in range(allowed + 1)] == [200] * allowed + [429]
    assert ask("b", START) == 200
    assert ask("a", START + 2 * SECOND) == 200
    if path == "public/instruments":
        assert ask("a", START, instType="SWAP") == 200
