"""What Redis says of itself and of our streams. Reads only; no retries; gives up after half a second."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.facts import DeadLetters, Group, Redis, Stream
from pipeline.losses import held_bytes, lost_field, lost_of
from pipeline.outsiders import INTERNAL
from pipeline.reports import Report
from pipeline.settings import Settings, redacted
from pipeline.steps import stream_id
from pipeline.streams import READERS, Keys, index_key, progress_key

TIMEOUT = 0.5
HOUR_MS = 3_600_000
RATE_WINDOW_MS = 60_000
MOST_DEAD = 200
"""Dead letters looked at: each may carry 64 KiB of its frame."""
MOST_RATED = {"trade": 500, "quote": 500, "ticker": 200, "orderbook": 100}
"""Kinds whose rate is told, and the entries of each stream looked at: an order book has about 1.5 KiB."""

Client = redis.Redis
Argument = bytes | str | int


def connect(settings: Settings, timeout: float = TIMEOUT) -> Client:
    """A client for people's commands: bytes in and out, no retries. Connects at the first command."""
    return redis.Redis.from_url(
        settings.redis_address(),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


def read(settings: Settings) -> Redis:
    """The facts; `error` where there are none."""
    client = connect(settings)
    try:
        return _facts(client, settings)
    except (redis.exceptions.RedisError, OSError) as error:
        return Redis(error=f"{redacted(settings.redis_address())} does not answer: {_short(error)}")
    except msgspec.DecodeError as error:
        return Redis(error=f"{index_key(settings.namespace)} holds what is not ours: {error}")
    finally:
        client.close()


def call(client: Client, *command: Argument) -> Any:
    """One command, its reply as redis-py shapes it. Raises redis.exceptions.RedisError."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def streams(client: Client, settings: Settings) -> tuple[Stream, ...]:
    """Every stream that exists: those of md:index, and those the settings imply."""
    origins = known(client, settings)
    replies = _batch(
        client,
        (
            command
            for key in origins
            for command in (
                ("XLEN", key),
                ("XREVRANGE", key, "+", "-", "COUNT", 1),
                ("MEMORY USAGE", key, "SAMPLES", 5),
                ("XINFO GROUPS", key),
            )
        ),
    )
    rows = (replies[start : start + 4] for start in range(0, len(replies), 4))
    found = [
        _stream(key, origin, reply)
        for (key, origin), reply in zip(origins.items(), rows, strict=True)
        if isinstance(reply[0], int) and not isinstance(reply[3], Exception)
    ]
    return tuple(_with_outsiders(client, settings, stream) for stream in found)


def _with_outsiders(client: Client, settings: Settings, stream: Stream) -> Stream:
    """The stream with what groups of others hold and lost. Asks again only where there are any."""
    names = [group.name for group in stream.groups if group.outside]
    if not names:
        return stream
    fields = [lost_field(stream.key, name) for name in names]
    ends, losses, *pending = _batch(
        client,
        (
            ("XINFO STREAM", stream.key),
            ("HMGET", Keys(settings.namespace, stream.partition).lost, *fields),
            *(("XPENDING", stream.key, name) for name in names),
        ),
    )
    if isinstance(ends, Exception) or isinstance(losses, Exception) or not ends["first-entry"]:
        return stream
    known = dict(zip(names, zip(losses, pending, strict=True), strict=True))
    groups = (_outsider(stream, group, ends, *known.get(group.name, (None, None))) for group in stream.groups)
    return msgspec.structs.replace(stream, groups=tuple(groups))


def _outsider(stream: Stream, group: Group, ends: Any, lost: bytes | None, waiting: Any) -> Group:
    if not group.outside or isinstance(waiting, Exception):
        return group
    oldest = stream_id(waiting["min"] if waiting["pending"] else group.cursor.encode())
    read = min((stream_id(one.cursor.encode()) for one in stream.groups if not one.outside), default=(0, 0))
    first, newest = stream_id(ends["first-entry"][0]), stream_id(ends["last-entry"][0])
    return msgspec.structs.replace(
        group,
        pending=waiting["pending"],
        held=0 if stream.kind in INTERNAL else held_bytes(stream.bytes, first, newest, read, oldest),
        lost=None if lost is None else lost_of(lost),
    )


def _batch(client: Client, commands: Iterable[tuple[Argument, ...]]) -> list[Any]:
    """Many commands in one write; errors come back as values."""
    batch = client.pipeline(transaction=False)
    for command in commands:
        batch.execute_command(*command)  # type: ignore[no-untyped-call]
    return list(batch.execute(raise_on_error=False))


class Origin(msgspec.Struct, frozen=True):
    """An entry of md:index: what a stream holds."""

    kind: str
    exchange: str
    partition: str


def known(client: Client, settings: Settings) -> dict[str, Origin]:
    """Stream to what it holds: those the settings imply (they may not exist yet), and those of md:index."""
    implied = {
        Keys(settings.namespace, partition).stream(kind): Origin(kind, exchange, partition)
        for exchange in settings.enabled_exchanges()
        for partition in settings.partitions(exchange)
        for kind in READERS
    }
    index: dict[bytes, bytes] = call(client, "HGETALL", index_key(settings.namespace))
    listed = {key.decode(): msgspec.json.decode(value, type=Origin) for key, value in index.items()}
    return implied | listed


def _stream(key: str, origin: Origin, reply: Sequence[Any]) -> Stream:
    entries, newest, size, groups = reply
    return Stream(
        key=key,
        kind=origin.kind,
        exchange=origin.exchange,
        partition=origin.partition,
        entries=entries,
        bytes=size if isinstance(size, int) else None,
        newest=milliseconds(newest[0][0]) * 1_000_000 if newest else None,
        groups=tuple(
            Group(
                name=group["name"].decode(),
                lag=group["lag"],
                cursor=group["last-delivered-id"].decode(),
                outside=group["name"].decode() not in READERS.get(origin.kind, ()),
            )
            for group in groups
        ),
    )


def _facts(client: Client, settings: Settings) -> Redis:
    info: dict[str, Any] = call(client, "INFO")
    found = streams(client, settings)
    now = _now_ms(client)
    return Redis(
        version=str(info.get("valkey_version") or info.get("redis_version")),
        used_memory=info["used_memory"],
        budget=info.get("maxmemory") or settings.file.redis.maxmemory,
        policy=info.get("maxmemory_policy"),
        persistent=_persistent(client, info),
        streams=found,
        dead=_dead(client, [stream.key for stream in found if stream.kind == "dead"], now),
        rates=_rates(client, [stream for stream in found if stream.kind in MOST_RATED], now),
        reports=_reports(client, settings),
    )


def _now_ms(client: Client) -> int:
    seconds, micros = call(client, "TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def _persistent(client: Client, info: dict[str, Any]) -> bool | None:
    """Whether anything is written to disk; None where the server does not let us look."""
    if info.get("aof_enabled"):
        return True
    try:
        saves = call(client, "CONFIG GET", "save")
    except redis.exceptions.ResponseError:
        return None
    return any(saves.values())


def _dead(client: Client, keys: list[str], now: int) -> DeadLetters:
    reasons: Counter[str] = Counter()
    newest: int | None = None
    more = False
    for key in keys:
        letters = call(client, "XREVRANGE", key, "+", now - HOUR_MS, "COUNT", MOST_DEAD)
        more |= len(letters) == MOST_DEAD
        reasons.update(fields(entry).get(b"reason", b"unknown").decode() for entry in letters)
        if letters:
            newest = max(newest or 0, milliseconds(letters[0][0]) * 1_000_000)
    return DeadLetters(reasons=dict(reasons.most_common()), newest=newest, more=more)


def _rates(client: Client, rated: list[Stream], now: int) -> dict[tuple[str, str, str], float]:
    """Records per second over the last minute, or over the newest MOST_RATED where they are younger."""
    since = now - RATE_WINDOW_MS
    replies = _batch(client, (("XREVRANGE", s.key, "+", since, "COUNT", MOST_RATED[s.kind]) for s in rated))
    rates: dict[tuple[str, str, str], float] = {}
    for stream, entries in zip(rated, replies, strict=True):
        if isinstance(entries, Exception):
            raise entries
        if not entries:
            continue
        older = len(entries) < min(MOST_RATED[stream.kind], stream.entries)
        oldest = milliseconds(entries[-1][0])
        seconds = RATE_WINDOW_MS / 1000 if older else max(1.0, (now - oldest) / 1000)
        labels = (fields(entry).get(b"symbol") for entry in entries)
        for symbol, count in Counter(label.decode() for label in labels if label).items():
            name = (stream.exchange, stream.kind, symbol)
            rates[name] = round(rates.get(name, 0.0) + count / seconds, 2)
    return rates


def _reports(client: Client, settings: Settings) -> dict[str, Report]:
    """Reports of processes on other machines (or here), as they last wrote them."""
    saved: dict[bytes, bytes] = call(client, "HGETALL", progress_key(settings.namespace))
    return dict(_decoded(saved))


def _decoded(saved: dict[bytes, bytes]) -> Iterator[tuple[str, Report]]:
    for name, text in saved.items():
        try:
            yield name.decode(), msgspec.json.decode(text, type=Report)
        except msgspec.DecodeError:
            continue  # Written by another version: that process is then judged by its file alone.


def fields(entry: Any) -> dict[bytes, bytes]:
    """An entry's fields, whichever of redis-py's two shapes it came in."""
    fields = entry[1]
    return fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))


def milliseconds(entry_id: bytes) -> int:
    """The time part of an entry id."""
    return int(entry_id.partition(b"-")[0])


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
