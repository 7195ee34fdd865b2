"""Computes candles anew from stored trades where aggregate no longer can, and publishes them like any other revision.

Beside the loop that stores, on connections of its own. A request is done when a computation finds nothing to correct,
so a crash at any point, or trades and candles that come meanwhile, only mean another turn.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from pipeline.errors import ServerAway, StepRefused
from pipeline.pause import pause
from pipeline.steps import Step, stream_id
from pipeline.streams import READERS, Keys
from pipeline.text import moment
from pipeline.wire import OpenWire, Wire, check
from store.batch import STAGE
from store.postgres import Database, OpenDatabase
from store.progress import Progress
from store.recomputed import Key, Wanted, corrected, pieces, together

INTERVAL = 1.0
PATIENCE = 0.2
"""Seconds between two looks at how far the loop has stored; INTERVAL: at what is wanted."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
MOST_ROWS = 200
MOST_TURNS = 20
"""So often a request may find something to correct: each turn but the first must have met news."""


async def rebuild_partition(
    keys: Keys, open_wire: OpenWire, open_database: OpenDatabase, progress: Progress, stop: asyncio.Event
) -> None:
    """Runs until `stop` is set; what is under way then is dropped. Waits for servers.

    Raises SettingsError (schema newer or changed) and ContractBroken."""
    wait = 0.0
    while not stop.is_set():
        wire: Wire | None = None
        database: Database | None = None
        try:
            database = await open_database()
            wire = await open_wire()
            rebuilding = Rebuilding(keys, wire, database, progress)
            while not stop.is_set():
                busy = await _unless(stop, rebuilding.turn())
                wait = 0.0
                if not busy:
                    await pause(INTERVAL, stop)
        except StepRefused:
            wait = FIRST_PAUSE
        except ServerAway as error:
            progress.error(keys.partition, f"rebuild: {error}")
            wait = min(LONGEST_PAUSE, max(FIRST_PAUSE, wait * 2))
        finally:
            if wire is not None:
                await wire.close()
            if database is not None:
                await database.close()
        await pause(wait * random.uniform(0.5, 1.0), stop)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, bool]) -> bool:
    """The result of the work; it is cancelled when `stop` is set, which is harmless at any point."""
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else False
    finally:
        for one in (task, stopping):
            one.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


class Rebuilding:
    """One life of the two connections."""

    def __init__(self, keys: Keys, wire: Wire, database: Database, progress: Progress) -> None:
        self._keys = keys
        self._wire = wire
        self._database = database
        self._progress = progress
        self._fence = keys.state("rebuild")
        kinds = [kind for kind, readers in READERS.items() if STAGE in readers and kind.startswith(("candle:", "gap"))]
        self._streams = [keys.trade, *map(keys.stream, kinds)]
        self._turns: Counter[Key] = Counter()

    async def turn(self) -> bool:
        """Computes what is wanted now, once; whether anything was."""
        wanted, waiting = await self._database.wanted(self._keys.partition, MOST_ROWS)
        self._progress.rebuilds(self._keys.partition, waiting, 0)
        if not wanted:
            return False
        await self._caught_up()
        for group in together(wanted):
            found = await self._rebuild(group)
            if not found or self._spent(group):
                await self._database.rebuilt(group.keys)
                waiting -= len(group.keys)
                self._progress.rebuilds(self._keys.partition, waiting, 0)
                self._tell_left_alone(group)
        return True

    async def _caught_up(self) -> None:
        """Waits until all that was on the streams just now is stored: the trades and the ledger of which the requests
        tell, and candles published before."""
        replies = await self._wire.call(*(("XREVRANGE", stream, "+", "-", "COUNT", 1) for stream in self._streams))
        ends = {
            stream: stream_id(check(reply)[0][0]) for stream, reply in zip(self._streams, replies, strict=True) if reply
        }
        while True:
            stored = await self._database.stored(self._keys.namespace, list(ends))
            if all(stream_id(stored.get(stream, "0-0").encode()) >= end for stream, end in ends.items()):
                return
            await asyncio.sleep(PATIENCE)

    async def _rebuild(self, wanted: Wanted) -> int:
        """Publishes what is to be corrected; the number of candles."""
        found = 0
        for timeframe in wanted.rebuild.timeframes:
            for start, end in pieces(wanted.rebuild, timeframe):
                found += await self._piece(wanted, timeframe, start, end)
        return found

    async def _piece(self, wanted: Wanted, timeframe: str, start: int, end: int) -> int:
        """Whoever else publishes between the computation and its candles breaks the WATCH: what was computed before
        would hide what was computed after."""
        check((await self._wire.call(("WATCH", self._fence)))[0])
        windows = await self._database.windows(wanted.number, timeframe, start, end)
        candles = [corrected(wanted.rebuild, timeframe, window) for window in windows]
        step = Step(self._keys, STAGE)
        for candle in filter(None, candles):
            # The hash of newest records keeps what aggregate wrote: these windows ended long ago.
            step.emit(f"candle:{timeframe}", candle, newest=False)
        if not step.records:
            check((await self._wire.call(("UNWATCH",)))[0])
            return 0
        await self._wire.transact([*step.commands(), ("HINCRBY", self._fence, "candles", step.records)])
        self._progress.rebuilds(self._keys.partition, None, step.records)
        return step.records

    def _tell_left_alone(self, wanted: Wanted) -> None:
        if wanted.not_kept:
            rebuild = wanted.rebuild
            text = f"candles {' '.join(rebuild.timeframes)} of {rebuild.symbol} around {moment(rebuild.from_time)}"
            self._progress.left_alone(self._keys.partition, len(wanted.keys), text)

    def _spent(self, wanted: Wanted) -> bool:
        """Whether there is no hope that it will ever be right. Told, for it must not be so."""
        self._turns.update(wanted.keys)
        spent = max(self._turns[key] for key in wanted.keys) > MOST_TURNS
        if spent:
            rebuild = wanted.rebuild
            frames = " ".join(rebuild.timeframes)
            text = f"candles {frames} of {rebuild.symbol} around {rebuild.from_time} never become what the trades say"
            self._progress.error(self._keys.partition, text)
        return spent
