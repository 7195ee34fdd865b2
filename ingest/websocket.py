"""The websocket itself: the handshake, frames that only prove life, and how its end is spelt. Knows no exchange."""

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import BINARY, PING, PONG, TEXT, Frame
from websockets.http11 import Response
from websockets.protocol import Event
from websockets.typing import BytesLike

from ingest.timing import Timing
from pipeline.errors import ExchangeError
from pipeline.timeframes import SECOND

MOST_MESSAGE_BYTES = 16 * 1024 * 1024
MOST_QUEUED = 1024
BREATH = 0.01
"""Seconds between two looks at whether reading may go on."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class TurnedAway(ExchangeError):
    """The handshake was answered by HTTP: `status`, `headers` and `body`."""

    def __init__(self, url: str, response: Response) -> None:
        super().__init__(f"cannot connect to {url}: HTTP {response.status_code}")
        self.status = response.status_code
        self.headers = dict(response.headers.raw_items())
        self.body = bytes(response.body or b"").decode("utf-8", "replace")


class Socket(ClientConnection):
    """A connection that gives away what a read brought as soon as it is parsed, and tells of the other side's pings and
    pongs, which the library answers by itself."""

    heard: Callable[[bool], None] | None = None
    """Called with each ping and pong; True for a pong."""
    crowded: Callable[[], bool] | None = None
    """Whether who takes the messages has more than enough: the other side waits then, its network holds the rest."""
    _take: Callable[[Sequence[BytesLike]], None] | None = None
    _arrived: list[BytesLike]
    """Messages that the read at hand brought."""
    _queued = 0
    """Messages that are on their way through the library's queue."""

    async def listen(self, take: Callable[[Sequence[BytesLike]], None]) -> ConnectionClosed:
        """Gives every message to `take`, in order, those of one read together, until the connection ends; the answer
        tells how.

        To wait for each of them would cost a turn of the loop for every packet. Only what comes in fragments, and what
        came before we listened, takes the way through the queue."""
        self._take, self._arrived = take, []
        try:
            while True:
                message = await self.recv(decode=False)
                self._queued -= 1
                take((message,))
        except ConnectionClosed as closed:
            return closed
        finally:
            self._take = None

    def data_received(self, data: bytes) -> None:
        """See websockets: what one read brought."""
        super().data_received(data)
        if self._take is not None and self._arrived:
            arrived, self._arrived = self._arrived, []
            self._take(arrived)
        if self.crowded is not None and self.crowded():
            self.transport.pause_reading()
            self.loop.call_later(BREATH, self._go_on)

    def _go_on(self) -> None:
        if self.transport.is_closing():
            return
        if self.crowded is not None and self.crowded():
            self.loop.call_later(BREATH, self._go_on)
        elif not self.recv_messages.paused:
            self.transport.resume_reading()

    def process_event(self, event: Event) -> None:
        """See websockets: one incoming frame."""
        if type(event) is Frame:
            opcode = event.opcode
            if opcode is TEXT or opcode is BINARY:
                if event.fin and not self._queued and self._take is not None:
                    self._arrived.append(event.data)
                    return
                self._queued += 1
            elif self.heard is not None and (opcode is PING or opcode is PONG):
                self.heard(opcode is PONG)
        super().process_event(event)


async def open_socket(url: str, timing: Timing) -> Socket:
    """The handshake. Raises ExchangeError, TurnedAway where it is one."""
    try:
        socket = await connect(
            url,
            create_connection=Socket,
            compression=None,
            proxy=None if urlsplit(url).hostname in LOOPBACK else True,
            open_timeout=timing.handshake / SECOND,
            close_timeout=timing.farewell / SECOND,
            ping_interval=None,
            max_size=MOST_MESSAGE_BYTES,
            max_queue=MOST_QUEUED,
        )
    except InvalidStatus as error:
        raise TurnedAway(url, error.response) from error
    except (OSError, TimeoutError, WebSocketException) as error:
        raise ExchangeError(f"cannot connect to {url}: {spelt(error)}") from error
    assert isinstance(socket, Socket)
    return socket


def spelt(error: Exception) -> str:
    """`1006`, `4004 No data received in 30s.`, `refused`: short, for people."""
    if isinstance(error, ConnectionClosed):
        frame = error.rcvd or error.sent
        return f"{frame.code} {frame.reason}".strip() if frame else "1006"
    return str(error) or type(error).__name__
