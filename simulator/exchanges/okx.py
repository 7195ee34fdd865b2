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
from simulator.market import MILLISECOND, SECOND, Market, Order
from simulator.rest.okx import Rest
from simulator.rows.okx import BARS, bar_rows, data_frame, dump, fill_row, instrument_id, merged_row, trades, trades_all
from simulator.tape import Tape

HOUR = 3600 * SECOND
IDLE = 30 * SECOND
ARGS_BYTES = 64 * 1024
REQUESTS_AN_HOUR = 480
CONNECTS_A_SECOND = 3

PUBLIC = "/ws/v5/public"
BUSINESS = "/ws/v5/business"
CHANNELS: dict[str, str] = {
    "trades": PUBLIC,
    "trades-all": BUSINESS,
    **{f"candle{bar}": BUSINESS for bar in BARS},
}


__all__ = ["Okx", "OkxSession", "dialect", "instrument_id", "lists"]


def lists(listing: Listing) -> bool:
    """Is this one of OKX's instruments? One host has every market."""
    return True


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
        self._rest = Rest(self.tape, spells, limits)
        self._pushed: dict[Topic, tuple[int, list[str]]] = {}
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
            frames += trades(instrument, order)
        return frames

    def due(self, wanted: Iterable[Topic], now: int, flush: bool = False) -> list[Frame]:
        """Bars: the open one at most once a second when it changed, and each closed one once with confirm 1."""
        frames: list[Frame] = []
        for topic in wanted:
            if not topic[0].startswith("candle"):
                continue
            pushed, last = self._pushed.get(topic, (0, []))
            if now - pushed < SECOND and not _ended(topic, last, now):
                continue
            first = int(last[0]) if last else now // MILLISECOND
            rows = [row for row in bar_rows(self.tape, topic, first, now) if row != last]
            if rows:
                self._pushed[topic] = (now, rows[-1])
            frames += [Frame(topic, data_frame(topic, [row])) for row in rows]
        return frames

    def books(self, depth: int | None) -> dict[str, BookView]:
        return {}

    def reset(self, instrument: str) -> None:
        return

    def last(self, topic: Topic, now: int) -> str | None:
        """What a new subscription is sent at once: the last known trade, however old, or the open bar."""
        pit = self.tape.pit(topic[1])
        if pit is None or not pit.fills:
            return None
        if topic[0] == "trades-all":
            return data_frame(topic, [fill_row(topic[1], pit.fills[-1])])
        if topic[0] == "trades":
            return data_frame(topic, [merged_row(topic[1], [pit.fills[-1]])])
        return data_frame(topic, bar_rows(self.tape, topic, now // MILLISECOND, now)[-1:])

    def corrupt(self, frame: Frame, variant: str) -> str:
        if variant == "broken":
            return frame.text[: len(frame.text) // 2]
        message = json.loads(frame.text)
        for row in message["data"]:
            if variant == "types":
                row["px"], row["tradeId"] = [row["px"]], {"id": row["tradeId"]}
            else:
                del row["px"]
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
        if op == "login":
            return [self._error(identity, "60009", "Login failed.")]
        if op not in ("subscribe", "unsubscribe"):
            return [self._error(identity, "60019", f"Invalid op: {op}")]
        if not self._requests.take("", now):
            return [self._error(identity, "60014", "Requests too frequent")]
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
                replies += self._take(identity, op, (arg["channel"], arg["instId"]), now)
        return replies

    def _refusal(self, identity: str | None, arg: dict[str, str], now: int) -> str | None:
        channel, instrument = arg["channel"], arg.get("instId", "")
        path = CHANNELS.get(channel)
        if path == BUSINESS and self._path == PUBLIC:
            message = "This channel has been migrated to the '/business' URL. Please subscribe using the new URL."
            return self._error(identity, "64001", message)
        if path == PUBLIC and self._path == BUSINESS:
            return self._error(identity, "64002", "This channel is not available at the '/business' URL.")
        if path and self._okx.tape.pit(instrument) and not self._okx.spells.refuses(instrument, now):
            return None
        where = f"channel:{channel}" + (f",instId:{instrument}" if instrument else "")
        return self._error(identity, "60018", f"Subscribe failed, wrong URL or {where} doesn't exist.")

    def _take(self, identity: str | None, op: str, topic: Topic, now: int) -> list[Reply]:
        arg = {"channel": topic[0], "instId": topic[1]}
        ack = dump(_with_id(identity, {"event": op, "arg": arg, "connId": self.name}))
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
        last = self._okx.last(topic, now)
        return [ack] if last is None else [ack, last]

    def _error(self, identity: str | None, code: str, message: str) -> str:
        return dump(_with_id(identity, {"event": "error", "code": code, "msg": message, "connId": self.name}))


def _with_id(identity: str | None, message: dict[str, Any]) -> dict[str, Any]:
    return message if identity is None else {"id": identity, **message}


def _is_identity(identity: object) -> bool:
    return isinstance(identity, str) and len(identity) <= 32 and identity.isascii() and identity.isalnum()


def _is_arg(arg: object) -> bool:
    return isinstance(arg, dict) and "channel" in arg and all(isinstance(value, str) for value in arg.values())


def _ended(topic: Topic, last: list[str], now: int) -> bool:
    width = BARS[topic[0].removeprefix("candle")][0]
    return bool(last) and last[-1] == "0" and int(last[0]) + width <= now // MILLISECOND
