"""Falling with the parent: when supervisord is killed, nothing it started lives on.

Linux signals a process when its parent dies; elsewhere the parent is polled.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL = 0.5
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15


def fall_with_parent(number: signal.Signals, *, exec_follows: bool = False) -> None:
    """This process gets the signal when its parent ends. Call it after any change of user, which undoes it.

    Ends the process at once when the parent is gone already. Where the kernel does not do it, a process
    about to exec gets a guard; others run `watch_parent`.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent or _adopted():
            sys.exit("pipeline: the parent process is gone")
    elif exec_follows:
        guard(os.getpid(), parent, number)


async def watch_parent(stop: asyncio.Event) -> None:
    """Sets `stop` when the parent ends, where the kernel does not tell. For a process with a loop."""
    parent = os.getppid()
    while sys.platform != "linux" and not stop.is_set():
        await asyncio.sleep(POLL)
        if os.getppid() != parent:
            stop.set()


def guard(process: int, parent: int, number: signal.Signals) -> None:
    """Leaves a process behind that signals `process` when `parent` ends, and ends with either."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    os.closerange(0, 1024)
    while alive(process):
        if not alive(parent):
            with contextlib.suppress(OSError):
                os.kill(process, number)
            break
        time.sleep(POLL)
    os._exit(0)


def name_process(name: str) -> None:
    """Shows the name where process lists show commands (`ps -o comm`), 15 characters of it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def alive(pid: int) -> bool:
    """Whether there is a process of that id (a zombie that nobody waited for is none)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _status(pid)[0] != "Z"


def parent_of(pid: int) -> int:
    """The parent's id; 0 when the process is gone."""
    return _status(pid)[1]


def command_of(pid: int) -> str:
    """The command line, words joined by spaces; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "" if sys.platform == "linux" else _ps(pid, "args=")


def _status(pid: int) -> tuple[str, int]:
    """State letter and parent's id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        state, parent = text.rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        if sys.platform == "linux":
            return "", 0
        state, _, parent = _ps(pid, "stat=", "ppid=").partition(" ")
    return state[:1], int(parent.strip() or 0)


def _ps(pid: int, *columns: str) -> str:
    options = [word for column in columns for word in ("-o", column)]
    return subprocess.run(["ps", *options, "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()


def _adopted() -> bool:
    """Whether supervisord started us and init has us: it died before we could ask for the signal."""
    started_by_supervisor = "SUPERVISOR_SERVER_URL" in os.environ
    return started_by_supervisor and os.getppid() == 1 and "supervisord" not in command_of(1)
