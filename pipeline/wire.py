"""The connection every writing process speaks to Redis through: open, call, transact, close.

One write per batch of commands, replies read in order, no retries: whoever gets ServerAway or
StepRefused has to restore. redis-py does the handshake, the packing and the parsing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import redis.exceptions
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pipeline.errors import ContractBroken, ServerAway, StepRefused
from pipeline.steps import Command

Reply = Any
"""bytes, int, None, a list of replies, or a redis ResponseError (returned, not raised)."""

_FOR_NOW = ("OOM", "LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "NOREPLICAS", "TRYAGAIN")
"""First words of errors that say the server refuses for now; the fault is not ours."""


class Wire:
    """One connection. Not for use by two tasks at once."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

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
        try:
            async with asyncio.timeout(self._timeout + block):
                await self._connection.send_packed_command(self._connection.pack_commands(commands))
                return [await self._reply() for _ in commands]
        except (TimeoutError, OSError, redis.exceptions.RedisError) as error:
            raise ServerAway(f"Redis did not answer: {type(error).__name__} {error}") from error

    async def transact(self, commands: Sequence[Command]) -> list[Reply]:
        """MULTI, the commands, EXEC in one write. Every element of EXEC's reply is checked.

        Raises StepRefused when a watched key was changed, ServerAway when the server refuses for now,
        ContractBroken when a command of ours failed.
        """
        replies = await self.call(("MULTI",), *commands, ("EXEC",))
        for reply in replies[:-1]:
            if isinstance(reply, redis.exceptions.ResponseError):
                raise _fault(reply)
        result = replies[-1]
        if result is None:
            raise StepRefused("another owner committed first")
        if isinstance(result, redis.exceptions.ResponseError):
            raise _fault(result)
        for command, reply in zip(commands, result, strict=True):
            if isinstance(reply, redis.exceptions.ResponseError):
                raise ContractBroken(f"{command[0]!s} {command[1]!r} failed inside EXEC: {reply!s}")
        return list(result)

    async def close(self) -> None:
        """Closes at once; an answer still on its way is dropped."""
        await self._connection.disconnect(nowait=True)

    async def _reply(self) -> Reply:
        try:
            return await self._connection.read_response()
        except redis.exceptions.ResponseError as error:
            return error


def check(reply: Reply) -> Reply:
    """The reply, or what its error means raised: ServerAway for now, ContractBroken for good."""
    if isinstance(reply, redis.exceptions.ResponseError):
        raise _fault(reply)
    return reply


def _fault(error: redis.exceptions.ResponseError) -> ServerAway | ContractBroken:
    # redis-py strips the first word of errors it has a class for, so the class counts as well.
    temporary = (redis.exceptions.OutOfMemoryError, redis.exceptions.BusyLoadingError, redis.exceptions.ReadOnlyError)
    text = str(error)
    if isinstance(error, temporary) or text.startswith(_FOR_NOW) or any(word in text for word in ("OOM", "EXECABORT")):
        return ServerAway(f"Redis refuses for now: {text}")
    return ContractBroken(f"Redis refused a command: {text}")


OpenWire = Callable[[], Awaitable[Wire]]
"""Opens a connection of its own. Raises ServerAway."""
