"""Binance spot: subscriptions, acknowledgements, keepalive and REST requests. Sans-I/O.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from urllib.parse import quote

import msgspec

from ingest.feed import (
    JSON_FAULTS,
    Accepted,
    Archive,
    Data,
    Event,
    History,
    Keepalive,
    Listed,
    Notice,
    Other,
    Rate,
    Refused,
    Request,
    Route,
    Row,
    Subscription,
    counted,
)
from ingest.history import Forward, Source
from ingest.newest import Newest
from pipeline.errors import ExchangeError
from pipeline.exchanges import EXCHANGES
from pipeline.instruments import canonical_symbol
from pipeline.timeframes import HOUR, MINUTE, SECOND
from pipeline.wants import Want

MOST_STREAMS = 300
"""Per connection. Binance allows 1024; fewer are lost at a cut and moved at each rotation."""
MOST_PARAMS = 100
"""Streams in one SUBSCRIBE."""
MOST_TOPICS = 10_000
WEIGHT = "weight"
DEPTH = 1000
"""Levels of a REST snapshot: weight 50, where 5000 levels cost 250."""
MOST_TRADES = 1000
TRADES_WEIGHT = 25
"""Of a page of trades, however many it has."""

_ROUTE = Route("/stream", "streams", MOST_STREAMS)
_CHANNELS = {
    "trade": "trade",
    "candle": "trade",
    "orderbook": "depth@100ms",
    "quote": "bookTicker",
    "ticker": "ticker",
}
_INTERVALS = ("1s", "1m", "5m", "15m", "1h", "4h", "1d")
_PREFIX = '{"stream":"'
_DATA_FOLLOWS = '","data":'
_TRADING = EXCHANGES["binance"].traded
_SHUTDOWN = "serverShutdown"
_USED = "x-mbx-used-weight-1m"
_PAUSES = {429: 10 * SECOND, 418: 2 * MINUTE, 403: MINUTE}
"""Where the answer has no Retry-After. 429: too much; 418: banned, for 2 minutes to 3 days; 403: the firewall."""
_MICROSECONDS_FROM = 10**14
_OTHER = Other()


class _Error(msgspec.Struct, frozen=True):
    code: int | None = None
    msg: str = ""


class _Event(msgspec.Struct, frozen=True):
    e: str = ""


class _Message(msgspec.Struct, frozen=True):
    """Anything but data: an acknowledgement, an error in either form, a notice in either form."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Error | None = None
    code: int | None = None
    msg: str = ""
    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    e: str = ""


class _Line(msgspec.Struct, frozen=True):
    symbol: str
    baseAsset: str
    quoteAsset: str
    status: str


class _List(msgspec.Struct, frozen=True):
    symbols: tuple[msgspec.Raw, ...]


class _Time(msgspec.Struct, frozen=True):
    serverTime: int


class _Trade(msgspec.Struct, frozen=True):
    id: int
    time: int


_MESSAGE = msgspec.json.Decoder(_Message)
_LIST = msgspec.json.Decoder(_List)
_LINE = msgspec.json.Decoder(_Line)
_TIME = msgspec.json.Decoder(_Time)
_TRADES = msgspec.json.Decoder(tuple[_Trade, ...])
_ERROR = msgspec.json.Decoder(_Error)


class Feed:
    """Binance spot. One instance a process; it remembers the names of streams it has seen."""

    name = "binance"
    # Binance pings every 20 s; a quiet connection proves that it lives by our own pings, sooner. Each of them, each
    # of our pongs and each request counts towards 5 messages a second.
    keepalive = Keepalive(ping=None, silence=5 * SECOND, deadline=10 * SECOND)
    connects = Rate(300, 5 * MINUTE)
    requests = Rate(2, SECOND)
    allowances: Mapping[str, Rate] = {WEIGHT: Rate(6000, MINUTE)}
    # Binance ends a connection after 24 hours.
    lifetime: int | None = 23 * HOUR
    clock_step = 1_000_000
    # Unknown and delisted symbols are acknowledged, and stay silent.
    strict = False
    book_channels = frozenset({"depth@100ms"})
    # Binance keeps every trade there ever was.
    horizon: int | None = None
    fetches = Rate(6000 // TRADES_WEIGHT * MOST_TRADES, MINUTE)
    archive: Archive | None

    def __init__(self) -> None:
        self._topics: dict[str, Data] = {}
        self.archive = Archive(
            path=_daily,
            checksum=lambda instrument, day: f"{_daily(instrument, day)}.CHECKSUM",
            read=_line,
            # "The next day": https://github.com/binance/binance-public-data
            delay=6 * HOUR,
        )

    def native(self, symbol: str) -> str:
        """Only the list knows the canonical spelling; Binance's own ids are upper case."""
        return symbol.upper()

    def channels(self, data_type: str, timeframes: Sequence[str]) -> tuple[str, ...]:
        if data_type == "kline":
            return tuple(f"kline_{timeframe}" for timeframe in _INTERVALS if timeframe in timeframes)
        return (_CHANNELS[data_type],)

    def route(self, subscription: Subscription) -> Route:
        return _ROUTE

    def batches(self, wanted: Sequence[Subscription]) -> list[tuple[Subscription, ...]]:
        return [tuple(wanted[start : start + MOST_PARAMS]) for start in range(0, len(wanted), MOST_PARAMS)]

    def subscribe(self, request: str, batch: Sequence[Subscription]) -> str:
        return self._request("SUBSCRIBE", request, batch)

    def unsubscribe(self, request: str, batch: Sequence[Subscription]) -> str:
        return self._request("UNSUBSCRIBE", request, batch)

    def classify(self, text: str) -> Event:
        prefix = text[: text.find('"', len(_PREFIX)) + len(_DATA_FOLLOWS)]
        if (data := self._topics.get(prefix)) is not None:
            return data
        if prefix.startswith(_PREFIX) and prefix.endswith(_DATA_FOLLOWS):
            data = self._learn(prefix.removeprefix(_PREFIX).removesuffix(_DATA_FOLLOWS))
            if data is not None:
                return data
        try:
            message = _MESSAGE.decode(text)
        except JSON_FAULTS:
            return _OTHER
        return self._event(message)

    def counts(self, texts: Sequence[str]) -> list[tuple[Subscription | None, int]] | None:
        return counted([text[: text.find('"', len(_PREFIX)) + len(_DATA_FOLLOWS)] for text in texts], self._topics)

    def listings(self, symbols: Iterable[str]) -> list[Request]:
        """One list has all."""
        return [Request("/api/v3/exchangeInfo", WEIGHT, 20)] if any(True for _ in symbols) else []

    def listed(self, body: str) -> list[Listed]:
        try:
            raws = _LIST.decode(body).symbols
        except JSON_FAULTS as error:
            raise ExchangeError(f"Binance's list of symbols is not readable: {body[:200]!r}") from error
        return [line for raw in raws if (line := _listed(raw)) is not None]

    def time(self) -> Request:
        return Request("/api/v3/time", WEIGHT)

    def read_time(self, body: str) -> int:
        try:
            return _TIME.decode(body).serverTime * self.clock_step + self.clock_step // 2
        except JSON_FAULTS as error:
            raise ExchangeError(f"Binance's time is not readable: {body[:200]!r}") from error

    def snapshot(self, instrument: str) -> Request:
        return Request(f"/api/v3/depth?symbol={instrument}&limit={DEPTH}", WEIGHT, 50)

    def history(self, want: Want, now: int) -> History:
        """historicalTrades, ascending from an id:
        https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints#old-trade-lookup"""
        path = f"/api/v3/historicalTrades?symbol={want.instrument}"
        source = Source(
            page=lambda edge, count: Request(f"{path}&fromId={edge}&limit={count}", WEIGHT, TRADES_WEIGHT),
            newest=lambda count: Request(f"{path}&limit={count}", WEIGHT, TRADES_WEIGHT),
            read=_rows,
            most=MOST_TRADES,
        )
        return Newest(want, source) if want.last is None else Forward(want, source)

    def fault(self, status: int, body: str) -> Refused | None:
        """-1003 is too much weight, -1000 and -1001 are faults of theirs, -1021 the clock's; all else is for good.
        -1121: there is no such symbol."""
        if status == 200:
            return None
        try:
            error = _ERROR.decode(body)
        except JSON_FAULTS:
            error = _Error()
        what = f", code {error.code}: {error.msg}" if error.code is not None else ", not an answer of the API"
        temporary = status in _PAUSES or status >= 500 or error.code in (None, -1000, -1001, -1003, -1021)
        # 451: Binance does not serve this place.
        return Refused(
            f"HTTP {status}{what}",
            temporary=temporary and status != 451,
            pause=_PAUSES.get(status, 0),
            unknown=error.code == -1121,
        )

    def used(self, headers: Mapping[str, str]) -> Mapping[str, int]:
        told = next((value for key, value in headers.items() if key.lower() == _USED), "")
        return {WEIGHT: int(told)} if told.isascii() and told.isdigit() else {}

    def _request(self, method: str, request: str, batch: Sequence[Subscription]) -> str:
        topics = [f"{subscription.instrument.lower()}@{subscription.channel}" for subscription in batch]
        for topic, subscription in zip(topics, batch, strict=True):
            self._note(topic, subscription)
        params = msgspec.json.encode(topics).decode()
        return f'{{"method":"{method}","params":{params},"id":"{request}"}}'

    def _note(self, topic: str, subscription: Subscription) -> Data:
        if len(self._topics) >= MOST_TOPICS:
            self._topics.clear()
        return self._topics.setdefault(f"{_PREFIX}{topic}{_DATA_FOLLOWS}", Data(subscription))

    def _learn(self, topic: str) -> Data | None:
        """None for what is no stream of an instrument: `!serverShutdown`."""
        instrument, _, channel = topic.partition("@")
        if not instrument or not channel or topic.startswith("!"):
            return None
        return self._note(topic, Subscription(channel, instrument.upper()))

    def _event(self, message: _Message) -> Event:
        request = None if message.id is None else str(message.id)
        error = message.error or _Error(message.code, message.msg)
        if error.code is not None:
            return Refused(f"{error.code} {error.msg}", request)
        if message.e == _SHUTDOWN or message.stream == f"!{_SHUTDOWN}":
            return Notice("server shutdown")
        if message.stream is not None and bytes(message.data):
            return self._learn(message.stream) or _OTHER
        if request is not None and bytes(message.result) == b"null":
            return Accepted(request=request)
        return _OTHER


def _rows(body: str) -> list[Row]:
    """The trades of a page; nothing in it says of which symbol. Raises ExchangeError."""
    try:
        return [Row(trade.id, trade.time * Feed.clock_step) for trade in _TRADES.decode(body)]
    except JSON_FAULTS as error:
        raise ExchangeError(f"Binance's trades are not readable: {body[:200]!r}") from error


def _daily(instrument: str, day: date) -> str:
    """The daily file of single trades."""
    name = quote(instrument)
    return f"/data/spot/daily/trades/{name}/{name}-trades-{day.isoformat()}.zip"


def _line(line: bytes) -> Row:
    """id, price, qty, quoteQty, time, isBuyerMaker, isBestMatch; the time in microseconds since 2025, in milliseconds
    before. Raises ValueError."""
    number, _, _, _, time, _, _ = line.split(b",")
    told = int(time)
    return Row(int(number), told * (Feed.clock_step if told < _MICROSECONDS_FROM else 1_000))


def _listed(raw: msgspec.Raw) -> Listed | None:
    try:
        line = _LINE.decode(raw)
    except JSON_FAULTS:
        return None
    return Listed(line.symbol, canonical_symbol(line.baseAsset, line.quoteAsset, "spot"), line.status == _TRADING)
