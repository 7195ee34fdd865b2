"""The ledger of gaps against the truth: what it excuses, and what it says that is not so. Pure.

A fill is lost when it is neither stored nor named by number, as still missing or as unrecoverable.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from simulator.proof.candles import SLACK, CandleCheck, Terms
from simulator.proof.evidence import Evidence, Link, Trade
from simulator.proof.fills import Account, account
from simulator.proof.verdict import Line

UNRECOVERABLE = "unrecoverable"
Ranges = tuple[tuple[int, int], ...]
"""Inclusive, ascending."""


class GapRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ledger as stored: numbers `first` to `last` of an epoch, of which `remaining` did not come; times
    in ns are those of the trades on both sides."""

    epoch: int
    first: int
    last: int
    from_time: int
    to_time: int
    cause: str
    state: str
    reason: str | None
    remaining: Ranges

    @property
    def open(self) -> bool:
        return self.state != "closed"

    @property
    def unrecoverable(self) -> bool:
        return not self.open and (self.reason or "").startswith(UNRECOVERABLE)

    @property
    def names(self) -> Ranges:
        """The numbers that the ledger says are missing."""
        return self.remaining if self.open or self.unrecoverable else ()


class LedgerFault(msgspec.Struct, frozen=True):
    """What the ledger says of one instrument that is not so."""

    instrument: str
    reason: str


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument: its line of the verdict (`missed` are the fills that the ledger names), and its ledger."""

    line: Line
    opened: int
    open: int
    unrecoverable: int
    epochs: int
    faults: tuple[LedgerFault, ...]


class SettledCheck(CandleCheck):
    """Candles after all repairs: only what a gap still touches may be partial, all the rest is as if never harmed."""

    whole = ("complete", "repaired")
    quiet = ("quiet", "repaired")

    def __init__(self, evidence: Evidence, fills: Account, terms: Terms, gaps: Sequence[GapRow]) -> None:
        self._gaps = gaps
        super().__init__(evidence, fills, terms)

    def dim_spans(self) -> Iterator[tuple[int, int]]:
        """From the trade before each gap to the one after it."""
        yield from ((gap.from_time - SLACK, gap.to_time + SLACK) for gap in self._gaps if gap.names)


def judge(evidence: Evidence, gaps: Sequence[GapRow], terms: Terms) -> Judged:
    """One instrument against the truth. No loss is excused by a connection that was away: the ledger alone counts."""
    since = None if evidence.link is None else Link(evidence.link.since)
    evidence = msgspec.structs.replace(evidence, link=since)
    numbered = [gap for gap in gaps if gap.cause != "epoch"]
    fills = excused(account(evidence), numbered)
    checked, faults = SettledCheck(evidence, fills, terms, numbered).run()
    return Judged(
        line=Line(
            instrument=evidence.instrument,
            account=fills,
            stored=sum(row.fills for row in evidence.trades),
            candles_checked=checked,
            faults=tuple(faults),
        ),
        opened=len(numbered),
        open=sum(gap.open for gap in numbered),
        unrecoverable=sum(gap.unrecoverable for gap in numbered),
        epochs=len(gaps) - len(numbered),
        faults=tuple(_untrue(evidence, numbered)),
    )


def excused(fills: Account, gaps: Iterable[GapRow]) -> Account:
    """The account in which `missed` are the absent fills that a gap names, and `lost` those that none does."""
    named = _by_epoch(gaps)
    altered = {row.number for row in fills.altered}
    absent = [*fills.missed, *fills.lost]
    missed = {one.number for one in absent if one.number not in altered and _within(named, one)}
    return msgspec.structs.replace(
        fills,
        missed=tuple(sorted((one for one in absent if one.number in missed), key=_number)),
        lost=tuple(sorted((one for one in absent if one.number not in missed), key=_number)),
    )


def _untrue(evidence: Evidence, gaps: Sequence[GapRow]) -> Iterable[LedgerFault]:
    """Numbers that the ledger calls missing though they are stored, and gaps closed as if filled that are not."""
    named = _by_epoch(gaps)
    stored = sorted(row.number for row in evidence.trades if _within(named, row))
    if stored:
        yield LedgerFault(evidence.instrument, f"{len(stored)} numbers are called missing and stored: {stored[:3]}")
    for gap in gaps:
        if gap.remaining and not gap.names:
            yield LedgerFault(
                evidence.instrument,
                f"gap {gap.first}-{gap.last} is closed ({gap.reason}) with {gap.remaining[:3]} missing",
            )


def _by_epoch(gaps: Iterable[GapRow]) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for gap in gaps:
        found.setdefault(gap.epoch, []).extend(gap.names)
    return {epoch: sorted(ranges) for epoch, ranges in found.items()}


def _within(named: dict[int, list[tuple[int, int]]], trade: Trade) -> bool:
    ranges = named.get(trade.epoch, [])
    place = bisect_right(ranges, trade.sequence, key=lambda pair: pair[0])
    return place > 0 and trade.sequence <= ranges[place - 1][1]


def _number(trade: Trade) -> tuple[int, int]:
    return trade.number
