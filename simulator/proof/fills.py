"""The account of fills: stored, missed while disconnected, lost, and rows that are too many. Pure.

Every printed fill falls under exactly one of `before`, `kept`, `missed`, `lost`.
"""

from collections.abc import Iterator, Sequence

import msgspec

from simulator.proof.evidence import Evidence, Link, Trade


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument's fills. `before`: printed before its collection began, with the first stored number.
    `altered` are rows of a printed number that say something else: the true fill is lost, the row is surplus.
    `surplus`: rows beyond the one of each fill (doubled, altered, never printed)."""

    before: tuple[Trade, ...]
    kept: tuple[Trade, ...]
    missed: tuple[Trade, ...]
    lost: tuple[Trade, ...]
    altered: tuple[Trade, ...]
    surplus: tuple[Trade, ...]

    @property
    def printed(self) -> int:
        """Fills printed since collection began."""
        return len(self.kept) + len(self.missed) + len(self.lost)


def account(evidence: Evidence) -> Account:
    """Who is who. Fills are matched by (epoch, number); a row counts only if all it says is true."""
    rows: dict[tuple[int, int], list[Trade]] = {}
    for row in sorted(evidence.trades, key=lambda trade: trade.received):
        rows.setdefault(row.number, []).append(row)
    surplus = {number: list(same) for number, same in rows.items()}
    first = min(rows, default=None)
    # Where nothing was stored nothing began: then all that was printed on a live connection is lost.
    since = evidence.link.since if evidence.link else 0
    kept, lost, altered, absent, before = [], [], [], [], []
    for fill in evidence.printed:
        match = next((row for row in rows.get(fill.number, ()) if row.same(fill)), None)
        if match is not None:
            kept.append(match)
            surplus[fill.number].remove(match)
        elif fill.number in rows:
            lost.append(fill)
            altered.append(rows[fill.number][0])
        elif fill.number < first if first else fill.time < since:
            before.append(fill)
        else:
            absent.append(fill)
    missed = tuple(_missed(absent, kept + altered, evidence.link))
    excused = {fill.number for fill in missed}
    return Account(
        before=tuple(before),
        kept=tuple(kept),
        missed=missed,
        lost=tuple(sorted([*lost, *(fill for fill in absent if fill.number not in excused)], key=_number)),
        altered=tuple(altered),
        surplus=tuple(row for same in surplus.values() for row in same),
    )


def _number(trade: Trade) -> tuple[int, int]:
    return trade.number


def _missed(absent: Sequence[Trade], received: Sequence[Trade], link: Link | None) -> Iterator[Trade]:
    """The absent fills between the last received before a connection's end and the first after the next began."""
    if link is None:
        return
    ordered = sorted(received, key=_number)
    place = 0
    for fill in absent:
        while place < len(ordered) and ordered[place].number < fill.number:
            place += 1
        before = ordered[place - 1] if place else None
        after = ordered[place] if place < len(ordered) else None
        if before is not None and after is not None and _straddles(before, after, link):
            yield fill


def _straddles(before: Trade, after: Trade, link: Link) -> bool:
    """Whether a connection ended and the next began between the two receipts.

    What an old connection still had in its buffers when it ended may be received up to the moment the next
    begins: hence `begun` alone divides them.
    """
    return any(before.received < border.begun <= after.received for border in link.borders)
