"""The ledger of gaps, its entries told apart: open, filled, reordered, unrecoverable, a new epoch. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

Outcome = Literal["open", "filled", "reordered", "unrecoverable", "epoch"]
"""What has become of an entry: as the view `gaps` says."""
OUTCOMES: tuple[Outcome, ...] = ("open", "filled", "reordered", "unrecoverable", "epoch")
Ranges = list[tuple[int, int]]
"""Numbers, both ends inclusive."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One gap, or one beginning of an epoch; its numbers as they were when it was opened."""

    epoch: int
    first: int
    last: int
    from_time: datetime
    to_time: datetime
    outcome: Outcome
    reason: str | None
    remaining: Ranges


def entries(rows: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Rows of the view `gaps`, `remaining` as pairs."""
    found = []
    for row in rows:
        remaining = [(first, last) for first, last in row["remaining"]]
        found.append(
            Entry(
                epoch=row["epoch"],
                first=row["from_sequence"],
                last=row["to_sequence"],
                from_time=row["from_time"],
                to_time=row["to_time"],
                outcome=row["outcome"],
                reason=row["reason"],
                remaining=remaining,
            )
        )
    return found


def counts(found: Iterable[Entry]) -> dict[str, int]:
    """Outcome to the number of entries."""
    each = [entry.outcome for entry in found]
    return {name: each.count(name) for name in OUTCOMES}
