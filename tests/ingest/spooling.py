"""A process to be killed: a writer with a spool, given numbered frames without end, that says what is safe on disk.

`python -m tests.ingest.spooling URL FOLDER STARTED FIRST` prints `given N` after each batch, `safe N` when all frames
up to N are on disk, and `idle N` when nothing up to N waits anywhere.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ingest.buffer import Place
from ingest.spool import Spool
from ingest.timing import MILLISECOND
from ingest.writer import Writer
from pipeline.frames import Frame, RawEntry
from pipeline.heartbeat import Heartbeat
from pipeline.redis_ready import wait_ready
from pipeline.streams import Keys
from pipeline.wire import Wire
from tests.ingest.conftest import HASTY

KEYS = Keys("sim", "okx")
SPOOLING = msgspec.structs.replace(HASTY, spool_after=100 * MILLISECOND, spool_tick=20 * MILLISECOND)
BATCH = 25


def say(word: str, number: int | None) -> None:
    sys.stdout.write(f"{word} {number}\n")
    sys.stdout.flush()


class Telling(Spool):
    """A spool that says what it has."""

    async def append(self, entries: Sequence[RawEntry], sent: Place) -> tuple[int, bool]:
        count, doubt = await super().append(entries, sent)
        if count:
            say("safe", entries[count - 1].frames[-1].ts)
        return count, doubt


async def main(url: str, folder: Path, started: int, number: int) -> None:
    async def open_ready() -> Wire:
        wire = await Wire.open(url, timeout=HASTY.redis_timeout / 1e9)
        await wait_ready(wire, KEYS.namespace)
        return wire

    heartbeat = Heartbeat("ingest-okx", folder)
    spool = Telling(folder / "spool", 1 << 30, heartbeat.error)
    writer = Writer(KEYS, open_ready, heartbeat, started, SPOOLING, spool=spool)
    writing = asyncio.create_task(writer.run())
    while not writing.done():
        for _ in range(BATCH):
            writer.append(Frame(number, "c#1", "in", "ws", f'{{"number":{number}}}'))
            number += 1
        say("given", number - 1)
        await asyncio.sleep(0.005)
        if writer.waiting_bytes == 0 and not spool.unread:
            say("idle", number - 1)
    writing.result()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
