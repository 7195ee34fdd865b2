"""How OKX spells market data: trades, bars, instruments. Pure.

https://www.okx.com/docs-v5/en/ ; numbers and times are text, times in ms.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any
from zlib import crc32

from simulator.bars import Bar
from simulator.book import Level
from simulator.dialect import Frame, Topic
from simulator.listings import Listing
from simulator.market import MILLISECOND, Fill, Order, Pit, spell
from simulator.tape import Tape

HOUR_MS = 3_600_000
UTC_8 = 8 * HOUR_MS
BARS: dict[str, tuple[int, int]] = {
    "1s": (1_000, 0),
    **{f"{count}m": (count * 60_000, 0) for count in (1, 3, 5, 15, 30)},
    **{f"{count}H": (count * HOUR_MS, 0) for count in (1, 2, 4)},
    # Without `utc` the long bars open at midnight UTC+8.
    **{f"{count}H": (count * HOUR_MS, UTC_8) for count in (6, 12)},
    **{f"{count}Hutc": (count * HOUR_MS, 0) for count in (6, 12)},
    "1D": (24 * HOUR_MS, UTC_8),
    "1Dutc": (24 * HOUR_MS, 0),
}
"""Bar to (width, shift) in ms: a bar opens where (t + shift) % width is 0."""

INST_TYPES = {"spot": "SPOT", "perpetual": "SWAP", "future": "FUTURES", "option": "OPTION"}


def instrument_id(listing: Listing) -> str:
    """OKX's own id: BTC-USDT, BTC-USDT-SWAP, BTC-USD-301227, BTC-USD-301227-90000-C."""
    return listing.symbol.replace("-PERP", "-SWAP")


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def ms(time: int) -> str:
    return str(time // MILLISECOND)


class Numbers:
    """The numbers (`seqId`) of books: they rise with the version of the book, never by one, until a reset."""

    def __init__(self) -> None:
        self._epochs: dict[str, list[tuple[int, int]]] = {}

    def of(self, instrument: str, version: int) -> int:
        """The number of a version of the instrument's book."""
        epochs = self._epochs.setdefault(instrument, [(0, 10**9 + crc32(instrument.encode()))])
        since, first = next(epoch for epoch in reversed(epochs) if epoch[0] <= version)
        return first + 7 * (version - since) + version % 3

    def reset(self, instrument: str, version: int) -> None:
        """Number anew from small figures what comes after `version`."""
        self.of(instrument, version)
        self._epochs[instrument].append((version + 1, 11))


def arg_of(topic: Topic) -> dict[str, str]:
    """The `arg` of a topic: the `instruments` channel is by type, all others by instrument."""
    return {"channel": topic[0], "instType" if topic[0] == "instruments" else "instId": topic[1]}


def data_frame(topic: Topic, rows: Sequence[Any], action: str | None = None) -> str:
    """One push of `rows`; `action` (snapshot, update) for incremental books."""
    return dump({"arg": arg_of(topic), **({} if action is None else {"action": action}), "data": rows})


def book_row(listing: Listing, bids: Sequence[Level], asks: Sequence[Level]) -> dict[str, Any]:
    """Both sides, each level [price, size, "0" (deprecated), orders]; sizes of derivatives in contracts."""
    return {"asks": _levels(listing, asks), "bids": _levels(listing, bids)}


def _levels(listing: Listing, levels: Sequence[Level]) -> list[list[str]]:
    # How many orders make up a level is nobody's secret here: its lots decide, so that all channels agree.
    return [
        [spell(ticks, listing.tick), spell(lots, listing.lot), "0", str(1 + lots % 9) if lots else "0"]
        for ticks, lots in levels
    ]


def ticker_row(tape: Tape, instrument: str, now: int) -> dict[str, Any]:
    """The whole ticker; "" where there is nothing to tell (no fill yet, an empty side)."""
    pit = tape.instruments[instrument]
    listing = pit.listing
    day = tape.day(instrument, now // MILLISECOND)
    (ask, ask_size), (bid, bid_size) = (_best(listing, pit.book.side(side, 1)) for side in ("ask", "bid"))
    row = {
        "instType": INST_TYPES[listing.market],
        "instId": instrument,
        "last": "" if day is None else spell(day.bar.close, listing.tick),
        "lastSz": pit.fills[-1].size if pit.fills else "0",
        "askPx": ask,
        "askSz": ask_size,
        "bidPx": bid,
        "bidSz": bid_size,
    }
    if day is None:
        names = ("open24h", "high24h", "low24h", "volCcy24h", "vol24h", "sodUtc0", "sodUtc8")
        return {**row, **dict.fromkeys(names, ""), "ts": ms(now)}
    volume, currency, _ = amounts(listing, day.bar)
    prices = {"open24h": day.bar.open, "high24h": day.bar.high, "low24h": day.bar.low}
    opened = {"sodUtc0": day.utc0, "sodUtc8": day.utc8}
    return {
        **row,
        **{name: spell(ticks, listing.tick) for name, ticks in prices.items()},
        "volCcy24h": spell(1, currency),
        "vol24h": spell(1, volume),
        **{name: spell(ticks, listing.tick) for name, ticks in opened.items()},
        "ts": ms(now),
    }


def _best(listing: Listing, levels: Sequence[Level]) -> tuple[str, str]:
    if not levels:
        return "", ""
    return spell(levels[0][0], listing.tick), spell(levels[0][1], listing.lot)


def fill_row(instrument: str, fill: Fill) -> dict[str, str]:
    return {
        "instId": instrument,
        "tradeId": str(fill.sequence),
        "px": fill.price,
        "sz": fill.size,
        "side": fill.side,
        "source": "0",
        "ts": ms(fill.time),
    }


def trades_all(instrument: str, order: Order) -> list[Frame]:
    """Single fills; a sweep whose first number is even comes as one frame with several elements."""
    topic = ("trades-all", instrument)
    if order[0].sequence % 2 == 0:
        rows = [fill_row(instrument, fill) for fill in order]
        return [Frame(topic, data_frame(topic, rows), tuple(fill.sequence for fill in order))]
    return [Frame(topic, data_frame(topic, [fill_row(instrument, fill)]), (fill.sequence,)) for fill in order]


def trades(instrument: str, order: Order, number: int) -> list[Frame]:
    """The fills of one taker order at one price merged into one element, a frame each; `number`: the book's."""
    topic = ("trades", instrument)
    frames = []
    for _, group in groupby(order, key=lambda fill: fill.ticks):
        fills = list(group)
        ids = tuple(fill.sequence for fill in fills)
        frames.append(Frame(topic, data_frame(topic, [merged_row(instrument, fills, number)]), ids))
    return frames


def merged_row(instrument: str, fills: list[Fill], number: int) -> dict[str, Any]:
    row: dict[str, Any] = fill_row(instrument, fills[-1])
    row["sz"] = format(sum(Decimal(fill.size) for fill in fills), "f")
    # seqId is shared with the books of the instrument; several trades may have the same.
    return {**row, "count": str(len(fills)), "seqId": number}


def bar_rows(tape: Tape, topic: Topic, first: int, now: int) -> list[list[str]]:
    """Rows of the bars open at or opened after `first` (ms) until `now` (ns), oldest first."""
    pit = tape.pit(topic[1])
    if pit is None:
        return []
    width, shift = BARS[topic[0].removeprefix("candle")]
    until = now // MILLISECOND
    bars = tape.bars(topic[1], width, shift, first - (first + shift) % width, until)
    return [bar_row(pit.listing, bar, bar.opened + width <= until) for bar in bars]


def bar_row(listing: Listing, bar: Bar, ended: bool) -> list[str]:
    """[ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm]."""
    prices = [spell(ticks, listing.tick) for ticks in (bar.open, bar.high, bar.low, bar.close)]
    volumes = [spell(1, amount) for amount in amounts(listing, bar)]
    return [str(bar.opened), *prices, *volumes, "1" if ended else "0"]


def amounts(listing: Listing, bar: Bar) -> tuple[Decimal, Decimal, Decimal]:
    """(vol, volCcy, volCcyQuote): volCcy is quote for spot, base for derivatives."""
    volume = listing.lot * bar.lots
    turnover = listing.tick * listing.lot * bar.turnover
    if listing.face is None:
        return volume, turnover, turnover
    face = listing.face * listing.multiplier
    if listing.contract == "inverse":
        base = (face * listing.lot * bar.reciprocal / listing.tick).quantize(Decimal("1e-8"))
        return volume, base, face * listing.lot * bar.lots
    return volume, volume * face, turnover * face


def instrument_row(pit: Pit, place: int) -> dict[str, Any]:
    listing = pit.listing
    spot = listing.market == "spot"
    family = "" if spot else f"{listing.base}-{listing.quote}"
    return {
        "instType": INST_TYPES[listing.market],
        "instId": instrument_id(listing),
        "baseCcy": listing.base if spot else "",
        "quoteCcy": listing.quote if spot else "",
        "settleCcy": listing.settle or "",
        "uly": family.replace("_UM", ""),
        "instFamily": family,
        "ctVal": format(listing.face, "f") if listing.face is not None else "",
        "ctMult": format(listing.multiplier, "f") if listing.face is not None else "",
        "ctValCcy": listing.face_currency or "",
        "ctType": listing.contract or "",
        "optType": {"call": "C", "put": "P", None: ""}[listing.option],
        "stk": listing.strike or "",
        "tickSz": format(listing.tick, "f"),
        "lotSz": format(listing.lot, "f"),
        "minSz": format(listing.minimum, "f"),
        "listTime": ms(pit.listed),
        "expTime": ms(listing.expiry) if listing.expiry is not None else "",
        "state": "live",
        "ruleType": "normal",
        "instIdCode": 1_000_000_000 + place,
        "instCategory": "1",
        "upcChg": [],
    }
