"""OKX v5: subscriptions, acknowledgements, keepalive and REST requests. Sans-I/O.

https://www.okx.com/docs-v5/en/#overview-websocket
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

from ingest.feed import (
    Accepted,
    Data,
    Event,
    Keepalive,
    Notice,
    Other,
    Plan,
    Pong,
    Rate,
    Refused,
    Request,
    Subscription,
)
from pipeline.errors import ExchangeError
from pipeline.timeframes import HOUR, SECOND

MOST_ARGS_BYTES = 60 * 1024
"""OKX closes the connection (1009) above 64 KB of arguments; the rest is room for the envelope."""
MOST_SUBSCRIPTIONS = 100
"""Per connection. OKX documents no limit; fewer connections would lose more symbols at each cut."""
MOST_TOPICS = 10_000

_CHANNELS = {"trade": ("trades-all",), "candle": ("trades-all",)}
_PATHS = {"trades-all": "/business"}
_TEMPORARY = frozenset({"60014", "63999", "64007"})
_NAMED = re.compile(r"channel:\s*([^,\s]+),\s*instId:\s*([^,\s]+)")
_DATA_FOLLOWS = (',"data":', ',"action":')

_ALLOWANCES = {
    "instruments SPOT": Rate(20, 2 * SECOND),
    "instruments SWAP": Rate(20, 2 * SECOND),
    "instruments FUTURES": Rate(20, 2 * SECOND),
    "instruments OPTION": Rate(20, 2 * SECOND),
    "time": Rate(10, 2 * SECOND),
}
_PONG = Pong()
_OTHER = Other()


class _Arg(msgspec.Struct, frozen=True):
    channel: str = ""
    instId: str = ""


class _Message(msgspec.Struct, frozen=True):
    event: str | None = None
    id: str | None = None
    arg: _Arg | None = None
    code: str = ""
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw()


class _Topic(msgspec.Struct, frozen=True):
    arg: _Arg


class _Time(msgspec.Struct, frozen=True):
    ts: str


class _Times(msgspec.Struct, frozen=True):
    data: tuple[_Time, ...]


class _Envelope(msgspec.Struct, frozen=True):
    code: str
    msg: str = ""


_MESSAGE = msgspec.json.Decoder(_Message)
_TOPIC = msgspec.json.Decoder(_Topic)
_TIMES = msgspec.json.Decoder(_Times)
_ENVELOPE = msgspec.json.Decoder(_Envelope)


class Feed:
    """OKX. One instance a process; it remembers the prefixes of data frames it has seen."""

    name = "okx"
    # Any N < 30 s is allowed. A quiet connection proves that it lives only by pongs, and candles of quiet
    # instruments wait for that proof, so we ask sooner than we must.
    keepalive = Keepalive(ping="ping", silence=5 * SECOND, deadline=10 * SECOND)
    connects = Rate(3, SECOND)
    requests = Rate(480, HOUR)
    allowances = _ALLOWANCES
    clock_step = 1_000_000

    def __init__(self) -> None:
        self._topics: dict[str, Data] = {}

    def native(self, symbol: str) -> str:
        """BTC-USDT-PERP is OKX's BTC-USDT-SWAP; every other canonical symbol is spelt as OKX does."""
        spelling = symbol.upper()
        return f"{spelling.removesuffix('-PERP')}-SWAP" if spelling.endswith("-PERP") else spelling

    def subscriptions(self, instrument: str, data_types: Iterable[str]) -> tuple[Subscription, ...]:
        channels = dict.fromkeys(channel for kind in data_types for channel in _CHANNELS[kind])
        return tuple(Subscription(channel, instrument) for channel in channels)

    def plans(self, wanted: Sequence[Subscription]) -> list[Plan]:
        by_path: dict[str, list[Subscription]] = {}
        for subscription in wanted:
            by_path.setdefault(_PATHS[subscription.channel], []).append(subscription)
        return [
            Plan(path, tuple(group[start : start + MOST_SUBSCRIPTIONS]))
            for path, group in by_path.items()
            for start in range(0, len(group), MOST_SUBSCRIPTIONS)
        ]

    def batches(self, wanted: Sequence[Subscription]) -> list[tuple[Subscription, ...]]:
        batches: list[tuple[Subscription, ...]] = []
        batch: list[Subscription] = []
        size = 0
        for subscription in wanted:
            length = len(_arg(subscription)) + 1
            if batch and size + length > MOST_ARGS_BYTES:
                batches.append(tuple(batch))
                batch, size = [], 0
            batch.append(subscription)
            size += length
        return [*batches, tuple(batch)] if batch else batches

    def subscribe(self, request: str, batch: Sequence[Subscription]) -> str:
        return f'{{"id":"{request}","op":"subscribe","args":[{",".join(map(_arg, batch))}]}}'

    def classify(self, text: str) -> Event:
        if text.startswith('{"arg":{'):
            end = text.find("}", 8) + 1
            if text.startswith(_DATA_FOLLOWS, end):
                return self._topics.get(text[:end]) or self._learn(text[:end])
        if text == "pong":
            return _PONG
        try:
            message = _MESSAGE.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return _OTHER
        return _event(message)

    def listings(self, instruments: Iterable[str]) -> list[Request]:
        """Options are listed by family only (`instFamily` is mandatory there)."""
        queries: dict[str, str] = {}
        for instrument in instruments:
            kind = instrument_type(instrument)
            family = "&instFamily=" + "-".join(instrument.split("-")[:2]) if kind == "OPTION" else ""
            queries[f"instType={kind}{family}"] = f"instruments {kind}"
        return [Request(f"/api/v5/public/instruments?{query}", allowance) for query, allowance in queries.items()]

    def time(self) -> Request:
        return Request("/api/v5/public/time", "time")

    def read_time(self, body: str) -> int:
        try:
            return int(_TIMES.decode(body).data[0].ts) * self.clock_step + self.clock_step // 2
        except (msgspec.DecodeError, ValueError, IndexError) as error:
            raise ExchangeError(f"OKX's time is not readable: {body[:200]!r}") from error

    def fault(self, status: int, body: str) -> Refused | None:
        """50011 is the rate limit, 50013 and 50001 say busy; a refusal mostly comes with HTTP 200 or 400."""
        try:
            envelope = _ENVELOPE.decode(body)
        except msgspec.DecodeError:
            return Refused(f"HTTP {status}, not an answer of the API", temporary=True)
        if status == 200 and envelope.code == "0":
            return None
        temporary = status == 429 or status >= 500 or envelope.code in ("50011", "50013", "50001", "50026")
        return Refused(f"HTTP {status}, code {envelope.code}: {envelope.msg}", temporary=temporary)

    def _learn(self, prefix: str) -> Data:
        try:
            arg = _TOPIC.decode(prefix + "}").arg
        except (msgspec.DecodeError, UnicodeEncodeError):
            return Data()
        if len(self._topics) >= MOST_TOPICS:
            self._topics.clear()
        return self._topics.setdefault(prefix, Data(Subscription(arg.channel, arg.instId)))


def instrument_type(instrument: str) -> str:
    """OKX's `instType` of an id: SPOT, SWAP, FUTURES (X-Perps too) or OPTION."""
    parts = instrument.split("-")
    if parts[-1] == "SWAP":
        return "SWAP"
    return {2: "SPOT", 3: "FUTURES"}.get(len(parts), "OPTION")


def _arg(subscription: Subscription) -> str:
    return f'{{"channel":"{subscription.channel}","instId":"{subscription.instrument}"}}'


def _event(message: _Message) -> Event:
    named = Subscription(message.arg.channel, message.arg.instId) if message.arg else None
    match message.event:
        case None if bytes(message.data):
            return Data(named)
        case "subscribe" if named:
            return Accepted(named)
        case "error":
            # An error has no `arg`; its wording changes, the place where it names the subscription does not.
            if found := _NAMED.search(message.msg):
                named = Subscription(found[1], found[2])
            return Refused(f"{message.code} {message.msg}", message.id, named, message.code in _TEMPORARY)
        case "notice" if message.code == "64008":
            return Notice(f"{message.code} {message.msg}")
    return _OTHER
