"""How commands write for people: times in UTC, ages, sizes and tables, plain text of at most 80 columns. Pure."""

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime

WIDTH = 80
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))
NOTHING = "-"


def moment(time: int | None) -> str:
    """`2026-11-21 09:48:00` of ns UTC."""
    return NOTHING if time is None else datetime.fromtimestamp(time // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso(time: int | None) -> str | None:
    """ISO 8601 in UTC with microseconds, as in every JSON of the commands."""
    if time is None:
        return None
    second = datetime.fromtimestamp(time // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{second}.{time % 1_000_000_000 // 1_000:06d}Z"


def seconds(time: int | None, now: int) -> float | None:
    """Seconds from `time` to `now` (ns), never below 0: two hosts' clocks may differ a little."""
    return None if time is None else round(max(0, now - time) / 1e9, 3)


def between(earlier: str, later: str) -> float:
    """Seconds between two times as `iso` writes them, never below 0."""
    return max(0.0, (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())


def age(time: int | None, now: int) -> str:
    """How long ago: `0.3s`, `42s`, `5m`, `3h`, `12d`."""
    past = seconds(time, now)
    return NOTHING if past is None else span(past)


def span(length: float) -> str:
    """A length of time (s) in its largest unit."""
    for width, unit in _UNITS:
        if length >= width:
            return f"{int(length // width)}{unit}"
    return f"{length:.1f}s" if length < 10 else f"{int(length)}s"


def size(count: int | None) -> str:
    """Bytes as `512 B`, `1.2 KiB`, `3.4 GiB`."""
    if count is None:
        return NOTHING
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def number(value: float | None) -> str:
    """A count or a rate in few characters: `12.5`, `980`, `12.3k`, `4.5M`."""
    if value is None:
        return NOTHING
    for width, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")):
        if abs(value) >= width:
            return f"{value / min(width, 1_000 if unit == 'k' else width):.1f}{unit}"
    return str(value) if isinstance(value, int) else f"{value:.1f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, width: int = WIDTH) -> list[str]:
    """Lines of a table. The first `left` columns stand to the left, the others to the right; the first is cut
    where the whole would be wider than `width`."""
    columns = [max(len(row[index]) for row in (header, *rows)) for index in range(len(header))]
    columns[0] = max(8, min(columns[0], width - sum(columns[1:]) - 2 * (len(columns) - 1)))
    return [_line(row, columns, left).rstrip()[:width] for row in (header, *rows)]


def _line(row: Sequence[str], columns: Sequence[int], left: int) -> str:
    cells = [cut(row[0], columns[0]), *row[1:]]
    aligned = (
        cell.ljust(width) if index < left else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, columns, strict=True))
    )
    return "  ".join(aligned)


def cut(text: str, width: int) -> str:
    """The text, its end replaced by `…` where it is longer than `width`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def paragraph(label: str, text: str, *, indent: int = 11, width: int = WIDTH) -> list[str]:
    """`label` and the text beside it, wrapped; words longer than a line (paths) are broken, never lost."""
    lead = label.ljust(indent - 1) + " "
    return textwrap.wrap(text, width, initial_indent=lead, subsequent_indent=" " * indent, break_on_hyphens=False) or [
        label
    ]
