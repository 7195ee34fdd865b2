"""What a run came to: the table, what is wrong, the line of JSON, the exit code."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table

from pipeline.cli import FINDING, GOOD, UNHEALTHY
from pipeline.commands._chaos.auditing import Audited
from pipeline.commands._chaos.resources import Resources

if TYPE_CHECKING:
    from simulator.proof.books import BookFault
    from simulator.proof.ledger import Judged

FINDINGS_SHOWN = 30
FORGETS = "forget"
"""The one fault that makes trades unrecoverable, rightly."""
AWAY = "away"
STILL = 15.0
"""Seconds of a stream without a new entry, with nothing away but Postgres, that are a finding."""
COLUMNS = ("printed", "stored", "lost", "doubled", "candles", "wrong", "gaps", "open", "missing", "unrec.")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`judged`: every instrument against the truth. `missing`: processes or conditions that never came back.
    `gaps_stay`: open gaps are not held against the product. `audited`: None where no audit was made. `unseen`: what an
    audit did not say of what was spoilt on purpose; None where nothing was."""

    judged: "Sequence[Judged]"
    books: "Sequence[BookFault | None]"
    dealt: Mapping[str, int]
    dropped: Mapping[str, int]
    seed: int
    not_back: str | None
    unsettled: Sequence[str]
    gaps_stay: bool
    audited: Audited | None
    unseen: Sequence[str] | None
    resources: Resources

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of the JSON line."""
        accounts = [one.line.account for one in self.judged]
        return {
            "trades_printed": sum(one.printed for one in accounts),
            "trades_stored": sum(one.line.stored for one in self.judged),
            "lost": sum(len(one.lost) for one in accounts),
            "duplicated": sum(row.fills for one in accounts for row in one.surplus),
            "candles_checked": sum(one.line.candles_checked for one in self.judged),
            "candles_wrong": sum(len(one.line.faults) for one in self.judged),
            "gaps_opened": sum(one.opened for one in self.judged),
            "gaps_open": sum(one.open for one in self.judged),
            "unrecoverable": sum(one.unrecoverable for one in self.judged),
            "faults": sum(self.dealt.values()),
        }

    @property
    def json(self) -> str:
        line = {**self.counts, "by_fault": dict(sorted(self.dealt.items())), "seed": self.seed}
        audit = None if self.audited is None else self.audited.code
        return json.dumps({**line, "audit": audit, **self.resources.figures})

    @property
    def still(self) -> list[str]:
        """Streams that stood still while Postgres was taken away: nothing else may stop them then."""
        streams = self.resources.streams.items() if set(self.dealt) == {AWAY} else ()
        return [
            f"{name} stood still for {one.without_postgres:.0f} s while Postgres was away"
            for name, one in streams
            if one.without_postgres > STILL
        ]

    @property
    def exit_code(self) -> int:
        if self.not_back:
            return UNHEALTHY
        counts = self.counts
        judged = counts["trades_printed"] and counts["candles_checked"] and counts["faults"]
        held = ["lost", "duplicated", "candles_wrong"]
        held += [] if FORGETS in self.dealt else ["unrecoverable"]
        held += [] if self.gaps_stay else ["gaps_open"]
        audited = self.unseen or (self.audited is not None and not self.audited.good)
        wrong = any(counts[name] for name in held) or self.unsettled or any(self.books) or audited or self.still
        return FINDING if wrong or not judged or any(one.faults for one in self.judged) else GOOD

    def table(self) -> Table:
        """One line an instrument."""
        table = Table(title="Postgres against the truth log", title_justify="left", box=None, padding=(0, 1, 0, 0))
        table.add_column("instrument", no_wrap=True)
        for name in COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        total = [0] * len(COLUMNS)
        for one in self.judged:
            account = one.line.account
            counts = [
                *(account.printed, one.line.stored, len(account.lost), sum(row.fills for row in account.surplus)),
                *(one.line.candles_checked, len(one.line.faults)),
                *(one.opened, one.open, len(account.missed), one.unrecoverable),
            ]
            total = [sum(pair) for pair in zip(total, counts, strict=True)]
            table.add_row(one.line.instrument, *map(str, counts))
        table.add_row("all", *map(str, total))
        table.caption = "missing: not stored, but named by number in the ledger as still missing or unrecoverable."
        table.caption_justify = "left"
        return table

    def faults_table(self) -> Table:
        """How often what was dealt."""
        table = Table(title="faults", title_justify="left", box=None, padding=(0, 1, 0, 0))
        for name in ("fault", "dealt", "dropped"):
            table.add_column(name, justify="left" if name == "fault" else "right", no_wrap=True)
        for name in sorted({*self.dealt, *self.dropped}):
            table.add_row(name, str(self.dealt.get(name, 0)), str(self.dropped.get(name, 0)))
        return table

    def findings(self) -> Iterator[str]:
        """The first things that are wrong, one a line, and how many more."""
        found = list(self._all_findings())
        yield from found[:FINDINGS_SHOWN]
        if len(found) > FINDINGS_SHOWN:
            yield f"… and {len(found) - FINDINGS_SHOWN} more"

    def _all_findings(self) -> Iterator[str]:
        if self.not_back:
            yield f"did not come back: {self.not_back}"
        yield from (f"not settled: {text}" for text in self.unsettled)
        yield from self.still
        if self.audited is not None and not self.audited.good:
            yield f"audit: exit code {self.audited.code}; it printed:\n{self.audited.text.rstrip()}"
        yield from (f"audit of what was spoilt: {text}" for text in self.unseen or ())
        yield from (f"{fault.instrument}: book: {fault.reason}" for fault in self.books if fault is not None)
        for one in self.judged:
            name = one.line.instrument
            yield from (f"{name}: ledger: {fault.reason}" for fault in one.faults)
            yield from (
                f"{name}: fill {fill.id} (epoch {fill.epoch}) of {fill.time} is lost" for fill in one.line.account.lost
            )
            yield from (f"{name}: row {row.id} of {row.time} is surplus" for row in one.line.account.surplus)
            yield from (
                f"{name} {fault.timeframe} {fault.open_time // 10**9}: {fault.reason}" for fault in one.line.faults
            )
