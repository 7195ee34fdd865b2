"""One step of a stage: the entries it read and everything it will write in one transaction. Pure."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from pipeline.records import DeadLetter, Record, encode
from pipeline.streams import READERS, Keys
from pipeline.wants import Want

MOST_RECORDS = 1_000
MOST_BYTES = 1024 * 1024
KEPT_OF_A_DEAD_FRAME = 64 * 1024
DEAD_LETTERS_KEPT = 10_000
REQUESTS_KEPT = 1_000
KINDS_WITH_NEWEST = tuple(kind for kind, readers in READERS.items() if "store" in readers)
REREAD_FROM = "books_from"
"""Field of a stage's state: the entry of its source after which it reads again at a restore. What follows is kept."""

Argument = bytes | str | int
Command = tuple[Argument, ...]
StreamId = tuple[int, int]
Found = Sequence[tuple[bytes, list[bytes]]]
"""Entries of a stream as XREAD and XRANGE give them: of each the id, and fields with values in turn."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One stream entry as read."""

    id: bytes
    fields: dict[bytes, bytes]


class Step:
    """What one step writes. Collects commands; sends nothing."""

    def __init__(self, keys: Keys, stage: str) -> None:
        self._keys = keys
        self._stage = stage
        self._outputs: dict[str, tuple[str, dict[str, bytes]]] = {}
        """By kind: its stream, and the newest record of each instrument."""
        self._forgotten: dict[str, None] = {}
        self._state: dict[str, bytes] = {}
        self._dropped: dict[str, None] = {}
        self._wants: dict[str, bytes | None] = {}
        self._wakes: set[str] = set()
        self._appends: list[Command] = []
        self.records = 0
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether the bound of a step is reached: no further entry should go into it."""
        return self.records >= MOST_RECORDS or self.bytes >= MOST_BYTES

    @property
    def share(self) -> float:
        """How much of the bound is reached; 1 where the step is full."""
        return max(self.records / MOST_RECORDS, self.bytes / MOST_BYTES)

    def emit(self, kind: str, record: Record, *, newest: bool = True) -> None:
        """Appends the record to `md:<kind>:{p}` and, with `newest`, to the hash of newest records."""
        output = self._outputs.get(kind) or self._output(kind)
        data = encode(record)
        self._append(output[0], b"symbol", record.symbol.encode(), data)
        if newest:
            output[1][record.instrument] = data

    def emit_encoded(self, kind: str, rows: Sequence[tuple[bytes, bytes]], newest: Mapping[str, bytes]) -> None:
        """As `emit`, of some records: each one's symbol and JSON, and of each instrument the newest's JSON."""
        stream, kept = self._outputs.get(kind) or self._output(kind)
        self._appends += [("XADD", stream, "*", b"symbol", symbol, "data", data) for symbol, data in rows]
        self.records += len(rows)
        self.bytes += sum([len(data) for _, data in rows])
        kept.update(newest)

    def forget(self, instrument: str) -> None:
        """Takes the instrument out of all hashes of newest records: it is no more."""
        for _, newest in self._outputs.values():
            newest.pop(instrument, None)
        self._forgotten[instrument] = None

    def control(self, name: str, data: bytes) -> None:
        """Appends a control record to `md:trade:{p}`, in place between the trades."""
        self._append(self._keys.trade, b"control", name.encode(), data)

    def bury(self, letter: DeadLetter) -> None:
        """Appends a dead letter; the stream is capped."""
        data = encode(letter)
        self._appends.append(
            ("XADD", self._keys.dead, "MAXLEN", "~", DEAD_LETTERS_KEPT, "*", "reason", letter.reason, "data", data)
        )
        self.records += 1
        self.bytes += len(data)

    def save(self, field: str, value: bytes | None) -> None:
        """Sets a field of the stage's state; None removes it."""
        if value is None:
            self._state.pop(field, None)
            self._dropped[field] = None
        else:
            self._dropped.pop(field, None)
            self._state[field] = value

    def want(self, key: str, want: Want | None, *, wake: bool = True) -> None:
        """Sets what is wanted of ingest under `key`; None takes it back. ingest is woken for what it has to begin."""
        self._wants[key] = None if want is None else encode(want)
        if wake:
            self._wakes.add(key)

    def commands(self) -> list[Command]:
        """Every command, in order; the caller wraps them in MULTI … EXEC."""
        commands = list(self._appends)
        if self._forgotten:
            commands += [("HDEL", self._keys.last(kind), *self._forgotten) for kind in KINDS_WITH_NEWEST]
        newest_of = ((kind, newest) for kind, (_, newest) in self._outputs.items() if newest)
        commands += [("HSET", self._keys.last(kind), *_flat(newest)) for kind, newest in newest_of]
        state = self._keys.state(self._stage)
        if self._state:
            commands.append(("HSET", state, *_flat(self._state)))
        if self._dropped:
            commands.append(("HDEL", state, *self._dropped))
        for key, wanted in self._wants.items():
            if wanted is None:
                commands.append(("HDEL", self._keys.want, key))
            else:
                commands.append(("HSET", self._keys.want, key, wanted))
                if key in self._wakes:
                    commands.append(("XADD", self._keys.request, "MAXLEN", "~", REQUESTS_KEPT, "*", "key", key))
        return commands

    def _output(self, kind: str) -> tuple[str, dict[str, bytes]]:
        output = self._outputs[kind] = (self._keys.stream(kind), {})
        return output

    def _append(self, stream: str, field: bytes, label: bytes, data: bytes) -> None:
        self._appends.append(("XADD", stream, "*", field, label, "data", data))
        self.records += 1
        self.bytes += len(data)


class Stage(Protocol):
    """The pure part of a stage over one partition. All it knows comes from `restore` and `process`."""

    name: str
    source: str
    """Key of the stream it reads."""

    def restore(self, saved: Mapping[bytes, bytes]) -> None:
        """Forgets everything and starts from the saved state (empty at the very first start)."""

    def process(self, entry: Entry, step: Step) -> None:
        """Takes one entry; adds what follows from it to the step. Never raises for bad data."""

    def save(self, step: Step) -> None:
        """Adds the state that changed since `restore` or the last `save`."""

    def report(self) -> dict[str, object]:
        """What `pipeline status` shows of it: JSON values, small."""


@runtime_checkable
class TakingMany(Protocol):
    """A stage that may take entries together."""

    def process_many(self, found: Found, step: Step) -> int:
        """As `process` for each of these, one at least, until the step is full; the number of entries taken (at least
        1)."""


@runtime_checkable
class Rereading(Protocol):
    """A stage parts of whose saved state are older than its cursor: between `restore` and the first `process` it is
    given again what came since. It saves REREAD_FROM."""

    @property
    def reread_from(self) -> bytes | None:
        """The entry after which to read again, up to the cursor; None when there is nothing to bring up to date."""

    def reread(self, entry: Entry) -> None:
        """Takes one of these entries, in order. It was processed before: nothing is written for it."""

    def lack(self, oldest: bytes) -> None:
        """Entries before `oldest` are gone: what would need them starts anew."""

    def faults(self) -> list[str]:
        """What could not be restored, for people; told once."""


def _flat(fields: Mapping[str, bytes]) -> Iterator[Argument]:
    return itertools.chain.from_iterable(fields.items())


def entries_of(found: Found) -> list[Entry]:
    """Those of one stream. What we write has two fields, but for raw entries."""
    return [
        Entry(
            entry,
            {flat[0]: flat[1], flat[2]: flat[3]} if len(flat) == 4 else dict(zip(flat[::2], flat[1::2], strict=True)),
        )
        for entry, flat in found
    ]


def stream_id(text: bytes) -> StreamId:
    """(milliseconds, number) of an entry id: ids compare as numbers, not as texts."""
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number or 0)


def dead_letter(
    exchange: str,
    stage: str,
    reason: str,
    detail: str,
    entry: bytes,
    frame: str,
    received: int | None,
    connection: str | None,
) -> DeadLetter:
    """The letter, with at most 64 KiB of the frame and the digest of the whole."""
    whole = frame.encode()
    return DeadLetter(
        exchange=exchange,
        stage=stage,
        reason=reason,
        detail=detail[:1_000],
        received=received,
        entry=entry.decode(),
        frame=whole[:KEPT_OF_A_DEAD_FRAME].decode(errors="ignore"),
        length=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        connection=connection,
    )
