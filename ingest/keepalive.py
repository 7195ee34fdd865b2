"""Proof of life of one connection: pings after silence; without any frame by the deadline it is half-open."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from ingest.feed import Keepalive
from ingest.timing import Timing
from ingest.websocket import Socket
from pipeline.timeframes import SECOND


class Life(Protocol):
    """What is known of a connection: host time of its last frame of any sort, pings sent."""

    last_frame: int
    pings: int


async def until_half_open(socket: Socket, life: Life, keepalive: Keepalive, now: Callable[[], int]) -> None:
    """Returns when the other side is silent in spite of a ping. Raises ConnectionClosed."""
    while True:
        quiet = now() - life.last_frame
        if quiet < keepalive.silence:
            await asyncio.sleep((keepalive.silence - quiet) / SECOND)
            continue
        heard = life.last_frame
        if keepalive.ping is None:
            await socket.ping()
        else:
            await socket.send(keepalive.ping)
        life.pings += 1
        until = now() + keepalive.deadline
        while life.last_frame == heard:
            if now() >= until:
                return
            await asyncio.sleep(min(keepalive.deadline / 10, SECOND / 4) / SECOND)


def keepalive_of(keepalive: Keepalive, timing: Timing) -> Keepalive:
    """The feed's, or what the timing has in its place."""
    return Keepalive(keepalive.ping, timing.silence or keepalive.silence, timing.deadline or keepalive.deadline)
