"""A small Binance on loopback whose every answer the test decides: what no faithful simulator does on demand."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import WSMsgType, web

SPOT = (("BTCUSDT", "BTC", "USDT"), ("ETHUSDT", "ETH", "USDT"), ("ETHBTC", "ETH", "BTC"))


def line(symbol: str, base: str, quote: str, status: str = "TRADING") -> dict[str, Any]:
    """One line of the list of symbols."""
    return {"symbol": symbol, "status": status, "baseAsset": base, "quoteAsset": quote, "filters": []}


class Stand:
    """`lines` is the list; `answers` are given first, (status, headers, body) each, before the true ones; while `shut`
    is set REST says 503. `asked` are the REST requests that came, `said` the frames of each connection, in order."""

    def __init__(self) -> None:
        self.lines = [line(*each) for each in SPOT]
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.shut = False
        self.asked: list[str] = []
        self.at: list[int] = []
        """Monotonic ns of each of `asked`."""
        self.said: list[list[dict[str, Any]]] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.slow = asyncio.Event()
        """REST snapshots wait until it is set."""
        self.slow.set()
        self.mute = False
        """Whether requests on sockets stay unanswered."""
        self.weight = 0
        self.refusal: tuple[int, dict[str, str], str] | None = None
        """What every REST request is told while it is set."""
        self.lies = 0
        """How many more times it tells a time that is an hour ahead."""
        self.ws_url = self.rest_url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Stand"]:
        app = web.Application()
        app.router.add_get("/stream", self._socket)
        app.router.add_get("/api/v3/{name}", self._rest)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            self.ws_url, self.rest_url = f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}"
            yield self
        finally:
            self.slow.set()
            for socket in self.sockets:
                await socket.close()
            await runner.cleanup()

    @property
    def snapshots(self) -> list[str]:
        """Symbols of which the order book was asked for."""
        return [path.partition("symbol=")[2].partition("&")[0] for path in self.asked if "/depth" in path]

    def streams(self, number: int) -> set[str]:
        """What the `number`-th connection (from 1) is subscribed to."""
        wanted: set[str] = set()
        for request in self.said[number - 1]:
            if request["method"] == "SUBSCRIBE":
                wanted |= set(request["params"])
            else:
                wanted -= set(request["params"])
        return wanted

    async def push(self, stream: str, data: dict[str, Any] | None = None) -> None:
        """Sends a data frame on every open connection that asked for it."""
        for number, socket in enumerate(self.sockets, start=1):
            if not socket.closed and stream in self.streams(number):
                await socket.send_str(f'{{"stream":"{stream}","data":{json.dumps(data or {})}}}')

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        said: list[dict[str, Any]] = []
        self.said.append(said)
        self.sockets.append(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT and not self.mute:
                asked = json.loads(message.data)
                said.append(asked)
                await socket.send_str(f'{{"result":null,"id":{json.dumps(asked["id"])}}}')
        return socket

    async def _rest(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        self.at.append(time.monotonic_ns())
        name = request.match_info["name"]
        self.weight += {"exchangeInfo": 20, "depth": 50}.get(name, 1)
        headers = {"X-MBX-USED-WEIGHT-1M": str(self.weight)}
        if self.shut:
            return web.Response(status=503, text="<html>closed</html>")
        if self.refusal is not None:
            status, more, body = self.refusal
            return web.Response(status=status, text=body, headers=headers | more)
        if name == "depth":
            await self.slow.wait()
            if self.answers:
                status, more, body = self.answers.pop(0)
                return web.Response(status=status, text=body, headers=headers | more)
        return web.json_response(self._body(name, request), headers=headers)

    def _body(self, name: str, request: web.Request) -> dict[str, Any]:
        if name == "exchangeInfo":
            return {"timezone": "UTC", "symbols": self.lines}
        if name == "depth":
            return {"lastUpdateId": 7, "bids": [["1", "1"]], "asks": [["2", "1"]], "symbol": request.query["symbol"]}
        lie, self.lies = self.lies > 0, max(0, self.lies - 1)
        return {"serverTime": time.time_ns() // 1_000_000 + lie * 3_600_000}
