"""A wire whose every n-th EXEC fails, in the five ways in which an EXEC can fail."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from pipeline.errors import ServerAway
from pipeline.steps import Command
from pipeline.wire import Reply, Wire, packed

Fault = Literal["oom", "nil", "reply lost after", "reply lost before", "cut"]
FAULTS: tuple[Fault, ...] = ("oom", "nil", "reply lost after", "reply lost before", "cut")


class FaultyWire(Wire):
    """Fails EXEC number n, 2n, 3n … of all wires that share `numbers`; the server is real all through."""

    url: str
    numbers: "itertools.count[int]"
    every: int
    fault: Fault
    failed: list[int]

    async def transact(self, commands: Sequence[Command], *after: Command, block: float = 0.0) -> list[Reply]:
        number = next(self.numbers)
        if number % self.every:
            return await super().transact(commands, *after, block=block)
        self.failed.append(number)
        return await getattr(self, "_" + self.fault.replace(" ", "_"))(commands, after, block)  # type: ignore[no-any-return]

    async def _oom(self, commands: Sequence[Command], after: Sequence[Command], block: float) -> list[Reply]:
        other = await Wire.open(self.url)
        await other.call(("CONFIG", "SET", "maxmemory", "1mb"))
        try:
            await super().transact(commands, *after, block=block)
        finally:
            await other.call(("CONFIG", "SET", "maxmemory", "0"))
            await other.close()
        raise AssertionError("a full Redis took the transaction")

    async def _nil(self, commands: Sequence[Command], after: Sequence[Command], block: float) -> list[Reply]:
        state = next(str(command[1]) for command in commands if command[0] == "HSET" and "cursor" in command)
        other = await Wire.open(self.url)
        await other.call(("HSET", state, "foreign", "1"), ("HDEL", state, "foreign"))
        await other.close()
        return await super().transact(commands, *after, block=block)

    async def _reply_lost_after(
        self, commands: Sequence[Command], after: Sequence[Command], block: float
    ) -> list[Reply]:
        await super().transact(commands, *after, block=block)
        raise ServerAway("the reply was lost after it was applied")

    async def _reply_lost_before(
        self, commands: Sequence[Command], after: Sequence[Command], block: float
    ) -> list[Reply]:
        raise ServerAway("the request was lost")

    async def _cut(self, commands: Sequence[Command], after: Sequence[Command], block: float) -> list[Reply]:
        words = (("MULTI",), *commands, ("EXEC",), *after)
        self._transport.write(packed(words))
        await self.close()
        raise ServerAway("the connection was cut with EXEC in flight")


def faulty(url: str, every: int, fault: Fault) -> tuple[Callable[[], Awaitable[Wire]], list[int]]:
    """(opener of such wires, the numbers of the EXECs that were made to fail)."""
    numbers, failed = itertools.count(1), list[int]()

    async def open_wire() -> Wire:
        wire = await FaultyWire.open(url)
        wire.url, wire.numbers, wire.every, wire.fault, wire.failed = url, numbers, every, fault, failed
        return wire

    return open_wire, failed


async def dump(url: str, pattern: str) -> dict[str, Any]:
    """Every stream (entries without ids) and hash whose key fits the pattern."""
    wire = await Wire.open(url)
    keys = sorted((await wire.call(("KEYS", pattern)))[0])
    found: dict[str, Any] = {}
    for key in keys:
        kind = (await wire.call(("TYPE", key)))[0]
        if kind == b"stream":
            entries = (await wire.call(("XRANGE", key, "-", "+")))[0]
            found[key.decode()] = [fields for _, fields in entries]
        elif kind == b"hash":
            flat = (await wire.call(("HGETALL", key)))[0]
            found[key.decode()] = dict(zip(flat[::2], flat[1::2], strict=True))
    await wire.close()
    return found


async def until(condition: Callable[[], Awaitable[bool]], what: str, deadline: float = 60.0) -> None:
    """Polls an async condition; fails naming `what`."""
    try:
        async with asyncio.timeout(deadline):
            while not await condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {deadline:g} s in vain for: {what}") from None
