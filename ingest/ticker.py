"""The clock frames of every partition. After the loop stood still it first empties the sockets, then ticks."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from ingest.clock import ExchangeClock, HostClock
from pipeline.frames import ClockData, Frame
from pipeline.timeframes import SECOND

MOST_ROUNDS = 1_000
TURNS = 5
"""Turns of the loop a frame takes from the kernel to the sink, rounded up."""

_ENCODER = msgspec.json.Encoder()


class Pulse(msgspec.Struct, frozen=True):
    """One partition: `sink` takes its clock frames; `connections` gives, for each live connection, the host
    time of its last frame of any sort."""

    sink: Callable[[Frame], None]
    connections: Callable[[], dict[str, int]]


class Ticker:
    """Ticks every `interval` ns. `received` counts all frames that came in; it tells when the sockets are empty."""

    def __init__(
        self,
        pulses: Sequence[Pulse],
        clock: HostClock,
        exchange: ExchangeClock,
        interval: int,
        received: Callable[[], int],
    ) -> None:
        self._pulses = pulses
        self._clock = clock
        self._exchange = exchange
        self._interval = interval
        self._received = received

    async def run(self) -> None:
        """Until cancelled."""
        due = self._clock.monotonic()
        while True:
            if self._clock.monotonic() - due > self._interval:
                await self._drain()
                due = self._clock.monotonic()
            self.tick()
            due += self._interval
            await asyncio.sleep((due - self._clock.monotonic()) / SECOND)

    def tick(self) -> None:
        """Writes one clock frame to each partition."""
        self._clock.discipline()
        for pulse in self._pulses:
            offset, uncertainty = self._exchange.reading()
            data = ClockData(pulse.connections(), offset, uncertainty)
            pulse.sink(Frame(self._clock.now(), "clock", "in", "clock", _ENCODER.encode(data).decode()))

    async def _drain(self) -> None:
        """Lets the readers of sockets run until nothing more comes of it."""
        for _ in range(MOST_ROUNDS):
            before = self._received()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if self._received() == before:
                return
