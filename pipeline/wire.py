"""The connection every writing process speaks to Redis through: open, call, transact, close.

One write per batch of commands, all its replies taken as they come, no retries: whoever gets ServerAway
or StepRefused has to restore. redis-py reads the URL and does the handshake; after that hiredis packs
what is sent and parses what comes, and a connection of which anything is in doubt is never used again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Self

import hiredis
import redis.exceptions
from redis.asyncio.connection import AbstractConnection, Connection, DefaultParser, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pipeline.errors import ContractBroken, ServerAway, StepRefused
from pipeline.sockets import enlarge
from pipeline.steps import Command

Reply = Any
"""bytes, int, None, a list of replies, or a redis ResponseError (returned, not raised)."""

_FOR_NOW = ("OOM", "LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "NOREPLICAS", "TRYAGAIN")
"""First words of errors that say the server refuses for now; the fault is not ours."""

SEND_BUFFER = 2 * 1024 * 1024
"""Bytes: the commands of a whole step. What the kernel took Redis works through while the next step is processed."""

OF_A_RECORD = 7
"""Parts of the command that appends a record: XADD stream * symbol … data …"""

_MOST_BEGINNINGS = 10_000
_beginnings: dict[Command, bytes] = {}
_MOST_SIZES = 1_024
_SIZES = tuple(b"%d\r\n" % size for size in range(_MOST_SIZES))

_NOTHING = object()


class Wire:
    """One connection. Not for use by two tasks at once."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        # redis-py's own writer stays the owner of the socket: it closes it when it is thrown away.
        self._connection = connection
        self._timeout = timeout
        self._transport: asyncio.Transport = connection._writer.transport  # type: ignore[assignment, union-attr]
        enlarge(self._transport.get_extra_info("socket").fileno(), SEND_BUFFER)
        self._loop = asyncio.get_running_loop()
        self._replies = _Replies(self._transport)
        self._transport.set_protocol(self._replies)

    @classmethod
    async def open(cls, url: str, *, timeout: float = 5.0) -> Self:
        """Connects (redis://, rediss://, unix://). Raises ServerAway. `timeout` in seconds."""
        options: dict[str, Any] = dict(parse_url(url))
        kind: type[AbstractConnection] = options.pop("connection_class", Connection)
        # No time-out of redis-py's own: ours spans a whole call, and theirs can swallow a cancellation on 3.11.
        options["socket_timeout"] = None
        connection = kind(
            **options, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), decode_responses=False, protocol=2
        )
        try:
            async with asyncio.timeout(timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            # redis-py leaves the socket open when its handshake is cancelled, as a time-out does.
            await connection.disconnect(nowait=True)
            if isinstance(error, TimeoutError | OSError | redis.exceptions.RedisError):
                raise ServerAway(f"cannot connect to Redis: {str(error) or type(error).__name__}") from error
            raise
        return cls(connection, timeout)

    async def call(self, *commands: Command, block: float = 0.0) -> list[Reply]:
        """Sends all commands in one write and returns their replies, errors among them as values.

        `block` (seconds) is how long a blocking read among them may take on top of the time-out.
        Raises ServerAway; what was sent may then have been done or not.
        """
        request = packed(commands)
        try:
            return await self._exchange(request, len(commands), self._timeout + block)
        except (TimeoutError, OSError, redis.exceptions.RedisError) as error:
            raise ServerAway(f"Redis did not answer: {type(error).__name__} {error}") from error

    async def transact(self, commands: Sequence[Command], *after: Command, block: float = 0.0) -> list[Reply]:
        """MULTI, the commands, EXEC and what comes `after` in one write. Every element of EXEC's reply is checked; the
        replies to what came after, errors as values, follow them.

        Raises StepRefused when a watched key was changed, ServerAway when the server refuses for now,
        ContractBroken when a command of ours failed; what came after was then done all the same.
        """
        replies = await self.call(("MULTI",), *commands, ("EXEC",), *after, block=block)
        *queued, result = replies[: len(commands) + 2]
        if _has_fault(queued):
            raise _fault(next(reply for reply in queued if isinstance(reply, redis.exceptions.ResponseError)))
        if result is None:
            raise StepRefused("another owner committed first")
        if isinstance(result, redis.exceptions.ResponseError):
            raise _fault(result)
        if _has_fault(result):
            for command, reply in zip(commands, result, strict=True):
                if isinstance(reply, redis.exceptions.RedisError):
                    raise ContractBroken(f"{command[0]!s} {command[1]!r} failed inside EXEC: {reply!s}")
        return [*result, *replies[len(commands) + 2 :]]

    @property
    def received(self) -> int:
        """Bytes of all replies to the last call."""
        return self._replies.size

    async def close(self) -> None:
        """Closes at once; an answer still on its way is dropped."""
        self._transport.abort()
        await self._connection.disconnect(nowait=True)

    async def _exchange(self, request: bytes, count: int, seconds: float) -> list[Reply]:
        """The replies to `count` commands. Whatever ends it before the last one leaves the connection unusable."""
        # A third of what asyncio.timeout takes, and nothing to cancel: only the replies are waited for.
        timer = self._loop.call_later(seconds, self._replies.give_up)
        try:
            if self._transport.is_closing():
                raise ConnectionError("the connection was closed")
            replies = self._replies.expect(count)
            # A call waits for its replies before the next one writes: no more than one request is ever buffered.
            self._transport.write(request)
            return await replies
        except BaseException:
            self._transport.abort()
            raise
        finally:
            timer.cancel()


class _Replies(asyncio.Protocol):
    """Parses what Redis sends, and hands over the replies of a call when the last of them is there."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._reader = hiredis.Reader(
            protocolError=redis.exceptions.InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=_NOTHING,
        )
        self.size = 0
        """Bytes that came since `expect`."""
        self._count = 0
        self._found: list[Reply] = []
        self._waiting: asyncio.Future[list[Reply]] | None = None

    def expect(self, count: int) -> asyncio.Future[list[Reply]]:
        """Done with the next `count` replies; fails when the connection ends or brings what is no reply of ours."""
        self._waiting = asyncio.get_running_loop().create_future()
        self.size, self._count, self._found = 0, count, []
        self._hand_over()
        return self._waiting

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        try:
            self._reader.feed(data)
            self._take()
        except redis.exceptions.RedisError as error:
            self._transport.abort()
            self.connection_lost(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionError("the connection was closed"))

    def give_up(self) -> None:
        """Time is up."""
        self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    def _take(self) -> None:
        """All that is complete. Raises what the server says before it hangs up: of a password, of too many clients."""
        while (reply := self._reader.gets()) is not _NOTHING:
            if isinstance(reply, redis.exceptions.ConnectionError):
                raise reply
            self._found.append(reply)
        if len(self._found) > self._count:
            raise redis.exceptions.InvalidResponse("a reply to nothing we sent")
        self._hand_over()

    def _hand_over(self) -> None:
        if self._waiting is not None and not self._waiting.done() and len(self._found) == self._count:
            self._waiting.set_result(self._found)
            self._count, self._found = 0, []


def packed(commands: Iterable[Command]) -> bytes:
    """What goes over the wire. A hot loop: of records all but the text is packed once, as their beginning comes again
    and again."""
    parts: list[bytes] = []
    known = _beginnings
    for command in commands:
        if len(command) == OF_A_RECORD and command[0] == "XADD" and isinstance(last := command[-1], bytes):
            beginning = known.get(command[:-1]) or _beginning(command[:-1])
            length = len(last)
            size = _SIZES[length] if length < _MOST_SIZES else b"%d\r\n" % length
            parts += (beginning, size, last, b"\r\n")
        else:
            parts.append(hiredis.pack_command(command))  # type: ignore[arg-type]
    return b"".join(parts)


def _beginning(parts: Command) -> bytes:
    """A command up to the length of its last part. It is kept."""
    _, _, rest = hiredis.pack_command(parts).partition(b"\r\n")  # type: ignore[arg-type]
    if len(_beginnings) >= _MOST_BEGINNINGS:
        _beginnings.clear()
    beginning = _beginnings[parts] = b"*%d\r\n%b$" % (len(parts) + 1, rest)
    return beginning


def check(reply: Reply) -> Reply:
    """The reply, or what its error means raised: ServerAway for now, ContractBroken for good."""
    if isinstance(reply, redis.exceptions.ResponseError):
        raise _fault(reply)
    return reply


def _has_fault(replies: Sequence[Reply]) -> bool:
    """Whether an error is among them. There are thousands: their types are few."""
    return any(issubclass(kind, redis.exceptions.RedisError) for kind in set(map(type, replies)))


def _fault(error: redis.exceptions.ResponseError) -> ServerAway | ContractBroken:
    # redis-py strips the first word of errors it has a class for, so the class counts as well.
    temporary = (redis.exceptions.OutOfMemoryError, redis.exceptions.BusyLoadingError, redis.exceptions.ReadOnlyError)
    text = str(error)
    if isinstance(error, temporary) or text.startswith(_FOR_NOW) or any(word in text for word in ("OOM", "EXECABORT")):
        return ServerAway(f"Redis refuses for now: {text}")
    return ContractBroken(f"Redis refused a command: {text}")


OpenWire = Callable[[], Awaitable[Wire]]
"""Opens a connection of its own. Raises ServerAway."""
