"""REST against the simulator: allowances, refusals for now and for good, answers that are none."""

import asyncio
import gzip
import random
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import web

from ingest.clock import ExchangeClock, HostClock
from ingest.exchanges.okx import Feed
from ingest.feed import Rate, Refused, Request
from ingest.polling import ClockPoll, Listings
from ingest.rest import Rest
from pipeline.errors import ExchangeError
from pipeline.frames import Frame
from pipeline.timeframes import HOUR, SECOND
from simulator.faults import Fault
from simulator.server import Simulator, serve
from tests.ingest.conftest import DEADLINE, QUICK, MuteServer, eventually

SPOT = Request("/api/v5/public/instruments?instType=SPOT", "instruments SPOT")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with serve(rate=0, limits=1) as simulator:
        yield simulator


class Attentive(Feed):
    """Remembers what the exchange refused."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Refused] = []

    def fault(self, status: int, body: str) -> Refused | None:
        found = super().fault(status, body)
        self.faults += [found] if found else []
        return found


def rest(url: str, feed: Feed | None = None) -> Rest:
    return Rest(url, feed or Feed(), HostClock(), QUICK, random.Random(1).random)


async def test_an_answer_comes_with_its_address_and_its_times(simulator: Simulator) -> None:
    async with rest(simulator.rest_url) as client:
        answer = await client.get(SPOT)
    assert answer.url == simulator.rest_url + SPOT.path
    assert '"instId":"BTC-USDT"' in answer.body
    assert answer.sent < answer.received


async def test_the_allowance_is_kept(simulator: Simulator) -> None:
    feed, period = Feed(), SECOND // 5
    feed.allowances = {**feed.allowances, "instruments SPOT": Rate(3, period)}
    async with rest(simulator.rest_url, feed) as client:
        answers = await asyncio.gather(*(client.get(SPOT) for _ in range(8)))
    sent = sorted(answer.sent for answer in answers)
    assert all(later - earlier >= period for earlier, later in zip(sent, sent[3:], strict=False))


async def test_too_many_requests_are_tried_again_later(simulator: Simulator) -> None:
    """Our count of the allowance is wrong here: the exchange refuses with 50011, and gets what it wants, time."""
    feed = Attentive()
    feed.allowances = {**feed.allowances, "instruments SPOT": Rate(1_000, SECOND)}
    async with rest(simulator.rest_url, feed) as client:
        answers = await asyncio.gather(*(client.get(SPOT) for _ in range(22)), return_exceptions=True)
    assert feed.faults
    assert all(fault.temporary for fault in feed.faults)
    assert sum(not isinstance(answer, BaseException) for answer in answers) >= 20
    assert all(isinstance(answer, ExchangeError) for answer in answers if isinstance(answer, BaseException))


async def test_a_refusal_for_good_is_not_tried_again(simulator: Simulator) -> None:
    async with rest(simulator.rest_url) as client:
        with pytest.raises(ExchangeError, match=r"instType=NONE.*code 5"):
            await client.get(Request("/api/v5/public/instruments?instType=NONE", "instruments SPOT"))


async def test_an_exchange_that_is_not_there_is_its_fault() -> None:
    async with rest("http://127.0.0.1:1") as client:
        with pytest.raises(ExchangeError, match=r"127\.0\.0\.1:1"):
            await client.get(SPOT)


async def test_an_answer_that_never_comes_ends_in_an_error() -> None:
    timing = msgspec.structs.replace(QUICK, rest_timeout=SECOND // 5)
    async with MuteServer().running() as server:
        url = f"http://127.0.0.1:{server.port}"
        async with Rest(url, Feed(), HostClock(), timing, random.random) as client:
            with pytest.raises(ExchangeError):
                await client.get(SPOT)


async def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed a thousandfold, so that no length told beforehand gives it away."""
    monkeypatch.setattr("ingest.rest.MOST_BYTES", 1024 * 1024)

    async def bomb(_: web.Request) -> web.Response:
        body = gzip.compress(bytes(8 * 1024 * 1024))
        return web.Response(body=body, headers={"Content-Encoding": "gzip"}, content_type="application/json")

    app = web.Application()
    app.router.add_get("/{path:.*}", bomb)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with rest(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            with pytest.raises(ExchangeError, match="more than 1048576 bytes"):
                await client.get(SPOT)
    finally:
        await runner.cleanup()


async def test_who_stops_waiting_leaves_no_trace_in_the_allowance(simulator: Simulator) -> None:
    feed = Feed()
    feed.allowances = {**feed.allowances, "instruments SPOT": Rate(1, HOUR)}
    async with rest(simulator.rest_url, feed) as client:
        await client.get(SPOT)
        waiting = [asyncio.create_task(client.get(SPOT)) for _ in range(3)]

        async def queued() -> bool:
            return client.rows()["instruments SPOT"]["used"] == 4

        await eventually(queued)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert client.rows()["instruments SPOT"]["used"] == 1


async def test_lists_are_repeated_and_failed_ones_tried_until_they_come(simulator: Simulator) -> None:
    frames: list[Frame] = []
    reports: list[str] = []
    simulator.inject(Fault(fault="rest_error", status=400, code=51000))
    timing = msgspec.structs.replace(QUICK, listings=SECOND // 5)
    async with rest(simulator.rest_url) as client:
        requests = Feed().listings(["BTC-USDT", "BTC-USDT-SWAP"])
        heard: list[tuple[Request, int]] = []
        listings = Listings(
            Feed(),
            requests,
            client,
            HostClock(),
            frames.append,
            lambda request, lines: heard.append((request, len(lines))),
            reports.append,
            timing,
        )
        task = asyncio.create_task(listings.run())

        async def failed() -> bool:
            return len(reports) >= 2

        await eventually(failed)
        assert not frames
        assert not listings.complete.is_set()
        simulator.inject(Fault(fault="clear"))
        async with asyncio.timeout(DEADLINE):
            await listings.complete.wait()

        async def repeated() -> bool:
            return len(frames) >= 6

        await eventually(repeated)
        task.cancel()
    assert {request for request, _ in heard} == set(requests)
    assert all(count > 0 for _, count in heard)
    assert {frame.url for frame in frames} == {simulator.rest_url + request.path for request in requests}
    assert {(frame.kind, frame.conn) for frame in frames} == {("rest", simulator.rest_url)}


async def test_the_clock_is_measured_again_after_failures() -> None:
    reports: list[str] = []
    shift = 3 * HOUR
    async with serve(rate=0, clock=lambda: HostClock().now() + shift) as simulator:
        simulator.inject(Fault(fault="rest_error", status=400, code=51000))
        async with rest(simulator.rest_url) as client:
            host = HostClock()
            exchange = ExchangeClock(host, Feed.clock_step)
            poll = ClockPoll(Feed(), client, exchange, host, reports.append, QUICK)
            task = asyncio.create_task(poll.run())

            async def failed() -> bool:
                return bool(reports)

            await eventually(failed)
            assert exchange.reading() == (None, 0)
            simulator.inject(Fault(fault="clear"))

            async def measured() -> bool:
                return exchange.reading()[0] is not None

            await eventually(measured)
            task.cancel()
    offset, uncertainty = exchange.reading()
    assert offset is not None
    assert abs(offset - shift) <= uncertainty
