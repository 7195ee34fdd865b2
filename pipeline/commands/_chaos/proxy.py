"""A proxy between a client and a server, over TCP or a unix socket: it passes, cuts, stalls, or swallows the replies.

It runs in a thread of its own. While it stalls, bytes stay in the kernel's buffers, so a request that its client has
long given up still reaches the server afterwards.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pipeline.errors import ServerAway

Address = int | Path
"""A port of loopback, or the path of a unix socket."""
DEADLINE = 10.0


class Proxy:
    """Serves from `start` to `close`. `target` may be replaced at any time; new connections go there."""

    def __init__(self, target: Address, listen: Path | None = None) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self._listen = listen
        self._refusing = self._stalled = self._deaf = False
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)
        self._open = threading.Event()
        self._failed: OSError | None = None

    def start(self) -> Self:
        """Listens. Raises ServerAway when it cannot."""
        self._thread.start()
        if not self._open.wait(DEADLINE) or self._failed is not None:
            raise ServerAway(f"the proxy to {self.target} did not start: {self._failed}")
        return self

    def close(self) -> None:
        """Cuts everything and ends the thread; safe to call again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(DEADLINE)

    def cut(self) -> int:
        """Resets every connection; how many there were."""
        return self._call(self._cut)

    def refuse(self, refusing: bool = True) -> None:
        """While true, whoever connects is cut at once."""
        self._refusing = refusing

    def stall(self, stalled: bool = True) -> None:
        """While true, connections stand and no byte passes either way; new ones are accepted in silence."""
        self._call(lambda: self._set_stalled(stalled))

    def swallow(self, deaf: bool = True) -> None:
        """While true, requests reach the server and its replies vanish."""
        self._deaf = deaf

    def replies(self) -> bool:
        return not self._deaf

    def _call(self, action: Callable[[], int]) -> int:
        done: list[int] = []
        event = threading.Event()

        def act() -> None:
            done.append(action())
            event.set()

        self._loop.call_soon_threadsafe(act)
        if not event.wait(DEADLINE):
            raise ServerAway("the proxy hangs")
        return done[0]

    def _set_stalled(self, stalled: bool) -> int:
        self._stalled = stalled
        for pair in self._pairs:
            pair.flow()
        return len(self._pairs)

    def _cut(self) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.cut()
        return len(pairs)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(self._bind())
        except OSError as error:
            self._failed = error
            self._loop.close()
            self._open.set()
            return
        self._open.set()
        self._loop.run_forever()
        server.close()
        self._cut()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.close()

    async def _bind(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if self._listen is not None:
            return await loop.create_unix_server(self._pair, self._listen)
        server = await loop.create_server(self._pair, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def _pair(self) -> "_Side":
        self.connections += 1
        return _Pair(self).client

    async def connect(self, side: "_Side") -> None:
        """Connects a pair's far side to the target."""
        loop = asyncio.get_running_loop()
        if isinstance(self.target, int):
            await loop.create_connection(lambda: side, "127.0.0.1", self.target)
        else:
            await loop.create_unix_connection(lambda: side, str(self.target))

    @property
    def stalled(self) -> bool:
        return self._stalled

    @property
    def refusing(self) -> bool:
        return self._refusing

    def joined(self, pair: "_Pair") -> None:
        self._pairs.add(pair)

    def left(self, pair: "_Pair") -> None:
        self._pairs.discard(pair)


class _Pair:
    """A client's connection and ours to the server. Either's end ends the other."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._dialling: asyncio.Task[None] | None = None
        self.client = _Side(self)
        self.server = _Side(self)

    def made(self, side: "_Side") -> None:
        """One side stands: the client's, which asks for the other, or the server's, which lets bytes flow."""
        if side is self.server:
            self.flow()
        elif self._proxy.refusing:
            self.client.reset()
        else:
            self._proxy.joined(self)
            self.flow()
            self._dialling = asyncio.get_running_loop().create_task(self._dial())

    def flow(self) -> None:
        """Reads each side as long as nothing stalls, the other one stands and takes it."""
        for side, other in ((self.client, self.server), (self.server, self.client)):
            side.read(not self._proxy.stalled and other.takes)

    def pass_on(self, side: "_Side", data: bytes) -> None:
        if side is self.client:
            self.server.write(data)
        elif self._proxy.replies():
            self.client.write(data)

    def ended(self, side: "_Side") -> None:
        """What was passed on before still arrives."""
        self._proxy.left(self)
        (self.server if side is self.client else self.client).close()

    def cut(self) -> None:
        """Both ends get a reset."""
        self._proxy.left(self)
        self.client.reset()
        self.server.reset()

    async def _dial(self) -> None:
        try:
            await self._proxy.connect(self.server)
        except OSError:
            self.cut()


class _Side(asyncio.Protocol):
    """One of the two connections."""

    def __init__(self, pair: _Pair) -> None:
        self._pair = pair
        self._transport: asyncio.Transport | None = None
        self._full = False

    @property
    def takes(self) -> bool:
        return self._transport is not None and not self._full

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._pair.made(self)

    def data_received(self, data: bytes) -> None:
        self._pair.pass_on(self, data)

    def pause_writing(self) -> None:
        self._full = True
        self._pair.flow()

    def resume_writing(self) -> None:
        self._full = False
        self._pair.flow()

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._pair.ended(self)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def read(self, wanted: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if wanted and not self._transport.is_reading():
            self._transport.resume_reading()
        elif not wanted and self._transport.is_reading():
            self._transport.pause_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """With a linger of 0 s the peer gets a reset, not an end of file."""
        if self._transport is None:
            return
        connection = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
