"""The WebSocket connections of the simulator: a bounded queue each, so that a slow reader harms only itself."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable

from aiohttp import WSMsgType, web

from simulator.dialect import Close, Ping, Reply, Session

CLOSE_WAIT = 2.0
SLOW_READER = Close(4005, "The client is too slow to read")


class Connection:
    """One client. `half_open`: the socket stays, nothing is sent or answered any more. `held`: nothing is for now."""

    def __init__(self, session: Session, path: str, ws: web.WebSocketResponse, queued: int) -> None:
        self.session = session
        self.path = path
        self.half_open = False
        self.frames = 0
        self._ws = ws
        self._transport: asyncio.Transport | None = None
        self._queue: asyncio.Queue[Reply] = asyncio.Queue(queued)
        self._writer: asyncio.Task[None] | None = None
        self._ending: Close | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._too_slow: asyncio.TimerHandle | None = None

    @property
    def held(self) -> bool:
        return not self._flows.is_set()

    @property
    def closing(self) -> int | None:
        """The code this end closes with, once it does."""
        return None if self._ending is None else self._ending.code

    async def serve(self, request: web.Request, clock: Callable[[], int], heard: Callable[[], None]) -> None:
        """Read and write until either side ends the connection; `heard` is called after each text of the client's."""
        transport = request.transport
        if transport is None:
            return
        self._transport = transport
        self._shrink_buffers(transport)
        self._writer = asyncio.create_task(self._write(clock))
        try:
            await self._read(clock, heard)
        finally:
            self.release()
            if self._ending is None:
                self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await self._writer

    def send(self, reply: Reply) -> None:
        """Queue a frame or a close; a full queue ends the connection with 4005."""
        if self.half_open or self._ending is not None:
            return
        try:
            self._queue.put_nowait(reply)
        except asyncio.QueueFull:
            self._overflow()
        if isinstance(reply, Close):
            self._ending = self._ending or reply

    def hold(self, seconds: float) -> None:
        """Neither read nor write for so long, as when the socket is full, then close as of a slow reader."""
        if not self.half_open and self._ending is None and not self.held:
            self._flows.clear()
            self._too_slow = asyncio.get_running_loop().call_later(seconds, self._overflow)

    def release(self) -> None:
        """End `hold`: what waited goes out."""
        if self._too_slow is not None:
            self._too_slow.cancel()
        self._flows.set()

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._ending = Close(1006)
        if self._writer is not None:
            self._writer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _overflow(self) -> None:
        self._ending = SLOW_READER
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(SLOW_READER)
        self._flows.set()
        # The writer may be stuck on a full socket: it is given a moment for the rest, then cut.
        asyncio.get_running_loop().call_later(CLOSE_WAIT, self.abort)

    async def _read(self, clock: Callable[[], int], heard: Callable[[], None]) -> None:
        while True:
            message = await self._ws.receive()
            if message.type is WSMsgType.CLOSE and self.half_open:
                # No answer: the client gives the socket up, and that cancels this task (`handler_cancellation`).
                await asyncio.Event().wait()
            if message.type is WSMsgType.CLOSE:
                await self._ws.close()
                return
            if message.type in (WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return
            await self._flows.wait()
            if self.half_open:
                continue
            if message.type is WSMsgType.PING:
                await self._ws.pong(message.data)
                self._answer(self.session.heard("ping", bytes(message.data), clock()))
            elif message.type is WSMsgType.PONG:
                self._answer(self.session.heard("pong", bytes(message.data), clock()))
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                text = message.data if isinstance(message.data, str) else message.data.decode(errors="replace")
                self._answer(self.session.receive(text, clock()))
                heard()

    def _answer(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            self.send(reply)

    async def _write(self, clock: Callable[[], int]) -> None:
        while True:
            reply = await self._queue.get()
            await self._flows.wait()
            if self.half_open or (self._ending is SLOW_READER and reply is not SLOW_READER):
                continue
            if isinstance(reply, Close):
                await self._close(reply)
                return
            if isinstance(reply, Ping):
                await self._ws.ping(reply.payload)
                continue
            await self._ws.send_str(reply)
            self.frames += 1
            self.session.sent(clock())

    async def _close(self, close: Close) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ws.close(code=close.code, message=close.reason.encode()), 2 * CLOSE_WAIT)
        if self._transport is not None:
            self._transport.close()

    @staticmethod
    def _shrink_buffers(transport: asyncio.Transport) -> None:
        # The queue is the buffer that counts; a socket's own may hold megabytes on loopback.
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
