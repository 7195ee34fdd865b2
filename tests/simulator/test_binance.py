"""Binance over real sockets: framing, limits, what ends a connection, and a strict book across everything."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from simulator.faults import fault_from
from simulator.server import Simulator, serve
from simulator.truth import read_connections, read_faults, read_truth
from tests.simulator.clients import Client, Clock, until
from tests.simulator.venues import VENUES, BinanceBook, fetch

VENUE = VENUES["binance"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(clock: Clock, tmp_path: Path) -> AsyncIterator[Simulator]:
    async with serve(exchange="binance", rate=0, clock=clock, limits=100, truth=tmp_path) as running:
        yield running


def open_at(simulator: Simulator, path: str) -> connect:
    return connect(f"{simulator.ws_url}{path}", compression=None, close_timeout=1)


def inject(simulator: Simulator, fault: str, **details: object) -> None:
    simulator.inject(fault_from({"fault": fault, **details}))


async def answered(client: Client, method: str, *params: object) -> Any:
    """The result of a request; no data may come before it."""
    await client.send({"method": method, "params": params, "id": 1})
    answer = await client.take()
    assert answer["id"] == 1
    return answer["result"]


async def test_each_connection_has_its_own_framing(simulator: Simulator) -> None:
    async with (
        open_at(simulator, "/ws/btcusdt@trade") as ws,
        open_at(simulator, "/stream?streams=btcusdt@trade") as ws2,
    ):
        raw, combined = Client(ws), Client(ws2)
        await until(lambda: sum(one["subscriptions"] for one in simulator.state()["connections"]) == 2)
        simulator.print("BTCUSDT", 1, 1)
        plain, wrapped = await raw.take(), await combined.take()
        assert wrapped == {"stream": "btcusdt@trade", "data": plain}
        assert plain["e"] == "trade"
        assert await answered(raw, "SET_PROPERTY", "combined", True) is None
        assert await answered(combined, "SET_PROPERTY", "combined", False) is None
        simulator.print("BTCUSDT", 1, 1)
        assert (await raw.take())["data"] == await combined.take()
        assert await answered(raw, "LIST_SUBSCRIPTIONS") == ["btcusdt@trade"]


async def test_a_url_beyond_8_kilobytes_fails_and_a_batch_does_not(simulator: Simulator) -> None:
    streams = [f"nope{number:04d}@trade" for number in range(600)]
    with pytest.raises(InvalidHandshake):
        await open_at(simulator, "/stream?streams=" + "/".join(streams))
    async with open_at(simulator, "/stream") as ws:
        assert await answered(Client(ws), "SUBSCRIBE", *streams) is None
        assert len(await answered(Client(ws), "LIST_SUBSCRIPTIONS")) == 600


async def test_too_many_messages_close_1008() -> None:
    async with serve(exchange="binance", rate=0, clock=Clock()) as simulator:
        async with open_at(simulator, "/ws") as ws:
            client = Client(ws)
            for _ in range(5):
                assert await answered(client, "LIST_SUBSCRIPTIONS") == []
            await client.send({"method": "LIST_SUBSCRIPTIONS", "id": 6})
            assert await client.closed() == 1008
            assert ws.close_reason == "Too many requests"
        async with open_at(simulator, "/ws") as ws:
            # Pings of ours are answered, and count.
            for _ in range(6):
                await ws.ping()
            assert await Client(ws).drained() == 1008


async def test_301_connections_in_5_minutes_are_too_many() -> None:
    clock = Clock()
    async with serve(exchange="binance", rate=0, clock=clock) as simulator:
        for _ in range(300):
            assert simulator.dialect.connect("127.0.0.1", clock.now)
        with pytest.raises(InvalidStatus) as refused:
            await open_at(simulator, "/ws")
        assert refused.value.response.status_code == 429
        clock.pass_(300)
        async with open_at(simulator, "/ws") as ws:
            assert await answered(Client(ws), "LIST_SUBSCRIPTIONS") == []


async def test_a_client_that_pongs_lives_for_24_hours_and_no_longer(simulator: Simulator, clock: Clock) -> None:
    async with open_at(simulator, "/ws") as ws:
        client = Client(ws)
        for _ in range(10):
            clock.pass_(20)
            simulator.turn()
            assert await answered(client, "LIST_SUBSCRIPTIONS") == []
        inject(simulator, "lifetime", seconds=300)
        simulator.turn()
        assert await answered(client, "LIST_SUBSCRIPTIONS") == []
        clock.pass_(100)
        assert await client.closed() == 1001
    async with open_at(simulator, "/ws") as ws:
        inject(simulator, "clear")
        clock.pass_(24 * 3600)
        assert await Client(ws).closed() == 1001


async def test_a_planned_shutdown_is_announced_in_each_framing(simulator: Simulator) -> None:
    async with open_at(simulator, "/ws") as ws, open_at(simulator, "/stream") as ws2:
        raw, combined = Client(ws), Client(ws2)
        await until(lambda: len(simulator.state()["connections"]) == 2)
        inject(simulator, "notice", seconds=0)
        told = await raw.take()
        assert told["e"] == "serverShutdown"
        assert await combined.take() == {"stream": "!serverShutdown", "data": told}
        assert await raw.closed() == await combined.closed() == 1001


async def test_nothing_old_is_sent_after_subscribing(simulator: Simulator) -> None:
    async with open_at(simulator, "/stream") as ws:
        client = Client(ws)
        assert await answered(client, "SUBSCRIBE", "btcusdt@trade", "btcusdt@aggTrade", "btcusdt@depth@100ms") is None
        simulator.turn()
        assert await VENUE.fence(client) == []
        ((fill,),) = simulator.print("BTCUSDT", 1, 1)
        trade, aggregate = (json.loads(frame)["data"] for frame in await VENUE.fence(client))
        assert (trade["t"], aggregate["f"], aggregate["l"]) == (fill.sequence,) * 3


async def test_truth_and_connections_carry_binance_s_names(simulator: Simulator, tmp_path: Path) -> None:
    async with open_at(simulator, "/ws/btcusdt@aggTrade/ethusdt@depth"):
        await until(lambda: len(simulator.state()["connections"]) == 1)
    await until(lambda: simulator.state()["connections"] == [])
    assert {fill.instrument for fill in read_truth(tmp_path)} == {
        "BTCUSDT",
        "ETHUSDT",
        "SOLUSDT",
        "DOGEUSDT",
        "QUIETUSDT",
    }
    opened, subscribed, closed = read_connections(tmp_path)
    assert opened.path == "/ws/btcusdt@aggTrade/ethusdt@depth"
    assert (opened.event, subscribed.event, closed.event) == ("opened", "subscribed", "closed")
    assert subscribed.instruments == closed.instruments == ("BTCUSDT",)
    assert subscribed.topics == closed.topics == (("aggTrade", "BTCUSDT"), ("depth", "ETHUSDT"))


async def test_trade_faults_hit_trades_of_either_channel(simulator: Simulator, tmp_path: Path) -> None:
    async with open_at(simulator, "/stream?streams=btcusdt@trade/btcusdt@aggTrade") as ws:
        client = Client(ws)
        await VENUE.fence(client)
        inject(simulator, "drop", instrument="BTCUSDT", channel="aggTrade", count=2)
        inject(simulator, "malformed", instrument="BTCUSDT", channel="trade", variant="types")
        simulator.print("BTCUSDT", 3, 1)
        events = [json.loads(frame)["data"] for frame in await VENUE.fence(client)]
    assert [event["e"] for event in events] == ["trade", "trade", "trade", "trade", "aggTrade"]
    assert isinstance(events[0]["p"], dict)
    assert events[0]["t"] == events[1]["t"]
    assert [line["fault"] for line in read_faults(tmp_path)][2:] == ["malformed_done", "drop_done", "drop_done"]


async def depth(simulator: Simulator, limit: int = 5000) -> Any:
    status, body, _ = await fetch(simulator, f"/api/v3/depth?symbol=BTCUSDT&limit={limit}")
    assert status == 200
    return body


async def same(simulator: Simulator, book: BinanceBook) -> None:
    _, body, _ = await fetch(simulator, "/control/books")
    shown = body["books"]["BTCUSDT"]
    sides = tuple([(Decimal(price), Decimal(size)) for price, size in shown[side]] for side in ("bids", "asks"))
    assert book.broken is None
    assert (book.number, *book.sides) == (shown["version"], *sides)


async def test_a_strict_book_survives_gaps_and_a_stale_snapshot(simulator: Simulator, clock: Clock) -> None:
    """binance.md 5.2 step by step: buffer, ask, refuse what is too old, join, apply, restart at a gap."""
    book = BinanceBook()
    refused = 0
    async with open_at(simulator, "/stream?streams=btcusdt@depth@100ms") as ws:
        client = Client(ws)

        async def advance(steps: int = 1) -> None:
            for _ in range(steps):
                simulator.stir("BTCUSDT", 7)
                simulator.print("BTCUSDT", 1)
                clock.pass_(0.05)
                simulator.turn()
            VENUE.follow(book, await VENUE.fence(client))

        inject(simulator, "book_stale", instrument="BTCUSDT", seconds=2)
        await advance(6)
        stale = (await depth(simulator))["lastUpdateId"]
        book.waiting.clear()
        await advance(6)
        # The snapshot is from before the first event that was kept: it must not be joined, however often it comes.
        for _ in range(5):
            snapshot = await depth(simulator)
            assert snapshot["lastUpdateId"] == stale < book.waiting[0]["U"] - 1
            assert not book.join(snapshot)
            refused += 1
        for round_ in range(12):
            if round_:
                inject(simulator, "book_gap", instrument="BTCUSDT", count=1 + round_ % 2)
                await advance(8)
                assert book.broken
            while not book.join(await depth(simulator)):
                refused += 1
                await advance(1 + round_ % 3)
            await advance(5)
            clock.pass_(1)
            await advance()
            await same(simulator, book)
    assert refused > 5


async def test_joins_at_any_moment_give_the_book(simulator: Simulator, clock: Clock) -> None:
    """Whatever REST's lag and the phase of the pushes: border, inside of an event, or not yet."""
    kinds = set()
    for phase in range(24):
        async with open_at(simulator, "/ws/btcusdt@depth@100ms") as ws:
            client, book = Client(ws), BinanceBook()
            await answered(client, "LIST_SUBSCRIPTIONS")
            for step in range(40):
                simulator.stir("BTCUSDT", 3)
                clock.pass_(0.013 * (1 + phase % 5))
                simulator.turn()
                await client.send({"method": "LIST_SUBSCRIPTIONS", "id": step})
                while "result" not in (event := await client.take()):
                    book.take(event)
                if book.number is None and step > phase % 7:
                    snapshot, waiting = await depth(simulator), list(book.waiting)
                    if not book.join(snapshot):
                        kinds.add("too old")
                        continue
                    last = snapshot["lastUpdateId"]
                    inside = any(event["U"] <= last < event["u"] for event in waiting)
                    ahead = last > waiting[-1]["u"]
                    kinds.add("inside" if inside else "ahead" if ahead else "border")
            simulator.paused = True
            simulator.turn()
            simulator.paused = False
            await client.send({"method": "LIST_SUBSCRIPTIONS", "id": "end"})
            while "result" not in (event := await client.take()):
                book.take(event)
            await same(simulator, book)
    assert kinds == {"too old", "inside", "ahead", "border"}


async def test_several_symbols_at_speed_lose_nothing() -> None:
    """A running market: trades contiguous and klines, quotes and books of one and the same numbering."""
    async with (
        serve(exchange="binance", rate=2000, symbols=3) as simulator,
        open_at(simulator, "/stream") as ws,
        asyncio.timeout(30),
    ):
        client = Client(ws)
        names = [name.lower() for name in (await fetch(simulator, "/control/books"))[1]["books"]]
        channels = ("trade", "depth@100ms", "bookTicker")
        await client.send(
            {"method": "SUBSCRIBE", "params": [f"{name}@{kind}" for name in names for kind in channels], "id": 1}
        )
        last: dict[tuple[str, str], int] = {}
        count = 0
        while count < 4000:
            message = await client.take()
            if "result" in message:
                continue
            name, _, kind = message["stream"].partition("@")
            event, before = message["data"], last.get((name, kind))
            first = {"trade": event.get("t"), "depth@100ms": event.get("U"), "bookTicker": event.get("u")}[kind]
            assert before is None or (first > before if kind == "bookTicker" else first == before + 1)
            last[name, kind] = event["u"] if kind == "depth@100ms" else first
            count += 1
    assert {kind for _, kind in last} == set(channels)
