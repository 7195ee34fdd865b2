"""OKX API v5: frames to records. Sizes of derivatives are contracts there, base units here; books stay native.

Evidence and examples: https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-all-trades-channel
"""

import re
from binascii import crc32
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import chain, zip_longest
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec

from normalize.elements import JSON_FAULTS, asked, beginning_with, each, elements, message, raws, together
from normalize.levels import in_base, levels, offer
from normalize.mapper import BookUpdate, Level, Prints, Reading
from normalize.values import (
    MILLISECOND,
    POSITIVE,
    all_positive,
    decimal,
    milliseconds,
    named,
    near,
    positive,
    price,
    whole,
    wholes,
)
from pipeline.errors import DecodeError
from pipeline.frames import Frame
from pipeline.instruments import EXACT, canonical_symbol, decimal_text
from pipeline.records import Instrument, Kline, Market, Quote, Ticker, Trade
from pipeline.timeframes import WIDTHS

EXCHANGE = "okx"
_INSTRUMENTS_PATH = "/api/v5/public/instruments"
_TIME_PATH = "/api/v5/public/time"
_BOOKS_PATH = "/api/v5/market/books"
_TRADES_PATHS = ("/api/v5/market/history-trades", "/api/v5/market/trades")
_MARKETS: dict[str, Market] = {"SPOT": "spot", "SWAP": "perpetual", "FUTURES": "future", "OPTION": "option"}
_SPOT_ID = re.compile(r"([A-Z0-9]+)-([A-Z0-9]+)", re.IGNORECASE)
_BARS = {"1s": "1s", "1m": "1m", "5m": "5m", "15m": "15m", "1H": "1h", "4H": "4h", "1Dutc": "1d"}
"""The venue's bars that have our windows. `1D` and the like open at UTC+8."""
_CHECKED_LEVELS = 25
_FULL_BOOKS = frozenset({"books", "books-l2-tbt", "books50-l2-tbt"})
_CUT_BOOKS = {"books5": 5}
"""Not `books-rpi` and `books-elp`: they hold orders that the others leave out, and are other books."""
_INT64 = 2**63 - 1

_OF_TRADES, _BEGINNING = '"trades', 32
"""Where the venue's own messages of trades say what they are; others are read more slowly."""
_FILL_NUMBERS = re.compile(rf"[0-9]{{1,18}} [0-8]?[0-9]{{1,12}} {POSITIVE} {POSITIVE}")
"""Number, milliseconds (until the year 2255), price, size: one match over all of them is cheaper. Which one is wrong
the single checks tell."""

_DATA = attrgetter("data")
_NO_CONTRACTS: list[str | None] = [None]

ChangeId = Annotated[int, msgspec.Meta(ge=-1, le=_INT64)]


class Arg(msgspec.Struct, frozen=True):
    """What a message is about."""

    channel: str = ""
    instId: str = ""


class Heading(msgspec.Struct, frozen=True):
    """What is read of any JSON object that comes over the socket or by REST, but its data."""

    arg: Arg | None = None
    event: str | None = None
    op: str | None = None
    action: str | None = None
    code: str | None = None
    msg: str | None = None


class Message(Heading, frozen=True):
    """Any such object."""

    data: msgspec.Raw = msgspec.Raw()


class Numbered(msgspec.Struct, frozen=True, gc=False):
    """A fill of which only the number counts."""

    tradeId: str


class Fill(msgspec.Struct, frozen=True, gc=False):
    """An element of `trades-all` or of REST (one fill), or of `trades` (`count` fills of one order at one price;
    `tradeId` is the last of them)."""

    instId: str
    tradeId: str
    px: str
    sz: str
    side: str
    ts: str
    count: str = "1"
    source: str = "0"


class Fills(Heading, frozen=True):
    """A message of a channel of trades, decoded at once."""

    data: list[Fill] = []


class CommonArg(msgspec.Struct, frozen=True, gc=False):
    """That of a channel of trades."""

    channel: Literal["trades-all", "trades"]
    instId: str = ""


class CommonFill(msgspec.Struct, frozen=True, gc=False):
    """A Fill that is one, under no condition."""

    instId: str
    tradeId: str
    px: str
    sz: str
    side: Literal["buy", "sell"]
    ts: str
    count: Literal["1"] = "1"
    source: Literal["0"] = "0"


class CommonFills(msgspec.Struct, frozen=True, gc=False):
    """The commonest Fills."""

    arg: CommonArg
    data: list[CommonFill]
    event: None = None
    op: str | None = None
    action: str | None = None
    code: str | None = None
    msg: str | None = None


class Changes(msgspec.Struct, frozen=True, gc=False):
    """An element of a book channel, of `bbo-tbt` or of REST: [price, quantity, "0", orders] per level. Recordings of
    2023 and before lack the numbers and have a checksum instead; since June 2026 it is 0 or left out."""

    bids: list[list[str]]
    asks: list[list[str]]
    ts: str
    seqId: ChangeId | None = None
    prevSeqId: ChangeId | None = None
    checksum: int | None = None


class DayTicker(msgspec.Struct, frozen=True, gc=False):
    """An element of `tickers`; `""` means not applicable."""

    instId: str
    ts: str
    last: str = ""
    bidPx: str = ""
    bidSz: str = ""
    askPx: str = ""
    askSz: str = ""
    open24h: str = ""
    high24h: str = ""
    low24h: str = ""
    vol24h: str = ""
    volCcy24h: str = ""


class Listing(msgspec.Struct, frozen=True, gc=False):
    """An element of the instruments list; `""` means not applicable. Old lists lack `instFamily` and `ruleType`."""

    instType: str
    instId: str
    state: str
    baseCcy: str = ""
    quoteCcy: str = ""
    settleCcy: str = ""
    uly: str = ""
    instFamily: str = ""
    ctVal: str = ""
    ctMult: str = ""
    ctValCcy: str = ""
    ctType: str = ""
    tickSz: str = ""
    lotSz: str = ""
    minSz: str = ""
    listTime: str = ""
    expTime: str = ""
    stk: str = ""
    optType: str = ""
    ruleType: str = ""


class Stamp(msgspec.Struct, frozen=True):
    """An element of which only the time counts."""

    ts: str = ""


_MESSAGE = msgspec.json.Decoder(Message)
_NUMBERED = msgspec.json.Decoder(list[Numbered])
_FILLS = msgspec.json.Decoder(list[Fill])
_MESSAGE_OF_FILLS = msgspec.json.Decoder(Fills)
_COMMON_FILLS = msgspec.json.Decoder(CommonFills)
_CHANGES = msgspec.json.Decoder(list[Changes])
_TICKERS = msgspec.json.Decoder(list[DayTicker])
_ROWS = msgspec.json.Decoder(list[list[str]])
_LISTINGS = msgspec.json.Decoder(list[Listing])
_STAMP = msgspec.json.Decoder(Stamp)


class Books:
    """The books of `books` and its faster kin: a chain of seqId, or in old recordings the checksum alone.

    https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-order-book-channel
    """

    levels = 400
    by_request = False
    shared = True
    partial = False

    def link(self, last: int | None, joining: bool, update: BookUpdate) -> Literal["apply", "skip", "gap"]:
        """`prevSeqId` is the number of the book, also where it says again what is known (nothing changed for a
        minute) or begins anew below it (a reset). On joining, what the book already holds is skipped."""
        if update.previous is None or update.last is None:
            return "apply" if last is None else "gap"
        if update.previous == last:
            return "apply"
        if last is None or not joining:
            return "gap"
        if update.last <= last:
            return "skip"
        return "apply" if update.previous < last else "gap"

    def checksum(self, bids: Sequence[Level], asks: Sequence[Level]) -> int | None:
        """CRC32 (signed) of the best 25 levels a side, bid and ask in turn, as spelt."""
        pairs = zip_longest(bids[:_CHECKED_LEVELS], asks[:_CHECKED_LEVELS], fillvalue=())
        text = ":".join(chain.from_iterable(chain.from_iterable(pairs)))
        unsigned = crc32(text.encode())
        return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


class Mapper:
    """Reads the channels of trades, order books, best offers, tickers, candles and instruments, and their REST
    replies but candles."""

    trade_channels = frozenset({"trades-all", "trades"})
    book_channels = _FULL_BOOKS | frozenset(_CUT_BOOKS)
    book_rule = Books()
    lowest_number = 1
    """Not documented; no 0 was seen in any recording."""

    def read(self, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
        """See normalize.mapper.Mapper."""
        if frame.dir == "out":
            return Reading(control=f"out {_request(frame)}")
        return self._rest(frame, instruments) if frame.kind == "rest" else self._socket(frame, instruments)

    def trade(self, frame: Frame, instruments: Mapping[str, Instrument]) -> Trade | None:
        """See normalize.mapper.Mapper."""
        if frame.data.find(_OF_TRADES, 0, _BEGINNING) < 0:
            return None
        try:
            found = _MESSAGE_OF_FILLS.decode(frame.data)
            if len(found.data) == 1 and found.event is None and found.arg and found.arg.channel in self.trade_channels:
                return _trade(found.data[0], frame, instruments)
        except (*JSON_FAULTS, DecodeError):
            pass
        return None

    def short(self, frames: Sequence[Frame]) -> list[bool]:
        """See normalize.mapper.Mapper."""
        return beginning_with(frames, _OF_TRADES, _BEGINNING)

    def prints(self, frames: Sequence[Frame], instruments: Mapping[str, Instrument]) -> Prints | None:
        """See normalize.mapper.Mapper."""
        try:
            fills = [fill for (fill,) in map(_DATA, together([frame.data for frame in frames], _COMMON_FILLS))]
            return _prints(fills, instruments)
        except (DecodeError, KeyError, ValueError):
            return None

    def numbers(self, frame: Frame) -> list[int]:
        """See normalize.mapper.Mapper."""
        rows, _ = elements(message(frame.data, _MESSAGE, "a message of OKX").data, _NUMBERED, Numbered, "a fill of OKX")
        return list(each(rows, [], lambda row: whole(row.tradeId, "tradeId")))

    def time(self, frame: Frame) -> int | None:
        """The newest `ts` of the message's elements."""
        try:
            found = raws(_MESSAGE.decode(frame.data).data or b"[]")
            return max((milliseconds(_STAMP.decode(element).ts, "ts") for element in found), default=None)
        except (*JSON_FAULTS, DecodeError):
            return None

    def _socket(self, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
        if frame.data in ("ping", "pong"):
            return Reading(control=frame.data)
        found = message(frame.data, _MESSAGE, "a message of OKX")
        if found.event is not None:
            return Reading(control=found.event[:40] or "event")
        if found.arg is None or not found.data:
            raise DecodeError("neither data nor event")
        channel = found.arg.channel
        if channel in self.trade_channels:
            return _trades(found.data, frame, instruments)
        if channel in self.book_channels:
            return _books(found, found.arg, frame, instruments)
        if channel == "bbo-tbt":
            return _quotes(found.data, found.arg, frame, instruments)
        if channel == "tickers":
            return _tickers(found.data, frame, instruments)
        if channel.startswith("candle"):
            return _klines(found.data, found.arg, frame, instruments)
        if channel == "instruments":
            return _instruments(found.data, frame)
        raise DecodeError(f"channel {channel[:40]} is not collected yet")

    def _rest(self, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
        path, query = asked(frame.url)
        if path == _TIME_PATH:
            return Reading(control="time")
        if path not in (_INSTRUMENTS_PATH, _BOOKS_PATH, *_TRADES_PATHS):
            raise DecodeError(f"reply of {path[:80] or 'no url'} is not collected yet")
        if path == _INSTRUMENTS_PATH and frame.data.lstrip().startswith("["):
            # Some recorders keep the list without its envelope.
            return _instruments(frame.data, frame)
        found = message(frame.data, _MESSAGE, "a message of OKX")
        if found.code != "0" or not found.data:
            raise DecodeError("the exchange refused", f"code {found.code}: {found.msg}")
        if path == _BOOKS_PATH:
            return _snapshot(found.data, query, frame, instruments)
        if path in _TRADES_PATHS:
            reading = _trades(found.data, frame, instruments)
            return reading if any(reading) else Reading(control="no trades")
        return _instruments(found.data, frame)


def _request(frame: Frame) -> str:
    """What the client asked: `subscribe`, `ping` …."""
    try:
        return (_MESSAGE.decode(frame.data).op or "request")[:40]
    except JSON_FAULTS:
        return frame.data if frame.data in ("ping", "pong") else "request"


def _known(instrument_id: str, frame: Frame, instruments: Mapping[str, Instrument]) -> Instrument:
    """Two parts are always spot (BASE-QUOTE): no list is needed for them, everything else needs one."""
    if (listed := instruments.get(instrument_id)) is not None:
        return listed
    parts = _SPOT_ID.fullmatch(instrument_id)
    if parts is None:
        raise DecodeError("unknown instrument", instrument_id[:80])
    assert frame.ts is not None
    return Instrument(
        exchange=EXCHANGE,
        market="spot",
        symbol=instrument_id,
        instrument=instrument_id,
        time=None,
        received=frame.ts,
        base=parts[1],
        quote=parts[2],
        status="unknown",
    )


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


def _trades(data: msgspec.Raw, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
    fills, faults = elements(data, _FILLS, Fill, "a fill of OKX")
    return Reading(trades=each(fills, faults, lambda fill: _trade(fill, frame, instruments)), faults=tuple(faults))


def _trade(fill: Fill, frame: Frame, instruments: Mapping[str, Instrument]) -> Trade:
    assert frame.ts is not None
    instrument = instruments.get(fill.instId) or _known(fill.instId, frame, instruments)
    at, quantity = fill.px, fill.sz
    plain = _FILL_NUMBERS.fullmatch(f"{fill.tradeId} {fill.ts} {at} {quantity}")
    if plain is None or fill.count != "1" or fill.side not in ("buy", "sell"):
        _check(fill)
    sequence, fills = int(fill.tradeId), int(fill.count)
    return Trade(
        exchange=EXCHANGE,
        market=instrument.market,
        symbol=instrument.symbol,
        instrument=instrument.instrument,
        time=near(int(fill.ts) * MILLISECOND, frame.ts),
        received=frame.ts,
        id=fill.tradeId,
        sequence=sequence,
        first_sequence=sequence - fills + 1 if fills > 1 else None,
        fills=fills,
        price=at,
        size=quantity if instrument.market == "spot" else in_base(instrument, quantity, at),
        side="buy" if fill.side == "buy" else "sell",
        contracts=None if instrument.market == "spot" else quantity,
        conditions=() if fill.source == "0" else _conditions(fill.source),
    )


def _prints(fills: Sequence[CommonFill], instruments: Mapping[str, Instrument]) -> Prints | None:
    """Raises DecodeError, and KeyError for an instrument that is not known."""
    prices, quantities = [fill.px for fill in fills], [fill.sz for fill in fills]
    if not all_positive(prices + quantities):
        return None
    ids = [fill.tradeId for fill in fills]
    times = [time * MILLISECOND for time in wholes([fill.ts for fill in fills], "ts")]
    known = [instruments[fill.instId] for fill in fills]
    sizes, contracts = quantities, _NO_CONTRACTS * len(fills)
    if {instrument.market for instrument in known} != {"spot"}:
        rows = list(zip(known, quantities, prices, strict=True))
        sizes = [quantity if of.market == "spot" else in_base(of, quantity, price) for of, quantity, price in rows]
        contracts = [None if of.market == "spot" else quantity for of, quantity, _ in rows]
    return Prints(known, ids, wholes(ids, "tradeId"), times, prices, sizes, [fill.side for fill in fills], contracts)


def _check(fill: Fill) -> None:
    """Raises DecodeError for the first text that is not what it should be."""
    sequence, fills = whole(fill.tradeId, "tradeId"), whole(fill.count, "count")
    if not 1 <= fills <= sequence + 1:
        raise DecodeError("count does not fit tradeId", f"{fill.count} up to {fill.tradeId}")
    if fill.side not in ("buy", "sell"):
        raise DecodeError("side is neither buy nor sell", repr(fill.side[:80]))
    positive(fill.px, "px")
    positive(fill.sz, "sz")
    milliseconds(fill.ts, "ts")


def _conditions(source: str) -> tuple[str, ...]:
    # 0: normal, 1: an order of the retail price improvement programme.
    if source in ("", "0"):
        return ()
    if source == "1":
        return ("rpi",)
    return (f"source {source[:20]}" if source.isprintable() else "source unreadable",)


def _books(found: Message, arg: Arg, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
    cut = _CUT_BOOKS.get(arg.channel)
    if cut is None and found.action not in ("snapshot", "update"):
        raise DecodeError("book without an action", str(found.action)[:80])
    instrument = _known(arg.instId, frame, instruments)
    changes, faults = elements(found.data, _CHANGES, Changes, "a book of OKX")
    snapshot = cut is not None or found.action == "snapshot"
    books = each(changes, faults, lambda change: _book(change, instrument, frame, snapshot=snapshot, cut=cut))
    return Reading(books=books, faults=tuple(faults))


def _snapshot(
    data: msgspec.Raw, query: Mapping[str, str], frame: Frame, instruments: Mapping[str, Instrument]
) -> Reading:
    """A book by REST, the way in should a channel begin without its snapshot."""
    instrument = _known(query.get("instId", ""), frame, instruments)
    size = whole(query.get("sz", "1"), "sz")
    changes, faults = elements(data, _CHANGES, Changes, "a book of OKX")
    books = each(changes, faults, lambda change: _book(change, instrument, frame, snapshot=True, asked=size))
    return Reading(books=books, faults=tuple(faults))


def _book(
    change: Changes,
    instrument: Instrument,
    frame: Frame,
    *,
    snapshot: bool,
    asked: int | None = None,
    cut: int | None = None,
) -> BookUpdate:
    return BookUpdate(
        instrument=instrument,
        snapshot=snapshot,
        bids=levels(change.bids, "bids"),
        asks=levels(change.asks, "asks"),
        last=change.seqId,
        previous=None if snapshot or change.prevSeqId == -1 else change.prevSeqId,
        time=near(milliseconds(change.ts, "ts"), frame.ts),
        # 0 since June 2026: no checksum. It never covered the channels of five levels.
        checksum=None if cut else change.checksum or None,
        asked=asked,
        cut=cut,
    )


def _quotes(data: msgspec.Raw, arg: Arg, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
    instrument = _known(arg.instId, frame, instruments)
    changes, faults = elements(data, _CHANGES, Changes, "a best offer of OKX")
    quotes = each(changes, faults, lambda change: _quote(change, instrument, frame))
    return Reading(quotes=quotes, faults=tuple(faults))


def _quote(change: Changes, instrument: Instrument, frame: Frame) -> Quote:
    bid, bid_size = _best(change.bids, instrument, "bid")
    ask, ask_size = _best(change.asks, instrument, "ask")
    time = near(milliseconds(change.ts, "ts"), frame.ts)
    return Quote(
        **_said(instrument, time, frame),
        bid=bid,
        bid_size=bid_size,
        ask=ask,
        ask_size=ask_size,
        sequence=change.seqId,
    )


def _best(rows: list[list[str]], instrument: Instrument, what: str) -> tuple[str | None, str | None]:
    """The only level of a side, which may be empty."""
    best = levels(rows[:1], what)
    return offer(instrument, *best[0], what) if best else (None, None)


def _tickers(data: msgspec.Raw, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
    found, faults = elements(data, _TICKERS, DayTicker, "a ticker of OKX")
    tickers = each(found, faults, lambda ticker: _ticker(ticker, frame, instruments))
    return Reading(tickers=tickers, faults=tuple(faults))


def _ticker(ticker: DayTicker, frame: Frame, instruments: Mapping[str, Instrument]) -> Ticker:
    """`volCcy24h` is in quote units of spot pairs, but in the base coin of derivatives, whose `vol24h` counts
    contracts; what they turned over in quote units is not told."""
    instrument = _known(ticker.instId, frame, instruments)
    spot = instrument.market == "spot"
    bid, bid_size = offer(instrument, ticker.bidPx, ticker.bidSz, "bidPx")
    ask, ask_size = offer(instrument, ticker.askPx, ticker.askSz, "askPx")
    return Ticker(
        **_said(instrument, near(milliseconds(ticker.ts, "ts"), frame.ts), frame),
        last=price(ticker.last, "last"),
        bid=bid,
        bid_size=bid_size,
        ask=ask,
        ask_size=ask_size,
        open_24h=price(ticker.open24h, "open24h"),
        high_24h=price(ticker.high24h, "high24h"),
        low_24h=price(ticker.low24h, "low24h"),
        volume_24h=_volume(ticker.vol24h if spot else ticker.volCcy24h, "24 hours' volume"),
        quote_volume_24h=_volume(ticker.volCcy24h, "volCcy24h") if spot else None,
    )


def _klines(data: msgspec.Raw, arg: Arg, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
    bar = arg.channel.removeprefix("candle")
    if bar not in _BARS:
        raise DecodeError(f"bars of {bar[:20]} are not collected")
    instrument = _known(arg.instId, frame, instruments)
    rows, faults = elements(data, _ROWS, list[str], "a candle of OKX")
    closed = [row for row in rows if row[8:9] != ["0"]]
    klines = each(closed, faults, lambda row: _kline(row, _BARS[bar], instrument, frame))
    return Reading(klines=klines, faults=tuple(faults), control=None if closed or faults else "kline open")


def _kline(row: list[str], timeframe: str, instrument: Instrument, frame: Frame) -> Kline:
    """[open time, o, h, l, c, vol, volCcy, volCcyQuote, confirm]. Rows of 2022 and before end at volCcy, and so
    never tell whether the bar is closed."""
    if len(row) < 9:
        raise DecodeError("candle does not tell whether it is closed")
    if row[8] != "1":
        raise DecodeError("confirm of a candle is neither 0 nor 1", repr(row[8][:80]))
    spot = instrument.market == "spot"
    begin = near(milliseconds(row[0], "ts"), frame.ts)
    if begin % WIDTHS[timeframe]:
        raise DecodeError("candle does not begin where its window does", row[0])
    return Kline(
        **_said(instrument, None, frame),
        timeframe=timeframe,
        open_time=begin,
        close_time=begin + WIDTHS[timeframe],
        open=positive(row[1], "open"),
        high=positive(row[2], "high"),
        low=positive(row[3], "low"),
        close=positive(row[4], "close"),
        volume=decimal(row[5] if spot else row[6], "volume"),
        quote_volume=_volume(row[7], "volCcyQuote"),
        contracts=None if spot else decimal(row[5], "vol"),
    )


def _volume(text: str, what: str) -> str | None:
    return decimal(text, what) if text else None


def _instruments(data: str | bytes | msgspec.Raw, frame: Frame) -> Reading:
    listings, faults = elements(data, _LISTINGS, Listing, "a listing of OKX")
    return Reading(
        instruments=each(listings, faults, lambda listing: _instrument(listing, frame)), faults=tuple(faults)
    )


def _instrument(listing: Listing, frame: Frame) -> Instrument:
    assert frame.ts is not None
    market = _market(listing)
    base, quote, tagged = _currencies(listing)
    expiry = milliseconds(listing.expTime, "expTime") if listing.expTime else None
    option = {"C": "call", "P": "put"}.get(listing.optType)
    return Instrument(
        exchange=EXCHANGE,
        market=market,
        symbol=named(_symbol(listing, base, tagged, market, expiry, option), "symbol"),
        instrument=named(listing.instId, "instId"),
        time=None,
        received=frame.ts,
        base=base,
        quote=quote,
        status=named(listing.state, "state"),
        settle=named(listing.settleCcy, "settleCcy") if listing.settleCcy else None,
        contract=_contract(listing),
        contract_value=_contract_value(listing),
        contract_currency=named(listing.ctValCcy, "ctValCcy") if listing.ctValCcy else None,
        tick_size=_optional(listing.tickSz, "tickSz"),
        lot_size=_optional(listing.lotSz, "lotSz"),
        min_size=_optional(listing.minSz, "minSz"),
        expiry=expiry,
        strike=_optional(listing.stk, "stk"),
        option=option,  # type: ignore[arg-type]
        listed=milliseconds(listing.listTime, "listTime") if listing.listTime else None,
    )


def _market(listing: Listing) -> Market:
    market = _MARKETS.get(listing.instType)
    if market is None:
        raise DecodeError(f"instruments of type {listing.instType[:20]} are not collected yet", listing.instId)
    # X-Perps are listed as futures about five years out, but pay funding.
    return "perpetual" if listing.ruleType == "xperp" else market


def _currencies(listing: Listing) -> tuple[str, str, str]:
    """Base, quote, and the quote with the venue's tag (USD_UM), which keeps symbols apart.

    `instFamily` comes before `uly`: BTC-USDC-SWAP has the underlying BTC-USD.
    """
    if listing.instType == "SPOT":
        base, quote = listing.baseCcy, listing.quoteCcy
        tagged = quote
    else:
        base, _, tagged = (listing.instFamily or listing.uly).partition("-")
        quote = tagged.partition("_")[0]
        spelt = listing.instId.split("-")[1:2]
        if spelt and spelt[0].startswith(f"{quote}_"):
            tagged = spelt[0]
    if not base or not quote:
        raise DecodeError("instrument without base or quote", listing.instId)
    return base, quote, tagged


def _symbol(listing: Listing, base: str, quote: str, market: Market, expiry: int | None, option: str | None) -> str:
    try:
        return canonical_symbol(base, quote, market, expiry, listing.stk or None, option)
    except (ValueError, OverflowError) as error:
        raise DecodeError("instrument without a symbol", str(error)) from error


def _contract(listing: Listing) -> Any:
    if listing.ctType not in ("", "linear", "inverse"):
        raise DecodeError(f"contracts of type {listing.ctType[:20]} are not known", listing.instId)
    return listing.ctType or None


def _contract_value(listing: Listing) -> str | None:
    """ctVal x ctMult, exactly; null where one of them is not given."""
    if not listing.ctVal or not listing.ctMult:
        return None
    face = EXACT.multiply(Decimal(positive(listing.ctVal, "ctVal")), Decimal(positive(listing.ctMult, "ctMult")))
    return decimal_text(face)


def _optional(text: str, what: str) -> str | None:
    return positive(text, what) if text else None
