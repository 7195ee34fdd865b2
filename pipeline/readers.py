"""Consumer groups of others: what is found of them, and their rows in the status document. Pure."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from pipeline.facts import Group, Snapshot, Stream
from pipeline.rules import Reason
from pipeline.settings import Settings
from pipeline.subscriptions import Subscription
from pipeline.text import iso

BEHIND = 0.10
"""Share of Redis' memory that one group may hold back before it is told."""


def of_readers(snapshot: Snapshot, settings: Settings, rows: tuple[Subscription, ...]) -> Iterator[Reason]:
    """What they lost within a day, and who holds much."""
    held: defaultdict[str, int] = defaultdict(int)
    most: dict[str, tuple[int, Stream, Group]] = {}
    for stream, group in _outside(snapshot):
        if group.lost is not None and group.lost.told(snapshot.at):
            exact = f"{group.lost.entries}" if group.lost.exact else f"over {group.lost.entries}"
            text = f"{exact} entries of {stream.key} were removed before it read them"
            yield Reason(code="reader_lost", subject=f"group {group.name}", text=text, since=group.lost.since)
        held[group.name] += group.held or 0
        most[group.name] = max(most.get(group.name, (0, stream, group)), (group.held or 0, stream, group), key=_first)
    for name, size in held.items():
        if snapshot.redis.budget and size > BEHIND * snapshot.redis.budget:
            _, stream, group = most[name]
            lag = "unknown" if group.lag is None else group.lag
            share = 100 * size // snapshot.redis.budget
            text = f"holds about {share} % of Redis' memory, most of it in {stream.key} (lag {lag})"
            yield Reason(code="reader_behind", subject=f"group {name}", text=text)


def reader_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """A row for each group on each stream."""
    return [{"stream": stream.key} | group_row(group) for stream, group in _outside(snapshot)]


def group_row(group: Group) -> dict[str, Any]:
    """JSON values; what only groups of others have is null of ours."""
    lost = group.lost
    return {
        "name": group.name,
        "outside": group.outside,
        "lag": group.lag,
        "cursor": group.cursor,
        "pending": group.pending if group.outside else None,
        "held_bytes": group.held,
        "lost": None
        if lost is None
        else {
            "entries": lost.entries,
            "exact": lost.exact,
            "since": iso(lost.since),
            "time": iso(lost.time),
            "after": lost.after,
            "to": lost.to,
        },
    }


def _outside(snapshot: Snapshot) -> Iterator[tuple[Stream, Group]]:
    return ((stream, group) for stream in snapshot.redis.streams for group in stream.groups if group.outside)


def _first(row: tuple[int, Stream, Group]) -> int:
    return row[0]
