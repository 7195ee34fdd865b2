"""kill -9 again and again: what an exchange counts by address is never exceeded, for it is noted before it goes out."""

import asyncio
import collections
from collections.abc import Callable, Mapping
from pathlib import Path

from ingest.timing import MILLISECOND, Timing
from pipeline.reports import Report, read
from pipeline.settings import Settings, TradingPair
from pipeline.timeframes import HOUR, MINUTE, SECOND
from simulator.dialect import Response
from simulator.limits import Allowance
from simulator.server import Simulator, serve
from tests.ingest.conftest import eventually, settings_for
from tests.ingest.process import DEADLINE, ingest_process
from tests.ingest.test_main import SYMBOLS

TIMING = Timing(first_delay=MILLISECOND, most_delay=5 * MILLISECOND, stable=SECOND, rest_patience=SECOND)
KINDS = ("trade", "orderbook", "quote", "kline")


class Doorman:
    """Counts what comes to the simulator and what it turns away; `then` is called with each connect, before it is
    answered."""

    def __init__(self, simulator: Simulator) -> None:
        self.connects = 0
        self.turned_away = 0
        self.requests: collections.Counter[str] = collections.Counter()
        self.then: Callable[[int], None] = lambda _: None
        self._connect, self._respond = simulator.dialect.connect, simulator.dialect.respond
        simulator.dialect.connect = self._counted  # type: ignore[method-assign]
        simulator.dialect.respond = self._answered  # type: ignore[method-assign]

    def _counted(self, address: str, now: int) -> bool:
        self.connects += 1
        self.then(self.connects)
        allowed = self._connect(address, now)
        self.turned_away += not allowed
        return allowed

    def _answered(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        response = self._respond(path, query, address, now)
        self.requests[path] += 1
        self.turned_away += response.status in (418, 429)
        return response


def reported(settings: Settings, name: str) -> Report | None:
    path = settings.heartbeat_dir / name
    return read(path) if path.exists() else None


async def killed_while_connecting(
    settings: Settings, name: str, rates: Mapping[str, tuple[int, int]], doorman: Doorman, nth: int, log: Path
) -> None:
    """Starts a process and kills it in the middle of its `nth` handshake."""
    begun, reached = doorman.connects, asyncio.Event()
    async with ingest_process(settings, name, TIMING, rates, log) as process:

        def kill(count: int) -> None:
            if count - begun == nth:
                process.kill()
                reached.set()

        doorman.then = kill
        async with asyncio.timeout(DEADLINE):
            await reached.wait()
            await process.wait()
        doorman.then = lambda _: None


async def test_three_connects_a_second_are_never_exceeded(tmp_path: Path, redis_url: str) -> None:
    """On OKX's own limits; four connections a process, and it comes back at once."""
    pairs = tuple(TradingPair(symbol=symbol, data_types=KINDS, timeframes=("1m",)) for symbol in SYMBOLS)
    async with serve(rate=50, limits=1) as simulator:
        doorman = Doorman(simulator)
        settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, pairs)
        for nth in (3, 2, 4):
            await killed_while_connecting(settings, "ingest-okx", {}, doorman, nth, tmp_path / "log")
        assert doorman.connects >= 9
        assert doorman.turned_away == 0


async def test_of_what_is_granted_in_minutes_nothing_is_left_for_the_next_processes(
    tmp_path: Path, redis_url: str
) -> None:
    """As 300 connects in 5 minutes on Binance, but four."""
    name, most, period = "ingest-binance", 4, 5 * MINUTE
    async with serve(exchange="binance", rate=50, limits=1) as simulator:
        simulator.dialect._connects = Allowance(most, period)  # type: ignore[attr-defined]
        doorman = Doorman(simulator)
        settings = settings_for(
            tmp_path,
            redis_url,
            simulator.ws_url,
            simulator.rest_url,
            ("BTCUSDT", "ETHUSDT", "ETHBTC", "SOLUSDT"),
            name="binance",
        )
        rates = {"connects": (most, period)}
        # One connection a process: none can be counted that is killed before it arrives.
        while doorman.connects < most:
            await killed_while_connecting(settings, name, rates, doorman, 1, tmp_path / "log")
        async with ingest_process(settings, name, TIMING, rates, tmp_path / "log") as process:

            async def waits() -> bool:
                found = reported(settings, name)
                return found is not None and found.pid == process.pid and found.waiting_for == "exchange"

            await eventually(waits)
        found = reported(settings, name)
        assert found is not None
        assert found.details["budgets"]["connects"]["used"] >= most
        assert (doorman.connects, doorman.turned_away) == (most, 0)


async def test_rest_requests_of_a_killed_process_count_for_the_next(tmp_path: Path, redis_url: str) -> None:
    async with serve(rate=50, limits=1) as simulator:
        doorman = Doorman(simulator)
        settings = settings_for(tmp_path, redis_url, simulator.ws_url, simulator.rest_url, SYMBOLS)
        rates = {"time": (3, HOUR)}
        await killed_while_connecting(settings, "ingest-okx", rates, doorman, 1, tmp_path / "log")
        assert doorman.requests["/api/v5/public/time"] == 3
        # It waits for the time in vain, and connects without.
        await killed_while_connecting(settings, "ingest-okx", rates, doorman, 1, tmp_path / "log")
        assert doorman.requests["/api/v5/public/time"] == 3
        assert doorman.turned_away == 0
