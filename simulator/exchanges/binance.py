"""Binance spot as its servers speak it: streams by URL and by request, keepalive, pushes. Strict, sans-I/O, no clock.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams ; what the documentation leaves open is
answered as recordings show it. Times are ms: `timeUnit` is not simulated.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from pipeline.errors import SettingsError
from simulator.aggregates import Aggregates
from simulator.dialect import BookView, Close, Dialect, Frame, Ping, Reply, Response, Topic
from simulator.faults import Spells
from simulator.limits import Allowance
from simulator.market import SECOND, Market, Order
from simulator.pushes.binance import CHANNELS, Instrument, Pushes
from simulator.rest.binance import Rest
from simulator.rows.binance import aggregate, dump, instrument_id, lists, ms, stream_name, terms, trade
from simulator.tape import Tape

__all__ = ["Binance", "BinanceSession", "dialect", "instrument_id", "lists", "terms"]

MESSAGES_A_SECOND = 5
CONNECTS = 300
CONNECTS_PERIOD = 300 * SECOND
STREAMS = 1024
PING_EVERY = 20 * SECOND
PONG_WITHIN = 60 * SECOND
LIFETIME = 24 * 3600 * SECOND
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
DAMAGED = ("p", "k", "b", "bids", "c")
"""Keys that `corrupt` harms, the first of them a message has."""


def dialect(market: Market, spells: Spells, limits: float) -> Dialect:
    """The dialect over one market. `limits` multiplies every allowance (1: the documented ones)."""
    return Binance(market, spells, limits)


class Binance:
    """The Binance spot dialect over one market. `limits` multiplies every allowance (1: the documented ones)."""

    name = "binance"
    ws_prefix = ""
    channels = CHANNELS

    def __init__(self, market: Market, spells: Spells, limits: float = 1.0) -> None:
        self.market = market
        self.spells = spells
        self.messages = int(MESSAGES_A_SECOND * limits)
        self.streams = int(STREAMS * limits)
        self.tape = Tape(market, {symbol: instrument_id(pit.listing) for symbol, pit in market.pits.items()})
        self._connects = Allowance(int(CONNECTS * limits), CONNECTS_PERIOD)
        self._instruments = {
            instrument_id(pit.listing): Instrument(instrument_id(pit.listing), pit, self.tape)
            for pit in market.pits.values()
        }
        self._aggregates = {name: Aggregates() for name in self._instruments}
        self._pushes = Pushes(self._instruments)
        self._rest = Rest(self._instruments, self._aggregates, spells, limits)
        self.files = self._rest.files
        self._opened = 0
        for fill in market.history:
            self._aggregates[self.tape.instrument(fill.symbol)].add((fill,))

    def instrument(self, symbol: str) -> str:
        return self.tape.instrument(symbol)

    def symbol(self, instrument: str) -> str | None:
        return self.tape.symbol(instrument)

    def connect(self, address: str, now: int) -> bool:
        return self._connects.take(address, now)

    def serves(self, path: str) -> bool:
        return path in ("/ws", "/stream") or path.startswith("/ws/")

    def open(self, path: str, now: int, query: str = "") -> "BinanceSession":
        self._opened += 1
        session = BinanceSession(self, f"{self._opened:08x}", path == "/stream", now)
        session.add(_streams(path, query), now)
        return session

    def respond(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        return self._rest.respond(path, query, address, now)

    def printed(self, order: Order, wanted: Iterable[Topic]) -> list[Frame]:
        """A frame a fill, and a frame for all fills at one price."""
        self.tape.add(order)
        name = self.tape.instrument(order[0].symbol)
        spell = self._instruments[name].spell
        aggregates = self._aggregates[name].add(order)
        frames: list[Frame] = []
        if (topic := ("trade", name)) in wanted:
            frames += [Frame(topic, dump(trade(name, spell, fill)), (fill.sequence,)) for fill in order]
        if (topic := ("aggTrade", name)) in wanted:
            for one in aggregates:
                text = dump(aggregate(name, spell, one))
                frames.append(Frame(topic, text, tuple(range(one.first, one.last + 1))))
        return frames

    def due(self, wanted: Iterable[Topic], now: int, flush: bool = False) -> list[Frame]:
        return self._pushes.due(wanted, now, flush)

    def books(self, depth: int | None) -> dict[str, BookView]:
        return self._pushes.books(depth)

    def reset(self, instrument: str) -> None:
        raise SettingsError("Binance does not let the numbers of a book begin anew")

    def begin(self, topic: Topic, now: int) -> None:
        """Somebody subscribed to this topic."""
        self._pushes.begin(topic, now)

    def topic(self, stream: str) -> Topic | None:
        """What a stream's name asks for; None where there is no such thing: names are case-sensitive."""
        symbol, _, channel = stream.partition("@")
        name = symbol.upper()
        known = name in self._instruments and channel in CHANNELS
        return (channel, name) if known and stream_name(channel, name) == stream else None

    def corrupt(self, frame: Frame, variant: str) -> str:
        if variant == "broken":
            return frame.text[: len(frame.text) // 2]
        message = json.loads(frame.text)
        key = next(key for key in DAMAGED if key in message)
        if variant == "types":
            message[key] = {"value": message[key]}
        else:
            del message[key]
        return dump(message)


class BinanceSession:
    """One connection. `combined`: data comes wrapped with its stream's name. Streams that do not exist are
    acknowledged and stay silent."""

    def __init__(self, binance: Binance, name: str, combined: bool, now: int) -> None:
        self.name = name
        self.topics: set[Topic] = set()
        self._binance = binance
        self._combined = combined
        self._streams: dict[str, None] = {}
        self._messages = Allowance(binance.messages, SECOND)
        self._opened = self._now = self._pinged = now
        self._pings: dict[bytes, int] = {}

    def receive(self, text: str, now: int) -> list[Reply]:
        self._now = now
        if not self._messages.take("", now):
            return [Close(1008, "Too many requests")]
        try:
            request = json.loads(text)
        except json.JSONDecodeError as error:
            where = f"at line {error.lineno} column {error.colno}"
            return [dump({"code": 3, "msg": f"Invalid JSON: expected value {where}"})]
        return [self._answer(text, request, now)]

    def heard(self, kind: str, payload: bytes, now: int) -> list[Reply]:
        """Pings and pongs count as messages; a pong answers its ping and those before it."""
        self._now = now
        if not self._messages.take("", now):
            return [Close(1008, "Too many requests")]
        if kind == "pong" and payload in self._pings:
            answered = self._pings[payload]
            self._pings = {ping: time for ping, time in self._pings.items() if time > answered}
        return []

    def spelled(self, frame: Frame) -> str:
        if not self._combined:
            return frame.text
        return f'{{"stream":"{stream_name(*frame.topic)}","data":{frame.text}}}'

    def sent(self, now: int) -> None:
        return

    def tick(self, now: int) -> list[Reply]:
        self._now = now
        lifetime = self._binance.spells.lifetime
        if now - self._opened >= (LIFETIME if lifetime is None else lifetime):
            return [Close(1001, "Connections end after 24 hours")]
        if any(now - time >= PONG_WITHIN for time in self._pings.values()):
            return [Close(1008, "Pong timeout")]
        if now - self._pinged < PING_EVERY:
            return []
        self._pinged = now
        payload = str(ms(now)).encode()
        self._pings[payload] = now
        return [Ping(payload)]

    def notice(self) -> str:
        event = {"e": "serverShutdown", "E": ms(self._now)}
        return dump({"stream": "!serverShutdown", "data": event} if self._combined else event)

    def add(self, streams: Iterable[str], now: int) -> None:
        """Subscribe to streams, whether they exist or not."""
        spells = self._binance.spells
        for stream in streams:
            topic = self._binance.topic(stream)
            if topic is not None and spells.refuses(topic[1], now):
                continue
            self._streams[stream] = None
            if topic is None:
                continue
            if spells.silences(topic[1], now):
                # Acknowledged, and nothing will ever come.
                self.topics.discard(topic)
                continue
            self.topics.add(topic)
            self._binance.begin(topic, now)

    def _remove(self, streams: Iterable[str]) -> None:
        for stream in streams:
            self._streams.pop(stream, None)
            topic = self._binance.topic(stream)
            if topic is not None:
                self.topics.discard(topic)

    def _answer(self, text: str, request: Any, now: int) -> str:
        if not isinstance(request, dict):
            return _error(2, "Invalid request: invalid type, expected an object at line 1 column 1", None)
        identity = request.get("id")
        if not _is_identity(identity):
            expected = "an integer, a string of at most 36 characters or null"
            return _error(2, f"Invalid request: request ID must be {expected}", None)
        if "method" not in request:
            return _error(2, f"Invalid request: missing field `method` at line 1 column {len(text)}", identity)
        method = request["method"]
        if method not in METHODS:
            expected = ", ".join(f"`{known}`" for known in METHODS)
            column = text.find(json.dumps(method)) + len(json.dumps(method))
            message = f"unknown variant {method}, expected one of {expected} at line 1 column {column}"
            return _error(2, f"Invalid request: {message}", identity)
        if method == "LIST_SUBSCRIPTIONS":
            return _result(list(self._streams), identity)
        if "params" not in request:
            return _error(2, f"Invalid request: missing field `params` at line 1 column {len(text)}", identity)
        return self._method(method, request["params"], identity, now)

    def _method(self, method: str, params: Any, identity: Any, now: int) -> str:
        if not isinstance(params, list):
            return _error(2, "Invalid request: invalid type, expected a sequence", identity)
        if method.endswith("PROPERTY"):
            return self._property(params, method == "SET_PROPERTY", identity)
        if not all(isinstance(stream, str) for stream in params):
            return _error(2, "Invalid request: invalid type, expected a string", identity)
        if method == "UNSUBSCRIBE":
            self._remove(params)
            return _result(None, identity)
        if len(self._streams.keys() | set(params)) > self._binance.streams:
            return _error(2, "Invalid request: too many parameters", identity)
        self.add(params, now)
        return _result(None, identity)

    def _property(self, params: list[Any], setting: bool, identity: Any) -> str:
        if params and not isinstance(params[0], str):
            return _error(2, "Invalid request: property name must be a string", identity)
        if len(params) != 1 + setting:
            amount = "many" if len(params) > 1 + setting else "few"
            return _error(2, f"Invalid request: too {amount} parameters", identity)
        if params[0] != "combined":
            return _error(0, "Unknown property", identity)
        if not setting:
            return _result(self._combined, identity)
        if not isinstance(params[1], bool):
            return _error(1, "Invalid value type: expected Boolean", identity)
        self._combined = params[1]
        return _result(None, identity)


def _streams(path: str, query: str) -> list[str]:
    """The streams a URL names: /ws/<a>/<b> or /stream?streams=<a>/<b>."""
    names = path.removeprefix("/ws") if path.startswith("/ws") else ""
    for part in query.split("&") if path == "/stream" else ():
        key, _, value = part.partition("=")
        if key == "streams":
            names = unquote(value)
    return [name for name in names.split("/") if name]


def _is_identity(identity: object) -> bool:
    if identity is None:
        return True
    if isinstance(identity, str):
        return len(identity) <= 36
    return type(identity) is int and -(2**63) <= identity < 2**63


def _result(result: object, identity: object) -> str:
    return dump({"result": result, "id": identity})


def _error(code: int, message: str, identity: object) -> str:
    return dump({"code": code, "msg": message, "id": identity})
