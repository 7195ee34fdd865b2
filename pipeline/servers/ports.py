"""Ports of loopback for servers of a demo or a test, which are killed and come back on the port they had."""

import contextlib
import errno
import random
import socket

LOWEST, HIGHEST = 15_000, 32_000
"""Outside what Linux (32768 and up) and others (49152 and up) give connections for their own end: while a server is
away any connection may be given such a port, and the server could not have it back."""


def free_ports(count: int) -> list[int]:
    """Different ports that nobody had a moment ago. Raises OSError where there are not so many."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        # Whoever makes the same choices anew (a seeded test) would meet those of its neighbours.
        for port in random.SystemRandom().sample(range(LOWEST, HIGHEST), HIGHEST - LOWEST):
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
                if len(found) == count:
                    return found
    raise OSError(errno.EADDRINUSE, f"no {count} free ports between {LOWEST} and {HIGHEST}")
