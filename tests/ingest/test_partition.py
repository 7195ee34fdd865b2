"""Which connection carries what: within the routes' limits, and without touching what is there."""

import asyncio
import itertools
import random

from ingest.budget import Budget
from ingest.clock import HostClock
from ingest.context import Context
from ingest.exchanges import okx
from ingest.feed import Rate, Subscription
from ingest.partition import Partition, Venue
from pipeline.frames import Frame, SubscriptionData
from pipeline.timeframes import SECOND
from simulator.server import serve
from tests.ingest.conftest import DEADLINE, QUICK, eventually


def partition(url: str = "ws://127.0.0.1:1/ws/v5") -> tuple[Partition, list[Frame]]:
    frames: list[Frame] = []
    context = Context(
        okx.Feed(), HostClock(), QUICK, frames.append, lambda each: SubscriptionData(*each, "requested"), lambda _: None
    )
    return Partition(Venue(url, itertools.count(1), Budget(Rate(50, SECOND)), random.random), context), frames


def books(*numbers: int) -> list[Subscription]:
    return [Subscription("books", f"C{number}-USDT") for number in numbers]


def test_connections_are_filled_to_their_limit_each_route_for_itself() -> None:
    part, _ = partition()
    trades = [Subscription("trades-all", f"C{number}-USDT") for number in range(30)]
    part.take([*books(*range(60)), *trades])
    shapes = [(one.plan.route.path, len(one.plan.subscriptions)) for one in part.connections]
    assert shapes == [("/public", 25), ("/public", 25), ("/public", 10), ("/business", 30)]
    taken = [each for one in part.connections for each in one.plan.subscriptions]
    assert sorted(taken) == sorted([*books(*range(60)), *trades])


def test_what_comes_later_fills_up_before_it_opens_more() -> None:
    part, _ = partition()
    part.take(books(*range(30)))
    part.take(books(*range(30, 33)))
    assert [len(one.plan.subscriptions) for one in part.connections] == [25, 8]
    part.take(books(*range(33, 60)))
    assert [len(one.plan.subscriptions) for one in part.connections] == [25, 25, 10]


async def test_connections_come_to_life_while_it_runs_and_the_others_are_left_alone() -> None:
    async with serve(rate=0, limits=50) as simulator:
        part, frames = partition(simulator.ws_url)
        part.take([Subscription("books", "BTC-USDT")])
        stop = asyncio.Event()
        task = asyncio.create_task(part.run(stop))

        async def settled() -> bool:
            return all(one.sessions and one.sessions[-1].settled.is_set() for one in part.connections)

        await eventually(settled)
        part.take([Subscription("trades-all", "BTC-USDT"), Subscription("books", "ETH-USDT")])
        assert len(part.connections) == 2

        async def subscribed() -> bool:
            ledgers = [one.sessions[-1].ledger.entries for one in part.connections if one.sessions]
            return [entry.state for entries in ledgers for entry in entries.values()] == ["subscribed"] * 3

        await eventually(subscribed)
        name = part.connections[0].sessions[0].name
        assert part.session(name) is part.connections[0].sessions[0]
        assert part.session("nobody") is None
        assert set(part.last_frames()) == {name, part.connections[1].sessions[0].name}
        stop.set()
        async with asyncio.timeout(DEADLINE):
            await task
    assert [frame.kind for frame in frames].count("open") == 2
