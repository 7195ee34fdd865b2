"""A running store whose Postgres goes away: what it has put on disk, shown and stored."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

from pipeline.steps import stream_id
from pipeline.trimmer import Promise, trim
from pipeline.wire import Wire, check
from store.source import CLAIM
from store.spill import Spill
from tests.store.made import KEYS, Running, publish, trade

PATIENCE = 0.2
COUNT = "SELECT count(*) FROM trades"
SUM = "SELECT count(*), count(DISTINCT sequence), sum(sequence), min(sequence), max(sequence) FROM trades"
KEYLESS = "SELECT (SELECT count(*) FROM quotes), (SELECT count(*) FROM tickers), (SELECT count(*) FROM orderbooks)"


def all_of(last: int) -> list[tuple[int, ...]]:
    """What SUM gives when trades 1 … last are stored once each."""
    return [(last, last, last * (last + 1) // 2, 1, last)]


def spill_of(running: Running) -> dict[str, object]:
    (row,) = running.heartbeat.report().details["spill"].values()
    return dict(row)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    wire = await Wire.open(url)
    try:
        yield wire
    finally:
        await wire.close()


async def lengths(url: str, kind: str = "trade") -> int:
    async with connected(url) as wire:
        return int(check((await wire.call(("XLEN", KEYS.stream(kind))))[0]))


async def safe(url: str, last: bytes, kind: str = "trade") -> None:
    """Waits until the group shows that all up to `last` is safe."""
    for _ in range(2000):
        async with connected(url) as wire:
            (groups,) = await wire.call(("XINFO", "GROUPS", KEYS.stream(kind)))
        facts = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in check(groups)]
        shown = {group[b"name"]: group[b"last-delivered-id"] for group in facts}.get(b"store")
        if shown == last:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the group stands at {shown}, not at {last!r}")


async def unclaimed(url: str) -> None:
    """Waits until nothing that must be stored first waits on anybody's disk."""
    for _ in range(3000):
        async with connected(url) as wire:
            (claim,) = await wire.call(("HGET", KEYS.state("store"), CLAIM))
        if check(claim) is None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"claimed by {claim!r}")


async def cut(url: str) -> None:
    """Trims the streams to what store has shown as safe; aggregate is there too, far ahead."""
    async with connected(url) as wire:
        await wire.call(("XGROUP", "CREATE", KEYS.trade, "aggregate", "$", "MKSTREAM"))
        await wire.call(("XGROUP", "SETID", KEYS.trade, "aggregate", "99999999999999-0"))
        await trim(wire, KEYS, Promise(0, 0))
        # The server cuts whole nodes only; the test wants every entry gone that may go.
        (floors,) = await wire.call(("HGETALL", KEYS.floor))
        pairs = zip(floors[::2], floors[1::2], strict=True)
        for stream, floor in pairs:
            milliseconds, number = stream_id(floor)
            check((await wire.call(("XTRIM", stream, "MINID", f"{milliseconds}-{number + 1}")))[0])


async def trades(url: str, numbers: "itertools.count[int]", count: int) -> bytes:
    """Publishes the next `count`; the last one's entry."""
    return (await publish(url, [trade(next(numbers)) for _ in range(count)]))[-1]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.seg"))


async def told(running: Running, text: str) -> None:
    """Waits until the last error says so."""
    for _ in range(3000):
        if text in (running.heartbeat.report().last_error or ""):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it says {running.heartbeat.report().last_error!r}")


async def trouble(running: Running, text: str) -> None:
    for _ in range(3000):
        if text in str(spill_of(running)["trouble"]):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it says {spill_of(running)}")


def made(folder: Path, reports: list[str], namespace: str = "test") -> Spill:
    return Spill(folder, 1 << 20, reports.append, namespace=namespace, clock=itertools.count(0, 10**9).__next__)
