"""What a run took: memory, open files and disk of every process, Redis' memory, and how long streams stood still.

Pure: samples go in, the most and the last of each come out.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from rich.table import Table
from rich.text import Text

MIB = 1024 * 1024
WAITING = ("ingest-", "store-")
"""Processes whose disk holds what waits for a server; that of a server is its data."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One process at one moment, in bytes. `peak`: the most memory it says it ever had (`memory` where it does not).
    None: not known at this moment."""

    memory: int | None = None
    peak: int | None = None
    files: int | None = None
    disk: int | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment. `time` is s of a monotonic clock. `newest`: id of each stream's newest entry, None
    while Redis does not answer. `postgres`: whether it runs. `redis`: (used_memory, maxmemory)."""

    time: float
    uses: Mapping[str, Use]
    newest: Mapping[str, bytes] | None
    postgres: bool
    redis: tuple[int, int] | None


class Most(msgspec.Struct):
    """The most and the last of a number; None as long as nobody knew."""

    most: int | None = None
    last: int | None = None

    def add(self, value: int | None, peak: int | None = None) -> None:
        if value is not None:
            self.last = value
            self.most = max(self.most or 0, value, peak or 0)


class Consumption(msgspec.Struct):
    """Of one process."""

    memory: Most = msgspec.field(default_factory=Most)
    files: Most = msgspec.field(default_factory=Most)
    disk: Most = msgspec.field(default_factory=Most)


class Silence(msgspec.Struct):
    """Of one stream, in s: the longest time without a new entry while Redis answered; of that the longest while
    Postgres was away; and the longest from Redis' first answer to the first new entry (`again`), which is in neither.
    `newest` has been the newest entry since `since`; `returned`: there was none yet since Redis answers again."""

    newest: bytes | None = None
    since: float = 0.0
    seen: bool = False
    returned: bool = False
    longest: float = 0.0
    without_postgres: float = 0.0
    again: float = 0.0

    def look(self, newest: bytes | None, now: float, *, postgres: bool) -> None:
        """`newest`: None while Redis does not answer."""
        if self.newest is not None and newest is not None:
            self._count(now - self.since, postgres=postgres)
        if newest != self.newest:
            self.returned = self.newest is None and self.seen
            self.seen = self.seen or newest is not None
            self.newest, self.since = newest, now

    def _count(self, silent: float, *, postgres: bool) -> None:
        if self.returned:
            self.again = max(self.again, silent)
            return
        self.longest = max(self.longest, silent)
        if not postgres:
            self.without_postgres = max(self.without_postgres, silent)


class Resources:
    """Of the whole run, as far as it was sampled."""

    def __init__(self) -> None:
        self.samples = 0
        self.processes: dict[str, Consumption] = {}
        self.memory = Most()
        """All processes together."""
        self.waiting = Most()
        """Bytes on disk that wait for a server, all together."""
        self.redis = Most()
        self.maxmemory = 0
        self.streams: dict[str, Silence] = {}
        self.without_postgres = 0
        """Samples while Postgres was away."""

    def add(self, sample: Sample) -> None:
        self.samples += 1
        self.without_postgres += not sample.postgres
        for name, use in sample.uses.items():
            one = self.processes.setdefault(name, Consumption())
            one.memory.add(use.memory, use.peak)
            one.files.add(use.files)
            one.disk.add(use.disk)
        self.memory.add(_sum(use.memory for use in sample.uses.values()))
        self.waiting.add(_sum(use.disk for name, use in sample.uses.items() if name.startswith(WAITING)))
        if sample.redis is not None:
            self.redis.add(sample.redis[0])
            self.maxmemory = sample.redis[1]

    def listen(self, sample: Sample, streams: Iterable[str]) -> None:
        """Looks whether the streams go on: while the markets trade."""
        for stream in streams:
            newest = None if sample.newest is None else sample.newest.get(stream)
            self.streams.setdefault(stream, Silence()).look(newest, sample.time, postgres=sample.postgres)

    @property
    def figures(self) -> dict[str, int | float | None]:
        """The keys they have in the line of JSON; null: nobody could know."""
        longest = max((one.longest for one in self.streams.values()), default=None)
        again = max((one.again for one in self.streams.values()), default=None)
        return {
            "memory_mib": None if self.memory.most is None else round(self.memory.most / MIB),
            "disk_mib": None if self.waiting.most is None else round(self.waiting.most / MIB, 1),
            "longest_silence_s": None if longest is None else round(longest, 1),
            "longest_return_s": None if again is None else round(again, 1),
        }

    def table(self) -> Table:
        """One line a process."""
        table = _table("resources", "process", ("MiB", "at the end", "files", "at the end", "disk MiB", "at the end"))
        for name, one in sorted(self.processes.items()):
            table.add_row(name, *_cells(one.memory), *_cells(one.files, 1), *_cells(one.disk, places=1))
        table.add_row("all", *_cells(self.memory))
        table.add_row("waiting on disk", "", "", "", "", *_cells(self.waiting, places=1))
        table.add_row(f"used_memory of {self.maxmemory // MIB}", *_cells(self.redis))
        table.caption = (
            "the most and the last of one look a second. MiB: resident memory; of Redis and Postgres the proportional"
            " share of the server and its children. Disk: spool, spill; of the servers their data."
        )
        return table

    def streams_table(self) -> Table:
        """One line a stream."""
        columns = ("longest", "while Postgres was away", "after Redis was back")
        table = _table("seconds without a new entry while Redis answers", "stream", columns)
        for name, one in sorted(self.streams.items()):
            without = f"{one.without_postgres:.1f}" if self.without_postgres else "-"
            # As it stands: rich takes ":candle:" for a picture.
            table.add_row(Text(name), f"{one.longest:.1f}", without, f"{one.again:.1f}")
        table.caption = "one look a second. After Redis was back: from its first answer to the first new entry."
        return table


def _table(title: str, first: str, others: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _cells(one: Most, unit: int = MIB, places: int = 0) -> tuple[str, str]:
    most, last = ("-" if number is None else f"{number / unit:.{places}f}" for number in (one.most, one.last))
    return most, last
