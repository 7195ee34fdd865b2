"""Reads the raw streams of several partitions as an outsider: no group, no lease, nothing written.

It can tell an entry that was trimmed away before it was read from one that ingest never wrote.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from pipeline.errors import ContractBroken
from pipeline.frames import RawEntry, unpack
from pipeline.probes.redis import Client, call, fields
from pipeline.records import Instrument
from pipeline.streams import Keys

COUNT = 64
"""Entries of one stream read at once: each may have 256 KiB."""
BLOCK_MS = 250
BEGINNING = b"0-0"


class Tapped(NamedTuple):
    """One entry of a raw stream. `instruments`: what was known when the stream was joined in mid-course."""

    partition: str
    id: bytes
    entry: RawEntry
    instruments: tuple[Instrument, ...]


class Position(msgspec.Struct):
    """How far one stream has been read: the last entry's id, writer and number (null before the first one)."""

    keys: Keys
    id: bytes = BEGINNING
    writer: int | None = None
    number: int = 0
    begun: bool = False


class Tap:
    """The raw streams of some partitions. `lost` has a line for everything that cannot be in the recording."""

    def __init__(self, client: Client, partitions: Sequence[Keys]) -> None:
        self._client = client
        self._positions = {keys.raw: Position(keys) for keys in partitions}
        self.lost: list[str] = []

    def skip_to_end(self) -> None:
        """Begins with what comes from now on, instead of the oldest entry still there."""
        for key, position in self._positions.items():
            for entry in call(self._client, "XREVRANGE", key, "+", "-", "COUNT", 1):
                self._moved(position, entry[0], self._unpacked(key, entry))

    def ends(self) -> dict[str, bytes]:
        """Id of the newest entry by stream, of those that have one."""
        newest = {key: call(self._client, "XREVRANGE", key, "+", "-", "COUNT", 1) for key in self._positions}
        return {key: entries[0][0] for key, entries in newest.items() if entries}

    def reached(self, ends: dict[str, bytes]) -> bool:
        """Whether everything up to these ids has been read."""
        return all(_order(self._positions[key].id) >= _order(end) for key, end in ends.items())

    def read(self) -> Iterator[Tapped]:
        """What has come, or nothing after BLOCK_MS."""
        places = [position.id for position in self._positions.values()]
        found = call(self._client, "XREAD", "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", *self._positions, *places)
        if not found:
            self._check_anew()
        # redis-py gives pairs, or a dictionary where the protocol has one.
        for key, entries in (found.items() if isinstance(found, dict) else found) or []:
            for entry in entries:
                yield from self._take(key.decode(), entry)

    def _take(self, key: str, raw: object) -> Iterator[Tapped]:
        position, entry_id = self._positions[key], raw[0]  # type: ignore[index]
        entry = self._unpacked(key, raw)
        instruments: tuple[Instrument, ...] = ()
        if entry is not None:
            if not position.begun:
                instruments = () if entry.n == 1 else self._known(position.keys)
            self._check_follows(key, position, entry)
            position.begun = True
        self._moved(position, entry_id, entry)
        if entry is not None:
            yield Tapped(position.keys.partition, entry_id, entry, instruments)

    def _moved(self, position: Position, entry_id: bytes, entry: RawEntry | None) -> None:
        position.id = entry_id
        if entry is not None:
            position.writer, position.number = entry.w, entry.n

    def _unpacked(self, key: str, raw: object) -> RawEntry | None:
        try:
            return unpack(fields(raw))
        except ContractBroken as error:
            self.lost.append(f"{key}: entry {raw[0].decode()} cannot be recorded: {error}")  # type: ignore[index]
            return None

    def _check_follows(self, key: str, position: Position, entry: RawEntry) -> None:
        """A jump in the numbers is ingest's own, part of what live saw, as long as the entry before is still there."""
        if position.writer is None or (entry.n == 1 and entry.w != position.writer):
            return
        if entry.w == position.writer and entry.n <= position.number + 1:
            return
        if call(self._client, "XRANGE", key, position.id, position.id):
            return
        between = f", {entry.n - position.number - 1} of them" if entry.w == position.writer else ""
        self.lost.append(
            f"{key}: entries after {position.id.decode()} were trimmed away before they were read{between}"
        )

    def _check_anew(self) -> None:
        """A stream that is gone or ends before our place was begun anew: read it from its beginning."""
        for key, position in self._positions.items():
            if position.id == BEGINNING:
                continue
            last = call(self._client, "XREVRANGE", key, "+", "-", "COUNT", 1)
            gone = not last and not call(self._client, "EXISTS", key)
            if gone or (last and _order(last[0][0]) < _order(position.id)):
                self.lost.append(f"{key}: the stream began anew after {position.id.decode()}")
                self._positions[key] = Position(position.keys, begun=position.begun)

    def _known(self, keys: Keys) -> tuple[Instrument, ...]:
        """The instruments normalize knows now, by name."""
        saved: dict[bytes, bytes] = call(self._client, "HGETALL", keys.last("instrument"))
        return tuple(_INSTRUMENT.decode(saved[name]) for name in sorted(saved))


_INSTRUMENT = msgspec.json.Decoder(Instrument)


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)
