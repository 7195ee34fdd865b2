"""Messages of a socket: all of them, in order, however they come; questions of the exchange answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import BytesLike

from ingest.clock import HostClock
from ingest.context import Context
from ingest.exchanges.okx import Feed
from ingest.feed import Ask, Event, Plan, Subscription
from ingest.session import Session
from ingest.websocket import Socket, open_socket, spelt
from pipeline.frames import Frame, SubscriptionData
from tests.ingest.conftest import DEADLINE, QUICK

PARTS = ("a ", "long ", "message")


@contextlib.asynccontextmanager
async def connected(speak: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[Socket]:
    """A socket to a server that speaks so and closes."""
    async with serve(speak, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        socket = await open_socket(f"ws://127.0.0.1:{port}", QUICK)
        try:
            yield socket
        finally:
            socket.transport.abort()


async def test_messages_keep_their_order_whole_or_in_fragments() -> None:
    """Fragments take another way than whole messages, as does what came before anybody listened."""

    async def speak(socket: ServerConnection) -> None:
        await socket.send("first")
        await socket.recv()
        for number in range(20):
            await socket.send(str(number))
            await socket.send(PARTS)
            await socket.send(str(number).encode())

    taken: list[str] = []

    def take(messages: Sequence[BytesLike]) -> None:
        taken.extend(str(message, "utf-8") for message in messages)

    async with connected(speak) as socket:
        await socket.ping()
        await socket.send("go")
        await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE):
            ended = await socket.listen(take)
    assert spelt(ended) == "1000"
    assert taken == ["first"] + [text for number in range(20) for text in (str(number), "".join(PARTS), str(number))]


async def test_a_fault_of_ours_ends_the_connection_and_nothing_more_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    async def speak(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.recv()
            await asyncio.gather(socket.send("1"), socket.send("2"), socket.send("3"))
            await socket.wait_closed()

    taken: list[BytesLike] = []

    def take(messages: Sequence[BytesLike]) -> None:
        taken.extend(messages[:1])
        raise ZeroDivisionError("ours")

    async with connected(speak) as socket:
        await socket.send("go")
        async with asyncio.timeout(DEADLINE):
            ended = await socket.listen(take)
    assert isinstance(ended.__cause__, ZeroDivisionError)
    assert len(taken) == 1
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


async def test_what_the_exchange_asks_is_answered() -> None:
    answered: asyncio.Future[str | bytes] = asyncio.get_running_loop().create_future()

    class Asking(Feed):
        def classify(self, text: str) -> Event:
            return Ask("here") if text == "there?" else super().classify(text)

    async def speak(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.send("there?")
            async for message in socket:
                if message == "here":
                    answered.set_result(message)

    frames: list[Frame] = []
    feed, wanted = Asking(), (Subscription("trades-all", "BTC-USDT"),)
    context = Context(feed, HostClock(), QUICK, frames.append, lambda _: SubscriptionData("", "", "requested"), print)
    async with serve(speak, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        session = Session("c#1", f"ws://127.0.0.1:{port}", Plan(feed.route(wanted[0]), wanted), context)
        await session.connect()
        running = asyncio.create_task(session.run())
        async with asyncio.timeout(DEADLINE):
            await answered
            await session.close("done")
            assert await running == "done"
    assert [frame.dir for frame in frames if frame.data in ("there?", "here")] == ["in", "out"]


async def test_nothing_is_read_while_it_is_crowded_and_nothing_is_lost_by_that() -> None:
    size, most = 1_000, 200

    async def speak(socket: ServerConnection) -> None:
        await socket.recv()
        for number in range(20_000):
            await socket.send(f"{number:0{size}d}")

    held: list[int] = []
    numbers: list[int] = []
    peaks: list[int] = []

    def take(messages: Sequence[BytesLike]) -> None:
        held.extend(int(str(message, "utf-8")) for message in messages)

    async def drain() -> None:
        while True:
            await asyncio.sleep(0.02)
            peaks.append(len(held))
            numbers.extend(held)
            held.clear()

    async with connected(speak) as socket:
        socket.crowded = lambda: len(held) >= most
        draining = asyncio.create_task(drain())
        await socket.send("go")
        async with asyncio.timeout(DEADLINE):
            await socket.listen(take)
        draining.cancel()
    assert numbers + held == list(range(20_000))
    # One read brings 256 KiB.
    assert max(peaks) <= most + 300
