"""The websocket itself: the handshake, frames that only prove life, and how its end is spelt. Knows no exchange."""

from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event

from ingest.timing import Timing
from pipeline.errors import ExchangeError
from pipeline.timeframes import SECOND

MOST_MESSAGE_BYTES = 16 * 1024 * 1024
MOST_QUEUED = 1024
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class TurnedAway(ExchangeError):
    """The handshake was answered by HTTP: `status`, `headers` and `body`."""

    def __init__(self, url: str, response: Response) -> None:
        super().__init__(f"cannot connect to {url}: HTTP {response.status_code}")
        self.status = response.status_code
        self.headers = dict(response.headers.raw_items())
        self.body = bytes(response.body or b"").decode("utf-8", "replace")


class Socket(ClientConnection):
    """A connection that tells of the other side's pings and pongs, which the library answers by itself."""

    heard: Callable[[bool], None] | None = None
    """Called with each of them; True for a pong."""

    def process_event(self, event: Event) -> None:
        """See websockets: one incoming frame."""
        super().process_event(event)
        if self.heard is not None and isinstance(event, Frame) and event.opcode in (Opcode.PING, Opcode.PONG):
            self.heard(event.opcode is Opcode.PONG)


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
