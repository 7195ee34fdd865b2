"""What `doctor` looks at: installation, settings, folders, servers, ports, disk and clock. Changes nothing."""

import ctypes
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import redis.exceptions

from pipeline.errors import ServerAway, SettingsError
from pipeline.installation import check_import_names, check_python
from pipeline.servers.account import choose, reachable
from pipeline.servers.binary import Binary, find_postgres, find_redis
from pipeline.servers.fitness import Check, Level, check_postgres, check_redis
from pipeline.servers.launch import check_port
from pipeline.servers.postgres import home_of
from pipeline.servers.redis import record_of
from pipeline.settings import Settings, redacted
from pipeline.wire import Wire, check

LITTLE_DISK = 10 << 30
NO_DISK = 1 << 30
CLOCK_WARNING = 0.5
CLOCK_FAILURE = 5.0
"""Seconds between our clock and a server's."""
TIME_ERROR = 5
SIZE_OF_TIMEX = 512


async def diagnose(load: Callable[[], Settings]) -> list[Check]:
    """Everything that can be looked at; without usable settings, what does not need them."""
    checks = [check_python(), *check_import_names()]
    try:
        settings = load()
    except SettingsError as error:
        return [*checks, Check("settings", "fail", str(error), "type `pipeline config check` after the change")]
    checks.append(Check("settings", "ok", str(settings.path)))
    checks += _check_folders(settings)
    checks += await _check_redis(settings)
    checks += await _check_postgres(settings)
    return [*checks, _check_disk(settings.state_dir), _check_synchronized()]


def _check_folders(settings: Settings) -> list[Check]:
    folders = {"state folder": settings.state_dir, "run folder": settings.run_dir, "log folder": settings.log_dir}
    return [_check_folder(name, path) for name, path in folders.items()]


def _check_folder(name: str, path: Path) -> Check:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if existing.stat().st_uid not in (os.getuid(), 0) and os.getuid() and path == existing:
        return Check(name, "fail", f"{path} belongs to user id {path.stat().st_uid}", "run as that user")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "fail", f"{existing} is not writable", "change its owner, or set state_dir")
    return Check(name, "ok", str(path) if existing == path else f"{path} (not made yet)")


async def _check_redis(settings: Settings) -> list[Check]:
    """The server itself where it runs; else whether ours could."""
    url, ours = settings.redis_address(), settings.redis_url is None
    try:
        checks = await check_redis(url, settings.file.redis.accept_eviction)
        return [Check("redis", "ok", f"answers ({redacted(url)})"), *checks, await _check_redis_clock(url)]
    except ServerAway as error:
        if ours:
            return [
                _check_binary("redis", lambda: find_redis(record_of(settings))),
                _check_free("redis.port", settings.file.redis.port),
            ]
        return [Check("redis", "fail", str(error), f"start the server at {redacted(url)}, or correct REDIS_URL")]


async def _check_postgres(settings: Settings) -> list[Check]:
    url, ours = settings.database_address(), settings.database_url is None
    try:
        checks = await check_postgres(url)
        return [Check("postgres", "ok", f"answers ({redacted(url)})"), *checks, await _check_postgres_clock(url)]
    except ServerAway as error:
        if ours and not _listens(settings.run_dir / "postgres" / f".s.PGSQL.{settings.file.postgres.port}"):
            return [
                _check_binary("postgres", lambda: find_postgres(home_of(settings) / "postgres.json")),
                _check_account(settings),
                _check_free("postgres.port", settings.file.postgres.port),
            ]
        advice = "see `pipeline logs postgres`" if ours else "start the server, or correct DATABASE_URL"
        return [Check("postgres", "fail", str(error).splitlines()[0], advice)]


def _listens(path: Path) -> bool:
    """Whether somebody accepts connections at the socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _check_binary(name: str, find: Callable[[], Binary]) -> Check:
    try:
        return Check(name, "ok", f"not running; would run {find()}")
    except SettingsError as error:
        text, _, advice = str(error).partition(": ")
        return Check(name, "fail", text, advice)


def _check_account(settings: Settings) -> Check:
    """Whom Postgres would run as."""
    try:
        account = choose(settings.file.postgres.user, settings.state_dir / "postgres")
    except SettingsError as error:
        return Check("postgres user", "fail", str(error), "set postgres.user or DATABASE_URL")
    existing = next(folder for folder in (settings.state_dir, *settings.state_dir.parents) if folder.exists())
    where = "" if reachable(existing, account) else " (data in /var/lib/tapeline: it cannot reach the state folder)"
    return Check("postgres user", "ok", f"{account.name}{where}")


def _check_free(setting: str, port: int) -> Check:
    try:
        check_port(port, setting)
    except SettingsError as error:
        return Check(setting, "fail", str(error), f"set {setting} to a free port")
    return Check(setting, "ok", f"{port} is free")


async def _check_redis_clock(url: str) -> Check:
    try:
        wire = await Wire.open(url)
        try:
            before = time.time()
            seconds, microseconds = check((await wire.call(("TIME",)))[0])
            middle = (before + time.time()) / 2
        finally:
            await wire.close()
    except (ServerAway, redis.exceptions.RedisError) as error:
        return Check("redis clock", "warn", f"could not check: {error}")
    return _judge_clock("redis clock", int(seconds) + int(microseconds) / 1e6 - middle)


async def _check_postgres_clock(url: str) -> Check:
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
            before = time.time()
            row = await (await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")).fetchone()
            middle = (before + time.time()) / 2
    except psycopg.Error as error:
        return Check("postgres clock", "warn", f"could not check: {error}")
    assert row is not None
    return _judge_clock("postgres clock", row[0] - middle)


def _judge_clock(name: str, difference: float) -> Check:
    level: Level = "ok"
    if abs(difference) > CLOCK_WARNING:
        level = "fail" if abs(difference) > CLOCK_FAILURE else "warn"
    advice = "" if level == "ok" else "synchronize both clocks (chrony, systemd-timesyncd)"
    return Check(name, level, f"{difference * 1000:+.0f} ms from ours", advice)


def _check_disk(path: Path) -> Check:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / (1 << 30):.1f} GB free at {existing}"
    if free < LITTLE_DISK:
        return Check("disk", "fail" if free < NO_DISK else "warn", text, "free some space, or set state_dir")
    return Check("disk", "ok", text)


def _check_synchronized() -> Check:
    """Whether the kernel's clock is being corrected. Candles do not depend on it, ages and logs do."""
    if sys.platform != "linux":
        return Check("clock", "ok", "not checked on this system")
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(SIZE_OF_TIMEX))
    if state == TIME_ERROR:
        advice = "run chrony or systemd-timesyncd (in a container: on its host)"
        return Check("clock", "warn", "this machine's clock is not synchronized", advice)
    return Check("clock", "ok", "synchronized" if state >= 0 else "could not check")
