"""The private Redis: its folder, its configuration, its command. Rewrites redis.conf at every start."""

import signal
from pathlib import Path

from pipeline.servers.binary import Binary, find_redis, write_record
from pipeline.servers.folders import private_folder, run_folder
from pipeline.servers.launch import Launch, check_port, lock
from pipeline.settings import Settings

REWRITE_FROM = 4
"""The append-only file is not rewritten before it has as many bytes as a fourth of `maxmemory`: each rewrite writes
all that is in memory."""


def record_of(settings: Settings) -> Path:
    """Says which server wrote the data beside it."""
    return settings.state_dir / "redis.json"


def prepare(settings: Settings) -> Launch:
    """Locks the data, chooses the server, writes its configuration. Raises SettingsError."""
    data = settings.state_dir / "redis"
    lock(settings.state_dir / "redis.lock")
    binary = find_redis(record_of(settings))
    check_port(settings.file.redis.port, "redis.port")
    private_folder(data)
    run_folder(settings)
    write_record(record_of(settings), binary)
    configuration = settings.state_dir / "redis.conf"
    configuration.write_text(configure(settings, data, binary))
    return Launch(command=(binary.path, str(configuration)), death=signal.SIGTERM)


def configure(settings: Settings, data: Path, binary: Binary) -> str:
    """redis.conf of this instance."""
    options = {
        "port": str(settings.file.redis.port),
        "bind": "127.0.0.1",
        "unixsocket": _quoted(settings.run_dir / "redis.sock"),
        "unixsocketperm": "700",
        "dir": _quoted(data),
        "daemonize": "no",
        "logfile": '""',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "aof-load-truncated": "yes",
        "maxmemory": str(settings.file.redis.maxmemory),
        "maxmemory-policy": "noeviction",
        "auto-aof-rewrite-percentage": "100",
        "auto-aof-rewrite-min-size": str(settings.file.redis.maxmemory // REWRITE_FROM),
        # Half of the CPU of a rewrite, which holds what was added to the file anyway: as text, it is twice as large.
        "rdbcompression": "no",
        "stream-node-max-bytes": "4096",
        "stream-node-max-entries": "100",
    }
    head = f"# Written by `pipeline run redis` at each start, for {binary.product} {binary.version}.\n"
    return head + "".join(f"{name} {value}\n" for name, value in options.items())


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
