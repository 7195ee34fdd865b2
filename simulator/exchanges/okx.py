"""OKX v5 as its servers speak it: subscriptions, errors, pushes and REST. Strict, sans-I/O, no clock.

https://www.okx.com/docs-v5/en/ ; what the documentation leaves open is answered as recordings show it.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from simulator.dialect import BookView, Close, Dialect, Frame, Reply, Response, Topic
from simulator.faults import Spells
from simulator.limits import Allowance
from simulator.listings import Listing
from simulator.market import SECOND, Market, Order
from simulator.pushes.okx import Channels
from simulator.rest.okx import Rest
from simulator.rows.okx import BARS, INST_TYPES, Numbers, arg_of, dump, instrument_id, trades, trades_all
from simulator.tape import Tape

HOUR = 3600 * SECOND
IDLE = 30 * SECOND
ARGS_BYTES = 64 * 1024
REQUESTS_AN_HOUR = 480
CONNECTS_A_SECOND = 3

PUBLIC = "/ws/v5/public"
BUSINESS = "/ws/v5/business"
CHANNELS: dict[str, str] = {
    **dict.fromkeys(("trades", "books", "books5", "bbo-tbt", "tickers", "instruments"), PUBLIC),
    "trades-all": BUSINESS,
    **{f"candle{bar}": BUSINESS for bar in BARS},
}
FOR_VIPS = ("books-l2-tbt", "books50-l2-tbt")
"""On /public, after a login and with a fee tier only."""


__all__ = ["Okx", "OkxSession", "dialect", "instrument_id", "lists", "terms"]


def lists(listing: Listing) -> bool:
    """Is this one of OKX's instruments? One host has every market."""
    return True


def terms(listing: Listing) -> Listing:
    """The listing with OKX's steps of price and size: those it has."""
    return listing


def dialect(market: Market, spells: Spells, limits: float) -> Dialect:
    """The dialect over one market. `limits` multiplies every allowance (1: the documented ones)."""
    return Okx(market, spells, limits)


class Okx:
    """The OKX dialect over one market. `limits` multiplies every allowance (1: the documented ones)."""

    name = "okx"
    ws_prefix = "/ws/v5"
    paths = frozenset({PUBLIC, BUSINESS})
    channels = frozenset(CHANNELS)

    def __init__(self, market: Market, spells: Spells, limits: float = 1.0) -> None:
        self.market = market
        self.spells = spells
        self.tape = Tape(market, {symbol: instrument_id(pit.listing) for symbol, pit in market.pits.items()})
        self.requests_an_hour = int(REQUESTS_AN_HOUR * limits)
        self._connects = Allowance(int(CONNECTS_A_SECOND * limits), SECOND)
        numbers = Numbers()
        self._rest = Rest(self.tape, spells, limits, numbers)
        self._numbers = numbers
        self._channels = Channels(self.tape, numbers, market.start)
        self._opened = 0

    def instrument(self, symbol: str) -> str:
        return self.tape.instrument(symbol)

    def symbol(self, instrument: str) -> str | None:
        return self.tape.symbol(instrument)

    def connect(self, address: str, now: int) -> bool:
        return self._connects.take(address, now)

    def serves(self, path: str) -> bool:
        return path in self.paths

    def open(self, path: str, now: int, query: str = "") -> "OkxSession":
        self._opened += 1
        return OkxSession(self, f"{0xA4D30000 + self._opened:08x}", path, now)

    def respond(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        return self._rest.respond(path, query, address, now)

    def printed(self, order: Order, wanted: Iterable[Topic]) -> list[Frame]:
        self.tape.add(order)
        instrument = self.tape.instrument(order[0].symbol)
        frames: list[Frame] = []
        if ("trades-all", instrument) in wanted:
            frames += trades_all(instrument, order)
        if ("trades", instrument) in wanted:
            frames += trades(
                instrument, order, self._numbers.of(instrument, self.tape.instruments[instrument].book.version)
            )
        return frames

    def due(self, wanted: Iterable[Topic], now: int, flush: bool = False) -> list[Frame]:
        return self._channels.due(wanted, now, flush)

    def books(self, depth: int | None) -> dict[str, BookView]:
        return self._channels.views(depth)

    def reset(self, instrument: str) -> None:
        self._numbers.reset(instrument, self.tape.instruments[instrument].book.version)

    def names(self, channel: str, name: str) -> bool:
        """Is there such an instrument, or type of instruments, for this channel?"""
        return name in INST_TYPES.values() if channel == "instruments" else self.tape.pit(name) is not None

    def first(self, topic: Topic, now: int) -> list[str]:
        """What a new subscription is sent at once."""
        return self._channels.first(topic, now)

    def corrupt(self, frame: Frame, variant: str) -> str:
        if variant == "broken":
            return frame.text[: len(frame.text) // 2]
        message = json.loads(frame.text)
        for row in message["data"]:
            # A bar is a list; a trade's price, a ticker's last and a book's asks are what cannot be done without.
            name: Any = (
                1 if isinstance(row, list) else next(name for name in ("px", "last", "asks", "instId") if name in row)
            )
            if variant == "missing":
                del row[name]
                continue
            row[name] = [row[name]]
            if "tradeId" in row:
                row["tradeId"] = {"id": row["tradeId"]}
        return dump(message)


class OkxSession:
    """One connection to /public or /business. `name` is its connId."""

    def __init__(self, okx: Okx, name: str, path: str, now: int) -> None:
        self.name = name
        self.topics: set[Topic] = set()
        self._subscribed: set[Topic] = set()
        self._okx = okx
        self._path = path
        self._requests = Allowance(okx.requests_an_hour, HOUR)
        self._pushed = now
        self._empty = now

    def receive(self, text: str, now: int) -> list[Reply]:
        if text == "ping":
            return ["pong"]
        if len(text.encode()) > ARGS_BYTES:
            return [Close(1009, "Frame size exceeded")]
        try:
            request = json.loads(text)
        except json.JSONDecodeError:
            request = None
        if not isinstance(request, dict) or not isinstance(request.get("op"), str) or "args" not in request:
            return [self._error(None, "60012", f"Invalid request: {text}")]
        return self._request(request, now)

    def heard(self, kind: str, payload: bytes, now: int) -> list[Reply]:
        return []

    def spelled(self, frame: Frame) -> str:
        return frame.text

    def sent(self, now: int) -> None:
        self._pushed = now

    def tick(self, now: int) -> list[Reply]:
        since = self._pushed if self._subscribed else self._empty
        return [Close(4004, "No data received in 30s.")] if now - since >= IDLE else []

    def notice(self) -> str:
        message = "The connection will soon be closed for a service upgrade. Please reconnect."
        return dump({"event": "notice", "code": "64008", "msg": message, "connId": self.name})

    def _request(self, request: dict[str, Any], now: int) -> list[Reply]:
        identity, op, args = request.get("id"), request["op"], request["args"]
        if identity is not None and not _is_identity(identity):
            return [self._error(None, "60033", "Parameter id error")]
        if op not in ("subscribe", "unsubscribe", "login"):
            return [self._error(identity, "60019", f"Invalid op: {op}")]
        if not self._requests.take("", now):
            return [self._error(identity, "60014", "Requests too frequent")]
        if op == "login":
            return [self._error(identity, "60009", "Login failed.")]
        if not isinstance(args, list) or not args or not all(map(_is_arg, args)):
            return [self._error(identity, "60013", "Invalid args")]
        return self._args(identity, op, args, now)

    def _args(self, identity: str | None, op: str, args: list[dict[str, str]], now: int) -> list[Reply]:
        refused = any(self._okx.spells.refuses_request(arg.get("instId", ""), now) for arg in args)
        replies: list[Reply] = []
        for arg in args:
            error = self._refusal(identity, arg, now)
            if error is not None:
                replies.append(error)
            elif not refused:
                replies += self._take(identity, op, _topic(arg), now)
        return replies

    def _refusal(self, identity: str | None, arg: dict[str, str], now: int) -> str | None:
        channel, instrument = _topic(arg)
        path = PUBLIC if channel in FOR_VIPS else CHANNELS.get(channel)
        if path == BUSINESS and self._path == PUBLIC:
            message = "This channel has been migrated to the '/business' URL. Please subscribe using the new URL."
            return self._error(identity, "64001", message)
        if path == PUBLIC and self._path == BUSINESS:
            return self._error(identity, "64002", "This channel is not available at the '/business' URL.")
        if channel in FOR_VIPS:
            message = f"The trading fee tier of this account does not allow channel:{channel}."
            return self._error(identity, "64003", message)
        if path and self._okx.names(channel, instrument) and not self._okx.spells.refuses(instrument, now):
            return None
        name = "instType" if channel == "instruments" else "instId"
        where = f"channel:{channel}" + (f",{name}:{instrument}" if instrument else "")
        return self._error(identity, "60018", f"Subscribe failed, wrong URL or {where} doesn't exist.")

    def _take(self, identity: str | None, op: str, topic: Topic, now: int) -> list[Reply]:
        ack = dump(_with_id(identity, {"event": op, "arg": arg_of(topic), "connId": self.name}))
        if op == "unsubscribe":
            self.topics.discard(topic)
            self._subscribed.discard(topic)
            self._empty = now
            return [ack]
        if not self._subscribed:
            self._pushed = now
        self._subscribed.add(topic)
        if self._okx.spells.silences(topic[1], now):
            # Acknowledged, and nothing will ever come.
            self.topics.discard(topic)
            return [ack]
        self.topics.add(topic)
        return [ack, *self._okx.first(topic, now)]

    def _error(self, identity: str | None, code: str, message: str) -> str:
        return dump(_with_id(identity, {"event": "error", "code": code, "msg": message, "connId": self.name}))


def _with_id(identity: str | None, message: dict[str, Any]) -> dict[str, Any]:
    return message if identity is None else {"id": identity, **message}


def _is_identity(identity: object) -> bool:
    return isinstance(identity, str) and len(identity) <= 32 and identity.isascii() and identity.isalnum()


def _is_arg(arg: object) -> bool:
    return isinstance(arg, dict) and "channel" in arg and all(isinstance(value, str) for value in arg.values())


def _topic(arg: dict[str, str]) -> Topic:
    return arg["channel"], arg.get("instType" if arg["channel"] == "instruments" else "instId", "")
