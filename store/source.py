"""The streams of one partition as `store` reads them, and what Redis shows of how far it is. Knows no Postgres.

The groups it moves deliver nothing: people see the lag in them, and the trimmer what may be cut.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import redis.exceptions

from pipeline.errors import StepRefused
from pipeline.redis_ready import wait_ready
from pipeline.steps import Command, Entry, stream_id
from pipeline.streams import READERS, Keys
from pipeline.wire import Reply, Wire, check
from store.arrived import Arrived
from store.batch import STAGE, Batch, Cursor

CLAIM = "spill"
BLOCK_MS = 500
REREAD_MS = 60_000
"""How much of a stream that ends before its cursor is read again: what came since its Redis began anew."""

_GONE = ("NOGROUP", "requires the key to exist")
"""What XGROUP says of a group, or a stream, that is not there."""

log = logging.getLogger(__name__)


class Elsewhere(StepRefused):
    """What lies between the cursors and the streams waits on another disk: whoever read on would pass over it."""


class Fetched(NamedTuple):
    """Entries of one stream, in order, and the id after which they were read."""

    kind: str
    stream: str
    old: str
    entries: Sequence[Entry]


class Source:
    """One connection to Redis; `streams` are those that store reads. Not for use by two tasks at once.

    A field of the state in Redis names the disk on which entries of the partition wait: that of `disk` (None: there is
    none) or, and then nothing is read, another one."""

    def __init__(self, keys: Keys, wire: Wire, disk: str | None) -> None:
        self._keys = keys
        self._wire = wire
        self._disk = disk
        self._claim: Command = ("HGET", keys.state(STAGE), CLAIM)
        self._kinds = {keys.stream(kind): kind for kind, readers in READERS.items() if STAGE in readers}
        self._read_to: dict[str, str] = {}
        self._groups: dict[str, Command] = {}
        self._full_streams = 0

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self._kinds)

    @property
    def behind(self) -> bool:
        """Whether a stream had all that the last read asked for: probably more waits there."""
        return self._full_streams > 0

    async def prepare(self) -> None:
        """Waits until the server may be written to, and makes the groups. Raises Elsewhere."""
        await wait_ready(self._wire, self._keys.namespace)
        create = [("XGROUP", "CREATE", stream, STAGE, "0", "MKSTREAM") for stream in self._kinds]
        for reply in await self._wire.call(*create):
            if isinstance(reply, redis.exceptions.ResponseError) and "BUSYGROUP" not in str(reply):
                check(reply)
        self._own(check((await self._wire.call(self._claim))[0]))

    async def claim(self) -> None:
        """From now on entries may wait on our disk. Raises Elsewhere."""
        claim: Command = ("HSETNX", self._keys.state(STAGE), CLAIM, self._disk or "")
        replies = await self._wire.call(claim, self._claim)
        self._own([check(reply) for reply in replies][-1])

    async def release(self) -> None:
        """Nothing waits there any more."""
        if check((await self._wire.call(self._claim))[0]) is not None:
            check((await self._wire.call(("HDEL", self._keys.state(STAGE), CLAIM)))[0])

    def begin(self, stored: Mapping[str, Cursor]) -> None:
        """Reads on from the cursors. They are shown as they are: after a restored backup of Postgres the groups stand
        ahead of them, and what lies between must not be trimmed."""
        self._read_to = {stream: cursor.id for stream, cursor in stored.items()}
        for stream, cursor in stored.items():
            self.show(stream, cursor)

    async def read(self, batch: Batch, most: int, *, block: bool) -> None:
        """Adds to the batch what has come, about `most` entries; with `block` it waits a moment for the first."""
        for kind, stream, old, entries in await self.fetch(most, block=block):
            batch.take(kind, stream, old, entries)

    async def fetch(self, most: int, *, block: bool) -> list[Fetched]:
        """What has come, by stream, about `most` entries; with `block` it waits a moment for the first. Raises
        Elsewhere."""
        count = max(1, most // max(1, self._full_streams))
        groups, self._groups = list(self._groups.values()), {}
        wait: Command = ("BLOCK", BLOCK_MS) if block else ()
        read: Command = ("XREAD", "COUNT", count, *wait, "STREAMS", *self._read_to, *self._read_to.values())
        *moved, claim, found = await self._wire.call(*groups, self._claim, read, block=BLOCK_MS / 1000)
        self._note(moved)
        self._own(check(claim))
        fetched = [
            Fetched(self._kinds[stream], stream, self._read_to[stream], entries)
            for stream, entries in _found(check(found))
        ]
        self._read_to |= {each.stream: each.entries[-1].id.decode() for each in fetched}
        self._full_streams = sum(len(each.entries) == count for each in fetched)
        return fetched

    async def between(self, stream: str, after: str, to: str, most: int) -> Sequence[Entry]:
        """What the stream still has after one id and up to another, the first `most` entries."""
        (found,) = await self._wire.call(("XRANGE", stream, f"({after}", to, "COUNT", most))
        return Arrived(check(found))

    async def shown(self) -> dict[str, Cursor]:
        """Where the groups stand: what was safe when Redis was last told."""
        replies = await self._wire.call(*(("XINFO", "GROUPS", stream) for stream in self._kinds))
        shown: dict[str, Cursor] = {}
        for stream, reply in zip(self._kinds, replies, strict=True):
            groups = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in check(reply)]
            ours = next((group for group in groups if group[b"name"] == STAGE.encode()), {})
            entry = ours.get(b"last-delivered-id", b"0-0").decode()
            shown[stream] = Cursor(entry, ours.get(b"entries-read") or 0)
        return shown

    def show(self, stream: str, cursor: Cursor) -> None:
        """The stream is stored so far; Redis hears of it with the next read, or `tell`."""
        self._groups[stream] = ("XGROUP", "SETID", stream, STAGE, cursor.id, "ENTRIESREAD", cursor.entries)

    async def tell(self) -> None:
        """Shows the cursors now: no read follows."""
        self._note(await self._wire.call(*self._groups.values()))

    async def ends_before(self, stored: Mapping[str, Cursor]) -> dict[str, str]:
        """Streams that end before their cursor, and where to go on: Redis lost its end, or all, and its clock may
        have been set back. What lies below the cursor would never be read; what is read twice is known by its key."""
        replies = await self._wire.call(*(("XINFO", "STREAM", stream) for stream in self._kinds))
        behind: dict[str, str] = {}
        for stream, reply in zip(self._kinds, replies, strict=True):
            flat = check(reply)
            end = stream_id(dict(zip(flat[::2], flat[1::2], strict=True))[b"last-generated-id"])
            if end < stream_id(stored[stream].id.encode()):
                behind[stream] = f"{max(0, end[0] - REREAD_MS)}-0"
        return behind

    async def trimmed(self, stored: Mapping[str, Cursor]) -> dict[str, str]:
        """Streams that were cut above their cursor, and up to where: what is gone is lost to Postgres."""
        floors = check((await self._wire.call(("HMGET", self._keys.floor, *self._kinds)))[0])
        return {
            stream: floor.decode()
            for stream, floor in zip(self._kinds, floors, strict=True)
            if floor and stream_id(floor) > stream_id(stored[stream].id.encode())
        }

    def _own(self, claim: bytes | None) -> None:
        """Raises Elsewhere when the claim is another disk's; which one is told after its name, for people."""
        if claim is None or (self._disk is not None and claim.split()[:1] == self._disk.encode().split()[:1]):
            return
        told = claim.decode("utf-8", "replace")
        raise Elsewhere(
            f"entries wait on another disk ({told}): run that store again, or, if the disk is lost, "
            f"HDEL {self._keys.state(STAGE)} {CLAIM} in Redis"
        )

    def _note(self, replies: Sequence[Reply]) -> None:
        """Raises StepRefused where a group is gone (a flushed Redis): nothing would be trimmed until it is made again,
        and what the stream holds now may have ids below the cursor. What else goes wrong only shows less."""
        for reply in replies:
            if isinstance(reply, redis.exceptions.ResponseError):
                if any(words in str(reply) for words in _GONE):
                    raise StepRefused(f"a stream was removed under us: {reply}")
                log.warning("%s: cannot show the cursor: %s", self._keys.partition, reply)


def _found(reply: Reply) -> list[tuple[str, Arrived]]:
    """XREAD's reply: the entries of each stream that had any."""
    return [(stream.decode(), Arrived(entries)) for stream, entries in reply or ()]
