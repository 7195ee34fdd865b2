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


class BinanceBook(Book):
    """Events wait until a snapshot joins them: the first one kept has U <= lastUpdateId + 1 <= u; each next one
    U <= last u + 1, and what is older is passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[dict[str, Any]] = []

    def take(self, event: dict[str, Any]) -> None:
        if self.number is None or self.broken:
            self.waiting.append(event)
        elif event["U"] > self.number + 1:
            self.broken = f"{event['U']} does not follow {self.number}"
            self.waiting = [event]
        elif event["u"] > self.number:
            self.apply(event["u"], event["b"], event["a"])

    def join(self, snapshot: dict[str, Any]) -> bool:
        """Take a snapshot and what waited for it; False: it is older than the first event, ask again."""
        if not self.waiting or snapshot["lastUpdateId"] + 1 < self.waiting[0]["U"]:
            return False
        waiting, self.waiting = self.waiting, []
        self.replace(snapshot["lastUpdateId"], snapshot["bids"], snapshot["asks"])
        for event in waiting:
            self.take(event)
        return True


class BinanceVenue(Venue):
    instrument = "BTCUSDT"
    channels = {  # noqa: RUF012
        "trade": "trade",
        "orderbook": "depth@100ms",
        "quote": "bookTicker",
        "ticker": "ticker",
        "kline": "kline_1s",
    }

    @contextlib.asynccontextmanager
    async def connect(self, simulator: Simulator, kind: Kind, **options: Any) -> AsyncIterator[Client]:
        async with connect(f"{simulator.ws_url}/stream", compression=None, close_timeout=1, **options) as ws:
            yield Client(ws)

    async def subscribe(self, client: Client, kind: Kind, instrument: str | None = None) -> list[str]:
        """The acknowledgement may come after the first data; nothing is sent again."""
        stream = f"{(instrument or self.instrument).lower()}@{self.channels[kind]}"
        frames = await self._request(client, "SUBSCRIBE", [stream], None)
        assert all(json.loads(frame)["stream"] == stream for frame in frames)
        return frames

    async def unsubscribe(self, client: Client, kind: Kind) -> None:
        await self._request(client, "UNSUBSCRIBE", [f"{self.instrument.lower()}@{self.channels[kind]}"], None)

    async def refused(self, client: Client) -> None:
        """What does not exist is acknowledged; what is no request is not."""
        await self._request(client, "SUBSCRIBE", ["nosuch@trade"], None)
        await self._request(client, "LIST_SUBSCRIPTIONS", [], ["nosuch@trade"])
        await client.send({"method": "SUBSCRIB", "params": [], "id": 9})
        error = await client.take()
        assert (error["code"], error["id"]) == (2, 9)
        assert error["msg"].startswith("Invalid request: unknown variant SUBSCRIB, expected one of `SUBSCRIBE`")

    async def fence(self, client: Client) -> list[str]:
        await client.send({"method": "GET_PROPERTY", "params": ["combined"], "id": "fence"})
        return await _until(client, {"result": True, "id": "fence"})

    def trades(self, frames: list[str]) -> list[Trade]:
        return [
            Trade(row["t"], Decimal(row["p"]), Decimal(row["q"]), "sell" if row["m"] else "buy", row["T"])
            for row in _data(frames)
        ]

    def quotes(self, frames: list[str]) -> list[Quote]:
        return [_quote((row["b"], row["B"]), (row["a"], row["A"])) for row in _data(frames)]

    def tickers(self, frames: list[str]) -> list[Ticker]:
        return [
            Ticker(
                Decimal(row["c"]),
                _quote((row["b"], row["B"]), (row["a"], row["A"])),
                *(Decimal(row[name]) for name in "ohlvq"),
            )
            for row in _data(frames)
        ]

    def bars(self, frames: list[str]) -> list[Bar]:
        rows = [row["k"] for row in _data(frames)]
        assert all((row["n"] == 0) == (row["f"] == row["L"] == -1) for row in rows)
        return [_binance_bar(row) for row in rows]

    async def start_book(self, simulator: Simulator, client: Client, clock: Clock) -> Book:
        book = BinanceBook()
        await self.subscribe(client, "orderbook")
        await self.resync(simulator, client, clock, book)
        return book

    def follow(self, book: Book, frames: list[str]) -> None:
        assert isinstance(book, BinanceBook)
        for event in _data(frames):
            book.take(event)

    async def resync(self, simulator: Simulator, client: Client, clock: Clock, book: Book) -> None:
        """Go on collecting events until REST has caught up with the first of them."""
        assert isinstance(book, BinanceBook)
        for _ in range(20):
            simulator.stir(self.instrument, 5)
            clock.pass_(0.1)
            simulator.turn()
            self.follow(book, await self.fence(client))
            if book.join(await self._get(simulator, f"depth?symbol={self.instrument}&limit=5000")):
                return
        raise AssertionError("no snapshot joined")

    async def instruments(self, simulator: Simulator) -> set[str]:
        return {row["symbol"] for row in (await self._get(simulator, "exchangeInfo"))["symbols"]}

    async def snapshot(self, simulator: Simulator) -> tuple[int, Levels, Levels]:
        body = await self._get(simulator, f"depth?symbol={self.instrument}&limit=1000")
        return body["lastUpdateId"], _levels(body["bids"]), _levels(body["asks"])

    async def history(self, simulator: Simulator) -> list[Trade]:
        walked: list[Trade] = []
        first = 0
        while page := await self._get(simulator, f"historicalTrades?symbol={self.instrument}&limit=100&fromId={first}"):
            for row in page:
                side = "sell" if row["isBuyerMaker"] else "buy"
                walked.append(Trade(row["id"], Decimal(row["price"]), Decimal(row["qty"]), side, row["time"]))
            first = walked[-1].id + 1
        return walked

    async def exhaust(self, simulator: Simulator) -> None:
        """6000 of weight a minute; five more are told to wait, the sixth is banned."""
        path = f"/api/v3/depth?symbol={self.instrument}&limit=5000"
        answers = [await fetch(simulator, path) for _ in range(30)]
        assert [status for status, _, _ in answers] == [200] * 24 + [429] * 5 + [418]
        used = [headers["X-MBX-USED-WEIGHT-1M"] for _, _, headers in answers]
        assert used == [str(250 * number) for number in range(1, 25)] + ["6000"] * 6
        assert all(body["code"] == -1003 and int(headers["Retry-After"]) > 0 for _, body, headers in answers[24:])
        assert answers[-1][2]["Retry-After"] == "120"

    async def keep_alive(self, client: Client) -> None:
        """Pings are answered by the library."""
        assert await self.fence(client) == []

    async def neglect(self, simulator: Simulator, clock: Clock) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{simulator.ws_url}/ws/btcusdt@trade", autoping=False) as ws,
        ):
            clock.pass_(20)
            ping = await ws.receive()
            assert (ping.type, bytes(ping.data)) == (aiohttp.WSMsgType.PING, str(clock.now // 1_000_000).encode())
            clock.pass_(39)
            await ws.pong(b"no such ping")
            assert (await ws.receive()).type is aiohttp.WSMsgType.PING
            clock.pass_(21)
            closed = await ws.receive()
            assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "Pong timeout")

    async def _request(self, client: Client, method: str, params: list[str], result: object) -> list[str]:
        """Send it and wait for its acknowledgement (asserted); the data frames that came before."""
        await client.send({"method": method, "params": params, "id": 7})
        return await _until(client, {"result": result, "id": 7})

    async def _get(self, simulator: Simulator, path: str) -> Any:
        status, body, _ = await fetch(simulator, f"/api/v3/{path}")
        assert status == 200, body
        return body


VENUES: dict[str, Venue] = {"okx": OkxVenue(), "binance": BinanceVenue()}


async def fetch(simulator: Simulator, path: str) -> tuple[int, Any, dict[str, str]]:
    """GET a path of the exchange's REST: (status, body, headers)."""
    async with aiohttp.ClientSession() as session, session.get(f"{simulator.rest_url}{path}") as answer:
        return answer.status, await answer.json(), dict(answer.headers)


def _rows(frames: list[str]) -> list[Any]:
    return [row for frame in frames for row in json.loads(frame)["data"]]


def _data(frames: list[str]) -> list[Any]:
    return [json.loads(frame)["data"] for frame in frames]


def _binance_bar(row: dict[str, Any]) -> Bar:
    opened, high, low, close, volume, quote_volume = (Decimal(row[name]) for name in "ohlcvq")
    return Bar(row["t"], opened, high, low, close, volume, quote_volume, row["x"])


async def _until(client: Client, answer: dict[str, object]) -> list[str]:
    """The data frames that came before this answer; no other answer may come."""
    frames = []
    while not (text := await client.text()).startswith('{"result"'):
        assert text.startswith('{"stream"'), text
        frames.append(text)
    assert json.loads(text) == answer
    return frames


def _okx_trade(row: dict[str, str]) -> Trade:
    return Trade(int(row["tradeId"]), Decimal(row["px"]), Decimal(row["sz"]), row["side"], int(row["ts"]))


def _okx_bar(row: list[str]) -> Bar:
    opened, high, low, close, volume, quote_volume = (Decimal(row[place]) for place in (1, 2, 3, 4, 5, 7))
    return Bar(int(row[0]), opened, high, low, close, volume, quote_volume, row[8] == "1")


def _quote(bid: Any, ask: Any) -> Quote:
    return Quote(*(Decimal(number) for number in (*bid[:2], *ask[:2])))


def _levels(levels: list[list[str]]) -> Levels:
    return [(Decimal(price), Decimal(size)) for price, size, *_ in levels]
