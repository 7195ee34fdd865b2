"""Missed trades fetched again by ingest and normalize together, on every exchange; ingest is a process, and killed."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec
import pytest

import normalize.main
from pipeline.exchanges import EXCHANGES
from pipeline.settings import Settings, encode
from simulator.dialect import Response
from simulator.faults import Fault
from simulator.server import Simulator, serve
from tests.ingest.conftest import frames_of, read_raw
from tests.integration.collector import Shown, eventually, settings_for

SYMBOL = "BTC-USDT"
SIZES = {"okx": 900, "binance": 3_500}
"""Numbers that are missed: more than a few pages."""


class Collector:
    """The process `ingest-<exchange>`, started again whenever it ends; its output goes to a file."""

    def __init__(self, settings: Settings, exchange: str) -> None:
        self._settings = settings
        self._exchange = exchange
        self._process: asyncio.subprocess.Process | None = None
        settings.path.write_bytes(encode(settings.file))

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Collector"]:
        keeping = asyncio.create_task(self._keep())
        try:
            yield self
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            if self._process is not None and self._process.returncode is None:
                self.kill()
                await self._process.wait()

    async def _keep(self) -> None:
        environ = {**os.environ, "REDIS_URL": self._settings.redis_url or ""}
        arguments = ("-m", "pipeline", "-c", str(self._settings.path), "run", f"ingest-{self._exchange}")
        while True:
            with (self._settings.path.parent / "ingest.log").open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, *arguments, env=environ, stdout=log, stderr=log
                )
            await self._process.wait()


@contextlib.asynccontextmanager
async def normalizing(settings: Settings, exchange: str) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(normalize.main.run(settings, f"normalize-{exchange}", stop))
        try:
            yield
        finally:
            stop.set()


@pytest.fixture(params=sorted(EXCHANGES))
def exchange(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def simulator(exchange: str) -> AsyncIterator[Simulator]:
    async with serve(exchange=exchange, rate=0, limits=5) as running:
        yield running


class Case:
    """What the exchange printed, and what the stream has of it."""

    def __init__(self, simulator: Simulator, shown: Shown) -> None:
        self.simulator = simulator
        self.shown = shown
        self.instrument = simulator.dialect.instrument(SYMBOL)
        self.printed: list[int] = []
        self.paged: Callable[[int], None] = lambda pages: None
        self.pages = 0
        self._respond = simulator.dialect.respond
        simulator.dialect.respond = self._answer  # type: ignore[method-assign]

    def _answer(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        if "rades" in path:
            self.pages += 1
            self.paged(self.pages)
        return self._respond(path, query, address, now)

    def print(self, count: int) -> None:
        for order in self.simulator.print(self.instrument, count, 1):
            self.printed += [fill.sequence for fill in order]

    def miss(self, count: int) -> None:
        """So many are printed and not sent."""
        self.simulator.inject(Fault(fault="drop", instrument=self.instrument, count=count))
        self.print(count)
        self.print(1)

    async def numbers(self) -> list[int]:
        return sorted(int(record["sequence"]) for record in await self.shown.all("trade"))

    async def whole(self) -> bool:
        numbers = await self.numbers()
        return bool(numbers) and set(numbers) >= {number for number in self.printed if number >= numbers[0]}

    async def collected(self) -> None:
        """Returns once live trades are in the stream. The first one there may have been sent again to whom subscribes
        (OKX): collection begins with the next."""
        for what in ("trades", "live trades"):
            before = len(self.printed)

            async def there(before: int = before) -> bool:
                self.print(1)
                return not set(self.printed[before:]).isdisjoint(await self.numbers())

            await eventually(there, what)


@pytest.fixture
async def case(simulator: Simulator, redis_url: str, exchange: str) -> AsyncIterator[Case]:
    shown = Shown(redis_url, exchange)
    try:
        yield Case(simulator, shown)
    finally:
        await shown.close()


async def test_every_trade_is_there_once_though_ingest_is_killed_while_it_fetches(
    tmp_path: Path, redis_url: str, simulator: Simulator, exchange: str, case: Case
) -> None:
    settings = settings_for(tmp_path, redis_url, simulator, exchange, [SYMBOL], ("trade",))
    async with normalizing(settings, exchange), Collector(settings, exchange).running() as collector:
        await case.collected()
        first = min(await case.numbers())
        killed: list[int] = []

        def kill(pages: int) -> None:
            if pages in (2, 4):
                killed.append(pages)
                collector.kill()

        case.paged = kill
        case.miss(SIZES[exchange])

        async def done() -> bool:
            # Missed too, while it is away.
            case.print(1)
            return len(killed) == 2

        await eventually(done, "pages on their way")
        await case.collected()
        await eventually(case.whole, "every trade")
        numbers = [number for number in await case.numbers() if number >= first]
        wanted = [number for number in case.printed if number >= first]
        assert numbers == wanted

        async def settled() -> bool:
            gaps = await case.shown.all("gap")
            last = {(gap["instrument"], gap["from_sequence"]): gap["state"] for gap in gaps}
            return bool(last) and set(last.values()) == {"closed"} and not await wants(case)

        await eventually(settled, "closed gaps")
        reasons = {gap.get("reason") for gap in await case.shown.all("gap") if gap["state"] == "closed"}
        assert reasons == {"filled"}


async def test_what_a_new_listing_printed_while_nobody_listened_is_fetched(
    tmp_path: Path, redis_url: str, simulator: Simulator, exchange: str, case: Case
) -> None:
    settings = settings_for(tmp_path, redis_url, simulator, exchange, [SYMBOL], ("trade",))
    async with normalizing(settings, exchange), Collector(settings, exchange).running():
        await case.collected()
        case.simulator.inject(Fault(fault="relisting", instrument=case.instrument))
        case.printed.clear()
        case.miss(56)

        async def fetched() -> bool:
            # The proof that they began again: three that are newer by more than a second.
            case.print(1)
            found = {int(t["sequence"]) for t in await case.shown.all("trade") if t.get("epoch") == 1}
            return found >= set(range(1, 57))

        await eventually(fetched, "the first numbers of the new listing")
        gaps = [gap for gap in await case.shown.all("gap") if gap["epoch"] == 1]
        assert [gap["cause"] for gap in gaps][:2] == ["epoch", "sequence"]
        trades = [int(t["sequence"]) for t in await case.shown.all("trade") if t.get("epoch") == 1]
        assert sorted(trades) == list(range(1, max(trades) + 1))

        async def settled() -> bool:
            gaps = [gap for gap in await case.shown.all("gap") if gap["cause"] == "sequence"]
            return gaps[-1]["state"] == "closed" and not gaps[-1].get("remaining") and not await wants(case)

        await eventually(settled, "the end of the gap")


async def wants(case: Case) -> int:
    """How much is wanted now."""
    found: int = await case.shown._client.hlen(f"sim:want:{case.shown._tag}")
    return found


async def test_repair_that_is_off_leaves_the_gap_open_and_says_why(
    tmp_path: Path, redis_url: str, simulator: Simulator, exchange: str, case: Case
) -> None:
    settings = settings_for(tmp_path, redis_url, simulator, exchange, [SYMBOL], ("trade",))
    repair = msgspec.structs.replace(settings.file.repair, enabled=False)
    settings = msgspec.structs.replace(settings, file=msgspec.structs.replace(settings.file, repair=repair))
    async with normalizing(settings, exchange), Collector(settings, exchange).running():
        await case.collected()
        case.miss(5)

        async def refused() -> bool:
            entries = await read_raw(redis_url, exchange)
            return any(frame.kind == "request" and "repair is off" in frame.data for frame in frames_of(entries))

        await eventually(refused, "the refusal")
        gaps = await case.shown.all("gap")
        assert [gap["state"] for gap in gaps] == ["opened"]
        assert case.pages == 0
