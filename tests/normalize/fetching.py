"""Answers to wants of trades, made by hand: pages as the exchanges spell them, and what ingest says of them."""

import json
from collections.abc import Sequence
from typing import Any

from pipeline.frames import Frame
from pipeline.wants import trades_key
from tests.normalize.playing import BINANCE, SECOND, SPOT, T0, fill, request

OKX = "https://openapi.okx.com"
KEY = trades_key(SPOT, 0, 6)


def page(at: float, key: str, *trades: tuple[int, float], instrument: str = SPOT) -> Frame:
    """A page of OKX's history-trades: (number, seconds after T0), newest first as given."""
    return paged(at, key, *(fill(number, time, instrument) for number, time in trades), instrument=instrument)


def paged(at: float, key: str, *rows: dict[str, str], instrument: str = SPOT) -> Frame:
    """A page of these rows."""
    url = f"{OKX}/api/v5/market/history-trades?instId={instrument}&type=1&after=99&limit=100"
    body = json.dumps({"code": "0", "msg": "", "data": rows})
    return Frame(T0 + round(at * SECOND), OKX, "in", "rest", body, url, key)


def ascending(at: float, key: str | None, *trades: tuple[int, float], instrument: str = "BTCUSDT") -> Frame:
    """A page of Binance's historicalTrades, oldest first as given."""
    rows = [
        {
            "id": number,
            "price": "100.50000000",
            "qty": "0.25000000",
            "quoteQty": "25.12500000",
            "time": (T0 + round(time * SECOND)) // 1_000_000,
            "isBuyerMaker": False,
            "isBestMatch": True,
        }
        for number, time in trades
    ]
    url = f"{BINANCE}/api/v3/historicalTrades?symbol={instrument}&fromId=1&limit=1000"
    return Frame(T0 + round(at * SECOND), BINANCE, "in", "rest", json.dumps(rows), url, key)


def live(number: int, at: float, conn: str = "wss://stream.binance.com/stream#1") -> Frame:
    """A frame of Binance's trade stream."""
    time = (T0 + round(at * SECOND)) // 1_000_000
    event = {"e": "trade", "E": time, "s": "BTCUSDT", "t": number, "p": "100.50000000", "q": "0.25000000", "T": time}
    text = json.dumps({"stream": "btcusdt@trade", "data": event | {"m": False, "M": True}})
    return Frame(T0 + round((at + 0.01) * SECOND), conn, "in", "ws", text)


def answered(number: int, at: float, first: int, last: int, key: str = KEY) -> Frame:
    """Its pages span these numbers."""
    return request(key, number, "answered", at, first=first, last=last)


def refused(number: int, at: float, reason: str = "429", key: str = KEY, *, permanent: bool = False) -> Frame:
    return request(key, number, "refused", at, reason=reason, permanent=permanent)


def told(gaps: Sequence[dict[str, Any]]) -> list[tuple[str, str | None, list[list[int]]]]:
    """(state, reason, remaining) of records."""
    return [(gap["state"], gap.get("reason"), gap.get("remaining", [])) for gap in gaps]
