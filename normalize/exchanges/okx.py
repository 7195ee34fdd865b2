"""OKX API v5: frames to trades and instruments. Sizes of derivatives are contracts there, base units here.

Evidence and examples: https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-all-trades-channel
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from normalize.mapper import Reading
from normalize.values import milliseconds, near, positive, whole
from pipeline.errors import DecodeError
from pipeline.frames import Frame
from pipeline.instruments import EXACT, base_size, canonical_symbol, decimal_text
from pipeline.records import Instrument, Market, Trade

EXCHANGE = "okx"
_INSTRUMENTS_PATH = "/api/v5/public/instruments"
_TIME_PATH = "/api/v5/public/time"
_MARKETS: dict[str, Market] = {"SPOT": "spot", "SWAP": "perpetual", "FUTURES": "future", "OPTION": "option"}
_SPOT_ID = re.compile(r"([A-Z0-9]+)-([A-Z0-9]+)", re.IGNORECASE)


class Arg(msgspec.Struct, frozen=True):
    """What a message is about."""

    channel: str = ""


class Message(msgspec.Struct, frozen=True):
    """Any JSON object that comes over the socket or by REST."""

    arg: Arg | None = None
    event: str | None = None
    op: str | None = None
    code: str | None = None
    msg: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class Fill(msgspec.Struct, frozen=True, gc=False):
    """An element of `trades-all` (one fill) or of `trades` (`count` fills of one order at one price; `tradeId`
    is the last of them)."""

    instId: str
    tradeId: str
    px: str
    sz: str
    side: str
    ts: str
    count: str = "1"
    source: str = "0"


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


Element = TypeVar("Element")
Result = TypeVar("Result")

_MESSAGE = msgspec.json.Decoder(Message)
_FILLS = msgspec.json.Decoder(list[Fill])
_LISTINGS = msgspec.json.Decoder(list[Listing])
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_STAMP = msgspec.json.Decoder(Stamp)


class Mapper:
    """Reads `trades-all`, `trades`, the instruments lists of REST and the channel `instruments`."""

    trade_channels = frozenset({"trades-all", "trades"})

    def read(self, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
        """See normalize.mapper.Mapper."""
        if frame.dir == "out":
            return Reading(control=f"out {_request(frame)}")
        return self._rest(frame) if frame.kind == "rest" else self._socket(frame, instruments)

    def time(self, frame: Frame) -> int | None:
        """The newest `ts` of the message's elements."""
        try:
            elements = _RAWS.decode(_MESSAGE.decode(frame.data).data or b"[]")
            return max((milliseconds(_STAMP.decode(element).ts, "ts") for element in elements), default=None)
        except (msgspec.DecodeError, UnicodeEncodeError, DecodeError):
            return None

    def _socket(self, frame: Frame, instruments: Mapping[str, Instrument]) -> Reading:
        if frame.data in ("ping", "pong"):
            return Reading(control=frame.data)
        message = _message(frame.data)
        if message.event is not None:
            return Reading(control=message.event[:40])
        if message.arg is None or not message.data:
            raise DecodeError("neither data nor event")
        channel = message.arg.channel
        if channel in self.trade_channels:
            fills, faults = _elements(message.data, _FILLS, Fill)
            trades = _each(fills, faults, lambda fill: _trade(fill, frame, instruments))
            return Reading(trades=trades, faults=tuple(faults))
        if channel == "instruments":
            return _instruments(message.data, frame)
        raise DecodeError(f"channel {channel[:40]} is not collected yet")

    def _rest(self, frame: Frame) -> Reading:
        path = urlsplit(frame.url or "").path
        if path == _TIME_PATH:
            return Reading(control="time")
        if path != _INSTRUMENTS_PATH:
            raise DecodeError(f"reply of {path[:80] or 'no url'} is not collected yet")
        if frame.data.lstrip().startswith("["):
            # Some recorders keep the list without its envelope.
            return _instruments(frame.data.encode(), frame)
        message = _message(frame.data)
        if message.code != "0" or not message.data:
            raise DecodeError("the exchange refused", f"code {message.code}: {message.msg}")
        return _instruments(message.data, frame)


def _message(text: str) -> Message:
    try:
        return _MESSAGE.decode(text)
    except msgspec.ValidationError as error:
        raise DecodeError("not a message of OKX", str(error)) from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise DecodeError("not JSON", str(error)) from error


def _request(frame: Frame) -> str:
    """What the client asked: `subscribe`, `ping` …."""
    try:
        return (_MESSAGE.decode(frame.data).op or "request")[:40]
    except (msgspec.DecodeError, UnicodeEncodeError):
        return frame.data if frame.data in ("ping", "pong") else "request"


def _elements(
    data: bytes | msgspec.Raw, decoder: "msgspec.json.Decoder[list[Element]]", kind: type[Element]
) -> tuple[list[Element], list[DecodeError]]:
    """All elements at once; one by one when one of them is wrong, so that it does not cost the others."""
    try:
        return decoder.decode(data), []
    except msgspec.DecodeError:
        good: list[Element] = []
        faults: list[DecodeError] = []
    try:
        raws = _RAWS.decode(data)
    except msgspec.DecodeError as error:
        raise DecodeError("data is not a list", str(error)) from error
    for raw in raws:
        try:
            good.append(msgspec.json.decode(raw, type=kind))
        except msgspec.DecodeError as error:
            faults.append(DecodeError(f"not a {kind.__name__.lower()} of OKX", f"{error} in {bytes(raw)[:400]!r}"))
    return good, faults


def _each(
    elements: Sequence[Element], faults: list[DecodeError], convert: Callable[[Element], Result]
) -> tuple[Result, ...]:
    """The elements that convert; what the others lack is added to `faults`."""
    results = []
    for element in elements:
        try:
            results.append(convert(element))
        except DecodeError as error:
            faults.append(DecodeError(error.reason, f"{error.detail} in {element}"))
    return tuple(results)


def _trade(fill: Fill, frame: Frame, instruments: Mapping[str, Instrument]) -> Trade:
    assert frame.ts is not None
    instrument = instruments.get(fill.instId) or _spot(fill.instId, frame.ts)
    sequence, fills = whole(fill.tradeId, "tradeId"), whole(fill.count, "count")
    if not 1 <= fills <= sequence + 1:
        raise DecodeError("count does not fit tradeId", f"{fill.count} up to {fill.tradeId}")
    if fill.side not in ("buy", "sell"):
        raise DecodeError("side is neither buy nor sell", repr(fill.side[:80]))
    price, quantity = positive(fill.px, "px"), positive(fill.sz, "sz")
    return Trade(
        exchange=EXCHANGE,
        market=instrument.market,
        symbol=instrument.symbol,
        instrument=instrument.instrument,
        time=near(milliseconds(fill.ts, "ts"), frame.ts),
        received=frame.ts,
        id=fill.tradeId,
        sequence=sequence,
        first_sequence=sequence - fills + 1 if fills > 1 else None,
        fills=fills,
        price=price,
        size=_size(instrument, quantity, price),
        side="buy" if fill.side == "buy" else "sell",
        contracts=None if instrument.market == "spot" else quantity,
        conditions=_conditions(fill.source),
    )


def _conditions(source: str) -> tuple[str, ...]:
    # 0: normal, 1: an order of the retail price improvement programme.
    if source in ("", "0"):
        return ()
    return ("rpi",) if source == "1" else (f"source {source[:20]}",)


def _size(instrument: Instrument, quantity: str, price: str) -> str:
    try:
        return base_size(instrument, quantity, price)
    except (ValueError, ArithmeticError) as error:
        raise DecodeError("size cannot be converted", str(error)) from error


def _spot(instrument_id: str, received: int) -> Instrument:
    """Two parts are always spot (BASE-QUOTE): no list is needed for them, everything else needs one."""
    parts = _SPOT_ID.fullmatch(instrument_id)
    if parts is None:
        raise DecodeError("unknown instrument", instrument_id[:80])
    return Instrument(
        exchange=EXCHANGE,
        market="spot",
        symbol=instrument_id,
        instrument=instrument_id,
        time=None,
        received=received,
        base=parts[1],
        quote=parts[2],
        status="unknown",
    )


def _instruments(data: bytes | msgspec.Raw, frame: Frame) -> Reading:
    listings, faults = _elements(data, _LISTINGS, Listing)
    return Reading(
        instruments=_each(listings, faults, lambda listing: _instrument(listing, frame)), faults=tuple(faults)
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
        symbol=_symbol(listing, base, tagged, market, expiry, option),
        instrument=listing.instId,
        time=None,
        received=frame.ts,
        base=base,
        quote=quote,
        status=listing.state,
        settle=listing.settleCcy or None,
        contract=_contract(listing),
        contract_value=_contract_value(listing),
        contract_currency=listing.ctValCcy or None,
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
