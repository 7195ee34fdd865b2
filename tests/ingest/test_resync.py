"""One order book asked for anew on a living connection, against both exchanges and one that does not answer."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from ingest.declined import Declined
from ingest.exchanges import binance, okx
from ingest.feed import Rate, Subscription
from ingest.requests import Requests
from ingest.session import Session
from ingest.timing import MILLISECOND
from pipeline.frames import RequestData
from pipeline.timeframes import HOUR, SECOND
from pipeline.wants import Want, resync_key
from simulator.faults import Fault
from simulator.server import Simulator, serve
from tests.ingest.conftest import DEADLINE, QUICK
from tests.ingest.stand import Stand
from tests.ingest.test_connection import Fixture
from tests.ingest.test_requests import Desk

BTC, ETH = Subscription("books", "BTC-USDT"), Subscription("books", "ETH-USDT")
SPOT = Subscription("depth@100ms", "BTCUSDT")
CALM = msgspec.structs.replace(QUICK, patience=5 * SECOND)
"""On a busy machine an answer takes its time."""


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with serve(rate=100, limits=50) as simulator:
        yield simulator


def actions(fixture: Fixture, subscription: Subscription, number: int) -> list[str]:
    """`snapshot`, `update` … of the book as they came, and its changes of state, on one connection."""
    found = []
    for frame in fixture.of(number):
        message = json.loads(frame.data) if frame.kind in ("ws", "subscription") else {}
        if frame.kind == "subscription" and (message["channel"], message["instrument"]) == subscription:
            found.append(message["state"])
        elif frame.dir == "in" and "action" in message and message["arg"]["instId"] == subscription.instrument:
            found.append(message["action"])
    return [action for action, _ in itertools.groupby(found)]


async def test_a_book_begins_afresh_and_nothing_else_is_touched(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url, CALM, (BTC, ETH)).running() as fixture:
        await fixture.settled()
        await fixture.until(lambda: "update" in actions(fixture, BTC, 1))
        async with asyncio.timeout(DEADLINE):
            await fixture.connection.sessions[-1].resync(BTC)
        await fixture.until(lambda: actions(fixture, BTC, 1).count("update") == 2)
        assert fixture.connection.opened == 1
    begun = ["requested", "subscribed", "snapshot", "update"]
    assert actions(fixture, BTC, 1) == [*begun, "unsubscribed", *begun]
    assert actions(fixture, ETH, 1) == begun
    assert fixture.reports == []


async def test_the_want_goes_to_the_connection_it_names_and_is_answered(simulator: Simulator) -> None:
    simulator.inject(Fault(fault="refused_symbol", instrument="ETH-USDT"))
    async with (
        Fixture(simulator.ws_url, CALM, (BTC, ETH)).running() as fixture,
        Desk(simulator.rest_url).running() as desk,
    ):
        await fixture.settled()
        session = fixture.connection.sessions[-1]
        desk.context = msgspec.structs.replace(desk.context, feed=okx.Feed(), clock=fixture.clock)
        desk.requests = Requests(desk.rest, desk.context, {session.name: session}.get, desk.repairs)
        task = asyncio.create_task(desk.requests.run())
        key = resync_key("BTC-USDT", session.name)
        mine = Want(
            what="resync",
            instrument="BTC-USDT",
            number=1,
            since=fixture.clock.now(),
            reason="gap",
            connection=session.name,
        )
        older = msgspec.structs.replace(mine, since=1)
        wrong = msgspec.structs.replace(mine, instrument="LTC-USDT")
        refused = msgspec.structs.replace(mine, instrument="ETH-USDT")
        desk.requests.take({key: mine, "older": older, "wrong": wrong, "refused": refused})
        await desk.until(lambda: len(desk.frames) == 8)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    told = [msgspec.json.decode(frame.data, type=RequestData) for frame in desk.frames]
    ends = {each.key: (each.state, each.permanent, each.reason) for each in told if each.state != "asked"}
    assert ends == {
        key: ("answered", False, None),
        "older": ("refused", True, "the connection is gone"),
        "wrong": ("refused", True, "no order book of it is subscribed there"),
        "refused": ("refused", True, "no order book of it is subscribed there"),
    }
    assert {frame.conn for frame in desk.frames} == {session.name}
    assert actions(fixture, BTC, 1).count("unsubscribed") == 1


async def test_where_acknowledgements_name_only_requests_it_works_as_well() -> None:
    async with Stand().running() as stand:
        fixture = Fixture(stand.ws_url, CALM, (SPOT,), feed=binance.Feed())
        async with fixture.running():
            await fixture.settled()
            async with asyncio.timeout(DEADLINE):
                await fixture.connection.sessions[-1].resync(SPOT)
        assert [request["method"] for request in stand.said[0]] == ["SUBSCRIBE", "UNSUBSCRIBE", "SUBSCRIBE"]
    states = [state for _, state in fixture.states(1)]
    assert states == ["requested", "subscribed", "unsubscribed", "requested", "subscribed"]


async def test_without_answers_it_is_asked_for_again_all_the_same_and_refused_for_now() -> None:
    timing = msgspec.structs.replace(QUICK, patience=100 * MILLISECOND)
    async with (
        Stand().running() as stand,
        Fixture(stand.ws_url, timing, (SPOT,), binance.Feed()).running() as fixture,
    ):
        await fixture.settled()
        session = fixture.connection.sessions[-1]
        stand.mute = True
        with pytest.raises(Declined, match="not acknowledged") as refusal:
            await session.resync(SPOT)
        assert not refusal.value.permanent
        assert session.ledger.entries[SPOT].state == "requested"
        stand.mute = False
        await fixture.until(lambda: session.ledger.entries[SPOT].state == "subscribed")


async def test_a_connection_that_ends_under_way_is_gone_for_good() -> None:
    async with (
        Stand().running() as stand,
        Fixture(stand.ws_url, CALM, (SPOT,), feed=binance.Feed()).running() as fixture,
    ):
        await fixture.settled()
        session = fixture.connection.sessions[-1]
        stand.mute = True
        task = asyncio.create_task(session.resync(SPOT))
        await fixture.until(lambda: sum(frame.dir == "out" for frame in fixture.of(1)) == 2)
        await stand.sockets[0].close()
        with pytest.raises(Declined, match="gone") as refusal:
            await task
        assert refusal.value.permanent
        with pytest.raises(Declined, match="gone"):
            await session.resync(SPOT)
    assert [frame.kind for frame in fixture.of(1)][-1] == "close", "nothing is said of it after its end"


async def test_a_storm_of_resyncs_ends_in_a_new_connection_not_in_the_last_request(simulator: Simulator) -> None:
    feed = okx.Feed()
    feed.requests = Rate(12, HOUR)
    async with Fixture(simulator.ws_url, CALM, (BTC,), feed=feed).running() as fixture:
        await fixture.settled()
        session: Session = fixture.connection.sessions[-1]
        for _ in range(4):
            await session.resync(BTC)
        with pytest.raises(Declined, match="is replaced") as refusal:
            await session.resync(BTC)
        assert not refusal.value.permanent
        await fixture.settled(2)
        await fixture.until(lambda: "close" in fixture.kinds(1))
        await fixture.connection.sessions[-1].resync(BTC)
    assert fixture.reason(1) == "replaced: too many resyncs"
    assert sum(frame.dir == "out" for frame in fixture.of(1)) == 9


async def test_two_of_the_same_at_once_are_one(simulator: Simulator) -> None:
    async with Fixture(simulator.ws_url, CALM, (BTC,)).running() as fixture:
        await fixture.settled()
        session = fixture.connection.sessions[-1]
        done = await asyncio.gather(session.resync(BTC), session.resync(BTC), return_exceptions=True)
    assert [isinstance(each, Declined) for each in done] == [False, True]


async def test_a_moderate_rate_is_waited_for() -> None:
    feed = binance.Feed()
    feed.requests = Rate(2, SECOND // 5)
    names = [Subscription("depth@100ms", f"C{number}USDT") for number in range(4)]
    async with Stand().running() as stand:
        async with Fixture(stand.ws_url, CALM, tuple(names), feed=feed).running() as fixture:
            await fixture.settled()
            session = fixture.connection.sessions[-1]
            async with asyncio.timeout(DEADLINE):
                await asyncio.gather(*(session.resync(name) for name in names))
            assert fixture.connection.opened == 1
        assert stand.streams(1) == {f"c{number}usdt@depth@100ms" for number in range(4)}
