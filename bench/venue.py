"""A lean exchange on loopback, in OKX's protocol as far as ingest needs it. A process of its own.

It prints trades as fast as the socket takes them, within an allowance, or evenly at a rate, one frame per packet. Its
parent tells it what to do in JSON lines on stdin; it ends with them. Nothing is logged per trade.

https://www.okx.com/docs-v5/en/#overview-websocket
"""

import http
import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from bench.frames import symbols
from bench.tape import Tape, number, rounds_for

MILLISECOND = 1_000_000
NAP = 0.001
"""Seconds between two looks at an allowance that is used up."""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line from the parent: `print` trades (at `rate` a second, or as fast as they go), `allow` so many in all, or,
    without either, tell how far it is."""

    print: int = 0
    rate: float | None = None
    allow: int | None = None


class Venue:
    """The instruments, who is subscribed to them, and what was printed."""

    def __init__(self, count: int, seed: int) -> None:
        self.names = symbols(count)
        self.rounds = rounds_for(count)
        self.seed = seed
        self.sessions: list[Session] = []
        self.printed = 0
        self.chunk = 0
        self.allowed = 0
        self.sent_at = [0] * count
        """When the last trade of each was sent (ns UTC)."""
        self.latest = 0.0
        """Seconds by which a paced trade was sent after its turn, at most."""
        self._due = 0.0
        self.printing = threading.Event()
        self.fault: str | None = None

    def instruments(self) -> list[dict[str, str]]:
        """OKX's list of spot instruments."""
        fixed = {"instType": "SPOT", "state": "live", "ruleType": "normal", "listTime": "1606468572000"}
        steps = {"tickSz": "0.01", "lotSz": "0.0001", "minSz": "0.0001"}
        empty = dict.fromkeys(
            ("settleCcy", "uly", "instFamily", "ctVal", "ctMult", "ctValCcy", "ctType", "expTime"), ""
        )
        return [
            fixed | steps | empty | {"instId": name, "baseCcy": name.partition("-")[0], "quoteCcy": "USDT"}
            for name in self.names
        ]

    def state(self) -> dict[str, Any]:
        """What was printed: `numbers` has the first and the last `tradeId` of each instrument, `sent_at` when (ns)."""
        last = self.chunk - 1
        return {
            "printed": self.printed,
            "printing": self.printing.is_set(),
            "latest": self.latest,
            "connections": len(self.sessions),
            "subscribed": len({name for session in list(self.sessions) for name in session.subscribed}),
            "cpu": time.process_time(),
            "fault": self.fault,
            "numbers": {
                name: [number(place, 0, 0, self.rounds), number(place, last, self.rounds - 1, self.rounds)]
                for place, name in enumerate(self.names)
                if self.chunk
            },
            "sent_at": dict(zip(self.names, self.sent_at, strict=True)),
        }

    def print(self, trades: int, rate: float | None) -> None:
        """Prints at least so many trades, in whole chunks, to all who are subscribed."""
        tapes = [(session, self._tape(session)) for session in list(self.sessions) if session.subscribed]
        wanted, self._due = self.printed + trades, time.monotonic()
        try:
            while tapes and self.printed < wanted:
                if rate is None:
                    self._print_at_once(tapes)
                else:
                    self._print_evenly(tapes, rate)
                self.chunk += 1
        except OSError as error:
            self.fault = f"a connection broke: {error}"
        finally:
            self.printing.clear()

    def _tape(self, session: "Session") -> Tape:
        names = {place: name for place, name in enumerate(self.names) if name in session.subscribed}
        return Tape(names, self.rounds, self.seed)

    def _print_at_once(self, tapes: Sequence[tuple["Session", Tape]]) -> None:
        for session, tape in tapes:
            while self.printed + tape.size > self.allowed:
                time.sleep(NAP)
            session.send(tape.print(self.chunk, time.time_ns() // MILLISECOND))
            self.printed += tape.size
        self.sent_at = [time.time_ns()] * len(self.names)

    def _print_evenly(self, tapes: Sequence[tuple["Session", Tape]], rate: float) -> None:
        """One packet a trade. What is late is sent at once, so that the rate holds; how late is told."""
        for session, slot in ((session, slot) for session, tape in tapes for slot in tape.slots(self.chunk)):
            self._due += 1 / rate
            if (wait := self._due - time.monotonic()) > 0:
                time.sleep(wait)
            self.latest = max(self.latest, time.monotonic() - self._due)
            now = self.sent_at[slot.instrument] = time.time_ns()
            session.send(slot.print(self.chunk, now // MILLISECOND))
            self.printed += 1


class Session(socketserver.BaseRequestHandler):
    """One connection: a REST request, or a WebSocket from handshake to end. The protocol itself is the library's."""

    server: "Server"
    request: socket.socket

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.subscribed: list[str] = []
        self._protocol = ServerProtocol()
        self._sending = threading.Lock()

    def handle(self) -> None:
        while self._protocol.state is not State.CLOSED and (data := self.request.recv(65_536)):
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Request):
                    self._answer(event)
                elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    self._take(bytes(event.data).decode())
            self._flush()

    def finish(self) -> None:
        if self in self.server.venue.sessions:
            self.server.venue.sessions.remove(self)

    def send(self, frames: bytes) -> None:
        """Sends ready frames; waits while the socket is full. Raises OSError."""
        with self._sending:
            self.request.sendall(frames)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.send(data)
            else:
                self.request.shutdown(socket.SHUT_WR)

    def _answer(self, request: Request) -> None:
        if "Upgrade" in request.headers:
            self.server.venue.sessions.append(self)
            self._protocol.send_response(self._protocol.accept(request))
            return
        status, text = self.server.answer_to(request.path)
        self._protocol.send_response(self._protocol.reject(status, text))

    def _take(self, text: str) -> None:
        if text == "ping":
            self._protocol.send_text(b"pong")
            return
        asked = json.loads(text)
        for arg in asked["args"]:
            if asked["op"] == "subscribe" and arg["instId"] not in self.subscribed:
                self.subscribed.append(arg["instId"])
            answer = {"id": asked["id"], "event": asked["op"], "arg": arg, "connId": "a4d3ae55"}
            self._protocol.send_text(json.dumps(answer, separators=(",", ":")).encode())


class Server(socketserver.ThreadingTCPServer):
    """A thread a connection."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, venue: Venue) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.venue = venue

    def answer_to(self, path: str) -> tuple[http.HTTPStatus, str]:
        """Status and body of a GET request: the time, the instruments, and nothing of the past."""
        data: list[dict[str, str]]
        match path.partition("?")[0]:
            case "/api/v5/public/time":
                data = [{"ts": str(time.time_ns() // MILLISECOND)}]
            case "/api/v5/public/instruments":
                data = self.venue.instruments()
            case _:
                return http.HTTPStatus.NOT_FOUND, '{"code":"404","msg":"Not Found","data":[]}'
        return http.HTTPStatus.OK, json.dumps({"code": "0", "msg": "", "data": data}, separators=(",", ":"))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def serve(count: int, seed: int, told: IO[str], say: IO[str]) -> None:
    """Serves until `told` ends. Answers each line that wants to know how far it is, and the first of all with where
    it listens."""
    venue = Venue(count, seed)
    with Server(venue) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _say(say, {"port": server.server_address[1], "names": venue.names})
        for line in told:
            asked = msgspec.json.decode(line, type=Told)
            if asked.allow is not None:
                venue.allowed = asked.allow
            elif asked.print:
                venue.printing.set()
                threading.Thread(target=venue.print, args=(asked.print, asked.rate), daemon=True).start()
            else:
                _say(say, venue.state())
        server.shutdown()


def _say(say: IO[str], answer: dict[str, Any]) -> None:
    say.write(json.dumps(answer) + "\n")
    say.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.stdin, sys.stdout)
