"""Books of Binance through the whole stage, with everything that can go wrong, small snapshots beside the full channel
too: the same bytes however the stream is cut or the stage restored, every valid record is the true book, and none is
older than one before it."""

import json
import random
from functools import partial
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.frames import Frame, RawEntry
from tests.normalize.booked import Market
from tests.normalize.playing import (
    SECOND,
    T0,
    A,
    B,
    Played,
    clock,
    closed,
    depth,
    entries,
    exchange_info,
    opened,
    play,
    request,
    snapshot,
    subscription,
)
from tests.normalize.test_shelf import assert_same, verdicts

NAMES = ("BTCUSDT", "ETHUSDT")
SMALL = 5


def texts(levels: Any) -> str:
    return " ".join(f"{price}@{quantity}" for price, quantity in levels)


class Storm:
    """`markets` are what the books are to be; `raw` is what is told of them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.markets = {name: Market(self.chance, "binance", 200) for name in NAMES}
        self.version = dict.fromkeys(NAMES, 1)
        self.told = {(name, conn): 1 for name in NAMES for conn in (A, B)}
        self.at = 0.0
        self.writer, self.first = 1, 1
        self.raw: list[RawEntry] = []
        self.frames: list[Frame] = [exchange_info(0, *NAMES), clock(0)]
        self.connect(A)
        events = [self.change] * 12 + [self.small] * 4 + [self.rest] * 2 + [self.told_of, self.tick, self.lose]
        events += [partial(self.connect, B), partial(self.cut, A), partial(self.cut, B), self.turn, self.settings]
        for _ in range(self.chance.randrange(50, 200)):
            self.at += self.chance.random() * self.chance.choice([0.1, 0.1, 2])
            self.chance.choice(events)()
        self.pack()

    def put(self, frame: Frame) -> None:
        self.frames.append(msgspec.structs.replace(frame, ts=T0 + round(self.at * SECOND)))

    def subscribed(self, name: str, conn: str, **fields: Any) -> Frame:
        known = {"channel": "depth@100ms", "instrument": name, "timeframes": ()}
        return subscription(fields.pop("state", "subscribed"), self.at, conn, **(known | fields))

    def connect(self, conn: str) -> None:
        self.put(opened(self.at, conn))
        for name in NAMES:
            self.put(self.subscribed(name, conn))
            self.told[name, conn] = self.version[name]

    def cut(self, conn: str) -> None:
        self.put(closed(self.at, conn))
        self.connect(conn)

    def settings(self) -> None:
        depth, states = self.chance.choice([3, 20]), ["subscribed", "subscribed", "unsubscribed", "refused"]
        self.put(self.subscribed(*self.any(), state=self.chance.choice(states), depth=depth))

    def any(self) -> tuple[str, str]:
        return self.chance.choice(NAMES), self.chance.choice([A, A, B])

    def change(self) -> None:
        """The next change on one connection; or the market goes on."""
        name, conn = self.any()
        if self.told[name, conn] == self.version[name]:
            self.version[name] = min(self.version[name] + 1, 200)
        else:
            self.told[name, conn] += 1
            version, market = self.told[name, conn], self.markets[name]
            (bids, asks), first, last = market.changes[version], market.firsts[version], market.numbers[version]
            self.put(depth(version / 10, first, last, texts(bids), texts(asks), conn, name))

    def small(self) -> None:
        name, conn = self.any()
        version, market = self.told[name, conn], self.markets[name]
        bids, asks = market.ladders(version)
        body = {"lastUpdateId": market.numbers[version], "bids": bids[:SMALL], "asks": asks[:SMALL]}
        data = json.dumps({"stream": f"{name.lower()}@depth{SMALL}@100ms", "data": body})
        self.put(Frame(0, conn, "in", "ws", data))

    def rest(self) -> None:
        name = self.chance.choice(NAMES)
        version = max(1, self.version[name] - self.chance.choice([0, 0, 1, 3]))
        bids, asks = (texts(side) for side in self.markets[name].ladders(version))
        self.put(snapshot(self.at, self.markets[name].numbers[version], bids, asks, name, f"snapshot {name}"))

    def told_of(self) -> None:
        key = f"snapshot {self.chance.choice(NAMES)}"
        state = self.chance.choice(["asked", "answered", "refused"])
        self.put(request(key, self.chance.randrange(1, 4), state, self.at))

    def tick(self) -> None:
        offset = self.chance.choice([0, 5 * SECOND, None])
        self.put(clock(self.at, offset, a=self.at - 0.1, b=self.at - 0.2))

    def lose(self) -> None:
        """Frames that were never sent, or (`turn`) lost on their way here."""
        name, conn = self.any()
        self.told[name, conn] = min(self.told[name, conn] + 1, self.version[name])

    def turn(self) -> None:
        self.pack()
        if self.chance.random() < 0.3:
            self.writer, self.first = self.writer + 1, 1
            self.connect(A)
        else:
            self.first += self.chance.choice([0, 1])

    def pack(self) -> None:
        self.raw += entries(self.frames, writer=self.writer, first=self.first, size=self.chance.randrange(1, 5))
        self.first, self.frames = self.raw[-1].n + 1 if self.frames else self.first, []

    def check(self, played: Played) -> int:
        """How many valid records there are, each the best of the true book."""
        count, newest = 0, dict.fromkeys(NAMES, 0)
        for record in played.stream("orderbook"):
            assert record["sequence"] >= newest[record["instrument"]]
            newest[record["instrument"]] = record["sequence"]
            if record.get("valid", True):
                market = self.markets[record["instrument"]]
                ladders = market.ladders(market.numbers.index(record["sequence"]))
                for side, true in zip((record["bids"], record["asks"]), ladders, strict=True):
                    best = [list(level) for level in true[: record["depth"]]]
                    assert side == best or (len(side) == SMALL and side == best[:SMALL])
                count += 1
        return count


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_the_same_bytes_and_the_true_books(seed: int) -> None:
    storm = Storm(seed)
    expected = play(storm.raw, exchange="binance")
    storm.check(expected)
    assert expected.stream("dead") == []
    for batch, restore in ((1, True), (7, False), (7, True), (1000, False)):
        found = play(storm.raw, batch=batch, restore=restore, exchange="binance")
        assert_same(found, expected)
        assert found.faults == []


def test_the_storm_is_worth_the_trouble() -> None:
    reasons: set[str | None] = set()
    valid = small = 0
    for seed in range(30):
        storm = Storm(seed)
        played = play(storm.raw, exchange="binance", end=True)
        reasons.update(verdicts(played))
        valid += storm.check(played)
        small += sum(len(record["bids"]) == SMALL for record in played.stream("orderbook"))
    assert {None, "gap", "closed", "lost", "writer"} <= reasons
    assert 100 < small < valid
