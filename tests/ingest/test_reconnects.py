"""A thousand reconnects of a real process: memory, files, threads and tasks stay what they were, and data flows on.

TAPELINE_RECONNECTS says how many; with `--log-cli-level INFO` the figures are shown.
"""

import asyncio
import collections
import logging
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path

import msgspec

from ingest.timing import MILLISECOND, Timing
from pipeline.frames import CloseData, Frame
from pipeline.reports import Report, read
from pipeline.settings import Settings
from pipeline.timeframes import SECOND
from simulator.dialect import Reply
from simulator.faults import Fault
from simulator.server import Simulator, serve
from tests.ingest.conftest import eventually, frames_of, newest_id, read_raw, settings_for
from tests.ingest.process import DEADLINE, ingest_process
from tests.ingest.test_main import NAME, SYMBOLS, check, trades_read

RECONNECTS = int(os.environ.get("TAPELINE_RECONNECTS", "1000"))
EACH = max(10, RECONNECTS // 10)
"""So often all is measured."""
WARM = 2
"""Measurements before it counts: buffers and caches have their size."""
MOST_GROWTH = 4 * 1024 * 1024
"""Bytes that resident memory may grow by from then on: about 5 KiB a reconnect, less than a session takes that is not
let go (its queue of frames and its reader alone are more). Seen: 40 KiB in all."""
TIMING = Timing(first_delay=MILLISECOND, most_delay=5 * MILLISECOND, stable=SECOND)
LIFTED = {"connects": (1_000_000, SECOND)}


Receive = Callable[[str, int], list[Reply]]

log = logging.getLogger(__name__)


class Measured(msgspec.Struct, frozen=True):
    """Of the process: bytes, open files, threads, asyncio tasks; after so many reconnects."""

    reconnects: int
    resident: int
    files: int
    threads: int
    tasks: int


def measure(pid: int, reconnects: int, tasks: int) -> Measured:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return Measured(
        reconnects=reconnects,
        resident=int(status["VmRSS"].split()[0]) * 1024,
        files=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(status["Threads"]),
        tasks=tasks,
    )


class Breaker:
    """Ends each connection of the simulator in its turn: with or without a close frame, while it subscribes or after
    data. Each `each`-th is held until `release`, for measuring."""

    def __init__(self, simulator: Simulator, total: int, each: int) -> None:
        self.cuts: collections.Counter[str] = collections.Counter()
        self.held: asyncio.Queue[int] = asyncio.Queue()
        self._simulator = simulator
        self._total = total
        self._each = each
        self._number = 0
        self._newest = ""
        self._open = simulator.dialect.open
        simulator.dialect.open = self._opened  # type: ignore[method-assign,assignment]

    def release(self) -> None:
        """Ends the one that is held."""
        self._cut(self._newest, "reset")

    def _opened(self, path: str, now: int, query: str) -> object:
        session = self._open(path, now, query)
        self._number += 1
        self._newest = session.name
        if self._number > self._total:
            return session
        way = "reset" if self._number % 2 else "close"
        if self._number % self._each == 0:
            session.sent = self._after(4, session.sent, lambda: self.held.put_nowait(self._number))
        elif self._number % 4 < 2:
            session.receive = self._instead(session.receive, lambda: self._cut(session.name, way, "while subscribing"))
        else:
            session.sent = self._after(4, session.sent, lambda: self._cut(session.name, way, "after data"))
        return session

    def _cut(self, name: str, way: str, when: str = "after data") -> None:
        self.cuts[f"{way} {when}"] += 1
        self._simulator.inject(Fault(fault="disconnect", connection=name, code=1001 if way == "close" else None))

    @staticmethod
    def _instead(receive: Receive, cut: Callable[[], None]) -> Receive:
        def received(text: str, now: int) -> list[Reply]:
            if "subscribe" not in text:
                return receive(text, now)
            cut()
            return []

        return received

    @staticmethod
    def _after(frames: int, sent: Callable[[int], None], then: Callable[[], None]) -> Callable[[int], None]:
        """Calls `then` once so many frames were sent."""
        count = 0

        def counted(now: int) -> None:
            nonlocal count
            sent(now)
            count += 1
            if count == frames:
                asyncio.get_running_loop().call_soon(then)

        return counted


def tail(output: Path) -> str:
    return output.read_text()[-2000:]


async def held(breaker: Breaker, process: Process, output: Path) -> int:
    """The number of the connection that is held, once it is; fails where the process ends before."""
    waiting, ended = asyncio.create_task(breaker.held.get()), asyncio.create_task(process.wait())
    try:
        await asyncio.wait({waiting, ended}, timeout=DEADLINE + EACH, return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), tail(output)
        return waiting.result()
    finally:
        waiting.cancel()
        ended.cancel()


async def next_report(settings: Settings) -> Report:
    """Taken of the process as it is now, half a second later."""
    path, since = settings.heartbeat_dir / NAME, time.time_ns()

    async def fresh() -> bool:
        return path.exists() and read(path).beat > since + SECOND // 2

    await eventually(fresh)
    return read(path)


def pairs(frames: list[Frame]) -> list[str]:
    """The reasons for which connections were closed, in order; each was opened first, and both once."""
    told = collections.defaultdict(list)
    for frame in frames:
        if frame.kind in ("open", "close"):
            told[frame.conn].append(frame.kind)
    assert all(kinds == ["open", "close"] for kinds in told.values())
    return [msgspec.json.decode(frame.data, type=CloseData).reason for frame in frames if frame.kind == "close"]


async def test_memory_files_threads_and_tasks_stay_flat(tmp_path: Path, redis_url: str) -> None:
    found: list[Measured] = []
    async with serve(rate=200, limits=1_000_000) as simulator:
        settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, SYMBOLS)
        breaker = Breaker(simulator, RECONNECTS, EACH)
        async with ingest_process(settings, NAME, TIMING, LIFTED, tmp_path / "log") as process:
            for number in range(EACH, RECONNECTS + 1, EACH):
                assert await held(breaker, process, tmp_path / "log") == number
                report = await next_report(settings)
                found.append(measure(process.pid, number, report.details["tasks"]))
                breaker.release()
            newest = await newest_id(redis_url)

            async def flows() -> bool:
                return trades_read(await read_raw(redis_url, after=newest)) >= 200

            await eventually(flows)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                assert await process.wait() == 0, tail(tmp_path / "log")
    for row in found:
        log.info("%s", row)
    entries = await read_raw(redis_url)
    reasons = pairs(frames_of(entries))
    assert len(reasons) == RECONNECTS + 1
    assert reasons[-1] == "stopped"
    assert sum(breaker.cuts.values()) == RECONNECTS
    assert len(breaker.cuts) == 4
    assert collections.Counter(reason.split()[0] for reason in reasons[:-1]).keys() == {"1006", "1001"}
    check(entries)
    settled = found[WARM:]
    assert len({row.threads for row in settled}) == 1
    assert max(row.files for row in settled) - min(row.files for row in settled) <= 2
    assert max(row.tasks for row in settled) - min(row.tasks for row in settled) <= 3
    assert max(row.resident for row in settled) - settled[0].resident <= MOST_GROWTH
