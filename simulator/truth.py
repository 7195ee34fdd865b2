"""The truth log: one JSON line per fill the market printed, whoever got it. First line: seed and start.

A line is in the file before any client can have the fill. The file is never appended to by a second market.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from pipeline.errors import SettingsError
from simulator.market import Fill

TRUTH_FILE = "truth.jsonl"
FAULTS_FILE = "faults.jsonl"
CONNECTIONS_FILE = "connections.jsonl"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """First line of a truth log. `start` is ns UTC: fills with an earlier `time` are the market's made past."""

    exchange: str
    seed: int
    start: int
    rate: float
    version: int = 1


class TrueFill(msgspec.Struct, frozen=True, gc=False):
    """One fill as printed: `instrument` and `id` as the exchange spells them, `time` in ns, `size` native."""

    exchange: str
    instrument: str
    id: str
    sequence: int
    epoch: int
    time: int
    price: str
    size: str
    side: str


ConnectionEvent = Literal["opened", "subscribed", "unsubscribed", "closed"]


class ConnectionChange(msgspec.Struct, frozen=True):
    """One line of the connection log: a connection was accepted, carries more or fewer channels, or is gone, as the
    exchange saw it at `time` (ns).

    `topics` are the channels and instruments that were subscribed to or unsubscribed just then, or were still
    subscribed to when it closed; `instruments` those of them whose trades it carried. Both are empty in `opened`."""

    time: int
    event: ConnectionEvent
    connection: str
    path: str
    instruments: tuple[str, ...] = ()
    topics: tuple[tuple[str, str], ...] = ()


class TruthLog:
    """Writes `truth.jsonl`, `faults.jsonl` and `connections.jsonl` under a folder, flushed batch by batch.

    Raises SettingsError when the folder already holds a truth log: a proof is not written over.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._truth = (folder / TRUTH_FILE).open("x", encoding="utf-8")
        except FileExistsError as error:
            raise SettingsError(f"{folder} already holds a truth log; give an empty folder") from error
        self._faults = (folder / FAULTS_FILE).open("w", encoding="utf-8")
        self._connections = (folder / CONNECTIONS_FILE).open("w", encoding="utf-8")
        self._exchange = header.exchange
        _write(self._truth, [msgspec.to_builtins(header)])

    def fills(self, instrument: str, fills: Iterable[Fill]) -> None:
        """Write fills of one instrument; call `flush` before anyone is told of them."""
        for fill in fills:
            line = {
                "exchange": self._exchange,
                "instrument": instrument,
                "id": str(fill.sequence),
                "sequence": fill.sequence,
                "epoch": fill.epoch,
                "time": fill.time,
                "price": fill.price,
                "size": fill.size,
                "side": fill.side,
            }
            self._truth.write(json.dumps(line, separators=(",", ":")) + "\n")

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._truth.flush()

    def fault(self, time: int, name: str, details: dict[str, Any]) -> None:
        """Write one fault or effect of a fault; `time` is wall time (ns)."""
        _write(self._faults, [{"time": time, "fault": name, **details}])

    def connection(self, change: ConnectionChange) -> None:
        """Write what changed of a connection; after `close` nothing is written any more."""
        if not self._connections.closed:
            _write(self._connections, [msgspec.to_builtins(change)])

    def close(self) -> None:
        self._truth.close()
        self._faults.close()
        self._connections.close()


def _write(file: IO[str], lines: Iterable[dict[str, Any]]) -> None:
    for line in lines:
        file.write(json.dumps(line, separators=(",", ":")) + "\n")
    file.flush()


def read_header(folder: Path) -> Header:
    """The first line of the folder's truth log."""
    with (folder / TRUTH_FILE).open(encoding="utf-8") as file:
        return msgspec.convert(json.loads(file.readline()), Header)


def read_truth(folder: Path) -> Iterator[TrueFill]:
    """Every fill of the folder's truth log, in the order printed; a line cut short by a kill is left out."""
    with (folder / TRUTH_FILE).open(encoding="utf-8") as file:
        file.readline()
        for line in file:
            if line.endswith("\n"):
                yield msgspec.convert(json.loads(line), TrueFill)


def read_faults(folder: Path) -> list[dict[str, Any]]:
    """Every line of the folder's fault log."""
    with (folder / FAULTS_FILE).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def read_connections(folder: Path) -> list[ConnectionChange]:
    """Every line of the folder's connection log."""
    with (folder / CONNECTIONS_FILE).open(encoding="utf-8") as file:
        return [msgspec.convert(json.loads(line), ConnectionChange) for line in file if line.endswith("\n")]
