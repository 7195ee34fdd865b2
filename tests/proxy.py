"""A TCP proxy for tests, between a client and a real server: it cuts, stalls, drops, and shows what passes."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from tests.servers import DEADLINE

Filter = Callable[[bytes], bytes | None]
"""Sees each chunk as it passes and returns what to send on; None cuts the connection."""


def _pass(data: bytes) -> bytes | None:
    return data


class TcpProxy:
    """Sits between a client and `target` in a thread of its own, so that async and sync tests can use it.

    `requests` and `replies` are filters over the bytes each way; they may be replaced at any time.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self.requests: Filter = _pass
        self.replies: Filter = _pass
        self._open = threading.Event()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> Self:
        self._thread.start()
        assert self._open.wait(DEADLINE), "the proxy did not start"
        return self

    def close(self) -> None:
        """Cuts everything and ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)

    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Resets every open connection; new ones are served."""
        self._call(self._cut)

    def refuse(self, refusing: bool = True) -> None:
        """While true, new connections are closed at once."""
        self._refusing = refusing

    def stall(self) -> None:
        """Half-open: connections stay, no byte passes either way until `resume`."""
        self._call(self._flowing.clear)

    def resume(self) -> None:
        self._call(self._flowing.set)

    def drop_replies(self) -> None:
        """From now on requests reach the server and its replies vanish, until `pass_replies`."""
        self.replies = lambda _: b""

    def pass_replies(self) -> None:
        self.replies = _pass

    def _call(self, action: Callable[[], None]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(action)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(DEADLINE), "the proxy hangs"

    def _cut(self) -> None:
        for writer in self._writers:
            # With a linger of 0 s the peer gets a reset, not an end of file.
            connection: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # One side may be closed already.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._flowing.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._open.set()
        self._loop.run_forever()
        server.close()
        self._cut()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        try:
            await asyncio.gather(
                self._pump(reader, server_writer, self._see_request),
                self._pump(server_reader, writer, self._see_reply),
            )
        finally:
            self._writers -= {writer, server_writer}

    def _see_request(self, data: bytes) -> bytes | None:
        return self.requests(data)

    def _see_reply(self, data: bytes) -> bytes | None:
        return self.replies(data)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, see: Filter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._flowing.wait()
                passed = see(data)
                if passed is None:
                    self._cut()
                    return
                writer.write(passed)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
