"""What supervisord says of its processes, over its unix socket. A fresh connection each time, bounded in time."""

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any

import msgspec

from pipeline.timeframes import SECOND

TIMEOUT = 0.5


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One program as supervisord sees it. Times in ns UTC, None where it never started or never ended."""

    name: str
    state: str
    pid: int | None
    started: int | None
    stopped: int | None
    detail: str


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket. supervisor's own transport has no time-out."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path)


def read(path: Path) -> dict[str, Program]:
    """Every program by name. Raises OSError (nobody listens, or no answer in time) and xmlrpc.client.Error."""
    with xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(str(path))) as server:
        rows: Any = server.supervisor.getAllProcessInfo()
    return {row["name"]: _program(row) for row in rows}


def _program(row: dict[str, Any]) -> Program:
    running = row["statename"] in ("RUNNING", "STARTING", "STOPPING")
    return Program(
        name=row["name"],
        state=row["statename"],
        pid=row["pid"] or None,
        started=row["start"] * SECOND or None,
        stopped=None if running else row["stop"] * SECOND or None,
        detail="" if running else row["spawnerr"] or _ending(row),
    )


def _ending(row: dict[str, Any]) -> str:
    return f"exited with {row['exitstatus']}" if row["statename"] in ("EXITED", "BACKOFF") else ""
