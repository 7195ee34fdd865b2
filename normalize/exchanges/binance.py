"""Binance spot: frames to records. Base and quote are the instrument list's, never guessed from the symbol; a symbol
the list does not have is refused. USD-M futures are another exchange.

Evidence and examples: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams ; of the daily
files: https://github.com/binance/binance-public-data
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec

from normalize.elements import JSON_FAULTS, asked, beginning_with, each, elements, message, together
from normalize.levels import levels, offer
from normalize.mapper import BookUpdate, Level, Prints, Reading
from normalize.values import MILLISECOND, POSITIVE, all_positive, decimal, named, near, positive, price, unix, whole
from pipeline.errors import DecodeError
from pipeline.frames import Frame
from pipeline.instruments import canonical_symbol
from pipeline.records import Instrument, Kline, Quote, Ticker, Trade
from pipeline.timeframes import WIDTHS

EXCHANGE = "binance"
_PATH_STEM = "/api/v3/"
_OLD_STEM = "/api/v1/"
"""Retired in 2026; the bodies are those of v3."""
_PARTIAL = {"depth5": 5, "depth10": 10, "depth20": 20}
_DEFAULT_LIMIT = "100"
_TRADES = ("historicalTrades", "trades")
"""Not `aggTrades`: collected are single trades, live and by REST."""
_DAILY = re.compile(r"/data/spot/daily/trades/([^/]+)/\1-trades-\d{4}-\d{2}-\d{2}\.zip", re.ASCII)
_COLUMNS = 7
_PRICE_AND_SIZE = re.compile(rf"{POSITIVE} {POSITIVE}")
"""One match over both is cheaper; which one is wrong the single checks tell."""
_BOOLEANS = {"True": True, "False": False, "true": True, "false": False}
_INTERVALS = frozenset({"1s", "1m", "5m", "15m", "1h", "4h", "1d"})
"""The venue's bars that have our windows, spelt alike."""

_OF_TRADES, _BEGINNING = '@trade"', 48
"""Where the venue's own combined messages of trades say what they are; others are read more slowly."""

_NO_CONTRACTS: list[str | None] = [None]

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An id or a time. Where there is no trade, klines say -1."""
Serial = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]


class Message(msgspec.Struct, frozen=True):
    """Any JSON object that comes over the socket: combined (`stream`, `data`), raw, or an answer to a request."""

    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    method: str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    code: msgspec.Raw = msgspec.Raw()
    e: msgspec.Raw = msgspec.Raw()
    u: msgspec.Raw = msgspec.Raw()
    lastUpdateId: msgspec.Raw = msgspec.Raw()


class Print(msgspec.Struct, frozen=True, gc=False):
    """`trade`: one trade. `m`: the buyer was the maker, so the taker sold. `X` only futures have."""

    s: str
    t: Number
    p: str
    q: str
    T: Number
    m: bool
    X: str | None = None


class TradeMessage(msgspec.Struct, frozen=True):
    """A combined message of the channel `trade`, decoded at once."""

    stream: str
    data: Print
    method: str | None = None


class Row(msgspec.Struct, frozen=True, gc=False):
    """A trade by REST. `isBuyerMaker` is the `m` of the stream."""

    id: Number
    price: str
    qty: str
    time: Number
    isBuyerMaker: bool


class Numbered(msgspec.Struct, frozen=True, gc=False):
    """A trade by REST of which only the number counts."""

    id: Number


class Aggregate(msgspec.Struct, frozen=True, gc=False):
    """`aggTrade`: the trades `f` to `l` of one taker order at one price. `st` only futures have."""

    s: str
    a: Number
    p: str
    q: str
    f: Number
    l: Number  # noqa: E741
    T: Number
    m: bool
    st: int | None = None


class Changes(msgspec.Struct, frozen=True, gc=False):
    """`depthUpdate`: the changes `U` to `u` of a book. `pu` only futures have."""

    s: str
    E: Number
    U: Number
    u: Number
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]
    pu: int | None = None


class Depth(msgspec.Struct, frozen=True, gc=False):
    """A book by REST, or the few levels of `depth5`, `depth10`, `depth20`: neither names its symbol."""

    lastUpdateId: Number
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class BestOffer(msgspec.Struct, frozen=True, gc=False):
    """`bookTicker`: no event, no time. `u` numbers the book's changes."""

    u: Number
    s: str
    b: str
    B: str
    a: str
    A: str
    e: str | None = None


class DayTicker(msgspec.Struct, frozen=True, gc=False):
    """`24hrTicker`, as far as it is used. `v` is in base units, `q` in quote units."""

    E: Number
    s: str
    c: str
    o: str
    h: str
    l: str  # noqa: E741
    v: str
    q: str
    b: str = ""
    B: str = ""
    a: str = ""
    A: str = ""


class Bar(msgspec.Struct, frozen=True, gc=False):
    """The bar in a `kline`. `T` is its last instant, `x` whether it is closed; `f` and `L` are -1 without trades."""

    t: Number
    T: Number
    i: str
    f: Serial
    L: Serial
    o: str
    c: str
    h: str
    l: str  # noqa: E741
    v: str
    n: Number
    x: bool
    q: str
    V: str
    Q: str


class BarEvent(msgspec.Struct, frozen=True, gc=False):
    """`kline`."""

    E: Number
    s: str
    k: Bar


class Filter(msgspec.Struct, frozen=True, gc=False):
    """A trading rule; of most of them nothing is used."""

    filterType: str
    tickSize: str = ""
    stepSize: str = ""
    minQty: str = ""


class Listing(msgspec.Struct, frozen=True, gc=False):
    """An element of `exchangeInfo`. `contractType` only futures have."""

    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    filters: tuple[Filter, ...] = ()
    contractType: str | None = None


class Body(msgspec.Struct, frozen=True):
    """A REST reply that is an object: the instrument list, or a refusal."""

    symbols: msgspec.Raw = msgspec.Raw()
    code: int | None = None
    msg: str = ""


class Stamp(msgspec.Struct, frozen=True):
    """The times of an event, alone or in its envelope, or of the instrument list."""

    E: Number = 0
    T: Number = 0
    serverTime: Number = 0


class RowStamp(msgspec.Struct, frozen=True):
    """The time of a trade by REST."""

    time: Number


class Envelope(msgspec.Struct, frozen=True):
    """A combined message of which only the times count."""

    data: Stamp = Stamp()


_MESSAGE = msgspec.json.Decoder(Message)
_TRADE_MESSAGE = msgspec.json.Decoder(TradeMessage)
_PRINT = msgspec.json.Decoder(Print)
_AGGREGATE = msgspec.json.Decoder(Aggregate)
_CHANGES = msgspec.json.Decoder(Changes)
_DEPTH = msgspec.json.Decoder(Depth)
_BEST_OFFER = msgspec.json.Decoder(BestOffer)
_DAY_TICKER = msgspec.json.Decoder(DayTicker)
_BAR_EVENT = msgspec.json.Decoder(BarEvent)
_NUMBERED = msgspec.json.Decoder(list[Numbered])
_ROWS = msgspec.json.Decoder(list[Row])
_LISTINGS = msgspec.json.Decoder(list[Listing])
_BODY = msgspec.json.Decoder(Body)
_STAMP = msgspec.json.Decoder(Stamp)
_ROW_STAMPS = msgspec.json.Decoder(list[RowStamp])
_ENVELOPE = msgspec.json.Decoder(Envelope)
_WORD = msgspec.json.Decoder(str)

Payload = msgspec.Raw | str
Instruments = Mapping[str, Instrument]


class Books:
    """The books of `depth`: numbered changes that follow a snapshot by REST.

    https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#how-to-manage-a-local-order-book-correctly
    """

    levels = 5000
    by_request = True
    shared = True
    partial = True

    def link(self, last: int | None, joining: bool, update: BookUpdate) -> Literal["apply", "skip", "gap"]:
        """The first change after a snapshot and every later one by the same test: it must hold number `last` + 1.
        The documented test of the first (`last` itself inside) fails where a snapshot sits on the border of two."""
        if last is None or update.first is None or update.last is None:
            return "gap"
        if update.last <= last:
            return "skip"
        return "gap" if update.first > last + 1 else "apply"

    def checksum(self, bids: Sequence[Level], asks: Sequence[Level]) -> int | None:
        """Binance has none."""
        return None


class Mapper:
    """Reads `trade`, `aggTrade`, `depth`, `depth5/10/20`, `bookTicker`, `ticker` and `kline`, combined or raw, the
    REST replies `exchangeInfo`, `depth`, `historicalTrades` and `trades`, and lines of the daily files of trades."""

    trade_channels = frozenset({"trade", "aggTrade"})
    book_channels = frozenset(
        f"{depth}{speed}" for depth in ("depth", *_PARTIAL) for speed in ("", "@100ms", "@1000ms")
    )
    book_rule = Books()
    lowest_number = 0
    """Or 1: aggregates of spot begin at 0, those of futures at 1
    (https://github.com/binance/binance-public-data/issues/85)."""

    def __init__(self) -> None:
        self._events: dict[str, Callable[[Payload, Frame, Instruments], Reading]] = {
            "trade": _trade,
            "aggTrade": _aggregate,
            "depth": _book,
            "bookTicker": _quote,
            "ticker": _ticker,
            "kline": _kline,
        }
        self._raw_events = {"depthUpdate": "depth", "24hrTicker": "ticker"}

    def read(self, frame: Frame, instruments: Instruments) -> Reading:
        """See normalize.mapper.Mapper."""
        if frame.dir == "out":
            return Reading(control=f"out {_request(frame)}")
        return _rest(frame, instruments) if frame.kind == "rest" else self._socket(frame, instruments)

    def trade(self, frame: Frame, instruments: Instruments) -> Trade | None:
        """See normalize.mapper.Mapper."""
        if frame.data.find(_OF_TRADES, 0, _BEGINNING) < 0:
            return None
        try:
            found = _TRADE_MESSAGE.decode(frame.data)
            if found.data.X is None and _of_trades(found.stream):
                return _single(found.data, frame, instruments)
        except (*JSON_FAULTS, DecodeError):
            pass
        return None

    def short(self, frames: Sequence[Frame]) -> list[bool]:
        """See normalize.mapper.Mapper."""
        return beginning_with(frames, _OF_TRADES, _BEGINNING)

    def prints(self, frames: Sequence[Frame], instruments: Instruments) -> Prints | None:
        """See normalize.mapper.Mapper."""
        try:
            found = together([frame.data for frame in frames], _TRADE_MESSAGE)
            alone = all(map(_of_trades, {each.stream for each in found}))
            return _prints([each.data for each in found], instruments) if alone else None
        except (DecodeError, KeyError):
            return None

    def numbers(self, frame: Frame) -> list[int]:
        """See normalize.mapper.Mapper."""
        if frame.data.lstrip().startswith("["):
            return [row.id for row in elements(frame.data, _NUMBERED, Numbered, "a trade of Binance")[0]]
        lines = frame.data.splitlines()
        return list(each(lines, [], lambda line: whole(line.partition(",")[0], "id")))

    def time(self, frame: Frame) -> int | None:
        """The newest of the frame's event, trade and server times; quotes and books by REST have none."""
        try:
            if frame.kind == "rest" and _file_of(frame) is not None:
                return max((unix(row.time, "time") for row in _daily(frame.data)[0]), default=None)
            if frame.data.startswith("["):
                return max((unix(row.time, "time") for row in _ROW_STAMPS.decode(frame.data)), default=None)
            outer = _STAMP.decode(frame.data)
            inner = _ENVELOPE.decode(frame.data).data
            newest = max(outer.E, outer.T, outer.serverTime, inner.E, inner.T)
            return unix(newest, "time") if newest else None
        except (*JSON_FAULTS, DecodeError):
            return None

    def _socket(self, frame: Frame, instruments: Instruments) -> Reading:
        found = message(frame.data, _MESSAGE, "a message of Binance")
        if found.stream is not None:
            if not found.data:
                raise DecodeError("neither data nor event")
            return self._stream(found.stream, found.data, frame, instruments)
        if found.e:
            event = message(found.e, _WORD, "an event of Binance")
            return self._stream(f"@{self._raw_events.get(event, event)}", frame.data, frame, instruments)
        if found.u:
            return _quote(frame.data, frame, instruments)
        if found.lastUpdateId:
            # On a raw connection only its url tells the symbol, if it is for one stream.
            return self._stream(asked(frame.conn)[0].rpartition("/ws/")[2], frame.data, frame, instruments)
        if found.error or found.code:
            return Reading(control="error")
        if found.result:
            return Reading(control="result")
        raise DecodeError("neither data nor event")

    def _stream(self, stream: str, data: Payload, frame: Frame, instruments: Instruments) -> Reading:
        """By the name of the stream: `btcusdt@depth20@100ms`, `!bookTicker`, `@trade` where only the event is known."""
        symbol, _, channel = stream.partition("@")
        # Without its speed (`@100ms`), interval (`_1m`) or time zone; streams of the whole market have no symbol.
        channel = stream[1:] if stream.startswith("!") else channel.partition("@")[0].partition("_")[0]
        if channel == "serverShutdown":
            return Reading(control=channel)
        if channel in _PARTIAL:
            return _partial(data, symbol, _PARTIAL[channel], frame, instruments)
        if channel not in self._events:
            raise DecodeError(f"stream {channel[:40] or 'without a name'} is not collected yet")
        return self._events[channel](data, frame, instruments)


def _request(frame: Frame) -> str:
    """What the client asked: `subscribe` …."""
    try:
        return (_MESSAGE.decode(frame.data).method or "request")[:40].lower()
    except JSON_FAULTS:
        return "request"


def _known(symbol: str, instruments: Instruments) -> Instrument:
    if (instrument := instruments.get(symbol)) is None:
        raise DecodeError("unknown instrument", symbol[:80])
    return instrument


def _said(instrument: Instrument, time: int | None, frame: Frame) -> dict[str, Any]:
    """What every record says."""
    return {
        "exchange": EXCHANGE,
        "market": instrument.market,
        "symbol": instrument.symbol,
        "instrument": instrument.instrument,
        "time": time,
        "received": frame.ts,
    }


def _event_time(number: int, what: str, frame: Frame) -> int:
    return near(unix(number, what), frame.ts)


def _trade(data: Payload, frame: Frame, instruments: Instruments) -> Reading:
    found = message(data, _PRINT, "a trade of Binance")
    if found.X is not None:
        raise DecodeError("not an event of the spot exchange", f"X {found.X[:40]}")
    return Reading(trades=(_single(found, frame, instruments),))


def _of_trades(stream: str) -> bool:
    """Whether it is one instrument's stream of trades."""
    return not stream.startswith("!") and stream.partition("@")[2] == "trade"


def _prints(found: Sequence[Print], instruments: Instruments) -> Prints | None:
    """Raises DecodeError, and KeyError for an instrument that is not known."""
    prices, sizes = [each.p for each in found], [each.q for each in found]
    if {each.X for each in found} != {None} or not all_positive(prices + sizes):
        return None
    numbers = [each.t for each in found]
    return Prints(
        [instruments[each.s] for each in found],
        list(map(str, numbers)),
        numbers,
        [_cut(unix(each.T, "T")) for each in found],
        prices,
        sizes,
        ["sell" if each.m else "buy" for each in found],
        _NO_CONTRACTS * len(found),
    )


def _cut(time: int) -> int:
    """REST tells milliseconds: the same trade has the same time however it came."""
    return time - time % MILLISECOND


def _single(found: Print, frame: Frame, instruments: Instruments) -> Trade:
    return _made(found, str(found.t), found.t, found.t, frame, instruments)


def _trades(data: Payload, symbol: str, frame: Frame, instruments: Instruments) -> Reading:
    """A page of trades by REST, which does not say of which symbol they are; nothing in it is of the future's."""
    rows, faults = elements(data, _ROWS, Row, "a trade of Binance")
    trades = each(rows, faults, lambda row: _row(row, symbol, frame, instruments))
    return Reading(trades=trades, faults=tuple(faults), control=None if rows or faults else "no trades")


def _row(row: Row, symbol: str, frame: Frame, instruments: Instruments) -> Trade:
    found = Print(s=symbol, t=row.id, p=row.price, q=row.qty, T=row.time, m=row.isBuyerMaker)
    return _made(found, str(row.id), row.id, row.id, frame, instruments)


def _aggregate(data: Payload, frame: Frame, instruments: Instruments) -> Reading:
    """Its trades' numbers are the sequence, so that aggregates of recordings continue single trades; its own number
    is only the id."""
    found = message(data, _AGGREGATE, "an aggregate of Binance")
    if found.st is not None:
        raise DecodeError("not an event of the spot exchange", f"st {found.st}")
    if found.f > found.l:
        raise DecodeError("first trade behind the last", f"{found.f} to {found.l}")
    return Reading(trades=(_made(found, str(found.a), found.f, found.l, frame, instruments),))


def _made(
    found: Print | Aggregate, number: str, first: int, last: int, frame: Frame, instruments: Instruments
) -> Trade:
    assert frame.ts is not None
    instrument = _known(found.s, instruments)
    time = _event_time(found.T, "T", frame)
    if _PRICE_AND_SIZE.fullmatch(f"{found.p} {found.q}") is None:
        positive(found.p, "p")
        positive(found.q, "q")
    return Trade(
        exchange=EXCHANGE,
        market=instrument.market,
        symbol=instrument.symbol,
        instrument=instrument.instrument,
        time=_cut(time),
        received=frame.ts,
        id=number,
        sequence=last,
        first_sequence=first if first < last else None,
        fills=last - first + 1,
        price=found.p,
        size=found.q,
        side="sell" if found.m else "buy",
    )


def _book(data: Payload, frame: Frame, instruments: Instruments) -> Reading:
    found = message(data, _CHANGES, "a book of Binance")
    if found.pu is not None:
        raise DecodeError("not an event of the spot exchange", f"pu {found.pu}")
    if found.u < found.U:
        raise DecodeError("first change behind the last", f"{found.U} to {found.u}")
    book = BookUpdate(
        instrument=_known(found.s, instruments),
        snapshot=False,
        bids=levels(found.b, "bids"),
        asks=levels(found.a, "asks"),
        first=found.U,
        last=found.u,
        time=_event_time(found.E, "E", frame),
    )
    return Reading(books=(book,))


def _partial(data: Payload, symbol: str, cut: int, frame: Frame, instruments: Instruments) -> Reading:
    found = message(data, _DEPTH, "a book of Binance")
    return Reading(books=(_snapshot(found, _known(symbol.upper(), instruments), cut=cut),))


def _snapshot(found: Depth, instrument: Instrument, *, asked: int | None = None, cut: int | None = None) -> BookUpdate:
    return BookUpdate(
        instrument=instrument,
        snapshot=True,
        bids=levels(found.bids, "bids"),
        asks=levels(found.asks, "asks"),
        last=found.lastUpdateId,
        asked=asked,
        cut=cut,
    )


def _quote(data: Payload, frame: Frame, instruments: Instruments) -> Reading:
    found = message(data, _BEST_OFFER, "a best offer of Binance")
    if found.e is not None:
        raise DecodeError("not an event of the spot exchange", f"e {found.e[:40]}")
    instrument = _known(found.s, instruments)
    bid, bid_size = offer(instrument, found.b, found.B, "bid")
    ask, ask_size = offer(instrument, found.a, found.A, "ask")
    quote = Quote(
        **_said(instrument, None, frame), bid=bid, bid_size=bid_size, ask=ask, ask_size=ask_size, sequence=found.u
    )
    return Reading(quotes=(quote,))


def _ticker(data: Payload, frame: Frame, instruments: Instruments) -> Reading:
    found = message(data, _DAY_TICKER, "a ticker of Binance")
    instrument = _known(found.s, instruments)
    bid, bid_size = offer(instrument, found.b, found.B, "bid")
    ask, ask_size = offer(instrument, found.a, found.A, "ask")
    ticker = Ticker(
        **_said(instrument, _event_time(found.E, "E", frame), frame),
        last=price(found.c, "c"),
        bid=bid,
        bid_size=bid_size,
        ask=ask,
        ask_size=ask_size,
        open_24h=price(found.o, "o"),
        high_24h=price(found.h, "h"),
        low_24h=price(found.l, "l"),
        volume_24h=decimal(found.v, "v"),
        quote_volume_24h=decimal(found.q, "q"),
    )
    return Reading(tickers=(ticker,))


def _kline(data: Payload, frame: Frame, instruments: Instruments) -> Reading:
    found = message(data, _BAR_EVENT, "a kline of Binance")
    if found.k.i not in _INTERVALS:
        raise DecodeError(f"bars of {found.k.i[:20]} are not collected")
    instrument = _known(found.s, instruments)
    if not found.k.x:
        return Reading(control="kline open")
    return Reading(klines=(_bar(found.k, found.E, instrument, frame),))


def _bar(bar: Bar, event: int, instrument: Instrument, frame: Frame) -> Kline:
    begin, width = _event_time(bar.t, "t", frame), WIDTHS[bar.i]
    # Intervals of another time zone (`kline_1d@+08:00`) are named alike.
    if begin % width or not begin < unix(bar.T, "T") < begin + width:
        raise DecodeError("kline is not of its window", f"{bar.i} from {bar.t} to {bar.T}")
    return Kline(
        **_said(instrument, _event_time(event, "E", frame), frame),
        timeframe=bar.i,
        open_time=begin,
        close_time=begin + width,
        open=positive(bar.o, "o"),
        high=positive(bar.h, "h"),
        low=positive(bar.l, "l"),
        close=positive(bar.c, "c"),
        volume=decimal(bar.v, "v"),
        quote_volume=decimal(bar.q, "q"),
        buy_volume=decimal(bar.V, "V"),
        buy_quote_volume=decimal(bar.Q, "Q"),
        trades_count=bar.n,
        first_id=str(bar.f) if bar.f >= 0 else None,
        last_id=str(bar.L) if bar.L >= 0 else None,
    )


def _file_of(frame: Frame) -> str | None:
    """The symbol of which these are lines of a daily file. Raises DecodeError."""
    found = _DAILY.fullmatch(asked(frame.url)[0])
    return None if found is None else unquote(found[1]).upper()


def _lines(symbol: str, frame: Frame, instruments: Instruments) -> Reading:
    rows, faults = _daily(frame.data)
    trades = each(rows, faults, lambda row: _row(row, symbol, frame, instruments))
    return Reading(trades=trades, faults=tuple(faults), control=None if rows or faults else "no trades")


def _daily(text: str) -> tuple[list[Row], list[DecodeError]]:
    """The lines of a daily file, each judged alone: id, price, quantity, quote quantity, time (microseconds since
    2025), whether the buyer was the maker, whether the match was the best."""
    rows: list[Row] = []
    faults: list[DecodeError] = []
    for line in text.splitlines():
        try:
            rows.append(_line(line))
        except DecodeError as error:
            faults.append(error)
    return rows, faults


def _line(line: str) -> Row:
    """Raises DecodeError. The last column is looked at too: a line that was cut must not pass."""
    cells = line.split(",")
    if len(cells) != _COLUMNS or cells[5] not in _BOOLEANS or cells[6] not in _BOOLEANS:
        raise DecodeError("not a line of a daily file of Binance", repr(line[:80]))
    number, at, quantity, _, time, maker, _ = cells
    return Row(whole(number, "id"), at, quantity, whole(time, "time"), _BOOLEANS[maker])


def _rest(frame: Frame, instruments: Instruments) -> Reading:
    if (symbol := _file_of(frame)) is not None:
        return _lines(symbol, frame, instruments)
    path, query = asked(frame.url)
    name = path.removeprefix(_PATH_STEM).removeprefix(_OLD_STEM)
    if name in ("time", "ping"):
        return Reading(control=name)
    if name not in ("exchangeInfo", "depth", *_TRADES):
        raise DecodeError(f"reply of {path[:80] or 'no url'} is not collected yet")
    if name == "exchangeInfo" and frame.data.lstrip().startswith("["):
        # Some recorders keep the list without its envelope.
        return _instruments(frame.data, frame)
    if name in _TRADES and frame.data.lstrip().startswith("["):
        return _trades(frame.data, query.get("symbol", "").upper(), frame, instruments)
    body = message(frame.data, _BODY, "a reply of Binance")
    if body.code is not None:
        raise DecodeError("the exchange refused", f"code {body.code}: {body.msg}")
    if name == "exchangeInfo":
        if not body.symbols:
            raise DecodeError("list without symbols")
        return _instruments(body.symbols, frame)
    if name in _TRADES:
        raise DecodeError("trades are not a list")
    instrument = _known(query.get("symbol", "").upper(), instruments)
    limit = whole(query.get("limit", _DEFAULT_LIMIT), "limit")
    return Reading(books=(_snapshot(message(frame.data, _DEPTH, "a book of Binance"), instrument, asked=limit),))


def _instruments(data: Payload, frame: Frame) -> Reading:
    listings, faults = elements(data, _LISTINGS, Listing, "a listing of Binance")
    return Reading(
        instruments=each(listings, faults, lambda listing: _instrument(listing, frame)), faults=tuple(faults)
    )


def _instrument(listing: Listing, frame: Frame) -> Instrument:
    """All that the spot exchange lists is spot, leveraged tokens (not `isSpotTradingAllowed`) with it: they have
    the same books and trades."""
    assert frame.ts is not None
    if listing.contractType is not None:
        raise DecodeError("not an instrument of the spot exchange", listing.symbol[:80])
    if not listing.baseAsset or not listing.quoteAsset:
        raise DecodeError("instrument without base or quote", listing.symbol[:80])
    rules = {rule.filterType: rule for rule in listing.filters}
    ticks, lots = rules.get("PRICE_FILTER"), rules.get("LOT_SIZE")
    return Instrument(
        exchange=EXCHANGE,
        market="spot",
        symbol=named(canonical_symbol(listing.baseAsset, listing.quoteAsset, "spot"), "base or quote"),
        instrument=named(listing.symbol, "symbol"),
        time=None,
        received=frame.ts,
        base=listing.baseAsset,
        quote=listing.quoteAsset,
        status=named(listing.status, "status"),
        # A rule of zero is switched off.
        tick_size=price(ticks.tickSize, "tickSize") if ticks else None,
        lot_size=price(lots.stepSize, "stepSize") if lots else None,
        min_size=price(lots.minQty, "minQty") if lots else None,
    )
