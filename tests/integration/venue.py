"""A made exchange with its sockets, and what ingest would write of it: a raw stream with the truth beside it.

Sockets are slow, cut, half-open, silent on one instrument, or lose single frames; ingest is killed, and its clock
may be wrong or the exchange's unknown. Written from the protocol and from DESIGN's words, not from the code.
"""

import heapq
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.frames import ClockData, CloseData, Frame, FrameKind, OpenData, RawEntry, SubscriptionData

MS = 10**6
SECOND = 10**9
START = 1_800_000_000 * SECOND - (1_800_000_000 * SECOND) % (24 * 3600 * SECOND)
"""A midnight."""
URL = "wss://ws.okx.com/ws/v5/business"


@dataclass(eq=False)
class Socket:
    """`alive`: the exchange serves it; `shown`: ingest has not closed it."""

    name: str
    delay: int
    jitter: int
    heard: int
    last: int
    alive: bool = True
    shown: bool = True
    carries: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Faults:
    """Chances a second (of a frame or an entry for `frames`, `entries`), and what is wrong with the clocks.

    `skew`: ns by which the host is ahead; `measured`: seconds until the exchange's clock is known. `replays`: chance
    that a subscription begins with the last trade. `pace`: seconds between the faults of sockets."""

    frames: float = 0.01
    entries: float = 0.002
    kills: float = 0.02
    silences: float = 0.02
    silent_for: float = 30.0
    skew: int = 0
    measured: float = 0.0
    replays: float = 0.7
    pace: float = 1.0


class Venue:
    """Everything is drawn from `seed`. `paces`: instrument to the mean seconds between its trades. `truth` has
    (number, time) of every trade, `entries` the raw stream."""

    def __init__(self, seed: int, faults: Faults, frames: tuple[str, ...], paces: dict[str, float]) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.timeframes = frames
        self.paces = paces
        self.truth: dict[str, list[tuple[int, int]]] = {name: [] for name in paces}
        self.entries: list[RawEntry] = []
        self.now = START
        self._due: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order, self._numbers = itertools.count(), itertools.count(1)
        self._frames: list[Frame] = []
        self._writer, self._number = START, 0
        self._sockets: list[Socket] = []
        self._calm = False

    def run(self, seconds: float) -> "Venue":
        """Lets it go on; then one good connection, a trade of each instrument, and time for what that shows."""
        for name in self.paces:
            self._at(0, self._trade, name)
        self._at(0, self._tick)
        self._at(0, self._write)
        self._at(1, self._open)
        self._at(3, self._harm)
        self._until(seconds)
        self._calm = True
        for socket in list(self._sockets):
            self._close(socket)
        self._open()
        for pause in (2, 6):
            self._until(pause)
            for name in self.paces:
                self._print(name)
        self._until(6)
        self._write()
        return self

    def _at(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._due, (self.now + round(seconds * SECOND), next(self._order), what, arguments))

    def _until(self, seconds: float) -> None:
        end = self.now + round(seconds * SECOND)
        while self._due and self._due[0][0] <= end:
            time, _, what, arguments = heapq.heappop(self._due)
            self.now = max(self.now, time)
            what(*arguments)
        self.now = end

    # The exchange.

    def _trade(self, name: str) -> None:
        if not self._calm:
            self._print(name)
            self._at(self.random.expovariate(1 / self.paces[name]) + 0.001, self._trade, name)

    def _print(self, name: str) -> None:
        number, time = 101 + len(self.truth[name]), self.now // MS * MS
        self.truth[name].append((number, time))
        for socket in self._sockets:
            if name in socket.carries and not self._chance(self.faults.frames):
                self._send(socket, _text(name, number, time))

    def _subscribe(self, socket: Socket, name: str) -> None:
        socket.carries.add(name)
        if self.truth[name] and self.random.random() < self.faults.replays:
            self._send(socket, _text(name, *self.truth[name][-1]))

    def _send(self, socket: Socket, text: str) -> None:
        if socket.alive:
            delay = socket.delay + round(self.random.random() * socket.jitter)
            socket.last = max(socket.last + 1, self.now + delay)
            self._at((socket.last - self.now) / SECOND, self._receive, socket, text)

    def _pong(self, socket: Socket) -> None:
        if socket.alive:
            self._send(socket, "pong")
            self._at(self.random.uniform(0.5, 2), self._pong, socket)

    # Ingest.

    def _receive(self, socket: Socket, text: str) -> None:
        if socket.alive and socket.shown:
            socket.heard = self.now + self.faults.skew
            if text != "pong":
                self._put(socket.name, "ws", text)

    def _open(self) -> None:
        delay, jitter = self.random.choice((0.005, 0.02, 0.1, 0.9)), self.random.choice((0, 0.005, 0.2))
        name, host = f"{URL}#{next(self._numbers)}", self.now + self.faults.skew
        socket = Socket(name, round(delay * SECOND), round(jitter * SECOND), host, self.now)
        self._sockets.append(socket)
        self._put(name, "open", OpenData(URL))
        for instrument in self.paces:
            told = SubscriptionData("trades-all", instrument, "requested", None, self.timeframes, quiet_from="1s")
            self._put(name, "subscription", told)
            self._at(self.random.random() * 0.3, self._subscribe, socket, instrument)
        self._pong(socket)

    def _close(self, socket: Socket) -> None:
        if socket.shown:
            socket.shown = socket.alive = False
            self._sockets.remove(socket)
            self._put(socket.name, "close", CloseData("cut"))

    def _tick(self) -> None:
        known = self.now - START >= self.faults.measured * SECOND
        heard = {socket.name: socket.heard for socket in self._sockets}
        self._put("clock", "clock", ClockData(heard, -self.faults.skew if known else None, MS if known else 0))
        self._at(0.25, self._tick)

    def _put(self, connection: str, kind: FrameKind, data: str | msgspec.Struct) -> None:
        text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
        self._frames.append(Frame(self.now + self.faults.skew, connection, "in", kind, text))

    def _write(self) -> None:
        if self._frames:
            self._number += 1
            # What says how to read all others is never dropped.
            plain = all(frame.kind in ("ws", "clock") for frame in self._frames)
            if not (plain and self._chance(self.faults.entries)):
                self.entries.append(RawEntry(self._writer, self._number, tuple(self._frames)))
            self._frames = []
        self._at(self.random.choice((0.003, 0.003, 0.003, 0.4)), self._write)

    # What goes wrong.

    def _chance(self, share: float) -> bool:
        return not self._calm and self.random.random() < share

    def _harm(self) -> None:
        if self._calm:
            return
        chance = self.random.random()
        if not self._sockets:
            if chance < 0.5:
                self._open()
        elif chance < 0.1:
            self._cut(self.random.choice(self._sockets))
        elif chance < 0.2 and len(self._sockets) < 3:
            self._open()
        elif chance < 0.2 + self.faults.kills:
            self._kill()
        elif chance < 0.2 + self.faults.kills + self.faults.silences:
            socket, name = self.random.choice(self._sockets), self.random.choice(list(self.paces))
            socket.carries.discard(name)
            self._at(self.random.uniform(1, self.faults.silent_for), self._subscribe, socket, name)
        self._at(self.faults.pace, self._harm)

    def _cut(self, socket: Socket) -> None:
        if self.random.random() < 0.5:
            socket.alive = False
            self._at(self.random.uniform(1, 6), self._close, socket)
        else:
            self._close(socket)

    def _kill(self) -> None:
        """What was not written yet is lost, no close is written, and the next process counts anew."""
        for socket in self._sockets:
            socket.shown = socket.alive = False
        self._frames, self._sockets, self._numbers = [], [], itertools.count(1)
        self._writer, self._number = max(self._writer + 1, self.now + self.faults.skew), 0


def _text(name: str, number: int, time: int) -> str:
    row = {"instId": name, "tradeId": str(number), "px": str(100 + number % 37), "sz": "1", "source": "0"}
    row |= {"side": "buy" if number % 3 else "sell", "ts": str(time // MS)}
    return json.dumps({"arg": {"channel": "trades-all", "instId": name}, "data": [row]})
