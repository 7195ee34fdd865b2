"""ccxt, unchanged, against the simulator: instruments, trades and order books, in step with ours level by level.

https://docs.ccxt.com ; `make foreign` installs it and runs these tests.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt.pro
import pytest

from simulator.proof.books import book_fault
from simulator.server import Simulator, serve
from tests.integration.collector import DEPTH, Shown, collecting, eventually, settings_for

SYMBOLS = {"okx": ("BTC-USDT", "ETH-USDT", "BTC-USDT-PERP", "BTC-USD-PERP"), "binance": ("BTC-USDT", "ETH-USDT")}
UNIFIED = {
    "BTC-USDT": "BTC/USDT",
    "ETH-USDT": "ETH/USDT",
    "BTC-USDT-PERP": "BTC/USDT:USDT",
    "BTC-USD-PERP": "BTC/USD:BTC",
}
MOST_STALE = 20
Levels = list[tuple[Decimal, Decimal]]


def okx(simulator: Simulator) -> Any:
    client = ccxt.pro.okx({"options": {"fetchMarkets": {"types": ["spot", "swap"]}}})
    client.urls["api"] = {"rest": simulator.rest_url, "ws": simulator.ws_url}
    return client


def binance(simulator: Simulator) -> Any:
    client = ccxt.pro.binance({"options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False}})
    rest = f"{simulator.rest_url}/api/v3"
    client.urls["api"] = {**client.urls["api"], "public": rest, "ws": {"spot": f"{simulator.ws_url}/ws"}}
    return client


CLIENTS = {"okx": okx, "binance": binance}


@contextlib.asynccontextmanager
async def connected(exchange: str, simulator: Simulator) -> AsyncIterator[Any]:
    client = CLIENTS[exchange](simulator)
    try:
        await client.load_markets()
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize("exchange", CLIENTS)
async def test_instruments(exchange: str) -> None:
    async with serve(exchange=exchange, rate=0) as simulator, connected(exchange, simulator) as client:
        for symbol in SYMBOLS[exchange]:
            market = client.market(UNIFIED[symbol])
            assert market["active"]
            assert market["base"] == symbol.split("-")[0]
            listing = simulator.market.pits[symbol].listing
            assert Decimal(str(market["precision"]["price"])) == listing.tick
            if listing.face is not None:
                assert Decimal(str(market["contractSize"])) == listing.face * listing.multiplier
                assert market["inverse"] == (listing.contract == "inverse")


@pytest.mark.parametrize("exchange", CLIENTS)
async def test_trades_and_books_are_the_same_as_ours(exchange: str, tmp_path: Path, redis_url: str) -> None:
    symbols = SYMBOLS[exchange]
    async with (
        serve(exchange=exchange, rate=60, seed=5, limits=8) as simulator,
        connected(exchange, simulator) as client,
    ):
        settings = settings_for(tmp_path, redis_url, simulator, exchange, symbols)
        shown = Shown(redis_url, exchange)
        theirs = Theirs(client, symbols)
        async with collecting(settings, exchange), theirs.watching():
            await eventually(theirs.everything, "a book and ten trades of each symbol from ccxt")

            async def ours() -> bool:
                return set(symbols) <= set(await shown.newest("orderbook"))

            await eventually(ours, "our books")
            await asyncio.sleep(3)
            simulator.turn()
            simulator.paused = True
            # What waited for its cadence goes out now.
            simulator.turn()

            async def equal() -> bool:
                return not await differences(theirs, shown, simulator, symbols)

            with contextlib.suppress(AssertionError):
                await eventually(equal, "equal books")
            assert await differences(theirs, shown, simulator, symbols) == []
            await same_trades(theirs, shown, symbols)
        await shown.close()


class Theirs:
    """What ccxt says: its books, and its trades by symbol and id."""

    def __init__(self, client: Any, symbols: tuple[str, ...]) -> None:
        self._client = client
        self._symbols = symbols
        self.books: dict[str, Any] = {}
        self.trades: dict[str, dict[str, Any]] = {symbol: {} for symbol in symbols}

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """What breaks a watch breaks the test."""
        tasks = [
            asyncio.create_task(watch(symbol))
            for symbol in self._symbols
            for watch in (self._watch_book, self._watch_trades)
        ]
        try:
            yield
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def everything(self) -> bool:
        return set(self.books) == set(self._symbols) and all(len(found) >= 10 for found in self.trades.values())

    def levels(self, symbol: str) -> tuple[Levels, Levels]:
        """Bids and asks, best first, in the venue's native units."""
        book = self.books[symbol]
        return tuple(
            [(Decimal(str(price)), Decimal(str(size))) for price, size, *_ in book[side][:DEPTH]]
            for side in ("bids", "asks")
        )  # type: ignore[return-value]

    async def _watch_book(self, symbol: str) -> None:
        stale = 0
        while True:
            try:
                self.books[symbol] = await self._client.watch_order_book(UNIFIED[symbol])
            except ccxt.ChecksumError:
                # The REST snapshot was older than the first change that came: ccxt says so and wants to be asked again.
                stale += 1
                assert stale < MOST_STALE

    async def _watch_trades(self, symbol: str) -> None:
        while True:
            for trade in await self._client.watch_trades(UNIFIED[symbol]):
                self.trades[symbol][trade["id"]] = trade


async def differences(theirs: Theirs, shown: Shown, simulator: Simulator, symbols: tuple[str, ...]) -> list[str]:
    """Each book of theirs and of ours that is not, level by level, what the exchange has."""
    ours, true = await shown.newest("orderbook"), simulator.dialect.books(DEPTH)
    faults = []
    for symbol in symbols:
        listing = simulator.market.pits[symbol].listing
        book = true[simulator.dialect.instrument(symbol)]
        if fault := book_fault(symbol, listing, {"bids": book.bids, "asks": book.asks}, ours[symbol]):
            faults.append(f"ours: {symbol} {fault.reason}")
        for side, found, expected in zip(("bids", "asks"), theirs.levels(symbol), (book.bids, book.asks), strict=True):
            if found != [(Decimal(price), Decimal(size)) for price, size in expected]:
                faults.append(f"theirs: {symbol} {side} {found}, not {expected}")
    return faults


async def same_trades(theirs: Theirs, shown: Shown, symbols: tuple[str, ...]) -> None:
    """Every trade they saw since both were there is ours as well, and says the same."""
    ours = {(record["symbol"], record["sequence"]): record for record in await shown.all("trade")}
    for symbol in symbols:
        market = theirs._client.market(UNIFIED[symbol])
        begun = min(sequence for name, sequence in ours if name == symbol)
        compared = 0
        for identity, trade in theirs.trades[symbol].items():
            # OKX's default channel merges fills of one order at one price; the id is that of the last.
            last, fills = int(identity), int(trade["info"].get("count") or 1)
            if last - fills + 1 <= begun:
                continue
            records = [ours[symbol, sequence] for sequence in range(last - fills + 1, last + 1)]
            natives = [record["contracts"] if market["contract"] else record["size"] for record in records]
            assert sum(map(Decimal, natives)) == Decimal(str(trade["amount"]))
            assert {Decimal(record["price"]) for record in records} == {Decimal(str(trade["price"]))}
            assert {record["side"] for record in records} == {trade["side"]}
            assert {record["time"] for record in records} == {trade["timestamp"] * 1_000_000}
            compared += 1
        assert compared >= 10
