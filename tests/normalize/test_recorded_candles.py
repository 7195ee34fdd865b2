"""One-minute candles of recordings: against the trades counted by plain code, and against the exchange's own bars
wherever every trade of a bar was recorded."""

import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.normalize.recorded import INSTRUMENTS, MARKS, frames, replay

pytestmark = MARKS

MINUTE = 60_000
BINANCE = (
    ("binance/spot_dot_eth_20210404.jsonl.gz",),
    ("binance/spot_ethusdt_20240808.jsonl.gz", "binance/spot_ethusdt_20240809.jsonl.gz"),
    ("binance/spot_multi_20210405.jsonl.gz",),
    ("binance/spot_multi_20211012.jsonl",),
)
BARS = {"binance/spot_dot_eth_20210404.jsonl.gz": 31, "binance/spot_multi_20211012.jsonl": 1}
"""The exchange's bars of which every trade was recorded."""
OKX = ("okx/v5_multi_20220227.jsonl.gz", "okx/v5_multi_3conns_20210722.jsonl.gz")


class Fill(NamedTuple):
    """One trade or aggregate as it was sent: the venue's time (ms), numbers, price, base size, aggressor."""

    time: int
    first: int
    last: int
    price: Decimal
    size: Decimal
    buy: bool


def fills_of_binance(names: tuple[str, ...]) -> dict[str, list[Fill]]:
    found: dict[str, list[Fill]] = defaultdict(list)
    for event in events(names):
        if event.get("e") in ("trade", "aggTrade"):
            first, last = (event["f"], event["l"]) if event["e"] == "aggTrade" else (event["t"], event["t"])
            fill = Fill(event["T"], first, last, Decimal(event["p"]), Decimal(event["q"]), not event["m"])
            found[event["s"]].append(fill)
    return found


def events(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [json.loads(frame["data"])["data"] for name in names for frame in frames(name) if frame["kind"] == "ws"]


def fills_of_okx(name: str) -> dict[str, list[Fill]]:
    """Of spot pairs, each trade once. Old ones are told on subscribing: they count in a minute that was seen at all,
    and make no candle of another."""
    begin = frames(name)[0]["ts"] // 1_000_000
    found: dict[str, dict[int, Fill]] = defaultdict(dict)
    for frame in frames(name):
        message = json.loads(frame["data"])
        if message.get("arg", {}).get("channel") != "trades" or frame["dir"] == "out" or "data" not in message:
            continue
        for row in message["data"]:
            if row["instId"].count("-") == 1 and int(row["ts"]) // MINUTE >= begin // MINUTE:
                number = int(row["tradeId"])
                price, size = Decimal(row["px"]), Decimal(row["sz"])
                found[row["instId"]][number] = Fill(int(row["ts"]), number, number, price, size, row["side"] == "buy")
    return {instrument: list(rows.values()) for instrument, rows in found.items()}


def summary(fills: list[Fill]) -> dict[str, Any]:
    """What a bar of these fills says."""
    ordered = sorted(fills, key=lambda fill: (fill.time, fill.last))
    prices = [fill.price for fill in ordered]
    bought = [fill for fill in ordered if fill.buy]
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": sum(fill.size for fill in ordered),
        "quote_volume": sum(fill.size * fill.price for fill in ordered),
        "buy_volume": sum(fill.size for fill in bought),
        "buy_quote_volume": sum(fill.size * fill.price for fill in bought),
        "trades_count": sum(fill.last - fill.first + 1 for fill in ordered),
    }


def minutes(fills: list[Fill]) -> dict[int, dict[str, Any]]:
    windows: dict[int, list[Fill]] = defaultdict(list)
    for fill in fills:
        windows[fill.time - fill.time % MINUTE].append(fill)
    return {begin: summary(inside) for begin, inside in windows.items()}


def candles(rows: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """The newest revision of every one-minute candle with trades, its numbers as decimals."""
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["timeframe"] == "1m" and row["trades_count"]:
            found[row["instrument"]][row["open_time"] // 1_000_000] = {
                name: row[name] if name == "trades_count" else Decimal(row[name]) for name in summary([NOTHING])
            }
    return found


NOTHING = Fill(0, 0, 0, Decimal(1), Decimal(1), True)


@pytest.mark.parametrize("names", BINANCE)
def test_binance_candles_equal_a_plain_count(names: tuple[str, ...], tmp_path: Path) -> None:
    played = replay(tmp_path, INSTRUMENTS["binance"], *names)
    fills = fills_of_binance(names)
    ours = candles(played.records("candle"))
    assert ours == {instrument: minutes(rows) for instrument, rows in fills.items()}
    assert sum(len(bars) for bars in ours.values()) > 1
    closed = [event["k"] for event in events(names) if event.get("e") == "kline" and event["k"]["x"]]
    assert [(row["instrument"], row["open_time"] // 1_000_000, row["volume"]) for row in played.records("kline")] == [
        (bar["s"], bar["t"], bar["v"]) for bar in closed
    ]
    assert compare_bars(names, fills, ours) == BARS.get(names[0], 0)


def compare_bars(names: tuple[str, ...], fills: dict[str, list[Fill]], ours: dict[str, Any]) -> int:
    """How many of the exchange's bars, open ones too, hold only trades that were recorded: all are equal to those, and
    to our candle where no later trade of their minute was recorded."""
    equal = 0
    for event in events(names):
        if event.get("e") != "kline" or event["k"]["n"] == 0:
            continue
        bar, name = event["k"], event["s"]
        inside = [fill for fill in fills[name] if bar["f"] <= fill.first and fill.last <= bar["L"]]
        if sum(fill.last - fill.first + 1 for fill in inside) != bar["n"]:
            continue
        theirs = {
            "open": Decimal(bar["o"]),
            "high": Decimal(bar["h"]),
            "low": Decimal(bar["l"]),
            "close": Decimal(bar["c"]),
            "volume": Decimal(bar["v"]),
            "quote_volume": Decimal(bar["q"]),
            "buy_volume": Decimal(bar["V"]),
            "buy_quote_volume": Decimal(bar["Q"]),
            "trades_count": bar["n"],
        }
        assert summary(inside) == theirs, event
        minute = [fill for fill in fills[name] if bar["t"] <= fill.time <= bar["T"]]
        if minute == inside:
            assert ours[name][bar["t"]] == theirs, event
        equal += 1
    return equal


@pytest.mark.parametrize("name", OKX)
def test_okx_candles_equal_a_plain_count(name: str, tmp_path: Path) -> None:
    played = replay(tmp_path, INSTRUMENTS["okx"], name)
    ours = {
        instrument: bars for instrument, bars in candles(played.records("candle")).items() if instrument.count("-") == 1
    }
    fills = fills_of_okx(name)
    assert fills
    assert ours == {instrument: minutes(rows) for instrument, rows in fills.items()}
