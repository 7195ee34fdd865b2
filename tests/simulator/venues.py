"""One small client per exchange for the contract suite: how it asks, what it reads, how it follows a book.

Written from the exchanges' documentation; it shares no code with the product or with the simulator's dialects.
"""

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import aiohttp
from websockets.asyncio.client import connect

from simulator.server import Simulator
from tests.simulator.clients import Client, Clock

Kind = Literal["trade", "orderbook", "quote", "ticker", "kline"]
KINDS: tuple[Kind, ...] = ("trade", "orderbook", "quote", "ticker", "kline")
Levels = list[tuple[Decimal, Decimal]]


class Trade(NamedTuple):
    id: int
    price: Decimal
    size: Decimal
    side: str
    ms: int


class Quote(NamedTuple):
    bid: Decimal
    bid_size: Decimal
    ask: Decimal
    ask_size: Decimal


class Ticker(NamedTuple):
    last: Decimal
    quote: Quote
    open: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    quote_volume: Decimal


class Bar(NamedTuple):
    """A bar of one second; `ms` is its opening."""

    ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    closed: bool


class Book:
    """A book kept by the exchange's documented rule. `number` is its number now; `broken` says why it is not whole."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.broken: str | None = None
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}

    def replace(self, number: int, bids: list[list[str]], asks: list[list[str]]) -> None:
        self.bids.clear()
        self.asks.clear()
        self.broken = None
        self.apply(number, bids, asks)

    def apply(self, number: int, bids: list[list[str]], asks: list[list[str]]) -> None:
        """Absolute sizes; 0 takes a level away."""
        self.number = number
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, size, *_ in levels:
                if Decimal(size):
                    side[Decimal(price)] = Decimal(size)
                else:
                    side.pop(Decimal(price), None)

    @property
    def sides(self) -> tuple[Levels, Levels]:
        """Bids and asks, best first."""
        return sorted(self.bids.items(), reverse=True), sorted(self.asks.items())


class Venue(ABC):
    """What the contract suite asks of one exchange's client. `instrument` is a spot pair that is listed."""

    instrument: str
    channels: dict[Kind, str]
    """The simulator's name of each kind's channel, as faults name it."""

    @abstractmethod
    def connect(
        self, simulator: Simulator, kind: Kind, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[Client]:
        """A connection that serves this kind."""

    @abstractmethod
    async def subscribe(self, client: Client, kind: Kind, instrument: str | None = None) -> list[str]:
        """Subscribe and wait for the acknowledgement (asserted); the data frames that came with it."""

    @abstractmethod
    async def unsubscribe(self, client: Client, kind: Kind) -> None:
        """Unsubscribe and wait for the acknowledgement (asserted)."""

    @abstractmethod
    async def refused(self, client: Client) -> None:
        """Ask for what there is not, and assert the documented refusal."""

    @abstractmethod
    async def fence(self, client: Client) -> list[str]:
        """Every data frame sent before now."""

    @abstractmethod
    def trades(self, frames: list[str]) -> list[Trade]: ...

    @abstractmethod
    def quotes(self, frames: list[str]) -> list[Quote]: ...

    @abstractmethod
    def tickers(self, frames: list[str]) -> list[Ticker]: ...

    @abstractmethod
    def bars(self, frames: list[str]) -> list[Bar]: ...

    @abstractmethod
    async def start_book(self, simulator: Simulator, client: Client, clock: Clock) -> Book:
        """Subscribe and take the snapshot, wherever it comes from. What came meanwhile may be applied later."""

    @abstractmethod
    def follow(self, book: Book, frames: list[str]) -> None:
        """Apply frames by the documented rule; a break of the chain sets `broken`."""

    @abstractmethod
    async def resync(self, simulator: Simulator, client: Client, clock: Clock, book: Book) -> None:
        """What the documentation says to do about a broken chain."""

    @abstractmethod
    async def instruments(self, simulator: Simulator) -> set[str]:
        """Every instrument, by REST."""

    @abstractmethod
    async def snapshot(self, simulator: Simulator) -> tuple[int, Levels, Levels]:
        """The book by REST: number, bids, asks."""

    @abstractmethod
    async def history(self, simulator: Simulator) -> list[Trade]:
        """Every trade of `instrument`, oldest first, by walking REST's pages to the end."""

    @abstractmethod
    async def exhaust(self, simulator: Simulator) -> None:
        """Ask REST until it refuses (asserted as documented), within one moment of the exchange's time."""

    @abstractmethod
    async def keep_alive(self, client: Client) -> None:
        """What a client has to do at least every 10 s, asserted where it is answered."""

    @abstractmethod
    async def neglect(self, simulator: Simulator, clock: Clock) -> None:
        """Let a connection die for want of keepalive; asserts the documented close code."""


class OkxBook(Book):
    """Rules 1 to 6: prevSeqId must be the last seqId; equal ids are a keepalive, a smaller seqId is a reset."""

    def take(self, frame: dict[str, Any]) -> None:
        for row in frame["data"]:
            number, before = row["seqId"], row["prevSeqId"]
            if frame["action"] == "snapshot":
                assert before == -1
                self.replace(number, row["bids"], row["asks"])
            elif before != self.number:
                self.broken = self.broken or f"{before} does not follow {self.number}"
            elif self.broken is None:
                self.apply(number, row["bids"], row["asks"])
            assert row["checksum"] == 0
            assert all(len(level) == 4 and level[2] == "0" for side in ("bids", "asks") for level in row[side])
            self._trim()

    def _trim(self) -> None:
        bids, asks = self.sides
        self.bids, self.asks = dict(bids[:400]), dict(asks[:400])


class OkxVenue(Venue):
    instrument = "BTC-USDT"
    channels = {  # noqa: RUF012
        "trade": "trades-all",
        "orderbook": "books",
        "quote": "bbo-tbt",
        "ticker": "tickers",
        "kline": "candle1s",
    }

    @contextlib.asynccontextmanager
    async def connect(self, simulator: Simulator, kind: Kind, **options: Any) -> AsyncIterator[Client]:
        path = "business" if kind in ("trade", "kline") else "public"
        async with connect(f"{simulator.ws_url}/{path}", compression=None, close_timeout=1, **options) as ws:
            yield Client(ws)

    async def subscribe(self, client: Client, kind: Kind, instrument: str | None = None) -> list[str]:
        arg = await self._request(client, "subscribe", kind, instrument or self.instrument)
        frames = await self.fence(client)
        assert all(json.loads(frame)["arg"] == arg for frame in frames)
        return frames

    async def unsubscribe(self, client: Client, kind: Kind) -> None:
        await self._request(client, "unsubscribe", kind, self.instrument)

    async def refused(self, client: Client) -> None:
        await client.send({"id": "no1", "op": "subscribe", "args": [{"channel": "trades-all", "instId": "NO-SUCH"}]})
        error = await client.take()
        assert (error["event"], error["id"], error["code"]) == ("error", "no1", "60018")
        assert "channel:trades-all,instId:NO-SUCH" in error["msg"]

    async def fence(self, client: Client) -> list[str]:
        return await client.fence()

    def trades(self, frames: list[str]) -> list[Trade]:
        return [_okx_trade(row) for row in _rows(frames)]

    def quotes(self, frames: list[str]) -> list[Quote]:
        return [_quote(row["bids"][0], row["asks"][0]) for row in _rows(frames)]

    def tickers(self, frames: list[str]) -> list[Ticker]:
        names = ("open24h", "high24h", "low24h", "vol24h", "volCcy24h")
        return [
            Ticker(
                Decimal(row["last"]),
                _quote((row["bidPx"], row["bidSz"]), (row["askPx"], row["askSz"])),
                *(Decimal(row[name]) for name in names),
            )
            for row in _rows(frames)
        ]

    def bars(self, frames: list[str]) -> list[Bar]:
        return [_okx_bar(row) for row in _rows(frames)]

    async def start_book(self, simulator: Simulator, client: Client, clock: Clock) -> Book:
        book = OkxBook()
        self.follow(book, await self.subscribe(client, "orderbook"))
        assert book.number is not None
        return book

    def follow(self, book: Book, frames: list[str]) -> None:
        assert isinstance(book, OkxBook)
        for frame in frames:
            book.take(json.loads(frame))

    async def resync(self, simulator: Simulator, client: Client, clock: Clock, book: Book) -> None:
        await self.unsubscribe(client, "orderbook")
        self.follow(book, await self.subscribe(client, "orderbook"))

    async def instruments(self, simulator: Simulator) -> set[str]:
        found: set[str] = set()
        for kind in ("SPOT", "SWAP", "FUTURES", "OPTION"):
            family = {"instFamily": "BTC-USD"} if kind == "OPTION" else {}
            found |= {
                row["instId"] for row in await self._get(simulator, "public/instruments", instType=kind, **family)
            }
        return found

    async def snapshot(self, simulator: Simulator) -> tuple[int, Levels, Levels]:
        (row,) = await self._get(simulator, "market/books", instId=self.instrument, sz=400)
        return row["seqId"], _levels(row["bids"]), _levels(row["asks"])

    async def history(self, simulator: Simulator) -> list[Trade]:
        walked: list[Trade] = []
        query = {"instId": self.instrument}
        while page := await self._get(simulator, "market/history-trades", **query):
            walked += [_okx_trade(row) for row in page]
            query["after"] = page[-1]["tradeId"]
        return walked[::-1]

    async def exhaust(self, simulator: Simulator) -> None:
        answers = [await fetch(simulator, "/api/v5/market/history-trades?instId=BTC-USDT") for _ in range(21)]
        assert [status for status, _, _ in answers] == [200] * 20 + [429]
        assert answers[-1][1] == {"code": "50011", "msg": "Too Many Requests", "data": []}

    async def keep_alive(self, client: Client) -> None:
        await client.send("ping")
        assert await client.text() == "pong"

    async def neglect(self, simulator: Simulator, clock: Clock) -> None:
        async with self.connect(simulator, "trade") as client:
            await self.subscribe(client, "trade")
            clock.pass_(31)
            assert await client.closed() == 4004

    async def _request(self, client: Client, op: str, kind: Kind, instrument: str) -> dict[str, str]:
        """Send it and wait for its acknowledgement; frames of what was subscribed before may come first."""
        arg = {"channel": self.channels[kind], "instId": instrument}
        await client.send({"id": "r7", "op": op, "args": [arg]})
        while "event" not in (answer := await client.take()):
            continue
        assert (answer["id"], answer["event"], answer["arg"]) == ("r7", op, arg)
        return arg

    async def _get(self, simulator: Simulator, path: str, **query: object) -> list[Any]:
        text = "&".join(f"{name}={value}" for name, value in query.items())
        status, body, _ = await fetch(simulator, f"/api/v5/{path}?{text}")
        assert (status, body["code"]) == (200, "0")
        return list(body["data"])


VENUES: dict[str, Venue] = {"okx": OkxVenue()}


async def fetch(simulator: Simulator, path: str) -> tuple[int, Any, dict[str, str]]:
    """GET a path of the exchange's REST: (status, body, headers)."""
    async with aiohttp.ClientSession() as session, session.get(f"{simulator.rest_url}{path}") as answer:
        return answer.status, await answer.json(), dict(answer.headers)


def _rows(frames: list[str]) -> list[Any]:
    return [row for frame in frames for row in json.loads(frame)["data"]]


def _okx_trade(row: dict[str, str]) -> Trade:
    return Trade(int(row["tradeId"]), Decimal(row["px"]), Decimal(row["sz"]), row["side"], int(row["ts"]))


def _okx_bar(row: list[str]) -> Bar:
    opened, high, low, close, volume, quote_volume = (Decimal(row[place]) for place in (1, 2, 3, 4, 5, 7))
    return Bar(int(row[0]), opened, high, low, close, volume, quote_volume, row[8] == "1")


def _quote(bid: Any, ask: Any) -> Quote:
    return Quote(*(Decimal(number) for number in (*bid[:2], *ask[:2])))


def _levels(levels: list[list[str]]) -> Levels:
    return [(Decimal(price), Decimal(size)) for price, size, *_ in levels]
