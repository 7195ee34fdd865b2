"""Seeded frames of OKX and Binance, as the venues document them: trades one a frame, order books, tickers. Pure.

Written by us; nothing recorded. `raw_frames` makes of them what ingest would put into the raw stream.
https://www.okx.com/docs-v5/en/ ; https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pipeline.frames import ClockData, Frame, FrameKind, OpenData, RawEntry, SubscriptionData, pack, split
from pipeline.steps import Command
from pipeline.timeframes import SECOND, TIMEFRAMES

START = 1_767_268_800 * SECOND
"""2026-01-01 12:00 UTC: where markets begin that have no clock of their own."""
SYMBOLS = 40
PER_SECOND = 5_000
"""Trades a second of the market's own time, of all symbols together: how fast they are worked on is another matter."""
MILLISECOND = 1_000_000
TICK = 250 * MILLISECOND
DELAY = 5 * MILLISECOND
"""From the exchange to us."""
LEVELS = 20

NATIVE = {"okx": "{}-USDT", "binance": "{}USDT"}
URLS = {"okx": "wss://ws.okx.com/ws/v5/business", "binance": "wss://stream.binance.com/stream"}
CHANNELS = {"okx": "trades-all", "binance": "trade"}
LISTS = {
    "okx": "https://openapi.okx.com/api/v5/public/instruments?instType=SPOT",
    "binance": "https://api.binance.com/api/v3/exchangeInfo",
}


def coins(count: int) -> tuple[str, ...]:
    """Names of made-up coins: C000, C001 …."""
    return tuple(f"C{number:03d}" for number in range(count))


def symbols(count: int = SYMBOLS) -> tuple[str, ...]:
    """Canonical symbols of the market."""
    return tuple(f"{coin}-USDT" for coin in coins(count))


class Market:
    """One exchange's spot market: every call of `trade`, `book` or `ticker` gives the next text of a coin."""

    def __init__(self, exchange: str, seed: int = 1, count: int = SYMBOLS) -> None:
        self.exchange = exchange
        self.instruments = tuple(NATIVE[exchange].format(coin) for coin in coins(count))
        self._random = random.Random(seed)
        self._ticks = [self._random.randrange(10_000, 900_000) for _ in self.instruments]
        self._numbers = [self._random.randrange(10**6, 10**9) for _ in self.instruments]
        self._books = [10**9 + 1_000 * place for place in range(count)]
        self._trade = _okx_trade if exchange == "okx" else _binance_trade

    def trade(self, time: int, place: int | None = None) -> str:
        """A frame with one trade, at `time` (ns) of the exchange's clock; of any instrument unless `place` is given."""
        draw = self._random.random()
        place = int(draw * len(self.instruments)) if place is None else place
        lots = int(draw * 1e9) % 10_000_000 + 1
        self._numbers[place] += 1
        self._ticks[place] += lots % 7 - 3
        price = f"{self._ticks[place] // 10}.{self._ticks[place] % 10}"
        return self._trade(self.instruments[place], self._numbers[place], price, lots, time // MILLISECOND)

    def book(self, time: int, place: int, *, whole: bool = False) -> str:
        """A frame of the book channel: the whole book first (OKX), then changes of a few levels on both sides."""
        before = self._books[place]
        self._books[place] += 3
        depth = LEVELS if whole else 4
        sides = [[self._level(place, sign * step) for step in range(1, depth + 1)] for sign in (-1, 1)]
        instrument, now = self.instruments[place], time // MILLISECOND
        if self.exchange == "okx":
            bids, asks = ([[*level, "0", "3"] for level in side] for side in sides)
            numbers: dict[str, object] = {
                "ts": str(now),
                "seqId": self._books[place],
                "prevSeqId": -1 if whole else before,
            }
            row = {"asks": asks, "bids": bids, "checksum": 0, **numbers}
            arg = {"channel": "books", "instId": instrument}
            return _dump({"arg": arg, "action": "snapshot" if whole else "update", "data": [row]})
        data = {"e": "depthUpdate", "E": now, "s": instrument, "U": before + 1, "u": self._books[place]}
        return _dump({"stream": f"{instrument.lower()}@depth@100ms", "data": {**data, "b": sides[0], "a": sides[1]}})

    def ticker(self, time: int, place: int) -> str:
        """A frame of the ticker channel."""
        instrument, now = self.instruments[place], time // MILLISECOND
        (bid, bid_size), (ask, ask_size) = (self._level(place, sign) for sign in (-1, 1))
        last = self._level(place, 0)[0]
        if self.exchange == "okx":
            best = {"askPx": ask, "askSz": ask_size, "bidPx": bid, "bidSz": bid_size}
            day = {"open24h": last, "high24h": ask, "low24h": bid, "volCcy24h": "125000000", "vol24h": "1875"}
            row = {"instType": "SPOT", "instId": instrument, "last": last, "lastSz": "0.01", **best, **day}
            rest = {"sodUtc0": last, "sodUtc8": last, "ts": str(now)}
            return _dump({"arg": {"channel": "tickers", "instId": instrument}, "data": [{**row, **rest}]})
        best = {"b": bid, "B": bid_size, "a": ask, "A": ask_size}
        since: dict[str, object] = {
            "o": last,
            "h": ask,
            "l": bid,
            "v": "1875",
            "q": "125000000",
            "O": now - 86_400_000,
            "C": now,
        }
        head = {"e": "24hrTicker", "E": now, "s": instrument, "p": "0.1", "P": "0.01", "w": last, "x": last}
        counts = {"c": last, "Q": "0.01", "F": 1, "L": 2, "n": 2}
        return _dump({"stream": f"{instrument.lower()}@ticker", "data": {**head, **counts, **best, **since}})

    def listing(self) -> str:
        """The body of the list of instruments."""
        if self.exchange == "okx":
            return _dump({"code": "0", "msg": "", "data": [_okx_listing(name) for name in self.instruments]})
        return _dump({"timezone": "UTC", "symbols": [_binance_listing(name) for name in self.instruments]})

    def _level(self, place: int, step: int) -> tuple[str, str]:
        ticks = self._ticks[place] + step
        return f"{ticks // 10}.{ticks % 10}", f"{1 + (ticks * 7919) % 9}.{(ticks * 104_729) % 10_000:04d}"


def raw_frames(
    market: Market, trades: int, *, timeframes: Sequence[str] = TIMEFRAMES, per_second: int = PER_SECOND
) -> Iterator[Frame]:
    """What ingest writes while `trades` trades come over one connection: list of instruments, connection,
    subscriptions, then the trades and, four times a second, a clock. After the last trade the clock goes on for
    three seconds more, so that the windows of the last second close."""
    url = URLS[market.exchange]
    connection, listing = f"{url}#1", LISTS[market.exchange]
    yield _frame(START, listing.partition("/api")[0], "rest", market.listing(), listing)
    yield _frame(START, connection, "open", _encode(OpenData(url=url)))
    for instrument in market.instruments:
        yield _frame(START, connection, "subscription", _encode(_subscription(market, instrument, timeframes)))
    step, tick = SECOND // per_second, START
    for number in range(trades):
        time = START + DELAY + number * step
        if time + DELAY >= tick:
            yield _clock(tick, connection)
            tick += TICK
        yield Frame(time + DELAY, connection, "in", "ws", market.trade(time))
    while tick < START + trades * step + 3 * SECOND:
        yield _clock(tick, connection)
        tick += TICK


def raw_entries(stream: str, frames: Iterable[Frame], writer: int = START, most: int = 64) -> Iterator[Command]:
    """The XADDs of the frames, as ingest packs them when many come at once: `most` to an entry."""
    for number, group in enumerate(_groups(frames, most), start=1):
        fields = pack(RawEntry(writer, number, group))
        yield ("XADD", stream, "*", *(part for pair in fields.items() for part in pair))


def _groups(frames: Iterable[Frame], most: int) -> Iterator[tuple[Frame, ...]]:
    group: list[Frame] = []
    for frame in frames:
        group.append(frame)
        if len(group) == most:
            yield from split(group)
            group = []
    yield from split(group)


def _okx_trade(instrument: str, number: int, price: str, lots: int, now: int) -> str:
    side = "buy" if lots % 2 else "sell"
    return (
        f'{{"arg":{{"channel":"trades-all","instId":"{instrument}"}},"data":[{{"instId":"{instrument}","tradeId":"{number}",'
        f'"px":"{price}","sz":"0.{lots:08d}","side":"{side}","source":"0","ts":"{now}"}}]}}'
    )


def _binance_trade(instrument: str, number: int, price: str, lots: int, now: int) -> str:
    maker = "true" if lots % 2 else "false"
    return (
        f'{{"stream":"{instrument.lower()}@trade","data":{{"e":"trade","E":{now + 1},"s":"{instrument}","t":{number},'
        f'"p":"{price}0000000","q":"0.{lots:08d}","T":{now},"m":{maker},"M":true}}}}'
    )


def _okx_listing(instrument: str) -> dict[str, str]:
    base, quote = instrument.split("-")
    empty = ("settleCcy", "uly", "instFamily", "ctVal", "ctMult", "ctValCcy", "ctType", "expTime")
    known = {"instType": "SPOT", "instId": instrument, "baseCcy": base, "quoteCcy": quote, "state": "live"}
    return {**dict.fromkeys(empty, ""), **known, "tickSz": "0.1", "lotSz": "0.00000001", "minSz": "0.00000001"}


def _binance_listing(instrument: str) -> dict[str, object]:
    base = instrument.removesuffix("USDT")
    return {"symbol": instrument, "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT", "filters": []}


def _subscription(market: Market, instrument: str, timeframes: Sequence[str]) -> SubscriptionData:
    return SubscriptionData(
        channel=CHANNELS[market.exchange], instrument=instrument, state="subscribed", timeframes=tuple(timeframes)
    )


def _clock(time: int, connection: str) -> Frame:
    return _frame(time, "clock", "clock", _encode(ClockData(connections={connection: time}, offset=0)))


def _frame(time: int, connection: str, kind: FrameKind, data: str, url: str | None = None) -> Frame:
    return Frame(time, connection, "in", kind, data, url)


def _encode(data: msgspec.Struct) -> str:
    return msgspec.json.encode(data).decode()


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
