"""Binance's daily files of trades over real sockets: when they appear, which day they are of, what is in them."""

import csv
import datetime
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator

import aiohttp
import pytest

from simulator.exchanges.binance import Binance
from simulator.market import Fill
from simulator.rest.binance import FILES_AFTER
from simulator.server import Simulator, serve
from tests.simulator.clients import SECOND, START, Clock
from tests.simulator.test_binance_rest import row

DAY = 24 * 3600 * SECOND
MIDNIGHT = START - START % DAY + DAY
"""The first after the start."""
FOLDER = "/data/spot/daily/trades/BTCUSDT"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(clock: Clock) -> AsyncIterator[Simulator]:
    async with serve(exchange="binance", rate=0, clock=clock, history=0) as running:
        yield running


def name_of(midnight: int) -> str:
    day = datetime.datetime.fromtimestamp(midnight // SECOND, datetime.UTC).date()
    return f"BTCUSDT-trades-{day.isoformat()}"


async def get(simulator: Simulator, path: str) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{simulator.rest_url}{path}") as response,
    ):
        return response.status, await response.read()


def rows(content: bytes, name: str) -> list[list[str]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == [f"{name}.csv"]
        return list(csv.reader(archive.read(f"{name}.csv").decode().splitlines()))


def printed(simulator: Simulator, count: int) -> list[Fill]:
    return [fill for order in simulator.print("BTCUSDT", count, 1) for fill in order]


async def test_a_day_is_a_day_of_utc_and_its_file_says_what_rest_says(simulator: Simulator, clock: Clock) -> None:
    clock.now = MIDNIGHT - 1_000_000
    before = printed(simulator, 3)
    clock.now = MIDNIGHT
    within = printed(simulator, 50)
    clock.now = MIDNIGHT + DAY - 1_000_000
    within += printed(simulator, 2)
    clock.now = MIDNIGHT + DAY
    printed(simulator, 4)
    clock.now = MIDNIGHT + DAY + FILES_AFTER
    for midnight, fills in ((MIDNIGHT - DAY, before), (MIDNIGHT, within)):
        name = name_of(midnight)
        status, content = await get(simulator, f"{FOLDER}/{name}.zip")
        assert status == 200
        found = rows(content, name)
        assert len(found) == len(fills)
        for cells, fill in zip(found, fills, strict=True):
            number, price, quantity, value, time, maker, best = cells
            told = row(fill)
            assert (int(number), price, quantity, value) == (told["id"], told["price"], told["qty"], told["quoteQty"])
            assert int(time) // 1_000 == told["time"], "microseconds, which others floor"
            assert (maker, best) == (str(told["isBuyerMaker"]), "True")
        status, line = await get(simulator, f"{FOLDER}/{name}.zip.CHECKSUM")
        assert (status, line.decode()) == (200, f"{hashlib.sha256(content).hexdigest()}  {name}.zip\n")


async def test_a_file_appears_some_time_after_its_day_and_stays_the_same(simulator: Simulator, clock: Clock) -> None:
    clock.now = MIDNIGHT
    printed(simulator, 3)
    path = f"{FOLDER}/{name_of(MIDNIGHT)}.zip"
    for moment in (MIDNIGHT, MIDNIGHT + DAY, MIDNIGHT + DAY + FILES_AFTER - 1):
        clock.now = moment
        for each in (path, f"{path}.CHECKSUM"):
            assert (await get(simulator, each))[0] == 404
    clock.now = MIDNIGHT + DAY + FILES_AFTER
    first = await get(simulator, path)
    printed(simulator, 3)
    assert first[0] == 200
    assert await get(simulator, path) == first


async def test_the_delay_is_the_simulator_s_to_choose(simulator: Simulator, clock: Clock) -> None:
    assert isinstance(simulator.dialect, Binance)
    simulator.dialect.files.after = 0
    clock.now = MIDNIGHT
    printed(simulator, 3)
    clock.now = MIDNIGHT + DAY
    assert (await get(simulator, f"{FOLDER}/{name_of(MIDNIGHT)}.zip"))[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        f"{FOLDER}/{name_of(MIDNIGHT - 5 * DAY)}.zip",
        f"{FOLDER}/BTCUSDT-trades-2026-13-01.zip",
        "/data/spot/daily/trades/NOPEUSDT/NOPEUSDT-trades-2026-09-01.zip",
        "/data/spot/daily/trades/BTCUSDT/ETHUSDT-trades-2026-09-01.zip",
    ],
)
async def test_what_there_is_not(simulator: Simulator, clock: Clock, path: str) -> None:
    clock.now = MIDNIGHT + 3 * DAY
    assert (await get(simulator, path))[0] == 404
