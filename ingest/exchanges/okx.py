"""OKX v5: subscriptions, acknowledgements, keepalive and REST requests. Sans-I/O.

https://www.okx.com/docs-v5/en/#overview-websocket
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ingest.feed import (
    JSON_FAULTS,
    Accepted,
    Archive,
    Data,
    Ended,
    Event,
    History,
    Keepalive,
    Listed,
    Notice,
    Other,
    Pong,
    Rate,
    Refused,
    Request,
    Route,
    Row,
    Subscription,
    counted,
)
from ingest.history import Backward, Source
from ingest.newest import Newest
from pipeline.errors import ExchangeError
from pipeline.exchanges import EXCHANGES
from pipeline.instruments import canonical_symbol
from pipeline.timeframes import DAY, HOUR, SECOND
from pipeline.wants import Want

MOST_ARGS_BYTES = 60 * 1024
"""OKX closes the connection (1009) above 64 KB of arguments; the rest is room for the envelope."""
MOST_TOPICS = 10_000

# OKX documents no limit of channels but advises fewer than 30 of high depth on a connection; of the others, fewer
# connections would lose more symbols at each cut. Trades have theirs to themselves.
_TRADES = Route("/business", "trades", 100)
_BARS = Route("/business", "bars", 300)
_BOOKS = Route("/public", "books", 25)
_PRICES = Route("/public", "prices", 100)
_ROUTES = {"trades-all": _TRADES, "books": _BOOKS, "bbo-tbt": _PRICES, "tickers": _PRICES}
_CHANNELS = {
    "trade": "trades-all",
    "candle": "trades-all",
    "orderbook": "books",
    "quote": "bbo-tbt",
    "ticker": "tickers",
}
_BARS_OF = {"1s": "1s", "1m": "1m", "5m": "5m", "15m": "15m", "1h": "1H", "4h": "4H", "1d": "1Dutc"}
"""Without `utc` the bars of a day open at midnight of UTC+8."""
DEPTH = 400
_TEMPORARY = frozenset({"60014", "63999", "64007"})
_NAMED = re.compile(r"channel:\s*([^,\s]+),\s*instId:\s*([^,\s]+)")
_DATA_FOLLOWS = (',"data":[', ',"action"')
_FOLLOWING = 9
"""Characters of either: with them a prefix that was learnt is proof enough."""

_ALLOWANCES = {
    "instruments SPOT": Rate(20, 2 * SECOND),
    "instruments SWAP": Rate(20, 2 * SECOND),
    "instruments FUTURES": Rate(20, 2 * SECOND),
    "instruments OPTION": Rate(20, 2 * SECOND),
    "time": Rate(10, 2 * SECOND),
    "books": Rate(40, 2 * SECOND),
    "history-trades": Rate(20, 2 * SECOND),
    "trades": Rate(100, 2 * SECOND),
}
MOST_TRADES = 100
MOST_NEWEST = 500
_TRADING = EXCHANGES["okx"].traded
_MARKETS = {"SPOT": "spot", "SWAP": "perpetual", "FUTURES": "future", "OPTION": "option"}
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


class _Trade(msgspec.Struct, frozen=True):
    instId: str
    tradeId: str
    ts: str


class _Trades(msgspec.Struct, frozen=True):
    data: tuple[_Trade, ...]


class _Envelope(msgspec.Struct, frozen=True):
    code: str
    msg: str = ""


class _Line(msgspec.Struct, frozen=True):
    instType: str
    instId: str
    state: str
    baseCcy: str = ""
    quoteCcy: str = ""
    uly: str = ""
    instFamily: str = ""
    expTime: str = ""
    stk: str = ""
    optType: str = ""
    ruleType: str = ""


class _List(msgspec.Struct, frozen=True):
    data: tuple[msgspec.Raw, ...]


_MESSAGE = msgspec.json.Decoder(_Message)
_TOPIC = msgspec.json.Decoder(_Topic)
_TIMES = msgspec.json.Decoder(_Times)
_TRADES_OF = msgspec.json.Decoder(_Trades)
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_LIST = msgspec.json.Decoder(_List)
_LINE = msgspec.json.Decoder(_Line)


class Feed:
    """OKX. One instance a process; it remembers the prefixes of data frames it has seen."""

    name = "okx"
    # Any N < 30 s is allowed. A quiet connection proves that it lives only by pongs, and candles of quiet
    # instruments wait for that proof, so we ask sooner than we must.
    keepalive = Keepalive(ping="ping", silence=5 * SECOND, deadline=10 * SECOND)
    connects = Rate(3, SECOND)
    requests = Rate(480, HOUR)
    allowances: Mapping[str, Rate] = _ALLOWANCES
    # OKX documents none.
    lifetime: int | None = None
    clock_step = 1_000_000
    # An instrument it does not have is refused with 60018.
    strict = True
    book_channels = frozenset({"books"})
    # "The last 3 months": the shortest three months there are.
    horizon: int | None = 89 * DAY
    fetches = Rate(20 * MOST_TRADES, 2 * SECOND)
    # There are daily files (public/market-data-history), but their sizes and prices went through floats ("9.0" where
    # REST says "9"), old ones do not tell `source`, and when they are published is not said.
    archive: Archive | None = None

    def __init__(self) -> None:
        self._topics: dict[str, Data] = {}

    def native(self, symbol: str) -> str:
        """BTC-USDT-PERP is OKX's BTC-USDT-SWAP; every other canonical symbol is spelt as OKX does."""
        spelling = symbol.upper()
        return f"{spelling.removesuffix('-PERP')}-SWAP" if spelling.endswith("-PERP") else spelling

    def channels(self, data_type: str, timeframes: Sequence[str]) -> tuple[str, ...]:
        if data_type == "kline":
            return tuple(f"candle{bar}" for timeframe, bar in _BARS_OF.items() if timeframe in timeframes)
        return (_CHANNELS[data_type],)

    def route(self, subscription: Subscription) -> Route:
        return _BARS if subscription.channel.startswith("candle") else _ROUTES[subscription.channel]

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
        return _request("subscribe", request, batch)

    def unsubscribe(self, request: str, batch: Sequence[Subscription]) -> str:
        return _request("unsubscribe", request, batch)

    def classify(self, text: str) -> Event:
        end = text.find("}", 8) + 1
        if (data := self._topics.get(text[: end + _FOLLOWING])) is not None:
            return data
        if text.startswith('{"arg":{') and text.startswith(_DATA_FOLLOWS, end):
            return self._learn(text[: end + _FOLLOWING], text[:end] + "}")
        if text == "pong":
            return _PONG
        try:
            message = _MESSAGE.decode(text)
        except JSON_FAULTS:
            return _OTHER
        return _event(message)

    def counts(self, texts: Sequence[str]) -> list[tuple[Subscription | None, int]] | None:
        return counted([text[: text.find("}", 8) + 1 + _FOLLOWING] for text in texts], self._topics)

    def listings(self, symbols: Iterable[str]) -> list[Request]:
        """Options are listed by family only (`instFamily` is mandatory there), so a pattern of options has to name
        theirs: `BTC-USD-*-*-C`."""
        queries: dict[str, str] = {}
        for symbol in symbols:
            for kind in _types(symbol.upper()):
                family = "&instFamily=" + "-".join(symbol.upper().split("-")[:2]) if kind == "OPTION" else ""
                queries[f"instType={kind}{family}"] = f"instruments {kind}"
        return [Request(f"/api/v5/public/instruments?{query}", allowance) for query, allowance in queries.items()]

    def listed(self, body: str) -> list[Listed]:
        try:
            raws = _LIST.decode(body).data
        except JSON_FAULTS as error:
            raise ExchangeError(f"OKX's list of instruments is not readable: {body[:200]!r}") from error
        return [line for raw in raws if (line := _listed(raw)) is not None]

    def time(self) -> Request:
        return Request("/api/v5/public/time", "time")

    def read_time(self, body: str) -> int:
        try:
            return int(_TIMES.decode(body).data[0].ts) * self.clock_step + self.clock_step // 2
        except (*JSON_FAULTS, ValueError, IndexError) as error:
            raise ExchangeError(f"OKX's time is not readable: {body[:200]!r}") from error

    def snapshot(self, instrument: str) -> Request:
        return Request(f"/api/v5/market/books?instId={instrument}&sz={DEPTH}", "books")

    def history(self, want: Want, now: int) -> History:
        """history-trades, newest first, `after` means older; /market/trades has the newest, five times as often and
        five times as many a page: https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-trades-history"""
        instrument = want.instrument
        path = f"/api/v5/market/history-trades?instId={instrument}&type=1"
        newest = f"/api/v5/market/trades?instId={instrument}"
        source = Source(
            page=lambda edge, count: Request(f"{path}&after={edge}&limit={count}", "history-trades"),
            newest=lambda count: Request(f"{newest}&limit={count}", "trades"),
            read=lambda body: _rows(body, instrument),
            most=MOST_TRADES,
            most_newest=MOST_NEWEST,
        )
        return Newest(want, source) if want.last is None else Backward(want, source, now)

    def fault(self, status: int, body: str) -> Refused | None:
        """50011 is the rate limit, 50013 and 50001 say busy, 51001 that there is no such instrument; a refusal mostly
        comes with HTTP 200 or 400."""
        try:
            envelope = _ENVELOPE.decode(body)
        except JSON_FAULTS:
            return Refused(f"HTTP {status}, not an answer of the API", temporary=True)
        if status == 200 and envelope.code == "0":
            return None
        temporary = status == 429 or status >= 500 or envelope.code in ("50011", "50013", "50001", "50026")
        return Refused(
            f"HTTP {status}, code {envelope.code}: {envelope.msg}",
            temporary=temporary,
            unknown=envelope.code == "51001",
        )

    def used(self, headers: Mapping[str, str]) -> Mapping[str, int]:
        """OKX tells nothing."""
        return {}

    def _learn(self, prefix: str, topic: str) -> Data:
        try:
            arg = _TOPIC.decode(topic).arg
        except JSON_FAULTS:
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


def _rows(body: str, instrument: str) -> list[Row]:
    """The trades of a page. Raises ExchangeError."""
    try:
        trades = _TRADES_OF.decode(body).data
        if any(trade.instId != instrument for trade in trades):
            raise ValueError("trades of another instrument")
        return [Row(int(trade.tradeId), int(trade.ts) * Feed.clock_step) for trade in trades]
    except (*JSON_FAULTS, ValueError) as error:
        raise ExchangeError(f"OKX's trades of {instrument} are not readable ({error}): {body[:200]!r}") from error


def _types(symbol: str) -> list[str]:
    """The `instType`s among which an id or a pattern may match."""
    if not any(sign in symbol for sign in "*?["):
        return [instrument_type(symbol)]
    family = symbol.split("-")[:2]
    if symbol.count("-") >= 4 and not any(sign in part for part in family for sign in "*?["):
        return ["OPTION"]
    return ["SPOT", "SWAP", "FUTURES"]


def _listed(raw: msgspec.Raw) -> Listed | None:
    """The same symbol as normalize/exchanges/okx.py gives it; tests/ingest/test_feeds.py holds them together."""
    try:
        line = _LINE.decode(raw)
        return Listed(line.instId, _symbol(line), line.state == _TRADING)
    except (*JSON_FAULTS, ValueError, OverflowError, KeyError):
        return None


def _symbol(line: _Line) -> str:
    """Raises ValueError, OverflowError, KeyError for a line that names no instrument."""
    # X-Perps are listed as futures about five years out, but pay funding.
    market = "perpetual" if line.ruleType == "xperp" else _MARKETS[line.instType]
    base, quote = line.baseCcy, line.quoteCcy
    if line.instType != "SPOT":
        base, _, tagged = (line.instFamily or line.uly).partition("-")
        quote = tagged.partition("_")[0]
        spelt = line.instId.split("-")[1:2]
        # The venue's tag (USD_UM) keeps symbols apart.
        quote = spelt[0] if quote and spelt and spelt[0].startswith(f"{quote}_") else quote and tagged
    if not base or not quote:
        raise ValueError(f"{line.instId} has no base or no quote")
    expiry = int(line.expTime) * 1_000_000 if line.expTime else None
    option = {"C": "call", "P": "put"}.get(line.optType)
    return canonical_symbol(base, quote, market, expiry, line.stk or None, option)


def _request(op: str, request: str, batch: Sequence[Subscription]) -> str:
    return f'{{"id":"{request}","op":"{op}","args":[{",".join(map(_arg, batch))}]}}'


def _arg(subscription: Subscription) -> str:
    return f'{{"channel":"{subscription.channel}","instId":"{subscription.instrument}"}}'


def _event(message: _Message) -> Event:
    named = Subscription(message.arg.channel, message.arg.instId) if message.arg else None
    match message.event:
        case None if bytes(message.data):
            return Data(named)
        case "subscribe" if named:
            return Accepted(named, message.id)
        case "unsubscribe" if named:
            return Ended(named)
        case "error":
            # An error has no `arg`; its wording changes, the place where it names the subscription does not.
            if found := _NAMED.search(message.msg):
                named = Subscription(found[1], found[2])
            return Refused(f"{message.code} {message.msg}", message.id, named, message.code in _TEMPORARY)
        case "notice" if message.code == "64008":
            return Notice(f"{message.code} {message.msg}")
    return _OTHER
