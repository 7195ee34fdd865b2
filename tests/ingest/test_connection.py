"""Connections against the simulator over real sockets, under every fault it knows of connections."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_socket
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ingest.budget import Budget
from ingest.clock import HostClock
from ingest.connection import Connection
from ingest.context import Context
from ingest.exchanges.binance import Feed as Binance
from ingest.exchanges.okx import Feed
from ingest.feed import Feed as AnyFeed
from ingest.feed import Keepalive, Plan, Rate, Subscription
from ingest.timing import MILLISECOND, Timing
from pipeline.frames import Frame, SubscriptionData
from pipeline.timeframes import HOUR, MINUTE, SECOND
from simulator.faults import Fault
from simulator.server import Simulator, serve
from tests.ingest.conftest import DEADLINE, HASTY, QUICK, MuteServer, eventually
from tests.proxy import TcpProxy
from tests.servers import free_port


@pytest.fixture
async def simulator_of_okx() -> AsyncIterator[Simulator]:
    """Grants what OKX grants: 3 connections a second."""
    async with serve(rate=0, limits=1) as simulator:
        yield simulator


async def silent(socket: ServerConnection) -> None:
    await socket.wait_closed()


BTC, ETH = "BTC-USDT", "ETH-USDT"
SWIFT = msgspec.structs.replace(QUICK, patience=100 * MILLISECOND)
SUBSCRIPTIONS = tuple(Subscription("trades-all", instrument) for instrument in (BTC, ETH))


class Fixture:
    """One connection kept up to `url`, with its frames and reports in lists."""

    def __init__(
        self,
        url: str,
        timing: Timing = QUICK,
        wanted: tuple[Subscription, ...] = SUBSCRIPTIONS,
        feed: AnyFeed | None = None,
        connects: Budget | None = None,
    ) -> None:
        self.frames: list[Frame] = []
        self.reports: list[str] = []
        self.stop = asyncio.Event()
        self.clock = HostClock()
        feed = feed or Feed()
        context = Context(feed, self.clock, timing, self.frames.append, self._describe, self.reports.append)
        plan = Plan(feed.route(wanted[0]), wanted)
        self.connects = connects or Budget(Rate(50, SECOND))
        self.connection = Connection(
            url + plan.route.path, plan, context, itertools.count(1), self.connects, random.Random(1).random
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Fixture"]:
        task = asyncio.create_task(self.connection.run(self.stop))
        try:
            yield self
            self.stop.set()
            async with asyncio.timeout(DEADLINE):
                await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def settled(self, number: int = 1) -> None:
        """Returns when the `number`-th connection is up and all its subscriptions are answered."""
        await self.until(lambda: self.connection.opened >= number and bool(self.connection.sessions))
        async with asyncio.timeout(DEADLINE):
            await self.connection.sessions[-1].settled.wait()

    async def until(self, condition: Callable[[], object]) -> None:
        async def holds() -> bool:
            return bool(condition())

        await eventually(holds)

    def kinds(self, number: int) -> list[str]:
        """Kinds of the frames of the `number`-th connection."""
        return [frame.kind for frame in self.of(number)]

    def of(self, number: int) -> list[Frame]:
        return [frame for frame in self.frames if frame.conn.endswith(f"#{number}")]

    def ids(self, instrument: str, number: int | None = None) -> list[int]:
        """Trade ids received of an instrument, in order of arrival."""
        return [
            int(row["tradeId"])
            for frame in (self.frames if number is None else self.of(number))
            if frame.kind == "ws" and frame.dir == "in" and '"data":' in frame.data and f'"{instrument}"' in frame.data
            for row in json.loads(frame.data)["data"]
        ]

    def states(self, number: int) -> list[tuple[str, str]]:
        data = [msgspec.json.decode(f.data, type=SubscriptionData) for f in self.of(number) if f.kind == "subscription"]
        return [(one.instrument, one.state) for one in data]

    def reason(self, number: int) -> str:
        (end,) = [frame for frame in self.of(number) if frame.kind == "close"]
        return str(json.loads(end.data)["reason"])

    @staticmethod
    def _describe(subscription: Subscription) -> SubscriptionData:
        return SubscriptionData(subscription.channel, subscription.instrument, "requested")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Prints only what the test asks for; its allowances are wide."""
    async with serve(rate=0, limits=50) as simulator:
        yield simulator


def tradeid(simulator: Simulator, instrument: str) -> int:
    return int(simulator.state()["per_instrument"][instrument]["next"]) - 1


async def test_a_connection_begins_subscribes_and_ends_in_frames(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url).running() as fixture:
        await fixture.settled()
        first = tradeid(simulator, BTC)
        simulator.print(BTC, 30)
        await fixture.until(lambda: len(fixture.ids(BTC)) > 30)
    kinds = fixture.kinds(1)
    assert kinds[:4] == ["open", "subscription", "subscription", "ws"]
    assert kinds.count("open") == kinds.count("close") == 1
    assert kinds[-1] == "close"
    out = [frame for frame in fixture.frames if frame.dir == "out"]
    assert len(out) == 1, "one request for all"
    assert fixture.states(1) == [(BTC, "requested"), (ETH, "requested"), (BTC, "subscribed"), (ETH, "subscribed")]
    assert fixture.reason(1) == "stopped"
    assert fixture.ids(BTC) == list(range(first, tradeid(simulator, BTC) + 1)), "the last known one, then each new one"
    times = [frame.ts or 0 for frame in fixture.frames]
    assert times == sorted(times)
    assert fixture.reports == []


async def test_what_was_sent_before_the_end_is_read_to_the_end(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url).running() as fixture:
        await fixture.settled()
        simulator.print(BTC, 500)
        simulator.inject(Fault(fault="disconnect", code=4005))
        await fixture.settled(2)
    assert fixture.ids(BTC, 1)[-1] == tradeid(simulator, BTC)
    assert fixture.reason(1).startswith("4005")


async def test_a_cut_connection_comes_back_subscribed(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url).running() as fixture:
        await fixture.settled()
        for number in (2, 3, 4):
            simulator.inject(Fault(fault="disconnect"))
            await fixture.settled(number)
        simulator.print(ETH, 3)
        last = tradeid(simulator, ETH)
        await fixture.until(lambda: last in fixture.ids(ETH, 4))
    assert [fixture.reason(number) for number in (1, 2, 3, 4)] == ["1006", "1006", "1006", "stopped"]
    assert len(fixture.reports) == 3
    assert all("#" in report and "1006" in report for report in fixture.reports)


async def test_a_half_open_connection_is_found_by_the_keepalive(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url, HASTY).running() as fixture:
        await fixture.settled()
        simulator.inject(Fault(fault="half_open"))
        await fixture.settled(2)
        simulator.print(BTC, 3)
        last = tradeid(simulator, BTC)
        await fixture.until(lambda: last in fixture.ids(BTC, 2))
    assert fixture.reason(1) == "half-open"


async def test_a_quiet_connection_proves_itself_by_pongs_which_are_no_data(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url).running() as fixture:
        await fixture.settled()
        session = fixture.connection.sessions[-1]
        before = session.last_frame
        await fixture.until(lambda: session.pongs >= 3)
        assert session.last_frame > before
        assert fixture.connection.opened == 1
    assert not [frame for frame in fixture.frames if frame.data in ("ping", "pong")]


async def test_keepalive_by_websocket_pings_where_the_venue_has_no_own(simulator: Simulator) -> None:
    feed = Feed()
    feed.keepalive = Keepalive(None, SECOND, SECOND)
    async with Fixture(simulator.ws_url, HASTY, feed=feed).running() as fixture:
        await fixture.settled()
        session = fixture.connection.sessions[-1]
        before = session.last_frame
        await fixture.until(lambda: session.pongs >= 2)
        assert session.last_frame > before
        simulator.inject(Fault(fault="half_open"))
        await fixture.settled(2)
    assert fixture.reason(1) == "half-open"


@pytest.mark.parametrize("whole_request", [False, True], ids=["the rest is acknowledged", "the rest is not answered"])
async def test_a_refused_symbol_is_told_and_the_others_go_on(simulator: Simulator, whole_request: bool) -> None:
    simulator.inject(Fault(fault="refused_symbol", instrument=ETH, whole_request=whole_request))
    async with Fixture(simulator.ws_url).running() as fixture:
        await fixture.settled()
        simulator.print(BTC, 3)
        last = tradeid(simulator, BTC)
        await fixture.until(lambda: last in fixture.ids(BTC))
        assert fixture.connection.opened == 1
    states = fixture.states(1)
    assert states.count((ETH, "refused")) == 1
    assert states.count((BTC, "subscribed")) == 1
    assert any("60018" in report and ETH in report for report in fixture.reports)
    requests = [json.loads(frame.data)["args"] for frame in fixture.frames if frame.dir == "out"]
    assert [arg["instId"] for arg in requests[-1]] == ([BTC] if whole_request else [BTC, ETH])
    assert fixture.ids(ETH) == []


async def test_silence_after_the_acknowledgement_proves_nothing_and_is_mended(simulator: Simulator) -> None:
    timing = msgspec.structs.replace(QUICK, mute=150 * MILLISECOND)
    simulator.inject(Fault(fault="silence_after_ack"))
    async with Fixture(simulator.ws_url, timing).running() as fixture:
        await fixture.settled()
        assert not fixture.connection.sessions[-1].proven.is_set()
        await fixture.until(lambda: fixture.connection.opened >= 2)
        assert sum(frame.dir == "out" for frame in fixture.of(1)) >= 2, "asked again before it is given up"
        simulator.inject(Fault(fault="clear"))
        simulator.print(BTC, 1)
        last = tradeid(simulator, BTC)
        await fixture.until(lambda: last in fixture.ids(BTC))
        await fixture.until(lambda: "close" in fixture.kinds(1))
    assert fixture.reason(1) == "replaced: silent"


async def test_a_notice_makes_the_new_connection_before_the_old_one_breaks(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url).running() as fixture:
        await fixture.settled()
        first = tradeid(simulator, BTC)
        simulator.inject(Fault(fault="notice", seconds=DEADLINE))

        async def print_until_replaced() -> None:
            while "close" not in fixture.kinds(1):
                simulator.print(BTC, 2)
                simulator.print(ETH, 1)
                await asyncio.sleep(0.005)

        async with asyncio.timeout(DEADLINE):
            await print_until_replaced()
        simulator.print(BTC, 2)
        last = tradeid(simulator, BTC)
        await fixture.until(lambda: last in fixture.ids(BTC, 2))
    assert fixture.reason(1).startswith("replaced: 64008")
    order = [(frame.kind, frame.conn[-2:]) for frame in fixture.frames if frame.kind in ("open", "close")]
    assert order == [("open", "#1"), ("open", "#2"), ("close", "#1"), ("close", "#2")]
    old, new = fixture.ids(BTC, 1), fixture.ids(BTC, 2)
    assert old == list(range(first, old[-1] + 1))
    assert new == list(range(new[0], last + 1))
    assert new[0] <= old[-1], "the two overlap"
    assert fixture.reports == []


async def test_notices_without_end_are_answered_ever_more_slowly() -> None:
    """An exchange that closes for an hour says so to each new connection."""

    async def closing(socket: ServerConnection) -> None:
        async for text in socket:
            if text == "ping":
                await socket.send("pong")
                continue
            request = json.loads(text)
            for arg in request["args"]:
                await socket.send(json.dumps({"id": request["id"], "event": "subscribe", "arg": arg}))
            await socket.send('{"event":"notice","code":"64008","msg":"closing soon"}')

    timing = msgspec.structs.replace(QUICK, first_delay=HOUR, most_delay=HOUR, stable=HOUR, overlap=HOUR)
    async with serve_socket(closing, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/v5"
        async with Fixture(url, timing).running() as fixture:
            await fixture.until(lambda: fixture.connection.attempts)
            session = fixture.connection.sessions[-1]
            await fixture.until(lambda: session.pongs >= 3)
            assert fixture.connection.opened == 1, "the next one is tried after a pause"
            assert fixture.connection.sessions == [session], "and what is there serves on"


async def test_an_old_connection_that_breaks_first_is_no_loss_of_the_new_one(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url).running() as fixture:
        await fixture.settled()
        simulator.inject(Fault(fault="notice", seconds=0))
        await fixture.settled(2)
        simulator.print(BTC, 1)
        last = tradeid(simulator, BTC)
        await fixture.until(lambda: last in fixture.ids(BTC, 2))
        assert fixture.connection.opened == 2


async def test_connecting_never_gives_up_and_tells_how_often_it_failed() -> None:
    port = free_port()
    async with Fixture(f"ws://127.0.0.1:{port}/ws/v5", SWIFT).running() as fixture:
        await fixture.until(lambda: fixture.connection.attempts >= 8)
        assert len(fixture.reports) >= 8
        async with serve(rate=0, ws_port=port, limits=50):
            await fixture.settled()
            await fixture.until(lambda: fixture.connection.attempts == 0)


async def test_connects_that_are_held_up_on_their_way_do_not_arrive_as_too_many(
    simulator_of_okx: Simulator, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    """The exchange counts what arrives: whose handshake has not ended may be counted still."""
    port = urlsplit(simulator_of_okx.ws_url).port or 0
    line = tcp_proxy(port)
    url = simulator_of_okx.ws_url.replace(str(port), str(line.port))
    connects = Budget(Rate(3, SECOND))
    fixtures = [Fixture(url, wanted=SUBSCRIPTIONS[:1], connects=connects) for _ in range(6)]
    line.stall()
    async with contextlib.AsyncExitStack() as stack:
        for fixture in fixtures:
            await stack.enter_async_context(fixture.running())
        await fixtures[0].until(lambda: line.connections >= 3)
        # Longer than the allowance's period: the next three would go, had the first been counted by then.
        await asyncio.sleep(1.5)
        line.resume()
        for fixture in fixtures:
            await fixture.settled()
    assert simulator_of_okx.state()["opened"] == len(fixtures)
    assert [report for fixture in fixtures for report in fixture.reports] == [], "none was turned away"


@pytest.mark.parametrize(
    ("status", "headers", "held"),
    [
        (429, {"Retry-After": "3600"}, HOUR),
        (418, {"Retry-After": "7200"}, 2 * HOUR),
        (418, {}, 2 * MINUTE),
    ],
)
async def test_a_refused_handshake_is_not_repeated_before_the_exchange_wants_it(
    status: int, headers: dict[str, str], held: int
) -> None:
    asked = 0

    def refuse(connection: ServerConnection, _: Request) -> Response:
        nonlocal asked
        asked += 1
        response = connection.respond(HTTPStatus(status), '{"code":-1003,"msg":"banned"}')
        response.headers.update(headers)
        return response

    async with serve_socket(silent, "127.0.0.1", 0, process_request=refuse) as server:
        wanted = (Subscription("trade", "BTCUSDT"),)
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Fixture(url, SWIFT, wanted, Binance()).running() as fixture:
            await fixture.until(lambda: fixture.reports)
            assert f"HTTP {status}" in fixture.reports[0]
            now = fixture.clock.monotonic()
            assert held - MINUTE < fixture.connects.row(now)["held"] <= held
            await fixture.until(lambda: fixture.connects.row(now)["used"] == 2)
    assert asked == 1


async def test_stop_ends_a_long_pause_at_once() -> None:
    timing = msgspec.structs.replace(QUICK, first_delay=HOUR, most_delay=HOUR)
    async with Fixture(f"ws://127.0.0.1:{free_port()}/ws/v5", timing).running() as fixture:
        await fixture.until(lambda: fixture.reports)


async def test_stop_ends_a_handshake_that_hangs() -> None:
    async with MuteServer().running() as server, Fixture(f"ws://127.0.0.1:{server.port}/ws/v5").running():
        async with asyncio.timeout(DEADLINE):
            await server.accepted.wait()


async def test_a_venue_that_answers_pings_but_no_request_is_connected_to_anew() -> None:
    async def answer(socket: ServerConnection) -> None:
        async for text in socket:
            if text == "ping":
                await socket.send("pong")

    async with serve_socket(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Fixture(f"ws://127.0.0.1:{port}/ws/v5", SWIFT).running() as fixture:
            await fixture.until(lambda: fixture.connection.opened >= 2)
            assert fixture.connection.attempts >= 1, "the next pause is a longer one"
            assert len(fixture.connection.sessions) <= 1
        assert fixture.reason(1) == "subscribe requests unanswered"
        assert sum(frame.dir == "out" for frame in fixture.of(1)) == 3, "asked again before it is given up"


async def test_malformed_frames_are_passed_on_as_they_came(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url).running() as fixture:
        await fixture.settled()
        simulator.inject(Fault(fault="malformed", count=6))
        simulator.print(BTC, 10)
        last = tradeid(simulator, BTC)

        def received() -> bool:
            return any(str(last) in frame.data for frame in fixture.frames)

        await fixture.until(received)
        assert fixture.connection.opened == 1


async def test_an_old_connection_is_replaced_before_the_exchange_ends_it(simulator: Simulator) -> None:
    timing = msgspec.structs.replace(QUICK, lifetime=SECOND)
    async with Fixture(simulator.ws_url, timing).running() as fixture:
        await fixture.settled()
        first = tradeid(simulator, BTC)

        async def print_until_replaced() -> None:
            while "close" not in fixture.kinds(1):
                simulator.print(BTC, 2)
                simulator.print(ETH, 1)
                await asyncio.sleep(0.005)

        async with asyncio.timeout(DEADLINE):
            await print_until_replaced()
    assert fixture.reason(1) == "replaced: planned"
    assert fixture.reports == []
    opened, closed = (
        next(frame.ts or 0 for frame in fixture.of(1) if frame.kind == kind) for kind in ("open", "close")
    )
    assert closed - opened >= SECOND * 23 // 24
    order = [(frame.kind, frame.conn[-2:]) for frame in fixture.frames if frame.kind in ("open", "close")]
    assert order[:3] == [("open", "#1"), ("open", "#2"), ("close", "#1")]
    old, new = fixture.ids(BTC, 1), fixture.ids(BTC, 2)
    assert old == list(range(first, old[-1] + 1))
    assert new[0] <= old[-1], "the two overlap"


async def test_what_is_added_later_goes_to_the_live_connection_and_to_its_successors(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url, wanted=SUBSCRIPTIONS[:1]).running() as fixture:
        await fixture.settled()
        fixture.connection.add(SUBSCRIPTIONS[1:])
        await fixture.until(lambda: (ETH, "subscribed") in fixture.states(1))
        assert fixture.connection.opened == 1
        simulator.inject(Fault(fault="disconnect"))
        await fixture.settled(2)
    assert fixture.states(1).count((BTC, "requested")) == 1
    assert {(BTC, "subscribed"), (ETH, "subscribed")} <= set(fixture.states(2))


async def test_pings_of_the_exchange_are_life() -> None:
    async def ping_only(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.ping()
                await asyncio.sleep(0.02)

    async with serve_socket(ping_only, "127.0.0.1", 0, ping_interval=None) as server:
        timing = msgspec.structs.replace(QUICK, patience=HOUR)
        feed = Feed()
        feed.keepalive = Keepalive(None, SECOND, SECOND)
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/v5"
        async with Fixture(url, timing, feed=feed).running() as fixture:
            await fixture.until(lambda: fixture.connection.opened)
            session = fixture.connection.sessions[-1]
            opened = session.opened or 0
            await fixture.until(lambda: session.last_frame - opened > 2 * (timing.silence or 0))
            assert session.pings == 0, "nobody had to ask"
            assert session.frames == 0
