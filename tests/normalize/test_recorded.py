"""Recorded frames of OKX and Binance spot: trades, undecoded frames and symbols against a count of the test's own.

Set TAPELINE_FRAMES to a folder with `okx/*.jsonl*` and `binance/*.jsonl*`.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from normalize.exchanges import binance, okx
from pipeline.frames import Frame
from tests.normalize.recorded import MARKS, Replayed, every, query, replay

pytestmark = MARKS

Found = tuple[set[tuple[str, str]], Counter[str]]
OKX_BARS = {"1s", "1m", "5m", "15m", "1H", "4H", "1Dutc"}
OKX_READ = {"/api/v5/public/instruments", "/api/v5/public/time", "/api/v5/market/books"}
OKX_BOOKS = {"books", "books-l2-tbt", "books50-l2-tbt", "books5", "bbo-tbt"}
BINANCE_HOSTS = {"stream.binance.com", "api.binance.com", "www.binance.com"}


def elements(body: Any) -> list[dict[str, Any]]:
    """Of a reply, with its envelope or without."""
    found: list[dict[str, Any]] = body["data"] if isinstance(body, dict) else body
    return found


def expected_okx() -> Found:
    """Unique trades of instruments that can be known, and what cannot be decoded, by reason."""
    listed = {
        element["instId"]
        for frame in every("okx")
        if frame["kind"] == "rest" and "/public/instruments" in frame["url"]
        for element in elements(json.loads(frame["data"]))
    }
    trades: set[tuple[str, str]] = set()
    undecoded: Counter[str] = Counter()

    def known(instrument: str) -> bool:
        return instrument in listed or instrument.count("-") == 1

    for frame in every("okx"):
        message = json.loads(frame["data"])
        if frame["dir"] == "out" or "event" in message:
            continue
        if frame["kind"] == "rest":
            path, _ = query(frame["url"])
            undecoded[f"reply of {path} is not collected yet"] += path not in OKX_READ
            continue
        channel, subject = message["arg"]["channel"], message["arg"].get("instId", "")
        if channel in ("trades", "trades-all", "tickers"):
            undecoded["unknown instrument"] += sum(not known(element["instId"]) for element in message["data"])
            if channel != "tickers":
                trades |= {(fill["instId"], fill["tradeId"]) for fill in message["data"] if known(fill["instId"])}
        elif channel in OKX_BOOKS:
            undecoded["unknown instrument"] += not known(subject)
        elif channel.removeprefix("candle") in OKX_BARS:
            undecoded["candle does not tell whether it is closed"] += sum(len(row) < 9 for row in message["data"])
        else:
            undecoded[f"channel {channel} is not collected yet"] += 1
    return trades, +undecoded


def expected_binance() -> Found:
    """The same. Futures came over other hosts: they are another exchange."""
    trades: set[tuple[str, str]] = set()
    undecoded: Counter[str] = Counter()
    for frame in every("binance"):
        if urlsplit(frame["conn"]).hostname not in BINANCE_HOSTS:
            undecoded["no exchange is known for the connection"] += 1
            continue
        if frame["kind"] == "rest":
            path, _ = query(frame["url"])
            name = path.rpartition("/")[2]
            # Where trades without a want's key belong nobody knows.
            undecoded["trades by REST that nobody asked for"] += name == "trades"
            undecoded[f"reply of {path} is not collected yet"] += name not in ("depth", "exchangeInfo", "trades")
            continue
        event = json.loads(frame["data"])["data"]
        if event.get("e") in ("trade", "aggTrade"):
            trades.add((event["s"], str(event["t" if event["e"] == "trade" else "a"])))
    return trades, +undecoded


def check(exchange: str, expected: Found, to: Path) -> Replayed:
    played = replay(to, exchange)
    trades, undecoded = expected
    assert played.code == 1, "something is undecoded"
    written = played.records("trade")
    assert len(trades) > 50
    assert len(written) == len(trades)
    assert {(row["instrument"], row["id"]) for row in written} == trades
    assert {reason: found["count"] for reason, found in played.summary["undecoded"].items()} == undecoded
    assert played.summary["frames"] == sum(1 for _ in every(exchange))
    return played


def test_okx_gives_every_trade_once_and_names_the_rest(tmp_path: Path) -> None:
    check("okx", expected_okx(), tmp_path)


def test_binance_gives_every_trade_once_and_names_the_rest(tmp_path: Path) -> None:
    played = check("binance", expected_binance(), tmp_path)
    messages = [json.loads(f["data"]) for f in every("binance") if urlsplit(f["conn"]).hostname == "stream.binance.com"]
    newest: dict[str, int] = {}
    expected = []
    for offer in (found["data"] for found in messages if found["stream"].endswith("bookTicker")):
        # The samples of single frames go back in time: what is older than the last is not told again.
        if offer["u"] > newest.get(offer["s"], 0):
            newest[offer["s"]] = offer["u"]
            expected.append((offer["s"], offer["u"], offer["b"], offer["A"]))
    quotes = played.records("quote")
    assert [(row["instrument"], row["sequence"], row["bid"], row["ask_size"]) for row in quotes] == expected
    assert len(expected) > 64_000


def test_okx_symbols_are_unique_in_every_recorded_list() -> None:
    mapper = okx.Mapper()
    symbols: dict[str, str] = {}
    for raw in every("okx"):
        if raw["kind"] != "rest" or "/public/instruments" not in raw["url"]:
            continue
        frame = Frame(raw["ts"] or 0, raw["conn"], "in", "rest", raw["data"], raw["url"])
        reading = mapper.read(frame, {})
        assert reading.faults == ()
        for instrument in reading.instruments:
            assert symbols.setdefault(instrument.symbol, instrument.instrument) == instrument.instrument
            if instrument.market == "spot":
                assert instrument.symbol == instrument.instrument
            if instrument.market in ("future", "option"):
                assert instrument.symbol == instrument.instrument, "the date of the symbol is the venue's"
    assert len(symbols) > 1_400


def test_binance_symbols_are_unique_and_spelt_of_base_and_quote() -> None:
    mapper = binance.Mapper()
    (raw,) = [f for f in every("binance") if f["conn"] == "https://api.binance.com" and "exchangeInfo" in f["url"]]
    reading = mapper.read(Frame(raw["ts"], raw["conn"], "in", "rest", raw["data"], raw["url"]), {})
    assert reading.faults == ()
    found = {instrument.instrument: instrument for instrument in reading.instruments}
    listed = {element["symbol"]: element for element in json.loads(raw["data"])["symbols"]}
    assert found.keys() == listed.keys()
    assert len({instrument.symbol for instrument in found.values()}) == len(found) > 1_600
    for name, instrument in found.items():
        assert instrument.symbol == f"{listed[name]['baseAsset']}-{listed[name]['quoteAsset']}"
        rules = {rule["filterType"]: rule for rule in listed[name]["filters"]}
        assert instrument.tick_size == rules["PRICE_FILTER"]["tickSize"]
        assert instrument.lot_size == rules["LOT_SIZE"]["stepSize"]
