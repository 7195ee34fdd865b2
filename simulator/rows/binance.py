"""How Binance spells spot market data: trades, bars, tickers, books, symbols. Pure.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams ; prices and quantities are texts of
8 decimals, ids and times (ms) are numbers.
"""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from simulator.aggregates import Aggregate
from simulator.bars import Bar
from simulator.book import Level
from simulator.days import DAY_MS
from simulator.listings import Listing
from simulator.market import MILLISECOND, Fill, Pit

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
ONE = 10**8
MICROSECOND = 1_000
INTERVALS: dict[str, int] = {
    "1s": 1_000,
    **{f"{count}m": count * MINUTE_MS for count in (1, 3, 5, 15, 30)},
    **{f"{count}h": count * HOUR_MS for count in (1, 2, 4, 6, 8, 12)},
    "1d": 24 * HOUR_MS,
}
"""Interval to width in ms; all open where t % width is 0. 3d, 1w, 1M and UTC+8 days are not simulated."""


def instrument_id(listing: Listing) -> str:
    """Binance's own symbol: BTCUSDT."""
    return f"{listing.base}{listing.quote}"


def lists(listing: Listing) -> bool:
    """Is this one of Binance's spot symbols?"""
    return listing.market == "spot"


def terms(listing: Listing) -> Listing:
    """The listing with steps as Binance sets them: a price times a quantity has no more than 8 decimals."""
    lot = max(listing.lot, Decimal(1).scaleb(-8) / listing.tick)
    return msgspec.structs.replace(listing, lot=lot, minimum=max(listing.minimum, lot))


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def ms(time: int) -> int:
    return time // MILLISECOND


def stream_name(channel: str, instrument: str) -> str:
    return f"{instrument.lower()}@{channel}"


def fixed(units: int) -> str:
    """`units` of 1e-8 with 8 decimals."""
    whole, rest = divmod(abs(units), ONE)
    return f"{'-' if units < 0 else ''}{whole}.{rest:08d}"


class Speller:
    """Spells one listing's prices (ticks), quantities (lots) and values (ticks x lots)."""

    def __init__(self, listing: Listing) -> None:
        self._tick, self._lot = int(listing.tick * ONE), int(listing.lot * ONE)

    def price(self, ticks: int) -> str:
        return fixed(ticks * self._tick)

    def quantity(self, lots: int) -> str:
        return fixed(lots * self._lot)

    def value(self, turnover: int) -> str:
        return fixed(turnover * self._tick * self._lot // ONE)

    def average(self, turnover: int, lots: int) -> str:
        return fixed(turnover * self._tick // lots if lots else 0)

    def levels(self, levels: Iterable[Level]) -> list[tuple[str, str]]:
        return [(self.price(ticks), self.quantity(lots)) for ticks, lots in levels]


def trade(instrument: str, spell: Speller, fill: Fill) -> dict[str, Any]:
    """`m`: the buyer is the maker, so the taker sold."""
    time = ms(fill.time)
    return {
        "e": "trade",
        "E": time,
        "s": instrument,
        "t": fill.sequence,
        "p": spell.price(fill.ticks),
        "q": spell.quantity(fill.lots),
        "T": time,
        "m": fill.side == "sell",
        "M": True,
    }


def trade_row(spell: Speller, fill: Fill) -> dict[str, Any]:
    """A fill as REST gives it."""
    return {
        "id": fill.sequence,
        "price": spell.price(fill.ticks),
        "qty": spell.quantity(fill.lots),
        "quoteQty": spell.value(fill.ticks * fill.lots),
        "time": ms(fill.time),
        "isBuyerMaker": fill.side == "sell",
        "isBestMatch": True,
    }


def daily_line(spell: Speller, fill: Fill) -> str:
    """A fill as a daily file has it; its time is finer than the streams tell it.

    https://github.com/binance/binance-public-data#trades"""
    texts = (spell.price(fill.ticks), spell.quantity(fill.lots), spell.value(fill.ticks * fill.lots))
    time = fill.time // MICROSECOND + fill.sequence % 1000
    return f"{fill.sequence},{','.join(texts)},{time},{fill.side == 'sell'},True\n"


def aggregate_row(spell: Speller, one: Aggregate) -> dict[str, Any]:
    """An aggregate as REST gives it."""
    return {
        "a": one.number,
        "p": spell.price(one.ticks),
        "q": spell.quantity(one.lots),
        "f": one.first,
        "l": one.last,
        "T": ms(one.time),
        "m": one.side == "sell",
        "M": True,
    }


def aggregate(instrument: str, spell: Speller, one: Aggregate) -> dict[str, Any]:
    return {"e": "aggTrade", "E": ms(one.time), "s": instrument, **aggregate_row(spell, one)}


def kline(instrument: str, spell: Speller, interval: str, bar: Bar, now: int) -> dict[str, Any]:
    """The bar as pushed at `now` (ms); `x`: it has ended. Without a trade `f` and `L` are -1."""
    closed = bar.opened + INTERVALS[interval] - 1
    return {
        "e": "kline",
        "E": now,
        "s": instrument,
        "k": {
            "t": bar.opened,
            "T": closed,
            "s": instrument,
            "i": interval,
            "f": -1 if bar.first is None else bar.first,
            "L": -1 if bar.last is None else bar.last,
            "o": spell.price(bar.open),
            "c": spell.price(bar.close),
            "h": spell.price(bar.high),
            "l": spell.price(bar.low),
            "v": spell.quantity(bar.lots),
            "n": bar.fills,
            "x": closed < now,
            "q": spell.value(bar.turnover),
            "V": spell.quantity(bar.bought),
            "Q": spell.value(bar.bought_turnover),
            "B": "0",
        },
    }


def kline_row(spell: Speller, interval: str, bar: Bar) -> list[Any]:
    """A bar as REST gives it."""
    return [
        bar.opened,
        *map(spell.price, (bar.open, bar.high, bar.low, bar.close)),
        spell.quantity(bar.lots),
        bar.opened + INTERVALS[interval] - 1,
        spell.value(bar.turnover),
        bar.fills,
        spell.quantity(bar.bought),
        spell.value(bar.bought_turnover),
        "0",
    ]


def best(pit: Pit) -> tuple[Level, Level]:
    """Best bid and best ask; (0, 0) for an empty side."""
    bids, asks = pit.book.side("bid", 1), pit.book.side("ask", 1)
    return (bids[0] if bids else (0, 0)), (asks[0] if asks else (0, 0))


def book_ticker(instrument: str, spell: Speller, pit: Pit) -> dict[str, Any]:
    """Neither an event type nor a time; `u` is comparable with that of the depth streams."""
    bid, ask = best(pit)
    return {
        "u": pit.book.version,
        "s": instrument,
        "b": spell.price(bid[0]),
        "B": spell.quantity(bid[1]),
        "a": spell.price(ask[0]),
        "A": spell.quantity(ask[1]),
    }


class Day(msgspec.Struct, frozen=True):
    """24 hours of an instrument up to `now` (ms): what both spellings of a ticker are made of."""

    now: int
    bar: Bar
    before: int | None
    last: Fill | None
    bid: Level
    ask: Level

    @property
    def change(self) -> int:
        return self.bar.close - self.bar.open

    @property
    def percent(self) -> str:
        return format(Decimal(100 * self.change) / self.bar.open if self.bar.open else Decimal(0), ".3f")


def ticker(instrument: str, spell: Speller, day: Day) -> dict[str, Any]:
    bar = day.bar
    return {
        "e": "24hrTicker",
        "E": day.now,
        "s": instrument,
        "p": spell.price(day.change),
        "P": day.percent,
        "w": spell.average(bar.turnover, bar.lots),
        "x": spell.price(bar.open if day.before is None else day.before),
        "c": spell.price(bar.close),
        "Q": spell.quantity(day.last.lots if day.last else 0),
        "b": spell.price(day.bid[0]),
        "B": spell.quantity(day.bid[1]),
        "a": spell.price(day.ask[0]),
        "A": spell.quantity(day.ask[1]),
        "o": spell.price(bar.open),
        "h": spell.price(bar.high),
        "l": spell.price(bar.low),
        "v": spell.quantity(bar.lots),
        "q": spell.value(bar.turnover),
        "O": day.now - DAY_MS,
        "C": day.now,
        "F": -1 if bar.first is None else bar.first,
        "L": -1 if bar.last is None else bar.last,
        "n": bar.fills,
    }


TICKER_NAMES = {
    "s": "symbol",
    "p": "priceChange",
    "P": "priceChangePercent",
    "w": "weightedAvgPrice",
    "x": "prevClosePrice",
    "c": "lastPrice",
    "Q": "lastQty",
    "b": "bidPrice",
    "B": "bidQty",
    "a": "askPrice",
    "A": "askQty",
    "o": "openPrice",
    "h": "highPrice",
    "l": "lowPrice",
    "v": "volume",
    "q": "quoteVolume",
    "O": "openTime",
    "C": "closeTime",
    "F": "firstId",
    "L": "lastId",
    "n": "count",
}
"""Ticker stream key to REST key, in REST's order."""
MINI_NAMES = ("symbol", "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume")
MINI_TIMES = ("openTime", "closeTime", "firstId", "lastId", "count")


def ticker_row(instrument: str, spell: Speller, day: Day, mini: bool = False) -> dict[str, Any]:
    """A ticker as REST gives it."""
    pushed = ticker(instrument, spell, day)
    row = {long: pushed[short] for short, long in TICKER_NAMES.items()}
    return {name: row[name] for name in (*MINI_NAMES, *MINI_TIMES)} if mini else row


def mini_ticker(instrument: str, spell: Speller, day: Day) -> dict[str, Any]:
    pushed = ticker(instrument, spell, day)
    return {"e": "24hrMiniTicker", **{key: pushed[key] for key in ("E", "s", "c", "o", "h", "l", "v", "q")}}


def symbol_row(listing: Listing) -> dict[str, Any]:
    """One line of exchangeInfo."""
    tick, lot, minimum = (fixed(int(step * ONE)) for step in (listing.tick, listing.lot, listing.minimum))
    return {
        "symbol": instrument_id(listing),
        "status": "TRADING",
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": minimum, "maxQty": "90000000.00000000", "stepSize": lot},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }
