"""The run loop of a stage over one partition: read from the cursor, process, commit, exactly once.

Whoever commits first breaks the other's WATCH, so a stale owner, a second owner and an EXEC still in
flight on an old socket are the same harmless case. Memory is a cache of what EXEC confirmed: after
anything but a clean EXEC the loop drops socket and state and restores, as at start.

A step's commit and the next one's read go out in one write. What was read counts only after EXEC, whose
reply comes first, was clean; until both replies are there nothing is taken as committed.

Where more is there than one step takes, Redis and the stage work at the same time: while a commit is under
way the stage already processes what was read behind it. Nothing of that is sent before the commit before it
was clean, and a refused one drops it with all the rest.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import redis.exceptions

from pipeline.errors import ContractBroken, ServerAway, StepRefused
from pipeline.fetched import NOTHING, Count, Fetched
from pipeline.heartbeat import Heartbeat
from pipeline.pause import pause
from pipeline.pressure import Pressure
from pipeline.redis_ready import wait_ready
from pipeline.steps import Command, Found, Rereading, Stage, Step, TakingMany, entries_of, stream_id
from pipeline.streams import READERS, Keys
from pipeline.wire import Reply, Wire, check

MOST_ENTRIES = 1_000
LEASE_MS = 10_000
PROLONG = 1.0
"""Seconds after which the lease is prolonged: a step takes well under the rest."""
BLOCK_MS = 500
LONGEST_PAUSE = 5.0
WEIGH = 1.0
"""Seconds between two looks at Redis' memory, of a stage that waits when it is short."""

log = logging.getLogger(__name__)


class LeaseElsewhere(StepRefused):
    """A process started later works on this partition: stand by."""


async def work(
    make_stage: Callable[[Keys], Stage],
    open_wire: Callable[[], Awaitable[Wire]],
    keys: Keys,
    token: str,
    heartbeat: Heartbeat,
    stop: asyncio.Event,
    *,
    most_entries: int = MOST_ENTRIES,
) -> None:
    """Runs until `stop` is set and the step under way is finished. Raises ContractBroken only.

    `token` names this process's life; the newest one to start holds the lease. While a server is away
    the loop waits with growing, jittered pauses and never gives up.
    """
    take, wait = True, 0.0
    while not stop.is_set():
        wire: Wire | None = None
        partition: PartitionLoop | None = None
        try:
            wire = await open_wire()
            partition = PartitionLoop(make_stage(keys), wire, keys, token, heartbeat, most_entries)
            await partition.restore(take=take)
            take, wait = False, 0.0
            heartbeat.status, heartbeat.waiting_for = "running", None
            while not stop.is_set():
                await partition.wait_for_room(stop)
                await partition.step()
            await partition.settle()
        except LeaseElsewhere:
            heartbeat.status, heartbeat.waiting_for = "standby", "lease"
            # Whoever took it meanwhile started later. Two that read long at a restore would take it from each other
            # for ever.
            take, wait = False, 1.0
        except StepRefused as error:
            heartbeat.counters["restores"] += 1
            log.info("%s: %s; restoring", keys.partition, error)
        except ServerAway as error:
            heartbeat.counters["restores"] += 1
            heartbeat.waiting_for = "redis"
            heartbeat.error(f"{keys.partition}: {error}")
            wait = min(LONGEST_PAUSE, max(0.1, wait * 2))
        finally:
            if partition is not None:
                await partition.drop()
            if wire is not None:
                await wire.close()
        if wait:
            await pause(wait * random.uniform(0.5, 1.0), stop)


class PartitionLoop:
    """One stage, one partition, one connection; its memory stands at `cursor`."""

    def __init__(
        self, stage: Stage, wire: Wire, keys: Keys, token: str, heartbeat: Heartbeat, most_entries: int
    ) -> None:
        self._stage = stage
        self._wire = wire
        self._keys = keys
        self._token = token
        self._heartbeat = heartbeat
        self._count = Count(most_entries)
        self._state_key = keys.state(stage.name)
        self._lease_key = keys.lease(stage.name)
        self._holds = False
        self._prolonged = 0.0
        self._found = NOTHING
        """What the next step takes."""
        self._ahead = NOTHING
        """What was read behind it."""
        self._under_way: asyncio.Task[Fetched] | None = None
        """A commit, or a read, that goes on while `_found` is processed; it brings what comes behind."""
        self._pressure = Pressure(keys, stage.name, stage.source)
        self._weighed = -WEIGH
        self.cursor = b"0-0"
        self._entries_read = 0

    async def restore(self, *, take: bool) -> None:
        """Loads state and cursor. `take`: the lease is taken from whoever holds it; without it nothing is loaded while
        it is another's, who may work for days."""
        await wait_ready(self._wire, self._keys.namespace)
        await self._check_types()
        source = self._stage.source
        created = (await self._wire.call(("XGROUP", "CREATE", source, self._stage.name, "0", "MKSTREAM")))[0]
        if not (isinstance(created, redis.exceptions.ResponseError) and "BUSYGROUP" in str(created)):
            check(created)
        lease: Command = ("SET", self._lease_key, self._token, "PX", LEASE_MS)
        replies = await self._wire.call(lease if take else (*lease, "NX"), ("GET", self._lease_key))
        self._hold([check(reply) for reply in replies][-1])
        flat: list[bytes] = check((await self._wire.call(("HGETALL", self._state_key)))[0])
        saved = dict(zip(flat[::2], flat[1::2], strict=True))
        self._found, self._ahead, self.cursor = NOTHING, NOTHING, saved.pop(b"cursor", b"0-0")
        self._entries_read = int(saved.pop(b"entries_read", b"0"))
        self._stage.restore(saved)
        await self._check_floor()
        if isinstance(self._stage, Rereading):
            await self._reread(self._stage)

    async def wait_for_room(self, stop: asyncio.Event) -> None:
        """Returns once Redis has room for what the next step writes, or `stop` is set. Keeps the lease, and all that is
        in memory."""
        now, waited = asyncio.get_running_loop().time, False
        if now() - self._weighed < WEIGH:
            return
        await self.settle()
        while not stop.is_set() and await self._pressure.too_high(self._wire):
            if not waited:
                log.warning("%s: Redis is full of what nobody has read yet: waiting", self._keys.partition)
            waited, self._heartbeat.waiting_for = True, "memory"
            *_, lease = await self._wire.call(*self._lease())
            self._hold(check(lease))
            await pause(WEIGH, stop)
        self._weighed = now()
        if waited:
            self._heartbeat.waiting_for = None

    async def step(self) -> None:
        """Processes and commits what was read, and reads on; returns after BLOCK_MS when nothing comes, and with a
        commit under way when more is there."""
        if not self._found.entries:
            reading = self._reading(self.cursor, wait=True)
            commands = [("UNWATCH",), *self._watching(), reading]
            _, *watched, found = await self._wire.call(*commands, block=BLOCK_MS / 1000)
            self._watched(watched)
            self._found = self._fetched(reading, found)
        if self._found.entries:
            await self._advance()

    async def settle(self) -> None:
        """Returns once nothing is under way. Raises what came of it."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            self._ahead = await under_way

    async def drop(self) -> None:
        """Ends what is under way, whatever becomes of it."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)
            self._under_way = None

    async def _advance(self) -> None:
        found = self._found
        if found.full and self._under_way is None and not self._ahead.entries:
            await self._begin(self._read_on(found))
        step = Step(self._keys, self._stage.name)
        used = self._take(found.fitting(), step)
        self._count.learn(found, used, step)
        self._stage.save(step)
        cursor, whole = found.entries[used - 1][0], used == len(found.entries)
        # The next ones come where these were in memory.
        self._found = found = NOTHING
        await self.settle()
        ahead, self._ahead = self._ahead if whole else NOTHING, NOTHING
        if ahead.entries:
            await self._begin(self._commit(step, cursor, used, ahead))
            self._found = ahead
        else:
            self._found = await self._commit(step, cursor, used, ahead)

    async def _begin(self, work: Coroutine[Any, Any, Fetched]) -> None:
        """Lets it send what it has to send before the stage keeps the loop busy."""
        self._under_way = asyncio.create_task(work)
        await asyncio.sleep(0)

    async def _read_on(self, found: Fetched) -> Fetched:
        """What comes behind the batch, if anything is there."""
        reading = self._reading(found.entries[-1][0], wait=False)
        return self._fetched(reading, (await self._wire.call(reading))[0])

    async def _commit(self, step: Step, cursor: bytes, used: int, ahead: Fetched) -> Fetched:
        """Writes the step and moves the cursor; what comes behind `ahead`, or behind the cursor, waiting for it."""
        entries_read = self._entries_read + used
        step.save("cursor", cursor)
        step.save("entries_read", b"%d" % entries_read)
        # The group is for people: XINFO GROUPS then shows how far this stage lags.
        group: Command = ("XGROUP", "SETID", self._stage.source, self._stage.name, cursor, "ENTRIESREAD", entries_read)
        watching, reading = self._watching(), None
        if not ahead.entries:
            reading = self._reading(cursor, wait=True)
        elif ahead.full:
            reading = self._reading(ahead.entries[-1][0], wait=False)
        after = [*watching, reading] if reading else watching
        replies = await self._wire.transact([*step.commands(), group], *after, block=BLOCK_MS / 1000)
        self.cursor, self._entries_read = cursor, entries_read
        self._heartbeat.counters["entries"] += used
        self._heartbeat.counters["records"] += step.records
        self._heartbeat.counters["steps"] += 1
        log.debug("%s: %d entries, %d records, up to %s", self._keys.partition, used, step.records, cursor.decode())
        behind = replies[-len(after) :]
        self._watched(behind[: len(watching)])
        return self._fetched(reading, behind[-1]) if reading else NOTHING

    def _take(self, found: Found, step: Step) -> int:
        """Feeds entries to the stage until the step's bound; the number of entries taken (at least 1)."""
        if isinstance(self._stage, TakingMany):
            return self._stage.process_many(found, step)
        for taken, entry in enumerate(entries_of(found), start=1):
            self._stage.process(entry, step)
            if step.full:
                return taken
        return len(found)

    def _watching(self) -> list[Command]:
        """What tells of the cursor, and watches that it stays the last one; the last reply is whose the lease is."""
        return [("WATCH", self._state_key), ("HGET", self._state_key, "cursor"), *self._lease()]

    def _reading(self, cursor: bytes, *, wait: bool) -> Command:
        """What reads on from the cursor."""
        block = ("BLOCK", BLOCK_MS) if wait else ()
        return ("XREAD", "COUNT", self._count.now, *block, "STREAMS", self._stage.source, cursor)

    def _watched(self, replies: list[Reply]) -> None:
        """Raises LeaseElsewhere; StepRefused when the cursor is not the one in memory."""
        _, stored, *_, lease = [check(reply) for reply in replies]
        self._hold(lease)
        if (stored or b"0-0") != self.cursor:
            raise StepRefused(f"the cursor stands at {stored!r}, not at {self.cursor!r}")

    def _fetched(self, reading: Command, reply: Reply) -> Fetched:
        found = check(reply)
        entries: Found = found[0][1] if found else []
        return Fetched(entries, self._wire.received, full=len(entries) == reading[2])

    async def _reread(self, stage: Rereading) -> None:
        """Brings what was saved before the cursor up to it, a bounded piece at a time; the lease is kept meanwhile."""
        if (oldest := await self._oldest()) is not None:
            stage.lack(oldest)
        after, count = stage.reread_from, self._count.now
        while after is not None:
            piece: Command = ("XRANGE", self._stage.source, b"(" + after, self.cursor, "COUNT", count)
            *_, lease, found = [check(reply) for reply in await self._wire.call(*self._lease(), piece)]
            self._hold(lease)
            size = 0
            for entry in entries_of(found):
                stage.reread(entry)
                size += sum(map(len, entry.fields.values()))
            self._heartbeat.counters["reread"] += len(found)
            after = found[-1][0] if found else None
            count = self._count.of(len(found), size)
        for fault in stage.faults():
            self._heartbeat.error(f"{self._keys.partition}: {fault}")

    async def _oldest(self) -> bytes | None:
        """The first entry of the source that is still there, at most the cursor; None when none was ever removed."""
        facts, first = await self._wire.call(
            ("XINFO", "STREAM", self._stage.source), ("XRANGE", self._stage.source, "-", "+", "COUNT", 1)
        )
        stream = dict(zip(check(facts)[::2], facts[1::2], strict=True))
        if stream[b"length"] == stream[b"entries-added"]:
            return None
        found: list[bytes] = [entry_id for entry_id, _ in check(first)]
        return min([*found, self.cursor], key=stream_id)

    def _lease(self) -> list[Command]:
        """The last reply is whose the lease is. Now and then it is prolonged where it is ours; where it is nobody's it
        is taken."""
        now, look = asyncio.get_running_loop().time(), ("GET", self._lease_key)
        if self._holds and now - self._prolonged < PROLONG:
            return [look]
        self._prolonged = now
        take: Command = ("SET", self._lease_key, self._token, "NX", "PX", LEASE_MS)
        prolong: list[Command] = [("PEXPIRE", self._lease_key, LEASE_MS)] if self._holds else []
        return [*prolong, take, look]

    def _hold(self, lease: bytes | None) -> None:
        """Raises LeaseElsewhere when the lease is another's. Where it ran out it is taken with the next step."""
        self._holds = lease == self._token.encode()
        if lease is not None and not self._holds:
            raise LeaseElsewhere(f"{self._stage.name} {self._keys.partition}: {lease!r} works here")

    async def _check_types(self) -> None:
        """A key of another type would make one command fail inside an EXEC that does the rest."""
        expected = {self._keys.stream(kind): b"stream" for kind in READERS} | {self._state_key: b"hash"}
        expected |= {self._keys.last(kind): b"hash" for kind in READERS}
        expected |= {self._keys.want: b"hash", self._keys.request: b"stream"}
        replies = await self._wire.call(*(("TYPE", key) for key in expected))
        for (key, kind), reply in zip(expected.items(), replies, strict=True):
            if check(reply) not in (kind, b"none"):
                raise ContractBroken(f"key {key} is a {reply.decode()}, not a {kind.decode()}: not written by us")

    async def _check_floor(self) -> None:
        """Tells when entries this stage has not read were trimmed away: they are lost to it."""
        floor = check((await self._wire.call(("HGET", self._keys.floor, self._stage.source)))[0])
        if floor and stream_id(floor) > stream_id(self.cursor):
            self._heartbeat.error(
                f"{self._stage.source}: trimmed up to {floor.decode()} before {self._stage.name} read it"
            )
