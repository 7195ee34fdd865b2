"""Faults of processes: killed, killed twice in a row, stopped, stuttering, slow to sync, taken away for minutes."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

from pipeline.commands._chaos.fault import Fault
from pipeline.commands._chaos.plan import SUPERVISORD
from pipeline.commands._chaos.scene import signalled
from pipeline.errors import ServerAway
from pipeline.parent import command_of
from pipeline.supervisor import Fault as Refusal

COMES_BACK = 90.0
STOPPED, RUNS = 1.5, 0.2
"""Seconds of a stutter."""


class OfProcess(Fault):
    """Two faults never touch the same process. Who harms another one needs supervisord to name its pid."""

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.planned.target, SUPERVISORD})


class Kill(OfProcess):
    """SIGKILL."""

    def begin(self) -> bool:
        return bool(self._kill())

    def _kill(self) -> int:
        pid = self.scene.pid(self.planned.target)
        if pid:
            os.kill(pid, signal.SIGKILL)
        return pid


class KillTwice(Kill):
    """SIGKILL, and once more as soon as supervisord has started the next one: while it reads its files."""

    def begin(self) -> bool:
        self._first = self._kill()
        return bool(self._first)

    def over(self, elapsed: float) -> bool:
        try:
            pid = self.scene.pid(self.planned.target)
        except ServerAway:
            pid = 0
        if pid in (0, self._first):
            return elapsed > COMES_BACK
        os.kill(pid, signal.SIGKILL)
        return True


class Stop(OfProcess):
    """SIGSTOP, later SIGCONT, unless the watchdog took it for hung and killed it meanwhile. Of a server the whole:
    Postgres works in children."""

    def begin(self) -> bool:
        self._stopped = [(pid, command_of(pid)) for pid in self.scene.tree(self.planned.target)]
        if not self._stopped:
            return False
        self._awakener = _awakener([pid for pid, _ in self._stopped])
        signalled(self._stopped, signal.SIGSTOP)
        return True

    def end(self) -> None:
        signalled(self._stopped, signal.SIGCONT)
        self._awakener.communicate()


def _awakener(pids: list[int]) -> "subprocess.Popen[bytes]":
    """Continues the processes once its input ends: with the fault, or with us, should we be killed meanwhile. Who is
    stopped could not even fall with its parent."""
    words = ["/bin/sh", "-c", 'read _; kill -CONT "$@" 2>/dev/null', "sh", *map(str, pids)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)


class Stutter(Stop):
    """Stopped for 1.5 s, running for 0.2 s, again and again: a server that has to wait for its disk."""

    def begin(self) -> bool:
        self._runs = False
        return super().begin()

    def over(self, elapsed: float) -> bool:
        runs = elapsed % (STOPPED + RUNS) > STOPPED
        if runs != self._runs:
            self._runs = runs
            signalled(self._stopped, signal.SIGCONT if runs else signal.SIGSTOP)
        return super().over(elapsed)


class Away(OfProcess):
    """Stopped in order, as an operator stops a server to work on it: the watchdog leaves it alone. Started again in
    the end."""

    def begin(self) -> bool:
        if not self.scene.pid(self.planned.target):
            return False
        with _as_away():
            self.scene.supervisor.stop(self.planned.target)
        return True

    def end(self) -> None:
        name = self.planned.target
        if self.scene.supervisor.programs()[name].state == "STOPPING":
            raise ServerAway(f"{name} is still stopping")
        with _as_away():
            self.scene.supervisor.start(name)


@contextlib.contextmanager
def _as_away() -> Iterator[None]:
    """Who refuses is asked again."""
    try:
        yield
    except Refusal as error:
        raise ServerAway(f"supervisord refuses: {error.faultString}") from error


class SlowSync(OfProcess):
    """Syncing takes Redis 1.5 s longer; meanwhile it holds writes back and acknowledges them all the same. With
    `kill` it is killed in the end, and forgets them: it goes back in time while all others do not."""

    def begin(self) -> bool:
        if not self.scene.disk.built:
            return False
        self.scene.disk.slow(True)
        return True

    def end(self) -> None:
        try:
            if self.planned.arguments.get("kill") and (pid := self.scene.pid(self.planned.target)):
                os.kill(pid, signal.SIGKILL)
        finally:
            self.scene.disk.slow(False)
