"""Trades by REST on every simulated exchange: pages that lag, are empty, or end at the venue's horizon; Retry-After."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from pipeline.exchanges import EXCHANGES
from simulator.faults import fault_from
from simulator.server import Simulator, serve
from tests.simulator.clients import Clock

DAY = 24 * 3600
PATHS = {
    "okx": "/api/v5/market/history-trades?instId=BTC-USDT&limit=100",
    "binance": "/api/v3/historicalTrades?symbol=BTCUSDT&limit=1000",
}
NATIVE = {"okx": "BTC-USDT", "binance": "BTCUSDT"}


@pytest.fixture(params=EXCHANGES)
def exchange(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(exchange: str, clock: Clock) -> AsyncIterator[Simulator]:
    async with serve(exchange=exchange, rate=0, clock=clock, limits=100) as running:
        yield running


async def ask(simulator: Simulator, path: str) -> tuple[int, dict[str, str], str]:
    async with aiohttp.ClientSession() as session, session.get(simulator.rest_url + path) as answer:
        return answer.status, {key.lower(): value for key, value in answer.headers.items()}, await answer.text()


async def page(simulator: Simulator, exchange: str, query: str = "") -> list[int]:
    """The numbers of one page, ascending."""
    status, _, body = await ask(simulator, PATHS[exchange] + query)
    assert status == 200
    decoded = json.loads(body)
    rows = decoded["data"] if exchange == "okx" else decoded
    return sorted(int(row["tradeId" if exchange == "okx" else "id"]) for row in rows)


def inject(simulator: Simulator, fault: str, **details: object) -> None:
    simulator.inject(fault_from({"fault": fault, **details}))


async def test_trades_come_to_rest_only_when_the_lag_is_over(simulator: Simulator, exchange: str, clock: Clock) -> None:
    printed = [fill.sequence for fill in simulator.market.pits["BTC-USDT"].fills]
    inject(simulator, "rest_lag", seconds=2)
    clock.pass_(1)
    printed += [fill.sequence for order in simulator.print(NATIVE[exchange], 3, 1) for fill in order]
    assert await page(simulator, exchange) == printed[:-3]
    clock.pass_(2.1)
    assert await page(simulator, exchange) == printed
    inject(simulator, "clear")
    printed += [fill.sequence for order in simulator.print(NATIVE[exchange], 1, 1) for fill in order]
    assert await page(simulator, exchange) == printed


async def test_so_many_pages_are_empty(simulator: Simulator, exchange: str) -> None:
    inject(simulator, "rest_empty", count=2)
    assert [len(await page(simulator, exchange)) for _ in range(3)] == [0, 0, 3]


async def test_a_page_has_what_was_asked_of_the_middle(simulator: Simulator, exchange: str, clock: Clock) -> None:
    clock.pass_(1)
    fills = [fill.sequence for order in simulator.print(NATIVE[exchange], 300, 1) for fill in order]
    edge = f"&after={fills[200]}" if exchange == "okx" else f"&fromId={fills[200]}"
    assert await page(simulator, exchange, edge) == (fills[100:200] if exchange == "okx" else fills[200:])


async def test_okx_forgets_after_three_months_and_binance_never(
    simulator: Simulator, exchange: str, clock: Clock
) -> None:
    simulator.turn()
    clock.pass_(91 * DAY)
    fresh = [fill.sequence for order in simulator.print(NATIVE[exchange], 1, 1) for fill in order]
    assert await page(simulator, exchange) == (fresh if exchange == "okx" else [*range(fresh[0] - 3, fresh[0] + 1)])


@pytest.mark.parametrize("status", [418, 429])
async def test_a_refusal_says_how_long(simulator: Simulator, exchange: str, clock: Clock, status: int) -> None:
    inject(simulator, "rest_error", status=status, seconds=2.5)
    answered, headers, _ = await ask(simulator, PATHS[exchange])
    assert (answered, headers["retry-after"]) == (status, "3")
    clock.pass_(2.6)
    assert len(await page(simulator, exchange)) == 3
