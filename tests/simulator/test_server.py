"""The server over real sockets: lossless delivery against the truth log, limits, slow readers, control."""

import asyncio
import json
import random
import socket
from pathlib import Path

import aiohttp
import pytest
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pipeline.errors import SettingsError
from simulator.faults import fault_from
from simulator.listings import listings
from simulator.market import Market
from simulator.server import Simulator, serve
from simulator.truth import read_connections, read_faults, read_header, read_truth
from tests.simulator.clients import PATIENCE, Client, Clock, client, trades, until

ALL = [listing.symbol.replace("-PERP", "-SWAP") for listing in listings(5)]


async def test_truth_log_is_what_a_lossless_client_received(tmp_path: Path) -> None:
    async with serve(rate=3_000, symbols=5, truth=tmp_path) as simulator, client(simulator) as one:
        await one.subscribe(*ALL)
        frames: list[str] = []
        while len(frames) < 3000:
            frames.append(await one.text())
        simulator.paused = True
        simulator.turn()
        frames += await one.fence()
        printed = simulator.state()["printed"]
    truth = list(read_truth(tmp_path))
    assert len(truth) == printed
    received: dict[str, dict[int, tuple[str, ...]]] = {instrument: {} for instrument in ALL}
    for row in trades(frames):
        number, values = int(row["tradeId"]), (row["px"], row["sz"], row["side"], row["ts"])
        assert received[row["instId"]].setdefault(number, values) == values
    for instrument, got in received.items():
        true = {
            fill.sequence: (fill.price, fill.size, fill.side, str(fill.time // 1_000_000))
            for fill in truth
            if fill.instrument == instrument
        }
        assert got == {number: true[number] for number in range(min(got), max(true) + 1)}


async def test_truth_log_says_what_made_it_and_is_never_written_over(tmp_path: Path) -> None:
    clock = Clock()
    async with serve(rate=0, seed=9, truth=tmp_path, clock=clock) as simulator:
        simulator.print("BTC-USDT", 1, 2)
        told = simulator.state()
    header, truth = read_header(tmp_path), list(read_truth(tmp_path))
    assert (header.exchange, header.seed, header.start) == ("okx", 9, clock.now)
    assert [fill.time >= header.start - 1_000_000 for fill in truth].count(True) == 2
    assert (told["printed"], told["history"]) == (len(truth), len(truth) - 2)
    with pytest.raises(SettingsError, match="already holds a truth log"):
        async with serve(rate=0, truth=tmp_path):
            pass


async def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    async with serve(rate=0, truth=tmp_path):
        pass
    whole = len(list(read_truth(tmp_path)))
    with (tmp_path / "truth.jsonl").open("a") as file:
        file.write('{"exchange":"okx","instr')
    assert len(list(read_truth(tmp_path))) == whole


async def test_connections_are_logged_with_what_they_were_subscribed_to(tmp_path: Path) -> None:
    async with serve(rate=0, truth=tmp_path) as simulator:
        async with client(simulator) as one:
            await one.subscribed("ETH-USDT", "BTC-USDT")
        await until(lambda: simulator.state()["connections"] == [])
    changes = read_connections(tmp_path)
    both = ("BTC-USDT", "ETH-USDT")
    assert [change.event for change in changes if change.event != "subscribed"] == ["opened", "closed"]
    opened, closed = changes[0], changes[-1]
    assert (opened.path, opened.instruments, closed.instruments) == ("/ws/v5/business", (), both)
    assert sorted(name for change in changes[1:-1] for name in change.instruments) == list(both)
    assert {change.connection for change in changes} == {opened.connection}
    assert [change.time for change in changes] == sorted(change.time for change in changes)


async def test_same_seed_same_market_over_the_wire(tmp_path: Path) -> None:
    logs = []
    for name in ("a", "b"):
        clock = Clock()
        async with serve(rate=200, seed=5, truth=tmp_path / name, clock=clock) as simulator:
            for _ in range(20):
                clock.pass_(0.2 if name == "a" else 0.1)
                simulator.turn()
            if name == "b":
                clock.pass_(2)
                simulator.turn()
        logs.append(list(read_truth(tmp_path / name)))
    assert logs[0] == logs[1]
    plain = Market(random.Random(5), listings(), Clock().now, 200)
    assert len(logs[0]) == 33 + sum(map(len, plain.advance(Clock().now + 4 * 10**9)))


async def test_replay_then_live_without_a_hole() -> None:
    async with serve(rate=0) as simulator, client(simulator) as one:
        (replayed,) = await one.subscribed("QUIET-USDT")
        simulator.print("QUIET-USDT", 3, 1)
        rows = trades(await one.fence())
    assert [int(row["tradeId"]) for row in rows] == [int(replayed) + number for number in (1, 2, 3)]


async def test_unsubscribed_instruments_are_silent() -> None:
    async with serve(rate=0) as simulator, client(simulator) as one:
        await one.subscribed("BTC-USDT", "ETH-USDT")
        await one.subscribe("BTC-USDT", op="unsubscribe")
        assert (await one.take())["event"] == "unsubscribe"
        simulator.print("BTC-USDT")
        simulator.print("ETH-USDT", 1, 1)
        rows = trades(await one.fence())
    assert [row["instId"] for row in rows] == ["ETH-USDT"]


async def test_merged_trades_and_bars_reach_their_subscribers() -> None:
    async with serve(rate=0) as simulator, client(simulator, "public") as public, client(simulator) as business:
        await public.subscribed("BTC-USDT-SWAP", channel="trades")
        await business.subscribe("BTC-USDT-SWAP", channel="candle1m")
        assert (await business.take())["event"] == "subscribe"
        assert len((await business.take())["data"]) == 1
        ((*_, last),) = simulator.print("BTC-USDT-SWAP", 1, 5)
        covered = sum(int(row["count"]) for row in trades(await public.fence()))
        # A bar is pushed once a second, changed or not.
        async with asyncio.timeout(PATIENCE):
            while (await business.take())["data"][0][4] != last.price:
                continue
    assert covered == 5


async def test_broken_protocol_gets_errors_and_the_connection_lives() -> None:
    async with serve(rate=0) as simulator, client(simulator) as one:
        await one.send("no json")
        assert (await one.take())["code"] == "60012"
        await one.ws.send(b"\xff\xfe")
        assert (await one.take())["code"] == "60012"
        await one.subscribe("NOPE-USDT")
        assert (await one.take())["code"] == "60018"
        async with asyncio.timeout(PATIENCE):
            await (await one.ws.ping())


async def test_args_over_64_kilobytes_are_closed_1009() -> None:
    async with serve(rate=0) as simulator, client(simulator) as one:
        await one.subscribe(*["BTC-USDT"] * 2000)
        assert await one.closed() == 1009


async def test_no_subscription_for_30_s_is_closed_4004() -> None:
    clock = Clock()
    async with serve(rate=0, clock=clock) as simulator, client(simulator) as idle, client(simulator) as kept:
        await kept.subscribed("BTC-USDT")
        clock.pass_(29)
        await kept.fence()
        clock.pass_(1.5)
        assert await idle.closed() == 4004
        assert await kept.fence() == []


async def test_481_requests_in_an_hour_are_too_many() -> None:
    async with serve(rate=0, clock=Clock()) as simulator, client(simulator) as one:
        for _ in range(481):
            await one.subscribe("BTC-USDT")
        answers = [json.loads(frame) for frame in await one.fence()]
    assert [answer.get("code") for answer in answers if "event" in answer] == [None] * 480 + ["60014"]


async def test_fourth_connection_in_a_second_gets_429() -> None:
    clock = Clock()
    async with serve(rate=0, clock=clock) as simulator:
        for _ in range(3):
            async with client(simulator) as one:
                await one.fence()
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{simulator.ws_url}/business")
        assert refused.value.response.status_code == 429
        clock.pass_(1)
        async with client(simulator) as one:
            await one.fence()


async def test_unknown_path_is_404() -> None:
    async with serve(rate=0) as simulator:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{simulator.ws_url}/nothing")
        assert refused.value.response.status_code == 404


def narrow(simulator: Simulator) -> socket.socket:
    """A connected socket that takes in little that is not read."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = simulator.ws_url.removeprefix("ws://").split("/")[0].split(":")
    raw.connect((host, int(port)))
    raw.setblocking(False)
    return raw


async def test_slow_reader_is_closed_4005_and_others_get_everything() -> None:
    async with serve(rate=0, queued=300) as simulator, client(simulator) as quick:
        await quick.subscribed("BTC-USDT")
        async with client(simulator, sock=narrow(simulator), max_queue=1) as slow:
            await slow.subscribe("BTC-USDT")
            await until(lambda: simulator.state()["connections"][1]["subscriptions"] == 1)
            printed, received = 0, 0
            while simulator.state()["connections"][1]["closing"] is None:
                simulator.print("BTC-USDT", 100, 1)
                printed += 100
                received += len(trades(await quick.fence()))
            assert await slow.drained() == 4005
        assert received == printed
        simulator.print("BTC-USDT", 1, 1)
        assert len(trades(await quick.fence())) == 1


async def test_pause_stops_the_market_and_state_counts() -> None:
    clock = Clock()
    async with (
        serve(rate=100, clock=clock) as simulator,
        client(simulator) as one,
        aiohttp.ClientSession() as session,
    ):

        async def control(**asked: object) -> tuple[int, dict[str, object]]:
            async with session.post(simulator.control_url, json=asked) as answer:
                return answer.status, await answer.json()

        await one.subscribed("QUIET-USDT")
        clock.pass_(2)
        assert (await control(pause=True))[0] == 200
        before = simulator.state()["printed"]
        clock.pass_(2)
        simulator.turn()
        async with session.get(f"{simulator.control_url}/state") as answer:
            state = await answer.json()
        assert state["paused"]
        assert state["printed"] == before == sum(pit["printed"] for pit in state["per_instrument"].values())
        assert [connection["subscriptions"] for connection in state["connections"]] == [1]
        assert (await control(print=3, instrument="SOL-USDT"))[0] == 200
        assert simulator.state()["printed"] > before
        assert (await control(pause=False))[0] == 200
        assert not simulator.paused
        for wrong in ({}, {"fault": "nonsense"}, {"fault": "drop", "instrument": "NOPE"}, {"pause": 1}):
            status, body = await control(**wrong)
            assert status == 400
            assert body["error"]
        async with session.post(simulator.control_url, data="[") as answer:
            assert answer.status == 400


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "example.com"])
async def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(SettingsError, match="loopback"):
        async with serve(host=host):
            pass


async def test_port_in_use_is_said() -> None:
    async with serve(rate=0) as simulator:
        taken = int(simulator.rest_url.rsplit(":", 1)[1])
        with pytest.raises(SettingsError, match=f"port {taken}"):
            async with serve(rate=0, ws_port=taken):
                pass


async def test_what_breaks_the_market_breaks_the_context() -> None:
    def breaks() -> int:
        raise ZeroDivisionError

    async def breaking() -> None:
        async with serve(rate=0) as simulator:
            simulator.turn = breaks  # type: ignore[method-assign, assignment]
            await asyncio.sleep(PATIENCE)

    with pytest.raises(ZeroDivisionError):
        await breaking()


async def test_scripted_faults_are_checked_before_and_passed_over_when_they_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no instrument NOPE"):
        async with serve(rate=0, faults=[fault_from({"at": 9, "fault": "drop", "instrument": "NOPE"})]):
            pass
    script = [fault_from({"fault": "disconnect", "connection": "gone"}), fault_from({"fault": "drop"})]
    async with serve(rate=0, truth=tmp_path, faults=script):
        await until(lambda: len(read_faults(tmp_path)) == 2)
    assert [line["fault"] for line in read_faults(tmp_path)] == ["disconnect_refused", "drop"]


async def test_scripted_faults_happen_at_their_time(tmp_path: Path) -> None:
    script = [fault_from({"at": 0.05, "fault": "jump", "instrument": "BTC-USDT", "count": 9})]
    async with serve(rate=0, truth=tmp_path, faults=script) as simulator:
        expected = simulator.market.pits["BTC-USDT"].sequence + 9
        await until(lambda: simulator.market.pits["BTC-USDT"].sequence == expected)
    (line,) = read_faults(tmp_path)
    assert (line["fault"], line["instrument"], line["count"]) == ("jump", "BTC-USDT", 9)


def test_runs_on_uvloop_too() -> None:
    async def scenario() -> tuple[int, int | None]:
        async with serve(rate=0) as simulator, client(simulator) as one:
            await one.subscribed("BTC-USDT")
            simulator.print("BTC-USDT", 5, 1)
            rows = trades(await one.fence())
            simulator.inject(fault_from({"fault": "disconnect"}))
            return len(rows), await one.closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) == (5, 1006)


async def test_no_task_or_socket_outlives_the_context() -> None:
    before = asyncio.all_tasks()
    async with serve(rate=50) as simulator:
        ws = await connect(f"{simulator.ws_url}/business", compression=None)
        await Client(ws).subscribed("BTC-USDT")
    assert await Client(ws).drained() == 1006
    await ws.wait_closed()
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert {task for task in left if "websockets" not in repr(task.get_coro())} == set()
