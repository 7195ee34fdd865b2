"""Fifty symbols change connections, make before break, over real sockets: nobody who reads the books can tell."""

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import msgspec
import pytest

from ingest.main import timing_of
from pipeline.exchanges import EXCHANGES
from pipeline.timeframes import SECOND
from simulator.connections import Connection
from simulator.dialect import Reply
from simulator.faults import Fault
from simulator.server import serve
from tests.integration.collector import Shown, collecting, eventually, settings_for

SYMBOLS = 50
BEHIND = 10 * SECOND
"""A busy machine may be seconds behind on one of two connections, as no exchange should be."""


def lag(monkeypatch: pytest.MonkeyPatch, connections: Collection[Connection], seconds: float) -> None:
    """What the exchange sends on these connections it sends so much later than on others: what is not sent when the
    other side closes is never sent."""
    send = Connection.send

    def later(connection: Connection, reply: Reply) -> None:
        if connection in connections:
            asyncio.get_running_loop().call_later(seconds, send, connection, reply)
        else:
            send(connection, reply)

    monkeypatch.setattr(Connection, "send", later)


@pytest.fixture
async def shown(exchange: str, redis_url: str) -> AsyncIterator[Shown]:
    shown = Shown(redis_url, exchange)
    try:
        yield shown
    finally:
        await shown.close()


@pytest.mark.parametrize("behind", [0.0, 1.5])
@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_rotating_fifty_symbols_breaks_no_book(
    exchange: str, behind: float, tmp_path: Path, redis_url: str, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(exchange=exchange, rate=100, symbols=SYMBOLS, limits=20) as simulator:
        symbols = [f"SIM{number:03d}-USDT" for number in range(1, SYMBOLS + 1)]
        settings = settings_for(tmp_path, redis_url, simulator, exchange, symbols, kinds=("trade", "orderbook"))
        timing = msgspec.structs.replace(timing_of(settings), behind=BEHIND)
        async with collecting(settings, exchange, timing):

            async def all_valid() -> bool:
                books = await shown.newest("orderbook")
                return set(books) == set(symbols) and all(book.get("valid", True) for book in books.values())

            await eventually(all_valid, "fifty valid books")
            if behind:
                lag(monkeypatch, set(simulator._connections.values()), behind)
            before = {connection["id"] for connection in simulator.state()["connections"]}
            asked = await shown.wanted()
            records = len(await shown.all("orderbook"))
            simulator.inject(Fault(fault="notice", seconds=60))

            async def replaced() -> bool:
                return bool(before) and not before & {one["id"] for one in simulator.state()["connections"]}

            await eventually(replaced, "every connection to be replaced")
            # Something of every book on the connections that took over.
            moved = {symbol: book.get("sequence") for symbol, book in (await shown.newest("orderbook")).items()}

            async def went_on() -> bool:
                books = await shown.newest("orderbook")
                return all(books[symbol].get("sequence") != sequence for symbol, sequence in moved.items())

            await eventually(went_on, "every book to go on")
            later = (await shown.all("orderbook"))[records:]
            assert len(later) > SYMBOLS
            assert [(one["symbol"], one["reason"]) for one in later if not one.get("valid", True)] == []
            assert await shown.wanted() == asked
