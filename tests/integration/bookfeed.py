"""Order books, best offers, tickers and bars as a venue sends them, with an ingest that does what normalize wants.

What is wanted is read off a Normalize that is fed the very frames as they are written; so the raw stream holds the
answers (late, too old, refused, lost) in their places. Written from the protocol references.
"""

import heapq
import json
import random
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from normalize.stage import Normalize
from pipeline.exchanges import EXCHANGES
from pipeline.frames import CloseData, OpenData, RawEntry, RequestData, SubscriptionData, pack
from pipeline.steps import Entry, Step
from pipeline.streams import Keys
from pipeline.wants import Want
from tests.integration.pages import Pages

MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND
OFFSET = 3 * MILLISECOND
PUSH = 100 * MILLISECOND
DEEP = 40
"""Levels a side at the start."""
FAR = 400
ANSWERED = 100
"""Levels a side of an answer by REST; the books grow deeper."""

DEPTH = 10
"""Levels a side that the settings ask for."""

Levels = dict[int, int]
Top = tuple[tuple[int, int], ...]
State = Literal["requested", "subscribed", "unsubscribed"]


class Ink(Protocol):
    """What a feed needs of the writer of the raw stream."""

    now: int
    connections: dict[str, int]

    def add(self, connection: str, kind: str, data: str, url: str | None = None, key: str | None = None) -> None:
        """A frame, now."""


class VenueBook:
    """One instrument's true book: prices in ticks, quantities in lots. `number` counts its changes; `pushed` is what
    it was at the last push, `old` the book of some seconds ago, for answers that are too old."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.middle = 10_000
        self.number = 1_000
        self.pushed = self.number
        self.sides: tuple[Levels, Levels] = ({}, {})
        for step in range(1, DEEP + 1):
            self.sides[0][self.middle - step] = chance.randrange(1, 50)
            self.sides[1][self.middle + step] = chance.randrange(1, 50)
        self.changes: tuple[Levels, Levels] = ({}, {})
        self.old = self.copy()

    def copy(self) -> tuple[int, Levels, Levels]:
        return self.number, dict(self.sides[0]), dict(self.sides[1])

    def move(self) -> None:
        """Some levels change; the middle walks, and takes away what it meets."""
        if self.chance.random() < 0.3:
            self.middle += self.chance.choice((-1, 1))
        for side, sign in ((0, -1), (1, 1)):
            for price in [p for p in self.sides[side] if (p - self.middle) * sign <= 0]:
                self._set(side, price, 0)
            for _ in range(self.chance.randrange(3)):
                step = self.chance.choice((1, 1, 2, 3, 5, 9, self.chance.randrange(1, FAR)))
                self._set(side, self.middle + sign * step, self.chance.choice((0, *range(1, 9))))
            if len(self.sides[side]) < 5:
                self._set(side, self.middle + sign * self.chance.randrange(1, 9), 7)

    def cross(self) -> None:
        """A bid above the best ask, as in an auction."""
        self._set(0, min(self.sides[1], default=self.middle) + 1, 3)

    def push(self) -> tuple[int, int, Levels, Levels]:
        """(number before, number now, changed bids, changed asks) since the last push."""
        before, self.pushed = self.pushed, self.number
        bids, asks = self.changes
        self.changes = ({}, {})
        return before, self.number, bids, asks

    def _set(self, side: int, price: int, quantity: int) -> None:
        if self.sides[side].get(price, 0) == quantity:
            return
        if quantity:
            self.sides[side][price] = quantity
        else:
            del self.sides[side][price]
        self.changes[side][price] = quantity
        self.number += 1


class Dialect(Protocol):
    """How one venue spells it."""

    exchange: str
    url: str
    rest: str
    channel: str
    by_request: bool

    def snapshot(self, name: str, number: int, bids: Levels, asks: Levels, time: int) -> str:
        """A whole book, over the socket or by REST."""

    def update(self, name: str, push: tuple[int, int, Levels, Levels], time: int) -> str:
        """What changed."""

    def others(self, name: str, book: VenueBook, time: int) -> list[str]:
        """Best offer, ticker and, as a second ends, its bar."""


class Okx:
    """`books`, `bbo-tbt`, `tickers`, `candle1s`."""

    exchange = "okx"
    url = "wss://ws.okx.com/ws/v5/public"
    rest = "https://openapi.okx.com"
    channel = "books"
    by_request = False

    def snapshot(self, name: str, number: int, bids: Levels, asks: Levels, time: int) -> str:
        return self._book(name, "snapshot", bids, asks, time, number, -1)

    def update(self, name: str, push: tuple[int, int, Levels, Levels], time: int) -> str:
        before, number, bids, asks = push
        return self._book(name, "update", bids, asks, time, number, before)

    def others(self, name: str, book: VenueBook, time: int) -> list[str]:
        bid, ask, ts = max(book.sides[0]), min(book.sides[1]), str(time // MILLISECOND)
        rows = {
            "asks": [[_price(ask), str(book.sides[1][ask]), "0", "1"]],
            "bids": [[_price(bid), str(book.sides[0][bid]), "0", "1"]],
        }
        found = [self._told("bbo-tbt", name, rows | {"ts": ts, "seqId": book.number})]
        if time // SECOND != (time - PUSH) // SECOND:
            day = dict.fromkeys(("last", "open24h", "high24h", "low24h"), _price(book.middle))
            day |= {"instId": name, "instType": "SPOT", "askPx": "", "askSz": "", "bidPx": "", "bidSz": "", "ts": ts}
            found.append(self._told("tickers", name, day | {"vol24h": "5", "volCcy24h": str(book.number)}))
            begin = str((time // SECOND - 1) * 1_000)
            found.append(self._told("candle1s", name, [begin, "3", "4", "2", _price(book.middle), "1", "2", "3", "1"]))
        return found

    def _book(self, name: str, action: str, bids: Levels, asks: Levels, time: int, number: int, before: int) -> str:
        sides = {"bids": _rows(bids, True, "0", "1"), "asks": _rows(asks, False, "0", "1")}
        row = {**sides, "ts": str(time // MILLISECOND), "checksum": 0, "seqId": number, "prevSeqId": before}
        return json.dumps({"arg": {"channel": "books", "instId": name}, "action": action, "data": [row]})

    def _told(self, channel: str, name: str, row: Any) -> str:
        return json.dumps({"arg": {"channel": channel, "instId": name}, "data": [row]})


class Binance:
    """`depth@100ms`, `bookTicker`, `ticker`, `kline_1s`; the first book by REST."""

    exchange = "binance"
    url = "wss://stream.binance.com/stream"
    rest = "https://api.binance.com"
    channel = "depth@100ms"
    by_request = True

    def snapshot(self, name: str, number: int, bids: Levels, asks: Levels, time: int) -> str:
        return json.dumps({"lastUpdateId": number, "bids": _rows(bids, True), "asks": _rows(asks, False)})

    def update(self, name: str, push: tuple[int, int, Levels, Levels], time: int) -> str:
        before, number, bids, asks = push
        event = {"e": "depthUpdate", "E": time // MILLISECOND, "s": name, "U": before + 1, "u": number}
        return self._told(name, self.channel, event | {"b": _rows(bids, True), "a": _rows(asks, False)})

    def others(self, name: str, book: VenueBook, time: int) -> list[str]:
        bid, ask, stamp = max(book.sides[0]), min(book.sides[1]), time // MILLISECOND
        best = {"b": _price(bid), "B": str(book.sides[0][bid]), "a": _price(ask), "A": str(book.sides[1][ask])}
        found = [self._told(name, "bookTicker", {"u": book.number, "s": name, **best})]
        if time // SECOND != (time - PUSH) // SECOND:
            price = _price(book.middle)
            day = {"e": "24hrTicker", "E": stamp, "s": name, "v": "5", "q": str(book.number), **best}
            found.append(self._told(name, "ticker", day | dict.fromkeys("cohl", price)))
            begin = (time // SECOND - 1) * 1_000
            bar = {"t": begin, "T": begin + 999, "s": name, "i": "1s", "f": -1, "L": -1, "n": 0, "x": True}
            bar |= dict.fromkeys("ochl", price) | dict.fromkeys("vqVQ", "0")
            found.append(self._told(name, "kline_1s", {"e": "kline", "E": stamp, "s": name, "k": bar}))
        return found

    def _told(self, name: str, channel: str, data: Any) -> str:
        return json.dumps({"stream": f"{name.lower()}@{channel}", "data": data})


class BookFeed:
    """The public side of one venue over one or two connections, and the ingest that does what is wanted. `done`
    counts what was done for normalize: by what it was, and how it ended."""

    def __init__(self, dialect: Dialect, ink: Ink, names: list[str], seed: int) -> None:
        self.dialect, self.ink = dialect, ink
        self.random = random.Random(seed)
        self.books = {name: VenueBook(self.random) for name in names}
        self.live: dict[str, set[str]] = {}
        """Connection to the instruments whose book it sends."""
        self.opened = 0
        self.next_push = ink.now + PUSH
        self.truth: dict[tuple[str, int], list[tuple[Top, Top]]] = {}
        """Instrument and number to the best levels a side at it; several where the numbers began again."""
        self.done: dict[str, int] = {}
        self.pages = Pages(ink, seed)
        self._soon: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._wanted: dict[str, Want] = {}
        self._known: set[tuple[str, int]] = set()
        self._keys = Keys("md", dialect.exchange)
        self._normalize = Normalize(self._keys, EXCHANGES[dialect.exchange])
        self._entries = 0
        for name in names:
            self._note(name)

    # The venue.

    def next_event(self) -> int:
        """When there is something to do."""
        return min([self.next_push, *(at for at, _, _ in self._soon[:1])])

    def act(self) -> None:
        """Does what is due now."""
        while self._soon and self._soon[0][0] <= self.ink.now:
            heapq.heappop(self._soon)[2]()
        if self.next_push <= self.ink.now:
            self.next_push += PUSH
            self._push()
            self._turn()

    def _push(self) -> None:
        chance, time = self.random.random, self.ink.now + OFFSET
        for name, book in self.books.items():
            if chance() < 0.1:
                book.old = book.copy()
            if chance() < 0.003:
                book.cross()
            elif chance() < 0.9:
                book.move()
            if book.number == book.pushed and self.dialect.by_request:
                continue
            if self.dialect.exchange == "okx" and chance() < 0.002:
                # Maintenance: the numbers begin again; the push says so by naming the one before.
                book.number = 10
            push = book.push()
            self._note(name)
            texts = [self.dialect.update(name, push, time), *self.dialect.others(name, book, time)]
            for connection, sent in self.live.items():
                if name not in sent or chance() < 0.008:
                    continue
                for text in texts:
                    self._send(connection, text[: len(text) // 2] if chance() < 0.001 else text)

    def _note(self, name: str) -> None:
        book = self.books[name]
        bids, asks = (tuple(sorted(side.items(), reverse=side is book.sides[0])[:DEPTH]) for side in book.sides)
        self.truth.setdefault((name, book.number), []).append((bids, asks))

    def _turn(self) -> None:
        """Connections open and close, make before break or not."""
        chance = self.random.random()
        if not self.live or (len(self.live) < 2 and chance < 0.01):
            self.open()
        elif len(self.live) == 2 and chance < 0.03:
            self.close(self.random.choice(list(self.live)))
        elif chance > 0.998:
            self.close(next(iter(self.live)))

    def open(self) -> None:
        self.opened += 1
        connection = f"{self.dialect.url}#{self.opened}"
        self.live[connection] = set()
        self.ink.add(connection, "open", msgspec.json.encode(OpenData(url=self.dialect.url)).decode())
        for name in self.books:
            self._subscription(connection, name, "requested")
            self._later(30, lambda name=name: self._begin(connection, name))  # type: ignore[misc]

    def close(self, connection: str) -> None:
        self.live.pop(connection)
        self.ink.connections.pop(connection, None)
        self.ink.add(connection, "close", msgspec.json.encode(CloseData(reason="cut")).decode())

    def killed(self) -> None:
        """ingest is gone without a word; the next one knows nothing of it."""
        self.live.clear()
        self._soon.clear()
        self._known.clear()
        self.opened = 0

    def _begin(self, connection: str, name: str) -> None:
        """The subscription is in force; a socket that begins with the whole book sends it."""
        if connection not in self.live:
            return
        self._subscription(connection, name, "subscribed")
        self.live[connection].add(name)
        if not self.dialect.by_request:
            # Nothing changes but as it is pushed: it is the book that the others were told.
            number, bids, asks = self.books[name].copy()
            self._send(connection, self.dialect.snapshot(name, number, bids, asks, self.ink.now + OFFSET))

    def _send(self, connection: str, text: str) -> None:
        self.ink.add(connection, "ws", text)

    def _subscription(
        self, connection: str, name: str, state: Literal["requested", "subscribed", "unsubscribed"]
    ) -> None:
        data = SubscriptionData(channel=self.dialect.channel, instrument=name, state=state, depth=DEPTH)
        self.ink.add(connection, "subscription", msgspec.json.encode(data).decode())

    # ingest.

    def wrote(self, entries: list[RawEntry]) -> None:
        """normalize reads what was written; what it wants by then is done."""
        step = Step(self._keys, "normalize")
        for entry in entries:
            self._entries += 1
            self._normalize.process(Entry(b"%d-1" % self._entries, pack(entry)), step)
        for command in step.commands():
            match command:
                case ("HSET", self._keys.want, str(key), bytes(want)):
                    self._wanted[key] = msgspec.json.decode(want, type=Want)
                case ("HDEL", self._keys.want, str(key)):
                    self._wanted.pop(key, None)
        for key, wanted in self._wanted.items():
            if (key, wanted.number) in self._known:
                continue
            self._known.add((key, wanted.number))
            if wanted.what == "trades":
                self.pages.fetch(key, wanted, self._later)
            else:
                self._do(key, wanted)

    def _do(self, key: str, want: Want) -> None:
        where = want.connection or self.dialect.rest
        fate = self.random.random()

        def tell(state: Literal["asked", "answered", "refused"], reason: str | None = None, gone: bool = False) -> None:
            if state != "asked":
                end = f"{want.what} {reason or state}"
                self.done[end] = self.done.get(end, 0) + 1
            data = RequestData(key, want.number, state, reason, gone)
            self.ink.add(where, "request", msgspec.json.encode(data).decode())

        def snapshot() -> None:
            book = self.books[want.instrument]
            if fate < 0.15:
                tell("refused", "429")
                return
            number, bids, asks = book.old if fate < 0.4 else book.copy()
            body = self.dialect.snapshot(want.instrument, number, _best(bids, True), _best(asks, False), 0)
            url = f"{self.dialect.rest}/api/v3/depth?symbol={want.instrument}&limit={ANSWERED}"
            self.ink.add(self.dialect.rest, "rest", body, url, key)
            tell("answered", "too old" if fate < 0.4 else None)

        def resync() -> None:
            if where not in self.live:
                tell("refused", "the connection is gone", gone=True)
                return
            if fate < 0.15:
                tell("refused", "not acknowledged in time")
                return
            self.live[where].discard(want.instrument)
            self._subscription(where, want.instrument, "unsubscribed")
            self._later(40, begin)

        def begin() -> None:
            if where in self.live:
                self._begin(where, want.instrument)
                tell("answered")
            else:
                tell("refused", "the connection is gone", gone=True)

        self._later(5, lambda: tell("asked"))
        self._later(self.random.choice((60, 150, 900)), snapshot if want.what == "snapshot" else resync)

    def _later(self, milliseconds: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._soon, (self.ink.now + milliseconds * MILLISECOND, self._order, action))


DIALECTS: dict[str, Dialect] = {"okx": Okx(), "binance": Binance()}


def _price(ticks: int) -> str:
    return f"{ticks // 10}.{ticks % 10}"


def _rows(levels: Levels, bid: bool, *more: str) -> list[list[str]]:
    return [[_price(price), str(levels[price]), *more] for price in sorted(levels, reverse=bid)]


def _best(levels: Levels, bid: bool) -> Levels:
    return {price: levels[price] for price in sorted(levels, reverse=bid)[:ANSWERED]}
