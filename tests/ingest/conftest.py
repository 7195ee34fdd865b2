"""What the tests of ingest share: settings for a simulator and a Redis, short intervals, the raw stream read back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import redis.asyncio

from ingest.timing import MILLISECOND, Timing
from pipeline.frames import Frame, RawEntry, unpack
from pipeline.settings import ExchangeSettings, RedisSettings, Settings, SettingsFile, TradingPair, complete

DEADLINE = 20.0

QUICK = Timing(
    tick=50 * MILLISECOND,
    redis_pause=100 * MILLISECOND,
    silence=200 * MILLISECOND,
    patience=300 * MILLISECOND,
    first_delay=50 * MILLISECOND,
    most_delay=200 * MILLISECOND,
    stable=100 * MILLISECOND,
    overlap=500 * MILLISECOND,
    behind=50 * MILLISECOND,
    farewell=200 * MILLISECOND,
    rest_retry=100 * MILLISECOND,
)
"""Short pauses, but all the patience of the real ones: a busy machine is not taken for a dead peer."""

HASTY = msgspec.structs.replace(QUICK, redis_timeout=500 * MILLISECOND, deadline=400 * MILLISECOND)
"""For tests in which a peer is dead, and which claim nothing of how often one was taken for it."""


def settings_for(
    folder: Path,
    redis_url: str,
    ws_url: str,
    rest_url: str,
    symbols: tuple[str | TradingPair, ...],
    partitions: int = 1,
    name: str = "okx",
) -> Settings:
    """Settings of a simulated instance in `folder`."""
    exchange = ExchangeSettings(
        trading_pairs=tuple(each if isinstance(each, TradingPair) else TradingPair(symbol=each) for each in symbols),
        ws_url=ws_url,
        rest_url=rest_url,
        partitions=partitions,
    )
    file = SettingsFile(exchanges={name: exchange}, redis=RedisSettings(namespace="sim"), simulated=True)
    settings = complete(file, folder / "settings.json", {})
    return msgspec.structs.replace(settings, redis_url=redis_url)


async def read_raw(url: str, partition: str = "okx", after: bytes | None = None) -> list[RawEntry]:
    """The whole raw stream, or what came after an entry id."""
    async with redis.asyncio.from_url(url) as client:
        start = b"(" + after if after else b"-"
        return [unpack(fields) for _, fields in await client.xrange(f"sim:raw:{{{partition}}}", start)]


async def newest_id(url: str, partition: str = "okx") -> bytes | None:
    """Id of the newest entry of the raw stream."""
    async with redis.asyncio.from_url(url) as client:
        newest = await client.xrevrange(f"sim:raw:{{{partition}}}", count=1)
        return newest[0][0] if newest else None


def frames_of(entries: list[RawEntry]) -> list[Frame]:
    return [frame for entry in entries for frame in entry.frames]


class MuteServer:
    """A TCP server that accepts, reads and never answers. `accepted` is set by the first connection."""

    def __init__(self) -> None:
        self.accepted = asyncio.Event()
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["MuteServer"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.accepted.set()
        with contextlib.suppress(OSError):
            await reader.read(-1)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once the condition holds; fails when it never does."""
    async with asyncio.timeout(DEADLINE):
        while not await condition():
            await asyncio.sleep(0.02)
