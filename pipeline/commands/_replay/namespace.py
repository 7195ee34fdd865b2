"""A replay into the streams of a Redis, in a namespace of its own: what another program reads as it reads live ones."""

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec
import redis.exceptions

from pipeline.errors import ServerAway, SettingsError
from pipeline.probes.redis import Client, Origin, call
from pipeline.records import SCHEMA_VERSION
from pipeline.steps import Command
from pipeline.streams import READERS, Keys, index_key, meta_key

MODE = "replay"
MOST_COMMANDS = 1_000
MOST_BYTES = 1024 * 1024
"""Commands are sent when there are so many of them."""
MOST_MEMORY = 0.5
"""Share of Redis' memory: beyond it live streams would suffer, so a replay stops there."""
WEIGHED_EVERY = 32
"""Writes between two looks at the memory."""


class Namespace:
    """Streams, hashes of newest records, index and meta, as ingest and the stages would have written them."""

    def __init__(self, client: Client, namespace: str, partitions: Mapping[str, tuple[str, ...]]) -> None:
        """`partitions` by exchange."""
        self.namespace = namespace
        self._client = client
        self._partitions = partitions
        self._exchanges = {part: name for name, parts in partitions.items() for part in parts}
        self._commands: list[Command] = []
        self._bytes = self._writes = 0
        self._listed: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, redis.exceptions.RedisError | ServerAway):
            self.flush()

    def claim(self, *, force: bool) -> None:
        """Makes the namespace ours. Raises SettingsError when it holds anything else than, with `force`, an earlier
        replay."""
        meta = meta_key(self.namespace)
        mode = call(self._client, "HGET", meta, "mode")
        if mode == MODE.encode() and force:
            self._empty()
        elif mode == MODE.encode():
            raise SettingsError(f"namespace {self.namespace!r} holds an earlier replay; --force empties it first")
        if (found := next(self._keys(), None)) is not None:
            raise SettingsError(
                f"namespace {self.namespace!r} holds {found}, not of a replay: give another --namespace"
            )
        if not call(self._client, "HSETNX", meta, "mode", MODE):
            raise SettingsError(f"namespace {self.namespace!r} has just been taken by somebody else")
        counts = [part for name, parts in self._partitions.items() for part in (f"partitions:{name}", len(parts))]
        call(self._client, "HSET", meta, "schema", SCHEMA_VERSION, *counts)

    def append(self, keys: Keys, kind: str, command: Command) -> None:
        """One XADD; a stream that is new is put into the index."""
        stream = str(command[1])
        if stream not in self._listed:
            self._listed.add(stream)
            exchange = self._exchanges[keys.partition]
            origin = {
                "kind": kind,
                "exchange": exchange,
                "partition": keys.partition,
                "partitions": len(self._partitions[exchange]),
            }
            self._add(("HSET", index_key(self.namespace), stream, json.dumps(origin, separators=(",", ":"))))
        self._add(command)

    def newest(self, keys: Keys, command: Command) -> None:
        """One HSET of newest records."""
        self._add(command)

    def refused(self, letter: bytes) -> None:
        """Belongs to no stream; the summary names it."""

    def flush(self) -> None:
        """Sends what is held. Raises ServerAway when Redis is too full to go on, redis' errors."""
        if not self._commands:
            return
        if self._writes % WEIGHED_EVERY == 0:
            self._weigh()
        self._writes += 1
        batch = self._client.pipeline(transaction=False)
        for command in self._commands:
            batch.execute_command(*command)  # type: ignore[no-untyped-call]
        self._commands, self._bytes = [], 0
        batch.execute()

    def _add(self, command: Command) -> None:
        self._commands.append(command)
        self._bytes += sum(len(part) for part in command if isinstance(part, bytes | str))
        if len(self._commands) >= MOST_COMMANDS or self._bytes >= MOST_BYTES:
            self.flush()

    def _weigh(self) -> None:
        facts: dict[str, Any] = call(self._client, "INFO", "memory")
        used, most = int(facts["used_memory"]), int(facts.get("maxmemory") or 0)
        if most and used > MOST_MEMORY * most:
            raise ServerAway(
                f"Redis is {used / most:.0%} full: the replay stops, so that live streams keep their room "
                f"(give it a Redis of its own, or a shorter recording)"
            )

    def _keys(self) -> Iterator[str]:
        return (key.decode() for key in self._client.scan_iter(match=f"{self.namespace}:*", count=1_000))

    def _empty(self) -> None:
        """Removes the streams the index names, their newest records, index and meta; nothing else."""
        index: dict[bytes, bytes] = call(self._client, "HGETALL", index_key(self.namespace))
        partitions = {msgspec.json.decode(value, type=Origin).partition for value in index.values()}
        known = {Keys(self.namespace, part).last(kind) for part in partitions for kind in READERS}
        doomed = [*(key.decode() for key in index), *sorted(known), index_key(self.namespace), meta_key(self.namespace)]
        for key in doomed:
            call(self._client, "UNLINK", key)
