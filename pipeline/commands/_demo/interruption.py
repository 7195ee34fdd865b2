"""Ctrl-C once: the run is told by KeyboardInterrupt, and what it then tidies up nothing interrupts again."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import click

AGAIN = 0.05
"""Seconds until an interrupt is told again that a finalizer kept for itself."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """TERM and HUP end the body as Ctrl-C does; once it is ending, nothing interrupts it."""

    def interrupt(number: int, _: FrameType | None) -> None:
        for one in caught:
            signal.signal(one, signal.SIG_IGN)
        if not told:
            click.echo("stopping everything", err=True)
        told.append(number)
        raise KeyboardInterrupt

    def ignored(fault: "sys.UnraisableHookArgs") -> None:
        # Python drops what is raised inside a `__del__`, and who pressed Ctrl-C just then would wait for ever.
        if fault.exc_type is not KeyboardInterrupt or not told:
            others(fault)
            return
        for one in caught:
            signal.signal(one, interrupt)
        threading.Timer(AGAIN, os.kill, (os.getpid(), told[-1])).start()

    told: list[int] = []
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in caught}
    others, sys.unraisablehook = sys.unraisablehook, ignored
    try:
        yield
    finally:
        sys.unraisablehook = others
        for number, was in before.items():
            signal.signal(number, was)
