"""Whether a server may be trusted with the data: version, eviction, persistence, memory. The rules are pure.

A Redis that evicts loses entries without a word; an old one lacks commands we need.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
import psycopg
import redis.exceptions

from pipeline.errors import ServerAway
from pipeline.servers.binary import OLDEST_POSTGRES, OLDEST_REDIS
from pipeline.wire import Wire, check

Level = Literal["ok", "warn", "fail"]


class Check(msgspec.Struct, frozen=True):
    """One thing looked at: `text` says what is, `advice` what to do about it."""

    name: str
    level: Level
    text: str
    advice: str = ""


async def check_redis(url: str, accept_eviction: bool) -> list[Check]:
    """Looks at a running Redis. Raises ServerAway, also while it loads its data: until then its INFO says of
    persistence what is not so (Valkey 9.1: `aof_enabled:0`)."""
    wire = await Wire.open(url)
    try:
        info, policy = await wire.call(("INFO",), ("CONFIG", "GET", "maxmemory-policy"))
    finally:
        await wire.close()
    pairs = (line.partition(":") for line in check(info).decode().splitlines() if ":" in line)
    facts = {name: value.strip() for name, _, value in pairs}
    if facts.get("loading") == "1":
        raise ServerAway("Redis is loading its data")
    known = None if isinstance(policy, redis.exceptions.ResponseError) else policy[1].decode()
    return judge_redis(facts, known or facts.get("maxmemory_policy"), accept_eviction)


def judge_redis(facts: Mapping[str, str], policy: str | None, accept_eviction: bool) -> list[Check]:
    """`facts` is INFO, `policy` maxmemory-policy where it could be read."""
    product = "valkey" if "valkey_version" in facts else "redis"
    version = facts.get("redis_version", "")
    shown = f"{product} {facts.get('valkey_version', version)}"
    old = _numbers(version) < OLDEST_REDIS
    return [
        Check("redis version", "fail", f"{shown} is older than 7.0", "use Redis 7.0 or newer, or Valkey")
        if old
        else Check("redis version", "ok", shown),
        _judge_eviction(policy, int(facts.get("maxmemory", "0")), accept_eviction),
        _judge_persistence(facts),
        _judge_memory(int(facts.get("used_memory", "0")), int(facts.get("maxmemory", "0"))),
    ]


async def check_postgres(url: str) -> list[Check]:
    """Looks at a running Postgres. Raises ServerAway."""
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
            number = connection.info.server_version
    except psycopg.Error as error:
        raise ServerAway(f"cannot connect to Postgres: {error}") from error
    return [judge_postgres(number)]


def judge_postgres(number: int) -> Check:
    """`number` is server_version_num: 150018 is 15.18."""
    shown = f"postgres {number // 10000}.{number % 10000}"
    if (number // 10000,) < OLDEST_POSTGRES:
        return Check("postgres version", "fail", f"{shown} is older than 14", "use Postgres 14 or newer")
    return Check("postgres version", "ok", shown)


def _judge_eviction(policy: str | None, maxmemory: int, accepted: bool) -> Check:
    name = "redis eviction"
    if policy is None:
        return Check(name, "warn", "could not check maxmemory-policy", "make sure that it is noeviction")
    if policy == "noeviction":
        return Check(name, "ok", policy)
    if accepted:
        return Check(name, "warn", f"{policy}, accepted by redis.accept_eviction", "entries may vanish unread")
    text = f"maxmemory-policy is {policy}" + ("" if maxmemory else " (no maxmemory is set yet)")
    return Check(name, "fail", text, "CONFIG SET maxmemory-policy noeviction, or set redis.accept_eviction to true")


def _judge_persistence(facts: Mapping[str, str]) -> Check:
    name = "redis persistence"
    if facts.get("aof_enabled") == "1":
        if facts.get("aof_last_write_status", "ok") != "ok":
            return Check(name, "fail", "the append-only file cannot be written", "free disk space on the server")
        return Check(name, "ok", "append-only file")
    return Check(
        name, "warn", "no append-only file", "a crash loses what was not stored yet: CONFIG SET appendonly yes"
    )


def _judge_memory(used: int, maxmemory: int) -> Check:
    name, megabytes = "redis memory", f"{used >> 20} MB used"
    if not maxmemory:
        return Check(name, "warn", f"{megabytes}, no maxmemory", "set maxmemory, with 30 % of head room")
    share = used / maxmemory
    text = f"{megabytes} of {maxmemory >> 20} MB ({share:.0%})"
    return Check(name, "warn" if share > 0.6 else "ok", text, "raise maxmemory" if share > 0.6 else "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
