"""Ctrl-C once: the run is told by KeyboardInterrupt, and what it then tidies up nothing interrupts again."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import click


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """TERM and HUP end the body as Ctrl-C does; once it is ending, nothing interrupts it."""

    def interrupt(number: int, _: FrameType | None) -> None:
        for one in caught:
            signal.signal(one, signal.SIG_IGN)
        click.echo("stopping everything", err=True)
        raise KeyboardInterrupt

    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
