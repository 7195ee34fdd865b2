"""Until when an exchange wanted nothing of us, as the process before us last reported: a ban outlives a restart."""

from pathlib import Path

import msgspec

from pipeline.errors import DecodeError
from pipeline.reports import read


class _Row(msgspec.Struct, frozen=True):
    held: int = 0


class _Details(msgspec.Struct, frozen=True):
    budgets: dict[str, _Row] = {}


def still_held(report: Path, now: int) -> dict[str, int]:
    """Name of each allowance that is held at host time `now` to the ns left; none where there is no report."""
    try:
        last = read(report)
        rows = msgspec.convert(last.details, _Details).budgets
    except (OSError, DecodeError, msgspec.ValidationError):
        return {}
    # Never longer than was reported, even where the clock was set back.
    left = {name: min(row.held, last.beat + row.held - now) for name, row in rows.items()}
    return {name: rest for name, rest in left.items() if rest > 0}
