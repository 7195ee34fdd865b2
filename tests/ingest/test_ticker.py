"""Clock frames, and the order of things after the loop stood still."""

import asyncio
import threading
import time

import msgspec

from ingest.clock import ExchangeClock, HostClock
from ingest.ticker import Pulse, Ticker
from ingest.timing import MILLISECOND
from pipeline.frames import ClockData, Frame
from tests.ingest.conftest import DEADLINE

LINES = 3_000


def ticker(sink: list[Frame], received: list[bytes], interval: int) -> Ticker:
    clock = HostClock()
    pulse = Pulse(sink.append, lambda: {"c#1": len(received)})
    return Ticker([pulse], clock, ExchangeClock(clock, 0), interval, lambda: len(received))


async def test_ticks_carry_what_is_known() -> None:
    frames: list[Frame] = []
    task = asyncio.create_task(ticker(frames, [], 10 * MILLISECOND).run())
    async with asyncio.timeout(DEADLINE):
        while len(frames) < 3:
            await asyncio.sleep(0.005)
    task.cancel()
    assert {(frame.kind, frame.conn) for frame in frames} == {("clock", "clock")}
    assert msgspec.json.decode(frames[0].data, type=ClockData) == ClockData({"c#1": 0}, None, 0)
    assert [frame.ts for frame in frames] == sorted(frame.ts or 0 for frame in frames)


async def test_after_a_stall_the_sockets_are_emptied_before_the_tick() -> None:
    """A server in another thread fills the socket while this loop does nothing at all."""
    filled, go, closed = threading.Event(), threading.Event(), threading.Event()

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.to_thread(go.wait)
        writer.write(b"x" * 40 + b"\n" + b"y\n" * (LINES - 1))
        await writer.drain()
        filled.set()
        await asyncio.to_thread(over.wait)
        writer.close()
        await writer.wait_closed()
        closed.set()

    def serve() -> None:
        async def main() -> None:
            server = await asyncio.start_server(flood, "127.0.0.1", 0)
            ports.append(server.sockets[0].getsockname()[1])
            listening.set()
            await asyncio.to_thread(closed.wait)
            server.close()

        asyncio.run(main())

    ports: list[int] = []
    listening, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    assert await asyncio.to_thread(listening.wait, DEADLINE)
    reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
    received: list[bytes] = []

    async def read() -> None:
        while line := await reader.readline():
            received.append(line)

    frames: list[Frame] = []
    tasks = [asyncio.create_task(read()), asyncio.create_task(ticker(frames, received, 20 * MILLISECOND).run())]
    async with asyncio.timeout(DEADLINE):
        while not frames:
            await asyncio.sleep(0.001)
    before = len(frames)
    go.set()
    filled.wait(DEADLINE)
    time.sleep(0.1)  # noqa: ASYNC251 - the stall itself
    async with asyncio.timeout(DEADLINE):
        while len(frames) == before:
            await asyncio.sleep(0)
    over.set()
    for task in tasks:
        task.cancel()
    writer.close()
    await writer.wait_closed()
    thread.join(DEADLINE)
    assert msgspec.json.decode(frames[before].data, type=ClockData).connections == {"c#1": LINES}
