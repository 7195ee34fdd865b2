"""The simulator as a server on loopback: WebSocket, REST and control ports, one loop that drives the market."""

import asyncio
import contextlib
import importlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from aiohttp import web

from pipeline.errors import SettingsError
from pipeline.exchanges import EXCHANGES
from simulator.dialect import Dialect
from simulator.faults import Fault, Spells
from simulator.listings import listings
from simulator.market import Market
from simulator.simulation import Simulator
from simulator.truth import Header, TruthLog

__all__ = ["Simulator", "serve"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
TURN = 0.01


@contextlib.asynccontextmanager
async def serve(
    *,
    exchange: str = "okx",
    host: str = "127.0.0.1",
    ws_port: int = 0,
    rest_port: int = 0,
    seed: int = 1,
    rate: float = 50.0,
    symbols: int = 0,
    truth: Path | None = None,
    faults: Iterable[Fault] = (),
    history: int = 3,
    limits: float = 1.0,
    queued: int = 65_536,
    kept: int = 200_000,
    clock: Callable[[], int] = time.time_ns,
) -> AsyncIterator[Simulator]:
    """Serve an exchange on loopback until the context ends.

    Ports of 0 are chosen by the system; `ws_url`, `rest_url` and `control_url` of the answer say which. `rate`:
    fills per second in all (0: only what `print` asks for). `limits` multiplies the exchange's allowances, `queued`
    is the longest queue of frames of a connection, `kept` how many fills of an instrument REST and daily files have at
    most, `clock` gives wall time (ns). SettingsError: a host that is not
    loopback, an unknown exchange or instrument, a truth folder or a port in use.
    """
    if host not in LOOPBACK:
        raise SettingsError(f"the simulator serves on loopback only, not on {host}")
    if exchange not in EXCHANGES:
        raise SettingsError(f"no exchange {exchange}")
    start = clock()
    module = importlib.import_module(f"simulator.exchanges.{EXCHANGES[exchange].module}")
    listed = [module.terms(listing) for listing in listings(symbols) if module.lists(listing)]
    market = Market(random.Random(seed), listed, start, rate, history, kept)
    spells = Spells()
    dialect: Dialect = module.dialect(market, spells, limits)
    log = TruthLog(truth, Header(exchange=exchange, seed=seed, start=start, rate=rate)) if truth else None
    simulator = Simulator(dialect, spells, log, clock, queued, seed)
    async with contextlib.AsyncExitStack() as stack:
        if log is not None:
            stack.callback(log.close)
        script = sorted(faults, key=lambda fault: fault.at)
        simulator.check(script)
        ws = await _listen(stack, _ws_app(simulator), host, ws_port)
        rest = await _listen(stack, _rest_app(simulator), host, rest_port)
        stack.callback(simulator.close)
        shown = f"[{host}]" if ":" in host else host
        simulator.ws_url = f"ws://{shown}:{ws}{dialect.ws_prefix}"
        simulator.rest_url = f"http://{shown}:{rest}"
        simulator.control_url = f"{simulator.rest_url}/control"
        await stack.enter_async_context(_driving(simulator, script))
        yield simulator


def _ws_app(simulator: Simulator) -> web.Application:
    app = web.Application()
    app.router.add_get("/{path:.*}", simulator.websocket)
    return app


def _rest_app(simulator: Simulator) -> web.Application:
    app = web.Application()
    app.router.add_post("/control", simulator.control)
    app.router.add_get("/control/state", simulator.show)
    app.router.add_get("/control/books", simulator.show_books)
    app.router.add_get("/{path:.*}", simulator.rest)
    return app


async def _listen(stack: contextlib.AsyncExitStack, app: web.Application, host: str, port: int) -> int:
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise SettingsError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return int(runner.addresses[0][1])


@contextlib.asynccontextmanager
async def _driving(simulator: Simulator, script: list[Fault]) -> AsyncIterator[None]:
    """Run the market beside the body; what breaks the market breaks the body's context, never in silence."""
    body = asyncio.current_task()
    broken: list[BaseException] = []

    async def drive() -> None:
        while True:
            simulator.inject_scripted(script)
            simulator.turn()
            await asyncio.sleep(TURN)

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            broken.append(error)
            if body is not None:
                body.cancel()

    driver = asyncio.create_task(drive())
    driver.add_done_callback(ended)
    try:
        yield
    finally:
        driver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driver
        if broken:
            raise broken[0]
