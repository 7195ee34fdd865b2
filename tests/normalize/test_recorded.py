"""Recorded frames of OKX (a folder outside the repository): trades against a count of the test's own.

Set TAPELINE_FRAMES to a folder with `okx/*.jsonl*`.
"""

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from normalize.exchanges.okx import Mapper
from pipeline.cli import cli
from pipeline.frames import Frame

FRAMES = os.environ.get("TAPELINE_FRAMES")
pytestmark = [pytest.mark.recorded, pytest.mark.skipif(not FRAMES, reason="TAPELINE_FRAMES is not set")]


def recorded() -> Iterator[dict[str, Any]]:
    for path in sorted((Path(FRAMES or "") / "okx").iterdir()):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for line in text.splitlines():
            yield json.loads(line)


def elements(body: Any) -> list[dict[str, Any]]:
    """Of a reply, with its envelope or without."""
    found: list[dict[str, Any]] = body["data"] if isinstance(body, dict) else body
    return found


def expected() -> tuple[set[tuple[str, str]], Counter[str]]:
    """Unique trades of instruments that can be known, and what cannot be decoded, by reason."""
    listed = {
        element["instId"]
        for frame in recorded()
        if frame["kind"] == "rest" and "/public/instruments" in frame["url"]
        for element in elements(json.loads(frame["data"]))
    }
    trades: set[tuple[str, str]] = set()
    undecoded: Counter[str] = Counter()
    for frame in recorded():
        message = json.loads(frame["data"])
        if frame["dir"] == "out" or "event" in message:
            continue
        if frame["kind"] == "rest":
            path = frame["url"].split("//")[1].split("/", 1)[1].split("?")[0]
            undecoded[f"reply of /{path} is not collected yet"] += path != "api/v5/public/instruments"
            continue
        channel = message["arg"]["channel"]
        if channel not in ("trades", "trades-all"):
            undecoded[f"channel {channel} is not collected yet"] += 1
            continue
        for fill in message["data"]:
            if fill["instId"] in listed or fill["instId"].count("-") == 1:
                trades.add((fill["instId"], fill["tradeId"]))
            else:
                undecoded["unknown instrument"] += 1
    return trades, +undecoded


def test_replay_gives_every_trade_once_and_names_the_rest(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["replay", f"{FRAMES}/okx", "--to", str(tmp_path / "out"), "--json", "--quiet"])
    assert result.exit_code == 1, result.output
    summary = json.loads(result.stdout)
    trades, undecoded = expected()
    written = [json.loads(line) for line in (tmp_path / "out" / "trade.jsonl").read_text().splitlines()]
    assert len(trades) > 50
    assert len(written) == len(trades)
    assert {(row["instrument"], row["id"]) for row in written} == trades
    assert {reason: found["count"] for reason, found in summary["undecoded"].items()} == undecoded
    assert summary["frames"] == sum(1 for _ in recorded())


def test_symbols_are_unique_in_every_recorded_list() -> None:
    mapper = Mapper()
    symbols: dict[str, str] = {}
    for raw in recorded():
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
