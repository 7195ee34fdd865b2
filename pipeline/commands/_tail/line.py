"""A record as one line for people. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from pipeline import text

Record = dict[str, Any]
SHOWN_LEVELS = 3
"""Levels of an order book a side."""


def line(kind: str, record: Record) -> str:
    """Time, exchange, symbol and what the record says. Fields at their default are not in the record."""
    received = _time(record.get("received"))
    if kind == "dead":
        return f"{received} {record['exchange']} {record['reason']}: {text.cut(record['frame'], 60)}"
    if kind == "clock":
        return f"{received} {record['exchange']} exchange time {_time(record['time'])}"
    # Some records have no time of the exchange's (an instruments list): then it is when they came in.
    when = _time(record["time"] or record["received"])
    return f"{when} {record['exchange']} {record['symbol']} {_TOLD[kind](record)}".rstrip()


def _trade(record: Record) -> str:
    return f"{record['side']} {record['size']} @ {record['price']} #{record['sequence']}"


def _candle(record: Record) -> str:
    return f"{_bar(record)} n {record['trades_count']} {record['quality']}"


def _bar(record: Record) -> str:
    prices = " ".join(f"{name[0].upper()} {record[name]}" for name in ("open", "high", "low", "close", "volume"))
    return f"{record['timeframe']} {prices}"


def _kline(record: Record) -> str:
    count = record.get("trades_count")
    return _bar(record) if count is None else f"{_bar(record)} n {count}"


def _quote(record: Record) -> str:
    number = f" #{record['sequence']}" if record.get("sequence") is not None else ""
    bid, ask = (_side(record.get(side), record.get(f"{side}_size")) for side in ("bid", "ask"))
    return f"{bid} | {ask}{number}"


def _orderbook(record: Record) -> str:
    """Best bids outwards to the left, asks to the right; what is not valid says so first."""
    flaw = "" if record.get("valid", True) else f"INVALID ({record.get('reason')}) "
    grid = " grid" if record.get("snapshot_time") is not None else ""
    bids = " ".join(reversed(_levels(record["bids"])))
    return f"{flaw}{bids or text.NOTHING} | {' '.join(_levels(record['asks'])) or text.NOTHING}{grid}"


def _levels(levels: Sequence[Sequence[str]]) -> list[str]:
    return [f"{size}@{price}" for price, size in levels[:SHOWN_LEVELS]]


def _side(price: str | None, size: str | None) -> str:
    return text.NOTHING if price is None else f"{size or '?'}@{price}"


def _ticker(record: Record) -> str:
    names = {"last": "last", "open_24h": "open", "high_24h": "high", "low_24h": "low", "volume_24h": "volume"}
    return " ".join(f"{shown} {record[name]}" for name, shown in names.items() if record.get(name) is not None)


def _gap(record: Record) -> str:
    numbers = f"{record['from_sequence']}-{record['to_sequence']}"
    return f"{record['state']} {numbers} {record['cause']} {record.get('reason') or ''}"


def _coverage(record: Record) -> str:
    return f"{record['state']} ({record['cause']}) {record.get('connection') or ''}"


def _instrument(record: Record) -> str:
    return f"{record['market']} {record['status']} tick {record.get('tick_size') or text.NOTHING}"


_TOLD: dict[str, Callable[[Record], str]] = {
    "trade": _trade,
    "candle": _candle,
    "kline": _kline,
    "quote": _quote,
    "orderbook": _orderbook,
    "ticker": _ticker,
    "gap": _gap,
    "coverage": _coverage,
    "instrument": _instrument,
}


def _time(moment: int | None) -> str:
    return text.NOTHING if moment is None else f"{text.moment(moment)}.{moment % 1_000_000_000 // 1_000_000:03d}"
