"""How OKX spells market data: trades, bars, instruments. Pure.

https://www.okx.com/docs-v5/en/ ; numbers and times are text, times in ms.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any

from simulator.bars import Bar
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


def data_frame(topic: Topic, rows: Sequence[Any]) -> str:
    """One push of `rows`."""
    return dump({"arg": {"channel": topic[0], "instId": topic[1]}, "data": rows})


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


def trades(instrument: str, order: Order) -> list[Frame]:
    """The fills of one taker order at one price merged into one element, a frame each."""
    topic = ("trades", instrument)
    frames = []
    for _, group in groupby(order, key=lambda fill: fill.ticks):
        fills = list(group)
        ids = tuple(fill.sequence for fill in fills)
        frames.append(Frame(topic, data_frame(topic, [merged_row(instrument, fills)]), ids))
    return frames


def merged_row(instrument: str, fills: list[Fill]) -> dict[str, Any]:
    row: dict[str, Any] = fill_row(instrument, fills[-1])
    row["sz"] = format(sum(Decimal(fill.size) for fill in fills), "f")
    # seqId is shared with the books of the instrument; it rises, but not by one.
    return {**row, "count": str(len(fills)), "seqId": fills[-1].sequence * 7}


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
    """[ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm]: volCcy is quote for spot, base for derivatives."""
    volume = listing.lot * bar.lots
    turnover = listing.tick * listing.lot * bar.turnover
    if listing.face is None:
        currency = quote = turnover
    elif listing.contract == "inverse":
        face = listing.face * listing.multiplier * listing.lot
        currency = (face * bar.reciprocal / listing.tick).quantize(Decimal("1e-8"))
        quote = face * bar.lots
    else:
        face = listing.face * listing.multiplier
        currency, quote = volume * face, turnover * face
    prices = [spell(ticks, listing.tick) for ticks in (bar.open, bar.high, bar.low, bar.close)]
    amounts = [spell(1, amount) for amount in (volume, currency, quote)]
    return [str(bar.opened), *prices, *amounts, "1" if ended else "0"]


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
