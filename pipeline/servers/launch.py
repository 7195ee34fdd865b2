"""Becoming a server: hold the lock of its data, fall with the parent, change user, exec.

The pid stays the same, so supervisord watches the server itself. The lock is inherited by the server and
its children: who gets it next knows that all of them are gone.
"""

import fcntl
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import NoReturn

import msgspec

from pipeline.errors import SettingsError
from pipeline.parent import alive, fall_with_parent, parent_of
from pipeline.servers.account import Account

LOCK_DEADLINE = 30.0
"""Seconds to wait for the last server on the same data; a child that rewrites its file may outlive it a while."""
STUCK_AFTER = 2.0

log = logging.getLogger(__name__)


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What to exec. `account` is None where the user stays the same; `death` is the signal at the parent's end."""

    command: tuple[str, ...]
    death: signal.Signals
    account: Account | None = None


def lock(path: Path, deadline: float = LOCK_DEADLINE) -> int:
    """Takes the lock for this process and what it execs. Raises SettingsError when another server keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.set_inheritable(descriptor, True)
    begun = time.monotonic()
    while not _try_lock(descriptor):
        holder = _holder(descriptor)
        waited = time.monotonic() - begun
        if waited > deadline:
            raise SettingsError(f"{path} is locked: a server (pid {holder}) is running on the same data")
        if waited > STUCK_AFTER and holder and parent_of(holder) != os.getppid():
            # An orphan that was stopped cannot act on the signal of its parent's death.
            _continue(holder)
        time.sleep(0.1)
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def check_port(port: int, setting: str) -> None:
    """Raises SettingsError when something listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(
                f"port {port} of 127.0.0.1 cannot be used ({error.strerror}): stop what listens there, "
                f"or set {setting} to a free port"
            ) from error


def become(launch: Launch) -> NoReturn:
    """Execs the server in place of this process."""
    os.chdir("/")
    if launch.account and launch.account.uid != os.getuid():
        os.setgroups([])
        os.setgid(launch.account.gid)
        os.setuid(launch.account.uid)
    fall_with_parent(launch.death, exec_follows=True)
    os.execv(launch.command[0], launch.command)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int:
    text = os.pread(descriptor, 20, 0).strip()
    pid = int(text) if text.isdigit() else 0
    return pid if pid and alive(pid) else 0


def _continue(pid: int) -> None:
    log.warning("pid %d still holds the data and its supervisor is gone: continuing it so that it can end", pid)
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return
