"""A seeded raw stream as ingest would write it: OKX trades with duplicates, holes, reordering, cuts, a second
connection, a new writer and broken frames, and what is fetched of them again (pages.py); beside them, of OKX or
Binance, what bookfeed.py sends. Written from the protocol reference."""

import json
import random
from collections.abc import Iterator

import msgspec

from pipeline.frames import ClockData, CloseData, Frame, OpenData, RawEntry, SubscriptionData, pack, split
from pipeline.steps import Command
from pipeline.timeframes import TIMEFRAMES
from tests.integration.bookfeed import DIALECTS, BookFeed

START = 1_800_000_000_000_000_000
URL = "wss://ws.okx.com/ws/v5/business"
REST = "https://openapi.okx.com"
CHANNEL = "trades-all"
MILLISECOND = 1_000_000
OFFSET = 3 * MILLISECOND

INSTRUMENTS = (
    {"instType": "SPOT", "instId": "BTC-USDT", "baseCcy": "BTC", "quoteCcy": "USDT", "state": "live"},
    {
        "instType": "SWAP",
        "instId": "BTC-USDT-SWAP",
        "settleCcy": "USDT",
        "instFamily": "BTC-USDT",
        "uly": "BTC-USDT",
        "ctVal": "0.01",
        "ctMult": "1",
        "ctValCcy": "BTC",
        "ctType": "linear",
        "state": "live",
    },
    {
        "instType": "SWAP",
        "instId": "BTC-USD-SWAP",
        "settleCcy": "BTC",
        "instFamily": "BTC-USD",
        "uly": "BTC-USD",
        "ctVal": "100",
        "ctMult": "1",
        "ctValCcy": "USD",
        "ctType": "inverse",
        "state": "live",
    },
)
EMPTY = ("settleCcy", "uly", "instFamily", "ctVal", "ctMult", "ctValCcy", "ctType", "expTime", "baseCcy", "quoteCcy")


OKX_LISTS = [
    (
        f"{REST}/api/v5/public/instruments?instType={kind}",
        json.dumps(
            {
                "code": "0",
                "msg": "",
                "data": [{**dict.fromkeys(EMPTY, ""), **row} for row in INSTRUMENTS if row["instType"] == kind],
            }
        ),
    )
    for kind in ("SPOT", "SWAP")
]
BINANCE_LISTS = [
    (
        "https://api.binance.com/api/v3/exchangeInfo",
        json.dumps(
            {
                "symbols": [
                    {"symbol": f"{base}USDT", "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT"}
                    for base in ("BTC", "ETH")
                ]
            }
        ),
    )
]


class Writer:
    """Frames in order of time, as one ingest process after another would write them."""

    def __init__(self, seed: int, exchange: str = "okx") -> None:
        self.random = random.Random(seed)
        self.losses = random.Random(seed)
        self.lists = BINANCE_LISTS if exchange == "binance" else OKX_LISTS
        self.now = START
        self.frames: list[Frame] = []
        self.entries: list[RawEntry] = []
        self.writer, self.number = START, 0
        self.connections: dict[str, int] = {}
        self.ids = {str(instrument["instId"]): 1_000 for instrument in INSTRUMENTS}
        self.opened = 0
        self.next_clock = START
        self.late: list[tuple[int, str]] = []
        """(host time at which it comes, text) of frames that are seconds late, as a repair would be."""
        names = ["BTCUSDT", "ETHUSDT"] if exchange == "binance" else list(self.ids)
        self.feed = BookFeed(DIALECTS[exchange], self, names, seed)

    def add(self, connection: str, kind: str, data: str, url: str | None = None, key: str | None = None) -> None:
        self.frames.append(Frame(ts=self.now, conn=connection, dir="in", kind=kind, data=data, url=url, key=key))  # type: ignore[arg-type]
        if kind in ("ws", "open"):
            self.connections[connection] = self.now

    def flush(self) -> None:
        written = []
        for group in split(self.frames):
            self.number += 1
            if self.losses.random() > 0.001:
                written.append(RawEntry(w=self.writer, n=self.number, frames=group))
        self.entries += written
        self.frames = []
        self.feed.wrote(written)

    def advance(self, milliseconds: int) -> None:
        until = self.now + milliseconds * MILLISECOND
        while (event := min(self.next_clock, self.feed.next_event())) <= until:
            self.now = max(self.now, event)
            if self.next_clock <= self.now:
                self.clock()
            self.feed.act()
        self.now = until

    def clock(self) -> None:
        data = ClockData(connections=dict(self.connections), offset=OFFSET, uncertainty=MILLISECOND)
        self.add("clock", "clock", msgspec.json.encode(data).decode())
        self.flush()
        self.next_clock += 250 * MILLISECOND

    def instruments(self) -> None:
        for url, body in self.lists:
            self.add(url.partition("/api")[0], "rest", body, url)

    def open(self) -> str:
        self.opened += 1
        connection = f"{URL}#{self.opened}"
        self.add(connection, "open", msgspec.json.encode(OpenData(url=URL)).decode())
        for instrument in self.ids:
            data = SubscriptionData(
                channel=CHANNEL, instrument=instrument, state="subscribed", timeframes=TIMEFRAMES, quiet_from="1m"
            )
            self.add(connection, "subscription", msgspec.json.encode(data).decode())
        return connection

    def close(self, connection: str, reason: str = "cut") -> None:
        self.connections.pop(connection, None)
        self.add(connection, "close", msgspec.json.encode(CloseData(reason=reason)).decode())

    def trade(self, instrument: str, number: int | None = None, time: int | None = None) -> str:
        """The text of one trade frame; without a number the next one is printed."""
        if number is None:
            self.ids[instrument] += 1
            number = self.ids[instrument]
        milliseconds = (time or self.now + OFFSET) // MILLISECOND
        row = {
            "instId": instrument,
            "tradeId": str(number),
            "px": f"{60_000 + number % 97}.{number % 10}",
            "sz": str(1 + number % 5) if "SWAP" in instrument else f"0.{1 + number % 89:04d}",
            "side": "buy" if number % 3 else "sell",
            "source": "0",
            "ts": str(milliseconds),
        }
        self.feed.pages.printed.setdefault(instrument, {})[number] = row
        return json.dumps({"arg": {"channel": CHANNEL, "instId": instrument}, "data": [row]})


def raw_stream(seed: int, seconds: int) -> list[RawEntry]:
    """The entries of `seconds` of OKX's market, faults included, the same for a seed."""
    writer = Writer(seed)
    writer.instruments()
    live = [writer.open()]
    chance = writer.random.random
    while writer.now < START + seconds * 1_000 * MILLISECOND:
        writer.advance(writer.random.choice((3, 10, 40, 40, 90)))
        instrument = writer.random.choice(list(writer.ids))
        if not live:
            writer.trade(instrument)
            if chance() < 0.05:
                live.append(writer.open())
            continue
        text = writer.trade(instrument)
        while writer.late and writer.late[0][0] <= writer.now:
            writer.add(live[0], "ws", writer.late.pop(0)[1])
        for connection in live:
            for frame in _disturbed(writer, instrument, text):
                writer.add(connection, "ws", frame)
        if chance() < 0.003:
            writer.close(live.pop())
        elif chance() < 0.003:
            live.append(writer.open())
        elif chance() < 0.001:
            _new_writer(writer, live)
        if chance() < 0.3:
            writer.flush()
    writer.advance(3_000)
    writer.flush()
    return writer.entries


def book_stream(seed: int, seconds: int, exchange: str) -> list[RawEntry]:
    """The same without trades: order books, best offers, tickers and bars of any venue that bookfeed.py speaks."""
    return book_writer(seed, seconds, exchange).entries


def book_writer(seed: int, seconds: int, exchange: str) -> Writer:
    """Who wrote book_stream; it knows the true books."""
    writer = Writer(seed, exchange)
    writer.instruments()
    while writer.now < START + seconds * 1_000 * MILLISECOND:
        writer.advance(writer.random.choice((10, 40, 90)))
        if writer.random.random() < 0.002:
            _new_writer(writer, [])
        if writer.random.random() < 0.3:
            writer.flush()
    writer.advance(3_000)
    writer.flush()
    return writer


def _disturbed(writer: Writer, instrument: str, text: str) -> Iterator[str]:
    chance = writer.random.random()
    if chance < 0.01:
        if chance < 0.007:
            writer.late.append((writer.now + 4_000 * MILLISECOND, text))
        return
    if chance < 0.02:
        yield writer.trade(instrument)
        yield text
        return
    yield text
    if chance < 0.04:
        yield text
    elif chance < 0.045:
        yield text[: len(text) // 2]
    elif chance < 0.05:
        yield text.replace('"px": "6', '"px": "six')


def _new_writer(writer: Writer, live: list[str]) -> None:
    """ingest was killed: no close, its frames since the last entry are lost, the next one begins at n = 1."""
    writer.frames = []
    live.clear()
    writer.feed.killed()
    writer.connections = {}
    writer.writer, writer.number = writer.now, 0
    writer.instruments()


def commands(stream: str, entries: list[RawEntry]) -> list[Command]:
    """XADDs with ids of our own, so that two runs differ in nothing."""
    found: list[Command] = []
    for number, entry in enumerate(entries, start=1):
        fields = [part for pair in pack(entry).items() for part in pair]
        found.append(("XADD", stream, f"{number}-1", *fields))
    return found
