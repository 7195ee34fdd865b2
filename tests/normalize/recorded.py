"""Recorded frames (a folder outside the repository that TAPELINE_FRAMES names) and what plain code reads in them.

Nothing of the product is used here but its command line: these are the counts it is held against.
"""

import gzip
import heapq
import json
import os
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from pipeline.cli import cli

FRAMES = os.environ.get("TAPELINE_FRAMES")
MARKS = [pytest.mark.recorded, pytest.mark.skipif(not FRAMES, reason="TAPELINE_FRAMES is not set")]
INSTRUMENTS = {
    "okx": "okx/rest_instruments_20220227.jsonl.gz",
    "binance": "binance/rest_exchangeinfo_20211012.jsonl.gz",
}
Level = tuple[str, str]


def folder() -> Path:
    return Path(FRAMES or "")


@cache
def frames(name: str) -> tuple[dict[str, Any], ...]:
    """The frames of one file, `okx/…`."""
    path = folder() / name
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return tuple(json.loads(line) for line in text.splitlines())


def files(exchange: str) -> list[str]:
    return [f"{exchange}/{path.name}" for path in sorted((folder() / exchange).iterdir())]


def every(exchange: str) -> Iterator[dict[str, Any]]:
    """All frames of all files of an exchange, in the order in which a folder is replayed."""
    for name in files(exchange):
        yield from frames(name)


def query(url: str) -> tuple[str, dict[str, str]]:
    """Path and query of a url."""
    parts = urlsplit(url)
    return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}


class Replayed(NamedTuple):
    """A replay's exit code, its summary, and its records by kind."""

    code: int
    summary: dict[str, Any]
    folder: Path

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{kind}.jsonl").read_text().splitlines()]


def replay(to: Path, *names: str) -> Replayed:
    """`pipeline replay` of files or folders below FRAMES."""
    paths = [str(folder() / name) for name in names]
    result = CliRunner().invoke(cli, ["replay", *paths, "--to", str(to), "--json", "--quiet"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return Replayed(result.exit_code, json.loads(result.stdout), to)


class PlainBook:
    """An order book of two dicts, price to quantity text."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, Level] = {}
        self.asks: dict[Decimal, Level] = {}

    def clear(self) -> None:
        self.bids.clear()
        self.asks.clear()

    def put(self, bids: list[list[str]], asks: list[list[str]]) -> None:
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, quantity, *_ in levels:
                if Decimal(quantity):
                    side[Decimal(price)] = (price, quantity)
                else:
                    side.pop(Decimal(price), None)

    def best(self, depth: int) -> tuple[list[Level], list[Level]]:
        """Bids and asks, best first, as they were spelt."""
        bids = [self.bids[price] for price in heapq.nlargest(depth, self.bids)]
        return bids, [self.asks[price] for price in heapq.nsmallest(depth, self.asks)]
