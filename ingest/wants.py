"""Reads what normalize wants of one partition: the hash whole at start, each 30 s and when the wake-up stream stirs.

Reads only. A Redis that is away is waited for, and then everything is read again: nothing wanted is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from ingest.timing import Timing
from pipeline.errors import ServerAway
from pipeline.streams import Keys
from pipeline.timeframes import SECOND
from pipeline.wants import Want
from pipeline.wire import Reply, Wire, check

_WANT = msgspec.json.Decoder(Want)


class Wants:
    """`take` gets the whole of what is wanted each time it is read; `connect` opens a connection of our own."""

    def __init__(
        self,
        keys: Keys,
        connect: Callable[[], Awaitable[Wire]],
        take: Callable[[Mapping[str, Want]], None],
        report: Callable[[str], None],
        timing: Timing,
    ) -> None:
        self._keys = keys
        self._connect = connect
        self._take = take
        self._report = report
        self._timing = timing
        self._unreadable: set[bytes] = set()

    async def run(self) -> None:
        """Until cancelled."""
        away = False
        while True:
            wire: Wire | None = None
            try:
                wire = await self._connect()
                # The place in the wake-up stream comes before the first reading: nothing falls between them.
                after = _newest(check((await wire.call(("XREVRANGE", self._keys.request, "+", "-", "COUNT", 1)))[0]))
                await self._read(wire)
                away = False
                while True:
                    after = await self._wait(wire, after)
                    # What is wanted together is written within a few ms.
                    await asyncio.sleep(self._timing.linger / SECOND)
                    await self._read(wire)
            except ServerAway as error:
                if not away:
                    self._report(f"{self._keys.want}: {error}")
                away = True
            finally:
                if wire is not None:
                    await wire.close()
            await asyncio.sleep(self._timing.redis_pause / SECOND)

    async def _wait(self, wire: Wire, after: bytes) -> bytes:
        """Until something stirs, or for as long as is bearable without; the new place in the stream."""
        bound = self._timing.wants
        # Blocking for 0 ms would be for ever.
        command = ("XREAD", "COUNT", 1_000, "BLOCK", max(1, bound // 1_000_000), "STREAMS", self._keys.request, after)
        streams = check((await wire.call(command, block=bound / SECOND))[0])
        return _newest(streams[0][1][::-1]) if streams else after

    async def _read(self, wire: Wire) -> None:
        fields = check((await wire.call(("HGETALL", self._keys.want)))[0])
        wants: dict[str, Want] = {}
        for key, text in zip(fields[::2], fields[1::2], strict=True):
            if (want := self._decode(key, text)) is not None:
                wants[key.decode()] = want
        self._take(wants)

    def _decode(self, key: bytes, text: bytes) -> Want | None:
        """None for what we did not write; said once."""
        try:
            key.decode()
            return _WANT.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if key not in self._unreadable:
                self._unreadable.add(key)
                self._report(f"{self._keys.want}: {key!r} is not a want: {error}")
            return None


def _newest(entries: Reply) -> bytes:
    """The id of the first of the entries, newest first."""
    return bytes(entries[0][0]) if entries else b"0-0"
