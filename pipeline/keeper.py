"""The keeper stays beside supervisord: starts it again when it was killed, and stops all in order at the end.

Only one keeper holds an instance. If the keeper itself is killed, collecting goes on without it.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from pipeline import reports
from pipeline.errors import ServerAway, SettingsError
from pipeline.parent import alive, command_of
from pipeline.settings import Settings
from pipeline.shutdown import stop_all
from pipeline.stanzas import configuration, socket_of
from pipeline.supervisor import Supervisor

POLL = 0.1
SHOW_INTERVAL = 1.0
LEFTOVER_DEADLINE = 20.0
BACKOFF = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
SETTLED = 60.0

Say = Callable[[str], None]


class Keeper:
    """Holds one instance up until told to stop."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], say: Say) -> None:
        self._settings = settings
        self._environ = {**environ, "DATA_COLLECTION_CONFIG": str(settings.path)}
        self._say = say
        self.supervisor = Supervisor(socket_of(settings))
        self._asked = 0
        self._signal: int | None = None
        self._states: dict[str, str] = {}
        self._pids: dict[str, int] = {}
        self._lock = -1

    def hold(self) -> None:
        """Takes the instance. Raises SettingsError when it is up already."""
        path = self._settings.run_dir / "up.lock"
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode().strip()
            raise SettingsError(
                f"already up (pid {holder}, {self._settings.state_dir}): see `pipeline status`"
            ) from None
        if self.supervisor.answers():
            raise SettingsError(f"supervisord is running already ({self.supervisor.path}): see `pipeline status`")
        os.truncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    def keep(self, duration: float | None) -> int | None:
        """Runs until a signal or for `duration` s, then stops all. Returns the signal, None for the end of time."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)
        end = None if duration is None else time.monotonic() + duration
        failures = 0
        while not self._over(end):
            process, begun = self._start(), time.monotonic()
            shown = 0.0
            while process.poll() is None and not self._over(end):
                if time.monotonic() - shown > SHOW_INTERVAL:
                    shown = time.monotonic()
                    self._show()
                time.sleep(POLL)
            if process.poll() is None:
                self._stop(process)
                break
            if process.returncode == 0:
                # It was told to stop by someone else: `pipeline down`, supervisorctl, or its own TERM.
                self._say("supervisord was stopped")
                break
            if process.returncode > 0 and not self._states:
                raise SettingsError(
                    f"supervisord could not start (exit code {process.returncode}): {self._last_words()}"
                )
            failures = 1 if time.monotonic() - begun > SETTLED else failures + 1
            self._say(f"supervisord ended ({_end_of(process.returncode)}): starting it again")
            self._clear()
            self._wait(BACKOFF[min(failures, len(BACKOFF)) - 1], end)
        return self._signal

    def _over(self, end: float | None) -> bool:
        return self._signal is not None or (end is not None and time.monotonic() >= end)

    def _wait(self, seconds: float, end: float | None) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._over(end):
            time.sleep(POLL)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._signal = self._signal or number
        self._asked += 1

    def _start(self) -> subprocess.Popen[bytes]:
        conf = configuration(self._settings, self._environ)
        self._settings.log_dir.mkdir(parents=True, exist_ok=True)
        # A session of its own: Ctrl-C is for the keeper, which stops all in order.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-c", str(conf)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            cwd="/",
            env=self._environ,
            start_new_session=True,
        )

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        asked = self._asked
        self._say("stopping (again to force)" if self._signal == signal.SIGINT else "stopping")
        stop_all(self.supervisor, self._say, force=lambda: self._asked > asked)
        if process.poll() is None:
            # Its socket may not have been there yet.
            process.terminate()
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _show(self) -> None:
        """Says each change of a process's state that lasts."""
        try:
            programs = self.supervisor.programs()
        except ServerAway:
            return
        for name, program in programs.items():
            self._pids[name] = program.pid
            state = program.state if program.start or program.state != "STOPPED" else ""
            shown = f"{state} {program.pid}"
            if state in ("RUNNING", "FATAL", "EXITED", "BACKOFF") and self._states.get(name) != shown:
                self._states[name] = shown
                self._say(
                    f"{name} {state.lower()}{f' (pid {program.pid})' if program.pid else ''} {program.error}".rstrip()
                )

    def _last_words(self) -> str:
        log_path = self._settings.log_dir / "supervisord.log"
        lines = log_path.read_text(errors="replace").splitlines() if log_path.exists() else []
        return lines[-1] if lines else "it wrote no log"

    def _clear(self) -> None:
        """Waits until what the killed supervisord left behind is gone: each falls with its parent."""
        end = time.monotonic() + LEFTOVER_DEADLINE
        last = time.monotonic() + LEFTOVER_DEADLINE / 2
        while (left := self._leftovers()) and time.monotonic() < end:
            for pid in left:
                # A stopped process cannot act on the signal of its parent's death.
                _signal(pid, signal.SIGCONT if time.monotonic() < last else signal.SIGKILL)
            time.sleep(POLL)
        # As the first process of a container we inherit what supervisord left.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        self._states.clear()

    def _leftovers(self) -> list[int]:
        """Pids of our processes, as supervisord told them and as their heartbeat files say, if they are still that."""
        found = {(name, report.pid) for name, report in reports.read_all(self._settings.heartbeat_dir).items()}
        found |= set(self._pids.items())
        return [pid for name, pid in found if pid and alive(pid) and f" run {name}" in command_of(pid)]


def detach(arguments: list[str], log_path: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts `pipeline up` in a session of its own, its lines in `log_path`."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=dict(environ),
            start_new_session=True,
        )


def _end_of(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
