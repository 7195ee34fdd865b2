"""Our own ingest and normalize in one event loop, against a simulated exchange: for tests beside other clients too."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis.asyncio

import ingest.main
import normalize.main
from ingest.timing import Timing
from pipeline.exchanges import EXCHANGES
from pipeline.settings import ExchangeSettings, RedisSettings, Settings, SettingsFile, TradingPair, complete
from simulator.server import Simulator

DEADLINE = 90.0
PAGE = 5_000
"""Entries read of a stream at a time: a busy machine takes seconds for hundreds of thousands."""
DEPTH = 20


def settings_for(
    folder: Path,
    redis_url: str,
    simulator: Simulator,
    exchange: str,
    symbols: Sequence[str],
    kinds: tuple[str, ...] | None = None,
) -> Settings:
    """These kinds (every one without) of the symbols, from the simulator, in namespace `sim`."""
    kinds = kinds or EXCHANGES[exchange].kinds
    pairs = tuple(TradingPair(symbol=symbol, data_types=kinds) for symbol in symbols)
    collected = ExchangeSettings(trading_pairs=pairs, ws_url=simulator.ws_url, rest_url=simulator.rest_url)
    file = SettingsFile(exchanges={exchange: collected}, redis=RedisSettings(namespace="sim"), simulated=True)
    return msgspec.structs.replace(complete(file, folder / "settings.json", {}), redis_url=redis_url)


@contextlib.asynccontextmanager
async def collecting(settings: Settings, exchange: str, timing: Timing | None = None) -> AsyncIterator[None]:
    """Both stages run until the context ends; what breaks them breaks the test."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(ingest.main.run(settings, f"ingest-{exchange}", stop, timing))
        group.create_task(normalize.main.run(settings, f"normalize-{exchange}", stop))
        try:
            yield
        finally:
            stop.set()


class Shown:
    """What our streams of one exchange say."""

    def __init__(self, redis_url: str, exchange: str) -> None:
        self._client = redis.asyncio.from_url(redis_url)
        self._tag = "{" + exchange + "}"

    async def newest(self, kind: str) -> dict[str, dict[str, Any]]:
        """Symbol to its newest record."""
        found = await self._client.hgetall(f"sim:last:{kind}:{self._tag}")
        records = map(json.loads, found.values())
        return {record["symbol"]: record for record in records}

    async def all(self, kind: str) -> list[dict[str, Any]]:
        """Every record on the stream."""
        records: list[dict[str, Any]] = []
        after = b"-"
        while entries := await self._client.xrange(f"sim:{kind}:{self._tag}", after, count=PAGE):
            records += [json.loads(fields[b"data"]) for _, fields in entries if b"symbol" in fields]
            after = b"(" + entries[-1][0]
        return records

    async def count(self, kind: str) -> int:
        """How many entries there are, without reading them: of trades, control records too."""
        found: int = await self._client.xlen(f"sim:{kind}:{self._tag}")
        return found

    async def wanted(self) -> int:
        """How often normalize has wanted something of ingest so far."""
        found: int = (
            (await self._client.xinfo_stream(f"sim:request:{self._tag}"))["entries-added"]
            if (await self._client.exists(f"sim:request:{self._tag}"))
            else 0
        )
        return found

    async def close(self) -> None:
        await self._client.aclose()


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Returns once the condition holds; fails when it never does."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited {DEADLINE:g} s in vain for {what}") from None
