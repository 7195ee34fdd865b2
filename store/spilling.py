"""While Postgres is away: reads one partition's streams on and puts their entries on disk.

The groups in Redis move to what is safe on disk, so the streams may be trimmed. Beside the loop that stores, on a
connection of its own; either of the two reads, never both. Knows no Postgres.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from pipeline.errors import DecodeError, ServerAway, StepRefused
from pipeline.pause import pause
from pipeline.steps import Entry
from pipeline.streams import Keys
from pipeline.wire import OpenWire
from store import entries as decode
from store.batch import Cursor, Validity
from store.progress import Progress
from store.source import Fetched, Source
from store.spill import VERSION, Part, Spill, Spilled

AWAY = 10.0
"""Seconds without Postgres after which entries go to disk."""
RECORD_BYTES = 1024 * 1024
"""About so much of entries is one record, which is loaded in one transaction."""
ENOUGH_BYTES = 64 * 1024 * 1024
"""While more than this waits on disk, what comes is put behind it even though Postgres is back."""
TICK = 0.1
LINGER = 0.5
"""Seconds in which entries gather: until they are on disk the streams have them."""
FULL_PAUSE = 2.0


class Spilling:
    """One partition's. `failed` and `stored` tell it how Postgres is; `finish` ends it for the loop that stores."""

    def __init__(
        self,
        keys: Keys,
        open_wire: OpenWire,
        spill: Spill,
        progress: Progress,
        *,
        most_rows: int,
        patience: float = AWAY,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.spill = spill
        self.direct = False
        """Whether the loop that stores reads the streams itself."""
        self.patience = patience
        self._keys = keys
        self._open_wire = open_wire
        self._progress = progress
        self._most_rows = most_rows
        self._monotonic = monotonic
        self._clock = clock
        self._failed: float | None = None
        self._finishing = False
        self._idle = asyncio.Event()
        self._idle.set()
        progress.spills(keys.partition, self.row)

    def failed(self, seconds: float = 0.0) -> None:
        """Postgres did not do what was asked `seconds` ago."""
        if self._failed is None:
            self._failed = self._monotonic() - seconds

    def stored(self) -> None:
        """Postgres does what it is asked."""
        self._failed = None

    @property
    def due(self) -> bool:
        """Whether entries should go to disk now."""
        if self.direct:
            return False
        if self._failed is not None and self._monotonic() - self._failed >= self.patience:
            return True
        return not self._finishing and self.spill.waiting > ENOUGH_BYTES

    async def finish(self) -> None:
        """Nothing more goes to disk unless Postgres goes away again; returns when nothing is on its way there."""
        self._finishing = True
        await self._idle.wait()

    def take_over(self) -> bool:
        """Whether the loop that stores may read the streams from now on."""
        self.direct = self._finishing and self._idle.is_set() and not self.spill.waiting
        return self.direct

    def hand_back(self) -> None:
        """The loop that stores reads no more."""
        self.direct = self._finishing = False

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set. Waits for Redis. Raises SettingsError and ContractBroken."""
        while not stop.is_set():
            if not self.due:
                await pause(TICK, stop)
                continue
            self._idle.clear()
            try:
                await self.spill.open(stop)
                await self._round(stop)
            except (ServerAway, StepRefused) as error:
                self._progress.error(self._keys.partition, f"spill: {error}")
            finally:
                self._idle.set()
            await pause(FULL_PAUSE if self.due else 0, stop)

    def row(self) -> dict[str, object]:
        return {"spilling": not self._idle.is_set(), **self.spill.row()}

    async def _round(self, stop: asyncio.Event) -> None:
        """Until it is not due any more, or the disk takes no more."""
        wire = await self._open_wire()
        try:
            source = Source(self._keys, wire, self.spill.disk)
            await source.prepare()
            await source.claim()
            reach, anew = await self._begin(source)
            while self.due and not stop.is_set():
                fetched = await source.fetch(self._most_rows, block=True)
                records = list(self._records(fetched, reach, anew))
                done = await self.spill.append(records) if records else 0
                if done:
                    reach = {self._keys.stream(kind): Cursor(*at) for kind, at in records[done - 1].reach.items()}
                    self._show(source, reach, records[:done])
                if done < len(records):
                    break
                anew -= {each.stream for each in fetched}
                if sum(len(each.entries) for each in fetched) < self._most_rows:
                    await pause(LINGER, stop)
            await source.tell()
        finally:
            await wire.close()

    async def _begin(self, source: Source) -> tuple[dict[str, Cursor], set[str]]:
        """Where to read on, and of which streams that is a guess: behind what is on disk, else behind what the groups
        show as safe."""
        reach = await source.shown()
        reach |= {self._keys.stream(kind): Cursor(*at) for kind, at in self.spill.reach.items()}
        behind = await source.ends_before(reach)
        reach |= {stream: Cursor(entry, reach[stream].entries) for stream, entry in behind.items()}
        for stream, floor in (await source.trimmed(reach)).items():
            if stream not in behind and reach[stream].id != "0-0":
                self._progress.error(self._keys.partition, f"{stream} was trimmed to {floor} before it was on disk")
        source.begin(reach)
        return reach, {stream for stream, cursor in reach.items() if stream in behind or cursor.id == "0-0"}

    def _show(self, source: Source, reach: dict[str, Cursor], records: Sequence[Spilled]) -> None:
        for stream in {self._keys.stream(part.kind) for record in records for part in record.parts}:
            source.show(stream, reach[stream])

    def _records(self, fetched: Sequence[Fetched], reach: dict[str, Cursor], anew: set[str]) -> Iterator[Spilled]:
        """What was read, as records of about RECORD_BYTES."""
        at = {kind: reach[stream] for stream, kind in ((self._keys.stream(each.kind), each.kind) for each in fetched)}
        stands = {self._kind(stream): (cursor.id, cursor.entries) for stream, cursor in reach.items()}
        parts: list[Part] = []
        size = 0
        for each in fetched:
            first = each.stream in anew
            for entries in _chunks(each.entries, RECORD_BYTES):
                old, new = at[each.kind], entries[-1].id.decode()
                parts.append(Part(each.kind, old.id, new, len(entries), first, needed(each.kind, entries)))
                at[each.kind] = Cursor(new, old.entries + len(entries))
                stands[each.kind] = (new, old.entries + len(entries))
                size += sum(map(weight, parts[-1].entries))
                first = False
                # A record has one part of a stream.
                if size >= RECORD_BYTES or len(entries) < len(each.entries):
                    yield Spilled(VERSION, self._keys.namespace, self._clock(), parts, dict(stands))
                    parts, size = [], 0
        if parts:
            yield Spilled(VERSION, self._keys.namespace, self._clock(), parts, dict(stands))

    def _kind(self, stream: str) -> str:
        return stream.removeprefix(f"{self._keys.namespace}:").removesuffix(f":{self._keys.tag}")


def needed(kind: str, entries: Sequence[Entry]) -> list[Entry]:
    """The entries that may become rows: of order books between two points of the grid only those that say otherwise
    of their validity than the one before. Those that cannot be read are kept: they become dead letters."""
    if kind != "orderbook":
        return list(entries)
    kept: list[Entry] = []
    known: dict[tuple[str, str], Validity] = {}
    for entry in entries:
        try:
            head = decode.book_head(entry)
        except DecodeError:
            kept.append(entry)
            continue
        key, validity = (head.exchange, head.instrument), (head.valid, head.reason)
        if head.snapshot_time is not None or known.get(key) != validity:
            kept.append(entry)
            known[key] = validity
    return kept


def weight(entry: Entry) -> int:
    """About the entry's size in bytes."""
    return len(entry.id) + sum(len(name) + len(value) for name, value in entry.fields.items())


def _chunks(entries: Sequence[Entry], most: int) -> Iterator[Sequence[Entry]]:
    start = size = 0
    for place, entry in enumerate(entries):
        size += weight(entry)
        if size >= most:
            yield entries[start : place + 1]
            start, size = place + 1, 0
    if start < len(entries):
        yield entries[start:]
