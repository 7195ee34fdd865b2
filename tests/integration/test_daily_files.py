"""A gap of more than 200,000 trades of days ago, filled from the exchange's daily file though ingest is killed in the
middle of it: nothing lost, nothing twice."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

import ingest.main
import normalize.main
from pipeline.settings import Settings, encode
from pipeline.timeframes import DAY, HOUR
from simulator.dialect import Response
from simulator.server import Simulator, serve
from tests.integration.collector import Shown, settings_for
from tests.integration.filing import NAME, TIMING

SYMBOL = "BTC-USDT"
MISSED = 201_000
PATIENCE = 300.0
PROJECT = Path(__file__).parents[2]


class Past:
    """The exchange's clock: at ten o'clock of the day before yesterday, until it is told to come back."""

    def __init__(self) -> None:
        now = time.time_ns()
        self.ago = now - (now - now % DAY - 2 * DAY + 10 * HOUR)

    def __call__(self) -> int:
        return time.time_ns() - self.ago


@contextlib.asynccontextmanager
async def normalizing(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(normalize.main.run(settings, "normalize-binance", stop))
        try:
            yield
        finally:
            stop.set()


@contextlib.asynccontextmanager
async def collecting(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(ingest.main.run(settings, NAME, stop, TIMING))
        try:
            yield
        finally:
            stop.set()


@contextlib.asynccontextmanager
async def process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """ingest as a process; killed at the end at the latest."""
    environ = {**os.environ, "REDIS_URL": settings.redis_url or ""}
    arguments = ("-m", "tests.integration.filing", str(settings.path))
    with (settings.path.parent / "ingest.log").open("ab") as log:
        running = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environ, cwd=PROJECT, stdout=log, stderr=log
        )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.send_signal(signal.SIGKILL)
        await running.wait()


class Case:
    """What was printed, what was asked for, and what the streams have."""

    def __init__(self, simulator: Simulator, shown: Shown) -> None:
        self.simulator = simulator
        self.shown = shown
        self.instrument = simulator.dialect.instrument(SYMBOL)
        self.printed: list[int] = []
        self.asked: list[tuple[str, int]] = []
        self._respond = simulator.dialect.respond
        simulator.dialect.respond = self._answer  # type: ignore[method-assign]

    def print(self, orders: int, fills: int = 1) -> None:
        for order in self.simulator.print(self.instrument, orders, fills):
            self.printed += [fill.sequence for fill in order]

    def zips(self) -> int:
        return sum(name.endswith(".zip") and status == 200 for name, status in self.asked)

    async def numbers(self) -> list[int]:
        return [int(trade["sequence"]) for trade in await self.shown.all("trade")]

    async def followed(self) -> bool:
        """A few trades came one after the other."""
        self.print(1)
        return len(await self.numbers()) > 5

    async def opened(self) -> bool:
        """A live trade came, so that what was missed is known."""
        self.print(1)
        return "opened" in await self._states()

    async def asked_in_vain(self) -> bool:
        return any(name.endswith(".CHECKSUM") and status == 404 for name, status in self.asked)

    async def halfway(self) -> bool:
        """Some of the file came; of the pages before it there are fewer."""
        return self.zips() == 1 and await self.shown.count("trade") > MISSED // 3

    async def closed(self) -> bool:
        return "closed" in await self._states()

    async def _states(self) -> list[str]:
        return [gap["state"] for gap in await self.shown.all("gap")]

    def _answer(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        response = self._respond(path, query, address, now)
        if "rades" in path:
            self.asked.append((path.rpartition("/")[2], response.status))
        return response


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.1)


@pytest.fixture
def past() -> Past:
    return Past()


@pytest.fixture
async def simulator(past: Past) -> AsyncIterator[Simulator]:
    async with serve(exchange="binance", rate=0, clock=past, kept=MISSED + 10_000) as running:
        yield running


@pytest.fixture
async def case(simulator: Simulator, redis_url: str) -> AsyncIterator[Case]:
    shown = Shown(redis_url, "binance")
    try:
        yield Case(simulator, shown)
    finally:
        await shown.close()


async def test_a_gap_of_200_000_trades_is_filled_from_the_daily_file(
    tmp_path: Path, redis_url: str, simulator: Simulator, past: Past, case: Case
) -> None:
    settings = settings_for(tmp_path, redis_url, simulator, "binance", [SYMBOL], ("trade",))
    settings.path.write_bytes(encode(settings.file))
    async with normalizing(settings):
        async with collecting(settings):
            await until(case.followed)
        first, before = min(await case.numbers()), len(case.printed)
        case.print(MISSED // 500, 500)
        assert len(case.printed) == before + MISSED
        async with process(settings):
            await until(case.opened)
            await until(case.asked_in_vain)
            past.ago = 0
            await until(case.halfway)
        assert not list(settings.state_dir.glob("tmp*")), "a killed process leaves nothing on disk"
        last = case.printed[-1]
        async with process(settings):
            await until(case.closed)
    numbers = await case.numbers()
    assert len(numbers) == len(set(numbers)), "none twice"
    assert {number for number in case.printed if first <= number < last} <= set(numbers), "none lost"
    gaps = await case.shown.all("gap")
    assert gaps[-1]["reason"] == "filled"
    assert gaps[-1]["repaired"] >= MISSED
    assert case.zips() == 2, "the second process began with what was left"
    pages = sum(name == "historicalTrades" for name, _ in case.asked)
    assert pages < MISSED // 1000 // 2, "files brought most of it"
