"""Raw clients and a clock for the simulator's tests. Per exchange, for the contract suite: `venues`."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from simulator.server import Simulator

PATIENCE = 10.0
START = 1_790_000_000_123_456_789
SECOND = 1_000_000_000


class Clock:
    """Time that moves when told to."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


class Client:
    """One WebSocket connection to the simulator."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def send(self, message: object) -> None:
        await self.ws.send(message if isinstance(message, str) else json.dumps(message))

    async def text(self) -> str:
        """The next frame as it came."""
        async with asyncio.timeout(PATIENCE):
            text = await self.ws.recv()
        assert isinstance(text, str)
        return text

    async def take(self) -> dict[str, Any]:
        """The next frame, decoded."""
        answer: dict[str, Any] = json.loads(await self.text())
        return answer

    async def subscribe(self, *instruments: str, channel: str = "trades-all", op: str = "subscribe") -> None:
        args = [{"channel": channel, "instId": instrument} for instrument in instruments]
        await self.send({"op": op, "args": args})

    async def subscribed(self, *instruments: str, channel: str = "trades-all") -> list[str]:
        """Subscribe, take the acks and the replayed last trades; gives the ids replayed."""
        await self.subscribe(*instruments, channel=channel)
        ids = []
        for instrument in instruments:
            assert (await self.take())["arg"] == {"channel": channel, "instId": instrument}
            ids.append((await self.take())["data"][0]["tradeId"])
        return ids

    async def fence(self) -> list[str]:
        """Every frame sent before the answer to a ping of now."""
        await self.send("ping")
        frames = []
        while (text := await self.text()) != "pong":
            frames.append(text)
        return frames

    async def drained(self) -> int | None:
        """Read whatever is left; the close code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.text()
        return self.ws.close_code

    async def closed(self) -> int | None:
        """The close code, once the server has ended the connection."""
        async with asyncio.timeout(PATIENCE):
            await self.ws.wait_closed()
        return self.ws.close_code


@contextlib.asynccontextmanager
async def client(simulator: Simulator, path: str = "business", **options: Any) -> AsyncIterator[Client]:
    # It would give up a simulator on a machine so busy that an answer takes 20 s.
    options = {"ping_interval": None, **options}
    async with connect(f"{simulator.ws_url}/{path}", compression=None, close_timeout=1, **options) as ws:
        yield Client(ws)


def trades(frames: list[str]) -> list[dict[str, Any]]:
    """The rows of the data frames among these, in order."""
    decoded = [json.loads(frame) for frame in frames]
    return [row for frame in decoded for row in frame.get("data", [])]


async def get(simulator: Simulator, path: str, **query: object) -> tuple[int, dict[str, Any]]:
    """GET /api/v5/`path`: (HTTP status, body)."""
    params = {name: str(value) for name, value in query.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{simulator.rest_url}/api/v5/{path}", params=params) as answer,
    ):
        return answer.status, await answer.json()


async def until(met: Callable[[], bool]) -> None:
    """Wait until `met`, at most PATIENCE."""
    async with asyncio.timeout(PATIENCE):
        while not met():
            await asyncio.sleep(0.01)
