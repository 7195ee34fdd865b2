"""An exchange that forgets: REST has no trades of the past any more, what comes after is there as ever."""

import json
from typing import Any

import aiohttp
import pytest

from simulator.faults import fault_from
from simulator.server import Simulator, serve
from tests.simulator.clients import Clock

PATHS = {
    "okx": "/api/v5/market/history-trades?instId={instrument}&limit=100",
    "binance": "/api/v3/historicalTrades?symbol={instrument}&limit=100",
}


async def numbers(simulator: Simulator, exchange: str, instrument: str) -> list[int]:
    """The numbers that REST gives, ascending."""
    url = simulator.rest_url + PATHS[exchange].format(instrument=instrument)
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        body: Any = json.loads(await answer.text())
    rows = body["data"] if exchange == "okx" else body
    return sorted(int(row["tradeId" if exchange == "okx" else "id"]) for row in rows)


@pytest.mark.parametrize("exchange", ["okx", "binance"])
async def test_trades_of_before_are_gone_and_newer_ones_are_there(exchange: str) -> None:
    clock = Clock()
    async with serve(exchange=exchange, rate=0, clock=clock) as simulator:
        instrument, other = (simulator.dialect.instrument(symbol) for symbol in ("BTC-USDT", "ETH-USDT"))
        before = [fill.sequence for order in simulator.print(instrument, 5) for fill in order]
        simulator.print(other, 5)
        others = await numbers(simulator, exchange, other)
        clock.pass_(10)
        later = [fill.sequence for order in simulator.print(instrument, 5) for fill in order]
        assert set(await numbers(simulator, exchange, instrument)) >= {*before, *later}
        simulator.inject(fault_from({"fault": "forget", "seconds": 5, "instrument": instrument}))
        assert await numbers(simulator, exchange, instrument) == later
        assert await numbers(simulator, exchange, other) == others
        simulator.inject(fault_from({"fault": "forget"}))
        clock.pass_(1)
        simulator.inject(fault_from({"fault": "forget"}))
        assert await numbers(simulator, exchange, instrument) == later[-1:]
        assert await numbers(simulator, exchange, other) == others[-1:]
