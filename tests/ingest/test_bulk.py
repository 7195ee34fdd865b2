"""Daily files against pages, over real sockets: what files bring, and that pages bring whatever files do not."""

import asyncio
import hashlib
import io
import random
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from ingest.bulk import Bulk, bulk_of
from ingest.clock import HostClock
from ingest.feed import Feed, Rate
from ingest.repairs import Repairs
from ingest.timing import Timing
from pipeline.exchanges import EXCHANGES
from pipeline.frames import Frame, RequestData
from pipeline.settings import RepairSettings
from pipeline.timeframes import DAY, HOUR, SECOND
from pipeline.wants import Want
from simulator.dialect import Response
from simulator.exchanges.binance import Binance
from simulator.faults import Fault
from simulator.server import Simulator, serve
from tests.ingest.test_feeds import feed_of
from tests.ingest.test_repairs import MARKETS, TIMING, Desk, key_of, roomy, wanted
from tests.ingest.test_repairs import numbers as page_numbers

EAGER = msgspec.structs.replace(TIMING, file_over=SECOND // 2, file_pace=1_000_000)
SIZE = 5_000
Change = Callable[[str, Response], Response]


class Past:
    """A clock that is set by hand and goes on by itself: at first an hour before the midnight of two days ago."""

    def __init__(self) -> None:
        self.ago = 0
        self.at(-HOUR)

    def at(self, time_of_day: int) -> None:
        now = time.time_ns()
        self.ago = now - (now - now % DAY - 2 * DAY + time_of_day)

    def now(self) -> None:
        self.ago = 0

    def __call__(self) -> int:
        return time.time_ns() - self.ago


def file_numbers(frame: Frame) -> list[int]:
    return [int(line.partition(",")[0]) for line in frame.data.splitlines()]


class Shelf(Desk):
    """A desk whose repairs know daily files too; `change` may spoil an answer of the host of files."""

    def __init__(self, simulator: Simulator, feed: Feed, folder: Path, timing: Timing = EAGER) -> None:
        super().__init__(simulator, feed, timing)
        self.change: Change = lambda path, response: response
        self.folder = folder
        assert feed.archive is not None
        self.bulk = Bulk(feed.archive, simulator.rest_url, folder, self.clock, timing)
        self.repairs = Repairs(
            self.rest, feed, self.clock, timing, RepairSettings(), random.Random(1).random, self.bulk
        )

    def _respond(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        response = super()._respond(path, query, address, now)
        return self.change(path, response) if path.startswith("/data/") else response

    def files(self, want: Want) -> list[Frame]:
        return [frame for frame in self.pages(want) if ".zip" in str(frame.url)]

    def by_file(self, want: Want) -> set[int]:
        return {number for frame in self.files(want) for number in file_numbers(frame)}

    def by_pages(self, want: Want) -> set[int]:
        pages = [frame for frame in self.pages(want) if ".zip" not in str(frame.url)]
        return {number for frame in pages for number in page_numbers(frame)} & wanted(want)

    def whole(self, want: Want) -> None:
        """Every number came, in one way or the other."""
        assert self.by_file(want) | self.by_pages(want) == wanted(want)
        assert self.told(want)[-1] == RequestData(key_of(want), 1, "answered", first=want.first, last=want.last)
        assert self.states(want) == [(1, "asked"), (1, "answered")]

    def zips(self) -> list[str]:
        return [asked.path.rpartition("/")[2] for asked in self.asked if asked.path.endswith(".zip")]

    def left_over(self) -> list[Path]:
        return list(self.folder.iterdir())


@pytest.fixture
def past() -> Past:
    return Past()


@pytest.fixture
async def simulator(past: Past) -> AsyncIterator[Simulator]:
    async with serve(exchange="binance", rate=0, limits=200, clock=past) as running:
        yield running


def slow() -> Feed:
    """Its pages come a few a second."""
    feed = feed_of("binance")
    feed.allowances = {name: Rate(150, SECOND) for name in feed.allowances}
    return feed


def no_pages(simulator: Simulator) -> None:
    """REST says that it is busy; the host of files is another."""
    simulator.inject(Fault(fault="rest_error", seconds=HOUR / SECOND))


@pytest.fixture
async def shelf(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Shelf]:
    async with Shelf(simulator, slow(), tmp_path).running() as shelf:
        assert isinstance(shelf, Shelf)
        yield shelf


def repacked(response: Response, change: Callable[[list[str]], list[str]]) -> bytes:
    """The file with other lines."""
    assert response.content is not None
    with zipfile.ZipFile(io.BytesIO(response.content)) as before:
        name = before.namelist()[0]
        lines = before.read(name).decode().splitlines(keepends=True)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after:
        after.writestr(name, "".join(change(lines)))
    return file.getvalue()


def republished(shelf: Shelf, change: Callable[[Response], bytes]) -> Change:
    """The file changed, and its checksum with it."""

    def spoil(path: str, response: Response) -> Response:
        if response.status != 200:
            return response
        if not path.endswith(".CHECKSUM"):
            return msgspec.structs.replace(response, content=change(response))
        whole = shelf._answer(path.removesuffix(".CHECKSUM"), {}, "", shelf.simulator.now())
        digest = hashlib.sha256(change(whole)).hexdigest()
        return msgspec.structs.replace(response, content=f"{digest}  file.zip\n".encode())

    return spoil


async def test_a_file_brings_all_of_a_large_gap(shelf: Shelf, past: Past, simulator: Simulator) -> None:
    want = shelf.gap(SIZE)
    past.now()
    simulator.turn()
    no_pages(simulator)
    shelf.want(want)
    await shelf.until(lambda: shelf.ended(want))
    shelf.whole(want)
    assert shelf.by_file(want) == wanted(want)
    frame = shelf.files(want)[0]
    assert (frame.conn, frame.dir, frame.key) == (shelf.rest.url, "in", key_of(want))
    assert str(frame.url).startswith(f"{shelf.rest.url}/data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-")
    assert all(len(frame.data) < 70_000 for frame in shelf.files(want))
    row = shelf.row(want)
    assert (row["state"], row["done"], row["wanted"], row["left"]) == ("answered", SIZE, SIZE, None)
    assert shelf.left_over() == []


async def test_small_gaps_and_those_of_today_are_left_to_pages(shelf: Shelf, past: Past, simulator: Simulator) -> None:
    small = shelf.gap(500)
    past.now()
    simulator.turn()
    today = shelf.gap(SIZE, MARKETS[1])
    shelf.want(small, today)
    await shelf.until(lambda: shelf.ended(small, today))
    for want in (small, today):
        shelf.whole(want)
        assert shelf.by_pages(want) == wanted(want)
    assert not shelf.zips()


async def test_pages_bring_what_is_not_published(shelf: Shelf, past: Past, simulator: Simulator) -> None:
    dialect = simulator.dialect
    assert isinstance(dialect, Binance)
    dialect.files.after = 100 * DAY
    want = shelf.gap(2 * SIZE)
    past.now()
    simulator.turn()
    shelf.want(want)
    await shelf.until(lambda: shelf.ended(want))
    shelf.whole(want)
    assert shelf.by_pages(want) == wanted(want)
    tried = [asked for asked in shelf.asked if asked.path.startswith("/data/")]
    assert [asked.status for asked in tried] == [404], "not again within an hour"


def _torn(response: Response) -> bytes:
    assert response.content is not None
    return response.content[: len(response.content) // 2]


def _garbage(response: Response) -> bytes:
    return repacked(response, lambda lines: [*lines[:2_000], "what is this\n", *lines[2_000:]])


@pytest.mark.parametrize("change", [_torn, _garbage, lambda response: b""], ids=["torn", "garbage", "empty"])
async def test_pages_bring_what_a_bad_file_does_not(
    shelf: Shelf, past: Past, simulator: Simulator, change: Callable[[Response], bytes]
) -> None:
    want = shelf.gap(SIZE)
    past.now()
    simulator.turn()
    shelf.change = republished(shelf, change)
    shelf.want(want)
    await shelf.until(lambda: shelf.ended(want))
    shelf.whole(want)
    assert shelf.by_file(want) < wanted(want)
    assert len(shelf.zips()) == 1
    assert shelf.left_over() == []


@pytest.mark.parametrize(
    "checksum", [b"0" * 64 + b"  file.zip\n", b"", b"<html>", b"\xff" * 70], ids=["other", "none", "page", "noise"]
)
async def test_nothing_is_taken_of_a_file_that_is_not_as_published(
    shelf: Shelf, past: Past, simulator: Simulator, checksum: bytes
) -> None:
    want = shelf.gap(SIZE)
    past.now()
    simulator.turn()

    def spoil(path: str, response: Response) -> Response:
        return msgspec.structs.replace(response, content=checksum) if path.endswith(".CHECKSUM") else response

    shelf.change = spoil
    shelf.want(want)
    await shelf.until(lambda: shelf.ended(want))
    shelf.whole(want)
    assert shelf.by_file(want) == set()
    assert shelf.left_over() == []


async def test_a_redirect_is_not_followed(shelf: Shelf, past: Past, simulator: Simulator) -> None:
    want = shelf.gap(SIZE)
    past.now()
    simulator.turn()
    elsewhere = {"Location": f"{simulator.rest_url}/data/elsewhere"}
    shelf.change = lambda path, response: Response(302, "", elsewhere)
    shelf.want(want)
    await shelf.until(lambda: shelf.ended(want))
    shelf.whole(want)
    assert shelf.by_file(want) == set()
    assert not any("elsewhere" in asked.path for asked in shelf.asked)


async def test_pages_bring_the_numbers_that_a_file_lacks_and_no_others(
    shelf: Shelf, past: Past, simulator: Simulator
) -> None:
    want = shelf.gap(SIZE)
    past.now()
    simulator.turn()
    assert want.first is not None
    lacking = {want.first, *range(want.first + 2_000, want.first + 2_030), want.first + SIZE - 1}

    def change(response: Response) -> bytes:
        return repacked(response, lambda lines: [each for each in lines if int(each.partition(",")[0]) not in lacking])

    shelf.change = republished(shelf, change)
    shelf.want(want)
    await shelf.until(lambda: shelf.ended(want))
    shelf.whole(want)
    assert len(shelf.by_file(want)) > SIZE // 2
    assert shelf.by_pages(want) >= lacking
    assert len([asked for asked in shelf.asked if "historical" in asked.path]) < 6, "not all of it again"
    assert len(shelf.zips()) == 1


async def test_two_days_are_two_files(shelf: Shelf, past: Past, simulator: Simulator) -> None:
    instrument = simulator.dialect.instrument(MARKETS[0])
    before = simulator.print(instrument, 1, 1)[0][0]
    simulator.print(instrument, 1, SIZE)
    past.at(HOUR)
    simulator.print(instrument, 1, SIZE)
    after = simulator.print(instrument, 1, 1)[0][0]
    want = Want(
        what="trades",
        instrument=instrument,
        number=1,
        since=shelf.clock.now(),
        reason="gap",
        first=before.sequence + 1,
        last=after.sequence - 1,
        from_time=before.time,
        to_time=after.time,
    )
    past.now()
    simulator.turn()
    shelf.want(want)
    await shelf.until(lambda: shelf.ended(want))
    shelf.whole(want)
    assert len(shelf.by_file(want)) > SIZE
    days = sorted({name.removesuffix(".zip")[-10:] for name in shelf.zips()})
    midnight = (after.time - after.time % DAY) // SECOND
    assert days == [time.strftime("%Y-%m-%d", time.gmtime(midnight - back)) for back in (3_600, 0)]


async def test_a_file_waits_for_room_and_keeps_its_pace(simulator: Simulator, past: Past, tmp_path: Path) -> None:
    timing = msgspec.structs.replace(EAGER, file_pace=SIZE)
    async with Shelf(simulator, roomy(feed_of("binance")), tmp_path, timing).running() as shelf:
        assert isinstance(shelf, Shelf)
        want = shelf.gap(SIZE)
        past.now()
        simulator.turn()
        no_pages(simulator)
        shelf.room = False
        shelf.want(want)
        await shelf.until(shelf.zips)
        assert not shelf.pages(want)
        begun = time.monotonic_ns()
        shelf.room = True
        await shelf.until(lambda: shelf.ended(want))
        shelf.whole(want)
        assert shelf.by_file(want) == wanted(want)
        assert time.monotonic_ns() - begun > SECOND // 2, "5,000 at 5,000 a second"


async def test_what_is_not_wanted_any_more_is_not_brought(simulator: Simulator, past: Past, tmp_path: Path) -> None:
    async with Shelf(simulator, roomy(feed_of("binance")), tmp_path).running() as shelf:
        assert isinstance(shelf, Shelf)
        want, other = shelf.gap(2 * SIZE), shelf.gap(SIZE, MARKETS[1])
        past.now()
        simulator.turn()
        shelf.paged = lambda: shelf.want(other, forget=True)
        shelf.want(want)
        await shelf.until(lambda: shelf.ended(other))
        assert len(shelf.pages(want)) <= 2
        assert shelf.by_file(other) | shelf.by_pages(other) == wanted(other)
        assert shelf.states(want)[-1:] != [(1, "answered")]


async def test_killed_in_the_middle_of_a_file_the_next_one_goes_on_with_what_remains(
    simulator: Simulator, past: Past, tmp_path: Path
) -> None:
    halfway = asyncio.Event()
    feed = slow()
    async with Shelf(simulator, feed, tmp_path).running() as first:
        assert isinstance(first, Shelf)
        want = first.gap(4 * SIZE)
        past.now()
        simulator.turn()
        first.paged = lambda: halfway.set() if len(first.files(want)) > 5 else None
        no_pages(simulator)
        first.want(want)
        await halfway.wait()
        row = first.row(want)
        assert (row["state"], row["wanted"]) == ("asked", 4 * SIZE)
        assert 0 < row["done"] < 4 * SIZE
        assert row["rate"] > 0
    brought = first.by_file(want) | first.by_pages(want)
    assert set() < brought < wanted(want)
    assert first.left_over() == []
    remaining = msgspec.structs.replace(want, first=max(brought) + 1)
    async with Shelf(simulator, feed, tmp_path).running() as second:
        assert isinstance(second, Shelf)
        second.wanted[key_of(want)] = remaining
        second.repairs.take(second.context, dict(second.wanted))
        await second.until(lambda: second.ended(want))
        came = second.by_file(want) | second.by_pages(want)
        assert came | brought == wanted(want)
        assert second.by_file(want) <= wanted(remaining), "nothing twice"


@pytest.mark.parametrize("name", sorted(EXCHANGES))
def test_files_are_of_the_exchange_that_is_meant(name: str, tmp_path: Path) -> None:
    exchange, feed, timing = EXCHANGES[name], feed_of(name), Timing()

    def root(rest_url: str | None) -> str | None:
        bulk = bulk_of(feed, exchange, rest_url, tmp_path, HostClock(), timing)
        return None if bulk is None else bulk.root

    if exchange.files_url is None:
        assert feed.archive is None
        assert root(None) is root("http://127.0.0.1:9") is None
        return
    assert root(None) == exchange.files_url
    assert root("http://127.0.0.1:9/") == "http://127.0.0.1:9"
    assert root("https://testnet.binance.vision") is None
    host = exchange.files_url.removeprefix("https://")
    assert host in exchange.hosts
    assert "/" not in host
