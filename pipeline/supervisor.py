"""Speaking to supervisord over its socket. A fresh connection per call, with a time-out.

A transport that once failed to connect fails for ever in Python's own client, hence no connection is kept.
"""

import http.client
import socket
import xml.parsers.expat
import xmlrpc.client
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import ServerAway

TIMEOUT = 5.0
SOCKET_NAME = "supervisor.sock"

UP = ("STARTING", "RUNNING", "STOPPING")
DOWN = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")
"""States of a program without a process. BACKOFF is between two tries."""

Fault = xmlrpc.client.Fault
_AWAY = (
    *(OSError, http.client.HTTPException, xmlrpc.client.ProtocolError),
    # Killed in the midst of an answer: what came of it is no whole document.
    *(xml.parsers.expat.ExpatError, xmlrpc.client.ResponseError),
)
BAD_NAME, ALREADY_STARTED, NOT_RUNNING = 10, 60, 70


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A program as supervisord sees it. `start` and `stop` are s UTC, 0 when it never did."""

    name: str
    state: str
    pid: int = 0
    start: int = 0
    stop: int = 0
    exit_status: int = 0
    error: str = ""


class Supervisor:
    """One supervisord, found by its socket. Every call raises ServerAway when it does not answer, and Fault
    when it refuses."""

    def __init__(self, path: Path, timeout: float = TIMEOUT) -> None:
        self.path = path
        self._timeout = timeout

    def call(self, method: str, *arguments: Any) -> Any:
        """One XML-RPC call."""
        try:
            with xmlrpc.client.ServerProxy("http://supervisor", _Transport(self.path, self._timeout)) as proxy:
                return getattr(proxy, method)(*arguments)
        except _AWAY as error:
            raise ServerAway(f"supervisord does not answer at {self.path}: {error}") from error

    def answers(self) -> bool:
        try:
            return bool(self.call("supervisor.getState")["statename"])
        except ServerAway:
            return False

    def running(self) -> bool:
        """False while it shuts down or restarts."""
        return bool(self.call("supervisor.getState")["statename"] == "RUNNING")

    def pid(self) -> int:
        return int(self.call("supervisor.getPID"))

    def programs(self) -> dict[str, Program]:
        """Name to program."""
        return {info["name"]: _program(info) for info in self.call("supervisor.getAllProcessInfo")}

    def start(self, name: str) -> None:
        """Starts it and does not wait."""
        self._ignoring(ALREADY_STARTED, "supervisor.startProcess", name, False)

    def stop(self, name: str) -> None:
        """Sends its stop signal, later SIGKILL, and does not wait."""
        self._ignoring(NOT_RUNNING, "supervisor.stopProcess", name, False)

    def signal(self, name: str, signal: str) -> None:
        """`signal` without SIG: KILL, TERM …"""
        self._ignoring(NOT_RUNNING, "supervisor.signalProcess", name, signal)

    def shutdown(self) -> None:
        self.call("supervisor.shutdown")

    def say(self, text: str) -> None:
        """A line on supervisord's terminal and in its log."""
        self.call("tapeline.say", text)

    def autorestart(self, name: str, wanted: bool) -> None:
        """Whether supervisord itself restarts the program when it exits."""
        self.call("tapeline.autorestart", name, wanted)

    def _ignoring(self, code: int, method: str, *arguments: Any) -> None:
        try:
            self.call(method, *arguments)
        except Fault as fault:
            if fault.faultCode != code:
                raise


def _program(info: dict[str, Any]) -> Program:
    return Program(
        name=info["name"],
        state=info["statename"],
        pid=info["pid"],
        start=info["start"],
        stop=info["stop"],
        exit_status=info["exitstatus"],
        error=info["spawnerr"],
    )


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__()
        self._path, self._timeout = path, timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _Connection(self._path, self._timeout)
        # Where the transport looks for what to close.
        self._connection = host, connection
        return connection
