"""What ingest and normalize report of an exchange, laid out for those who ask by instrument. Pure.

Reports of an older version say less: what is not there is not known.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.facts import Snapshot
from pipeline.reports import Report


def reports_of(snapshot: Snapshot) -> dict[str, Report]:
    """Process to its report."""
    return {process.name: process.report for process in snapshot.processes if process.report is not None}


def patterns(report: Report | None) -> dict[str, int]:
    """Pattern of the settings to the number of instruments it matches, as ingest says."""
    return dict(details(report).get("patterns") or {})


def budgets(report: Report | None) -> dict[str, Mapping[str, Any]]:
    """Allowance of the exchange to `used`, `limit`, `period` (ns) and `held` (ns), as ingest keeps them."""
    return dict(details(report).get("budgets") or {})


def connections(report: Report | None) -> dict[str, Mapping[str, Any]]:
    """What an ingest process says of each of its connections."""
    return dict(details(report).get("connections") or {})


def clock_offset(report: Report | None) -> int | None:
    """Exchange clock minus ours (ns) as ingest measured it, or None."""
    offset = details(report).get("clock_offset")
    return offset if isinstance(offset, int) else None


def details(report: Report | None) -> Mapping[str, Any]:
    """What a stage says of itself; nothing where there is no report."""
    return report.details if report else {}


class Seen:
    """What normalize reports, over all partitions of one exchange, by instrument."""

    def __init__(self, report: Report | None) -> None:
        self._started = report.started if report else None
        self.trades: dict[str, Mapping[str, Any]] = {}
        self.books: dict[str, Mapping[str, Any]] = {}
        self.latest: dict[str, dict[str, Mapping[str, Any]]] = {}
        self.wants: dict[str, Mapping[str, Any]] = {}
        for partition in (details(report).get("partitions") or {}).values():
            self.trades |= partition.get("subscriptions") or {}
            self.books |= partition.get("books") or {}
            self.wants |= partition.get("wants") or {}
            for kind, rows in (partition.get("latest") or {}).items():
                self.latest.setdefault(kind, {}).update(rows)

    def of(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """The rows of a kind."""
        if kind == "trade":
            return self.trades
        return self.books if kind == "orderbook" else self.latest.get(kind, {})

    def symbol(self, instrument: str) -> str:
        """The canonical symbol, where a row says it."""
        for rows in (self.trades, self.books, *self.latest.values()):
            if symbol := (rows.get(instrument) or {}).get("symbol"):
                return str(symbol)
        return instrument

    def find(self, spelling: str) -> str | None:
        """The instrument that is spelt so, canonical or native, in either case."""
        for rows in (self.trades, self.books, *self.latest.values()):
            for instrument, row in rows.items():
                if spelling.upper() in spellings(instrument, row.get("symbol")):
                    return instrument
        return None

    def invalid_since(self, instrument: str, row: Mapping[str, Any]) -> int | None:
        """When the book became invalid: when its snapshot was first wanted, else when it last heard anything."""
        books = [want for want in self.wants.values() if want["what"] != "trades"]
        wanted = [want["since"] for want in books if want["instrument"] == instrument]
        return row.get("since") or min(wanted, default=None) or row.get("last_message") or self._started


def spellings(*names: object) -> set[str]:
    """The names in capitals, without those that are none."""
    return {name.upper() for name in names if isinstance(name, str)}
