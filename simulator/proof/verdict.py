"""The verdict over all instruments, and the one line of JSON that states it. Pure."""

import json
from collections.abc import Sequence

import msgspec

from simulator.proof.books import BookFault
from simulator.proof.candles import CandleCheck, Fault, Terms
from simulator.proof.evidence import Evidence
from simulator.proof.fills import Account, account

Buckets = Sequence[tuple[float, int]]
"""(upper bound, count) of a histogram, ascending."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument's part of the verdict. `account` holds the fills themselves."""

    instrument: str
    account: Account
    stored: int
    candles_checked: int
    faults: tuple[Fault, ...]


class Verdict(msgspec.Struct, frozen=True):
    """All lines, and the order books: a fault or null for each. Good when nothing is lost, doubled or wrong, and
    something was there to be judged."""

    lines: tuple[Line, ...]
    books: tuple[BookFault | None, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """The first nine numbers of the JSON line."""
        accounts = [line.account for line in self.lines]
        return {
            "trades_printed": sum(one.printed for one in accounts),
            "trades_stored": sum(line.stored for line in self.lines),
            "lost": sum(len(one.lost) for one in accounts),
            "missed_while_disconnected": sum(len(one.missed) for one in accounts),
            "duplicated": sum(row.fills for one in accounts for row in one.surplus),
            "candles_checked": sum(line.candles_checked for line in self.lines),
            "candles_wrong": sum(len(line.faults) for line in self.lines),
            "books_checked": len(self.books),
            "books_wrong": sum(fault is not None for fault in self.books),
        }

    @property
    def good(self) -> bool:
        counts = self.counts
        judged = counts["trades_printed"] > 0 and counts["candles_checked"] > 0
        wrong = ("lost", "duplicated", "candles_wrong", "books_wrong")
        return judged and not any(counts[name] for name in wrong)

    def json(self, *, kills: int, disconnects: int, latency: "Latency") -> str:
        """The line. Latencies are null where nothing was measured."""
        return json.dumps(
            {
                **self.counts,
                "kills": kills,
                "disconnects": disconnects,
                "frame_to_row_p50_ms": latency.quantile(0.5),
                "frame_to_row_p99_ms": latency.quantile(0.99),
            }
        )


def verdict(all_evidence: Sequence[Evidence], terms: Terms, books: Sequence[BookFault | None] = ()) -> Verdict:
    """Judges every instrument."""
    return Verdict(tuple(_line(evidence, terms) for evidence in all_evidence), tuple(books))


def _line(evidence: Evidence, terms: Terms) -> Line:
    fills = account(evidence)
    checked, faults = CandleCheck(evidence, fills, terms).run()
    return Line(
        instrument=evidence.instrument,
        account=fills,
        stored=sum(row.fills for row in evidence.trades),
        candles_checked=checked,
        faults=tuple(faults),
    )


class Latency:
    """A histogram added up over the lives of a process, each of which counts from nothing."""

    def __init__(self) -> None:
        self._lives: dict[object, dict[float, int]] = {}

    def add(self, life: object, buckets: Buckets) -> None:
        """The newest histogram of one life (its start, say); it replaces the older one of that life."""
        self._lives[life] = dict(buckets)

    @property
    def count(self) -> int:
        return sum(sum(buckets.values()) for buckets in self._lives.values())

    def quantile(self, share: float) -> float | None:
        """Upper bound of the bucket that holds the share (0 to 1) of all counts; None where nothing was counted."""
        total: dict[float, int] = {}
        for buckets in self._lives.values():
            for bound, count in buckets.items():
                total[bound] = total.get(bound, 0) + count
        wanted = share * sum(total.values())
        seen = 0
        for bound in sorted(total):
            seen += total[bound]
            if total[bound] and seen >= wanted:
                return bound
        return None
