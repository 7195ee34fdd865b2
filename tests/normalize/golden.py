"""Frames of our own writing (`tests/frames/<exchange>/<topic>.jsonl`) and what they must say (`golden/` beside them).

`python -m tests.normalize.golden okx` writes the golden files anew; the diff is to be read line by line against the
venue's reference before it is committed.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from normalize.mapper import Mapper, Reading, load
from pipeline.errors import DecodeError
from pipeline.exchanges import EXCHANGES
from pipeline.frames import Frame, from_line, read_lines
from pipeline.records import Instrument

FRAMES = Path(__file__).parent.parent / "frames"
TOPICS = ("instruments", "trades", "history", "books", "quotes", "tickers", "klines", "control")
"""Every exchange has frames of each; `instruments` come first and are known to the others."""


def frames(exchange: str, topic: str) -> list[Frame]:
    """In the order of their arrival."""
    return [from_line(line) for _, line in read_lines(FRAMES / exchange / f"{topic}.jsonl")]


def golden(exchange: str, topic: str) -> list[dict[str, Any]]:
    """What each frame must say, line by line."""
    return [json.loads(line) for _, line in read_lines(FRAMES / exchange / "golden" / f"{topic}.jsonl")]


def instruments(exchange: str, mapper: Mapper) -> dict[str, Instrument]:
    """Those of the exchange's own lists, as they were first told."""
    known: dict[str, Instrument] = {}
    for frame in frames(exchange, "instruments"):
        for instrument in read(mapper, frame, {}).instruments:
            known.setdefault(instrument.instrument, instrument)
    return known


def read(mapper: Mapper, frame: Frame, known: Mapping[str, Instrument]) -> Reading:
    """The reading; a frame of no use is a reading with nothing but a fault."""
    try:
        return mapper.read(frame, known)
    except DecodeError as error:
        return Reading(faults=(error,))


def said(reading: Reading) -> dict[str, Any]:
    """The reading as JSON; empty parts are left out, a book names its instrument by id, a fault is its reason."""
    parts: dict[str, Any] = {
        name: msgspec.to_builtins(getattr(reading, name))
        for name in ("trades", "instruments", "books", "quotes", "tickers", "klines")
    }
    for book in parts["books"]:
        book["instrument"] = book["instrument"]["instrument"]
    parts["faults"] = [fault.reason for fault in reading.faults]
    parts["control"] = reading.control
    plain: dict[str, Any] = json.loads(json.dumps({name: part for name, part in parts.items() if part}))
    return plain


def write(exchange: str) -> None:
    """Writes the golden files of the exchange from what its mapper says now."""
    mapper = load(EXCHANGES[exchange])
    known = instruments(exchange, mapper)
    folder = FRAMES / exchange / "golden"
    folder.mkdir(exist_ok=True)
    for topic in TOPICS:
        heard = {} if topic == "instruments" else known
        lines = [json.dumps(said(read(mapper, frame, heard)), ensure_ascii=False) for frame in frames(exchange, topic)]
        (folder / f"{topic}.jsonl").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(name)
