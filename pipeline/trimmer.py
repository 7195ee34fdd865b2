"""Trims the streams of one partition to what all their named readers have read. Runs in normalize.

Beyond that an entry is kept for outsiders: while it is promised to anyone (a share of the settings, by kind: order
books are large and soon out of date, raw frames are internal), and while a consumer group has not dealt with it. Both
yield when memory is short (memory.MARKS). Of the raw stream what normalize reads again at a restore is kept besides,
but where that would keep ingest from writing.
Uses no MULTI and nothing a full Redis refuses but notes: it must work exactly when memory is short.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
import redis.exceptions

from pipeline.errors import ServerAway
from pipeline.heartbeat import Heartbeat
from pipeline.losses import Lost, joined, lost_field, lost_of, undelivered
from pipeline.memory import ALL, INGEST_STOPS, Left, left_to_outsiders, memory_share
from pipeline.outsiders import INTERNAL, Outsider, let_go, outsiders, with_pending
from pipeline.pause import pause
from pipeline.steps import REREAD_FROM, Command, StreamId, stream_id
from pipeline.streams import READERS, Keys
from pipeline.wire import Reply, Wire, check

__all__ = ["Promise", "Trimmer", "stream_id", "trim", "trim_forever"]

INTERVAL = 10.0
PRESSED_INTERVAL = 1.0
"""While memory is short: it may fill by a tenth in ten seconds."""
MOST_CUT = 1_000_000
"""Entries cut from one stream at a time. Without a limit of ours the server cuts 10,000, and a busy stream grows."""

log = logging.getLogger(__name__)


class Promise(NamedTuple):
    """What outside readers may count on: the last `milliseconds`, and the last `entries`."""

    milliseconds: int
    entries: int


class Share(NamedTuple):
    """A kind's part of the promise: it is divided by these."""

    milliseconds: int = 1
    entries: int = 1


SHARES: dict[str, Share] = {
    "raw": Share(10, 50),
    "orderbook": Share(10, 50),
    "quote": Share(5, 5),
}
"""A book is about 2 kB, ten times a second: a million of them would be twice a Redis of 1 GiB. Other kinds have all."""


class Seen(NamedTuple):
    """A stream before it is cut: `read` is the id up to which no named reader needs it any more, `noted` its floor."""

    kind: str
    stream: str
    length: int
    read: StreamId
    noted: StreamId
    groups: list[Outsider]


async def trim_forever(
    open_wire: Callable[[], Awaitable[Wire]],
    keys: Keys,
    promise: Promise,
    heartbeat: Heartbeat,
    stop: asyncio.Event,
    *,
    budget: int = 0,
) -> None:
    """Trims every INTERVAL until `stop` is set; a Redis that is away is tried again next time. `budget`: bytes, where
    the server has no limit of its own."""
    trimmer = Trimmer(keys, promise, budget)
    while not stop.is_set():
        try:
            wire = await open_wire()
            try:
                heartbeat.counters["trimmed"] += sum((await trimmer.trim(wire)).values())
            finally:
                await wire.close()
        except ServerAway as error:
            log.info("not trimmed: %s", error)
        await pause(PRESSED_INTERVAL if trimmer.pressed else INTERVAL, stop)


async def trim(wire: Wire, keys: Keys, promise: Promise) -> dict[str, int]:
    """Trims once; entries removed per stream."""
    return await Trimmer(keys, promise).trim(wire)


class Trimmer:
    """One partition's. Remembers what a full Redis would not note."""

    def __init__(self, keys: Keys, promise: Promise, budget: int = 0) -> None:
        self._keys = keys
        self._promise = promise
        self._budget = budget
        self._unsaved: dict[str, Lost] = {}
        self.pressed = False
        """Whether memory was short when it was last looked at."""

    async def trim(self, wire: Wire) -> dict[str, int]:
        """Trims once; entries removed per stream."""
        seconds, microseconds = map(int, check((await wire.call(("TIME",)))[0]))
        now = seconds * 1_000 + microseconds // 1_000
        share = await memory_share(wire, self._budget)
        left = left_to_outsiders(share)
        self.pressed = left != ALL
        removed: dict[str, int] = {}
        found = await self._look(wire, full=share > INGEST_STOPS)
        for seen in found:
            most = self._most(seen, left)
            if most > 0:
                removed[seen.stream] = await self._cut(wire, seen, self._minimum(seen, now, left), most, now)
        await self._forget_what_is_gone(wire, found, now)
        await self._save(wire, found)
        return removed

    async def _look(self, wire: Wire, *, full: bool) -> list[Seen]:
        """The streams that every named reader has committed to."""
        kinds = {kind: self._keys.stream(kind) for kind, readers in READERS.items() if readers}
        # The groups first: a step between can only add an entry to be read again that lies behind what it found.
        raw_states = [self._keys.state(reader) for reader in READERS["raw"]]
        replies = await wire.call(
            *(("XINFO", "GROUPS", stream) for stream in kinds.values()),
            *(("XLEN", stream) for stream in kinds.values()),
            *(("HGET", state, REREAD_FROM) for state in raw_states),
            ("HMGET", self._keys.floor, *kinds.values()),
        )
        listed, lengths, rest = replies[: len(kinds)], replies[len(kinds) : 2 * len(kinds)], replies[2 * len(kinds) :]
        again = [stream_id(entry) for entry in map(check, rest[:-1]) if entry]
        found: list[Seen] = []
        for (kind, stream), reply, length, floor in zip(kinds.items(), listed, lengths, check(rest[-1]), strict=True):
            if isinstance(reply, redis.exceptions.ResponseError):
                continue
            groups = [_facts(flat) for flat in reply]
            read = _read_by_all(groups, READERS[kind])
            if read == (0, 0):
                continue
            if kind == "raw" and not (full and _all_read(groups, READERS[kind])):
                read = min([read, *again])
            outside = outsiders(stream, groups, READERS[kind])
            found.append(Seen(kind, stream, check(length), read, stream_id(floor or b"0-0"), outside))
        pending = iter(await with_pending(wire, [group for seen in found for group in seen.groups]))
        return [seen._replace(groups=[next(pending) for _ in seen.groups]) for seen in found]

    def _most(self, seen: Seen, left: Left) -> int:
        """Entries that may be cut."""
        if not left.counted:
            return MOST_CUT
        share = SHARES.get(seen.kind, Share())
        return min(MOST_CUT, seen.length - self._promise.entries // share.entries)

    def _minimum(self, seen: Seen, now: int, left: Left) -> StreamId:
        """The id below which nobody needs the stream any more, or is let have it."""
        minimum = seen.read
        promised = self._promise.milliseconds // SHARES.get(seen.kind, Share()).milliseconds
        if left.promised is not None:
            promised = min(promised, left.promised)
        if left.promised != 0:
            minimum = min(minimum, (now - promised, 0))
        if left.grouped != 0 and seen.kind not in INTERNAL:
            oldest = (0, 0) if left.grouped is None else (now - left.grouped, 0)
            minimum = min([minimum, *(max(group.oldest, oldest) for group in seen.groups)])
        return minimum

    async def _cut(self, wire: Wire, seen: Seen, minimum: StreamId, most: int, now: int) -> int:
        """The floor is noted first, so that a reader below it can tell; a full Redis refuses only the note."""
        if minimum <= (0, 0):
            return 0
        below = check((await wire.call(("XREVRANGE", seen.stream, f"({_text(minimum)}", "-", "COUNT", 1)))[0])
        if not below:
            return 0
        floor = below[0][0]
        note: list[Command] = []
        if stream_id(floor) > seen.noted:
            note.append(("HSET", self._keys.floor, seen.stream, floor))
        trim: Command = ("XTRIM", seen.stream, "MINID", "~", _text(minimum), "LIMIT", most)
        if seen.kind in INTERNAL or all(group.oldest >= minimum for group in seen.groups):
            return int(check((await wire.call(*note, trim))[-1]))
        before = (("XINFO", "STREAM", seen.stream), ("XINFO", "GROUPS", seen.stream))
        stream, groups, *_, cut = await wire.call(*before, *note, trim)
        removed = int(check(cut))
        if removed:
            facts = _facts(check(stream))
            first, length = stream_id(facts[b"first-entry"][0]), facts[b"length"]
            for group in outsiders(seen.stream, map(_facts, check(groups)), READERS[seen.kind]):
                count = undelivered(group.delivered, group.lag, first, length, stream_id(floor), removed)
                self._lost(group, count, now, floor.decode())
        return removed

    async def _forget_what_is_gone(self, wire: Wire, found: list[Seen], now: int) -> None:
        """Of groups that were overridden: what is pending of removed entries."""
        for seen in found:
            behind = [group for group in seen.groups if group.pending]
            entries = check((await wire.call(("XRANGE", seen.stream, "-", "+", "COUNT", 1)))[0]) if behind else []
            if not entries:
                continue
            first = stream_id(entries[0][0])
            for group in behind:
                gone = await let_go(wire, group, first) if group.oldest < first else 0
                if seen.kind not in INTERNAL:
                    self._lost(group, gone, now, _text(first))

    def _lost(self, group: Outsider, entries: int | None, now: int, to: str) -> None:
        if entries == 0:
            return
        field, at = lost_field(group.stream, group.name), now * 1_000_000
        lost = Lost(
            stream=group.stream,
            group=group.name,
            entries=entries or 0,
            exact=entries is not None,
            since=at,
            time=at,
            after=_text(group.oldest),
            to=to,
        )
        self._unsaved[field] = joined(self._unsaved.get(field), lost)

    async def _save(self, wire: Wire, found: list[Seen]) -> None:
        """Notes what was lost, and takes away the notes of groups that are no more."""
        flat: list[bytes] = check((await wire.call(("HGETALL", self._keys.lost)))[0])
        saved = {field.decode(): lost_of(text) for field, text in zip(flat[::2], flat[1::2], strict=True)}
        there = {lost_field(group.stream, group.name) for seen in found for group in seen.groups}
        looked_at = {seen.stream for seen in found}
        for field, old in saved.items():
            if old is None or (old.stream in looked_at and field not in there):
                await wire.call(("HDEL", self._keys.lost, field))
        for field, lost in list(self._unsaved.items()):
            text = msgspec.json.encode(joined(saved.get(field), lost))
            (reply,) = await wire.call(("HSET", self._keys.lost, field, text))
            if not isinstance(reply, redis.exceptions.ResponseError):
                del self._unsaved[field]
                log.warning("%s: %d entries were removed before group %s read them", *_told(lost))


def _told(lost: Lost) -> tuple[str, int, str]:
    return lost.stream, lost.entries, lost.group


def _read_by_all(groups: list[dict[bytes, Reply]], readers: tuple[str, ...]) -> StreamId:
    """The id up to which every named reader has committed; (0, 0) while one of them never has."""
    delivered = {group[b"name"].decode(): group[b"last-delivered-id"] for group in groups}
    return min(stream_id(delivered.get(reader, b"0-0")) for reader in readers)


def _all_read(groups: list[dict[bytes, Reply]], readers: tuple[str, ...]) -> bool:
    """Whether nothing is left to read. While ingest has stopped as well, the stream's time stands still and no book is
    saved any more: what is kept to be read again would keep Redis full for ever. Books then begin anew at a restore."""
    return all(group.get(b"lag") == 0 for group in groups if group[b"name"].decode() in readers)


def _facts(flat: Reply) -> dict[bytes, Reply]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _text(entry: StreamId) -> str:
    return f"{entry[0]}-{entry[1]}"
