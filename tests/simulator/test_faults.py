"""Every fault over real sockets, and that each is written down."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed

from pipeline.errors import SettingsError
from simulator.faults import Name, fault_from, read_script
from simulator.server import Simulator, serve
from simulator.truth import read_faults, read_truth
from tests.simulator.clients import Client, Clock, client, get, trades, until


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with serve(rate=0, truth=tmp_path, clock=Clock(), limits=10) as running:
        yield running


@pytest.fixture
async def one(simulator: Simulator) -> AsyncIterator[Client]:
    async with client(simulator) as connected:
        await connected.subscribed("BTC-USDT", "ETH-USDT")
        yield connected


def inject(simulator: Simulator, fault: str, **details: object) -> None:
    simulator.inject(fault_from({"fault": fault, **details}))


def printed(simulator: Simulator, orders: int = 6, instrument: str = "BTC-USDT") -> list[int]:
    """Print single fills; gives their numbers."""
    return [order[0].sequence for order in simulator.print(instrument, orders, 1)]


async def received(one: Client) -> list[int]:
    return [int(row["tradeId"]) for row in trades(await one.fence())]


async def test_disconnect_cuts_all_or_one(simulator: Simulator, one: Client, tmp_path: Path) -> None:
    async with client(simulator) as other:
        await other.subscribed("BTC-USDT")
        first, second = (connection["id"] for connection in simulator.state()["connections"])
        inject(simulator, "disconnect", connection=second)
        assert await other.closed() == 1006
        assert await one.fence() == []
    inject(simulator, "disconnect")
    assert await one.closed() == 1006
    await until(lambda: simulator.state()["connections"] == [])
    assert [line["connection"] for line in read_faults(tmp_path)] == [second, None]
    with pytest.raises(SettingsError, match="no connection"):
        inject(simulator, "disconnect", connection=first)


async def test_disconnect_with_a_close_code(simulator: Simulator, one: Client) -> None:
    inject(simulator, "disconnect", code=4006)
    assert await one.closed() == 4006


async def test_half_open_says_nothing_any_more(simulator: Simulator, one: Client) -> None:
    inject(simulator, "half_open")
    async with client(simulator) as healthy:
        await healthy.subscribed("BTC-USDT")
        await one.send("ping")
        pong = asyncio.ensure_future(await one.ws.ping())
        printed(simulator)
        assert len(await received(healthy)) == 6
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.ws.recv(), 0.2)
        assert not pong.done()
        assert [connection["half_open"] for connection in simulator.state()["connections"]] == [True, False]
        one.ws.transport.abort()
        await until(lambda: len(simulator.state()["connections"]) == 1)
        with pytest.raises(ConnectionClosed):
            await pong


async def test_half_open_does_not_answer_a_close_either(simulator: Simulator, one: Client) -> None:
    inject(simulator, "half_open")
    await one.ws.close()
    assert one.ws.close_code == 1006
    await until(lambda: simulator.state()["connections"] == [])


async def test_a_slow_reader_is_sent_nothing_for_a_while_and_then_closed(simulator: Simulator, one: Client) -> None:
    async with client(simulator) as healthy:
        await healthy.subscribed("BTC-USDT")
        slow, _ = (connection["id"] for connection in simulator.state()["connections"])
        inject(simulator, "slow_reader", connection=slow, seconds=0.2)
        assert [connection["held"] for connection in simulator.state()["connections"]] == [True, False]
        await one.send("ping")
        printed(simulator)
        assert len(await received(healthy)) == 6
        with pytest.raises(ConnectionClosed):
            await one.text()
        assert one.ws.close_code == 4005
        await until(lambda: len(simulator.state()["connections"]) == 1)
        assert len(printed(simulator)) == len(await received(healthy))


async def test_clear_lets_a_slow_reader_have_what_waited(simulator: Simulator, one: Client) -> None:
    inject(simulator, "slow_reader", seconds=60)
    ids = printed(simulator)
    inject(simulator, "clear")
    assert await received(one) == ids
    assert not simulator.state()["connections"][0]["held"]


async def test_silence_after_ack(simulator: Simulator, one: Client) -> None:
    inject(simulator, "silence_after_ack", instrument="SOL-USDT")
    await one.subscribe("SOL-USDT", "DOGE-USDT")
    assert [json.loads(frame).get("event") for frame in await one.fence()] == ["subscribe", "subscribe", None]
    printed(simulator, 2, "SOL-USDT")
    live = printed(simulator, 2, "DOGE-USDT")
    assert await received(one) == live
    inject(simulator, "clear")
    await one.subscribed("SOL-USDT")
    live = printed(simulator, 2, "SOL-USDT")
    assert await received(one) == live


async def test_duplicate_sends_a_frame_twice(simulator: Simulator, one: Client, tmp_path: Path) -> None:
    inject(simulator, "duplicate", count=2)
    ids = printed(simulator)
    assert await received(one) == [ids[0], ids[0], ids[1], ids[1], *ids[2:]]
    assert [line["fault"] for line in read_faults(tmp_path)] == ["duplicate", "duplicate_done", "duplicate_done"]


async def test_drop_is_printed_and_served_but_not_pushed(simulator: Simulator, one: Client, tmp_path: Path) -> None:
    inject(simulator, "drop", instrument="BTC-USDT", count=3)
    others = printed(simulator, 2, "ETH-USDT")
    ids = printed(simulator)
    assert await received(one) == others + ids[3:]
    assert {fill.sequence for fill in read_truth(tmp_path) if fill.instrument == "BTC-USDT"} >= set(ids)
    _, page = await get(simulator, "market/history-trades", instId="BTC-USDT", after=ids[3], limit=3)
    assert [int(row["tradeId"]) for row in page["data"]] == ids[2::-1]
    done = [line for line in read_faults(tmp_path) if line["fault"] == "drop_done"]
    assert [(line["instrument"], line["ids"]) for line in done] == [("BTC-USDT", [number]) for number in ids[:3]]


async def test_a_fault_waits_for_a_frame_somebody_wants(simulator: Simulator, one: Client) -> None:
    inject(simulator, "drop")
    printed(simulator, 3, "SOL-USDT")
    ids = printed(simulator)
    assert await received(one) == ids[1:]


async def test_reorder_swaps_two_frames(simulator: Simulator, one: Client) -> None:
    inject(simulator, "reorder", instrument="BTC-USDT")
    ids = printed(simulator, 2)
    others = printed(simulator, 1, "ETH-USDT")
    assert await received(one) == [ids[1], ids[0], *others]


async def test_clear_lets_a_held_frame_go(simulator: Simulator, one: Client) -> None:
    inject(simulator, "reorder")
    inject(simulator, "drop")
    ids = printed(simulator, 1)
    assert await received(one) == []
    inject(simulator, "clear")
    assert await received(one) == ids
    ids = printed(simulator, 2)
    assert await received(one) == ids


async def test_malformed_frames_come_before_the_true_one(simulator: Simulator, one: Client) -> None:
    inject(simulator, "malformed", count=3)
    ids = printed(simulator, 4)
    broken, first, types, second, missing, *rest = await one.fence()
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken)
    assert isinstance(trades([types])[0]["px"], list)
    assert isinstance(trades([types])[0]["tradeId"], dict)
    assert "px" not in trades([missing])[0]
    assert [int(row["tradeId"]) for row in trades([first, second, *rest])] == ids


async def test_malformed_instead_of_the_true_one(simulator: Simulator, one: Client) -> None:
    inject(simulator, "malformed", variant="missing", instead=True)
    ids = printed(simulator, 2)
    wrong, right = trades(await one.fence())
    assert (int(wrong["tradeId"]), "px" in wrong, int(right["tradeId"])) == (ids[0], False, ids[1])


async def test_refused_symbol_is_listed_and_refused(simulator: Simulator, one: Client) -> None:
    inject(simulator, "refused_symbol", instrument="SOL-USDT")
    await one.subscribe("SOL-USDT")
    assert (await one.take())["code"] == "60018"
    _, body = await get(simulator, "public/instruments", instType="SPOT")
    assert "SOL-USDT" in {row["instId"] for row in body["data"]}


async def test_relisting_restarts_ids_with_a_new_listing_time(
    simulator: Simulator, one: Client, tmp_path: Path
) -> None:
    printed(simulator, 2)
    _, before = await get(simulator, "public/instruments", instType="SPOT", instId="BTC-USDT")
    inject(simulator, "relisting", instrument="BTC-USDT")
    printed(simulator, 3)
    assert (await received(one))[2:] == [1, 2, 3]
    _, after = await get(simulator, "public/instruments", instType="SPOT", instId="BTC-USDT")
    assert int(after["data"][0]["listTime"]) > int(before["data"][0]["listTime"])
    truth = [(fill.epoch, fill.sequence) for fill in read_truth(tmp_path) if fill.instrument == "BTC-USDT"]
    assert truth[-3:] == [(1, 1), (1, 2), (1, 3)]
    assert {epoch for epoch, _ in truth[:-3]} == {0}
    _, page = await get(simulator, "market/history-trades", instId="BTC-USDT")
    assert [row["tradeId"] for row in page["data"]] == ["3", "2", "1"]


async def test_notice_then_close(simulator: Simulator, one: Client) -> None:
    inject(simulator, "notice", seconds=0.05)
    notice = await one.take()
    assert (notice["event"], notice["code"]) == ("notice", "64008")
    assert await one.closed() == 1001


async def test_book_reset_lowers_the_numbers_and_the_chain_holds(simulator: Simulator, tmp_path: Path) -> None:
    async with client(simulator, "public") as one:
        await one.subscribe("BTC-USDT", channel="books")
        (snapshot,) = trades((await one.fence())[1:])
        inject(simulator, "book_reset", instrument="BTC-USDT")
        simulator.stir("BTC-USDT", 50)
        simulator.paused = True
        simulator.turn()
        (update,) = trades(await one.fence())
        assert update["prevSeqId"] == snapshot["seqId"] > update["seqId"]
    asked, done = read_faults(tmp_path)
    assert (asked["fault"], done["fault"], done["instrument"]) == ("book_reset", "book_reset_done", "BTC-USDT")


def test_every_fault_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    assert [name for name in get_args(Name) if f"| `{name}`" not in text and f", `{name}`" not in text] == []


@pytest.mark.parametrize(
    "given",
    [
        {"fault": "nonsense"},
        {"fault": "book_gap", "channel": 5},
        {"fault": "book_crossed", "seconds": -1},
        {"fault": "drop", "cuont": 3},
        {"fault": "drop", "count": 0},
        {"fault": "drop", "count": "3"},
        {"fault": "relisting"},
        {"fault": "notice", "seconds": -1},
        {"fault": "malformed", "variant": "odd"},
        {},
        [],
    ],
)
def test_wrong_faults_are_refused(given: object) -> None:
    with pytest.raises(SettingsError):
        fault_from(given)


SCRIPT = [
    {"at": 0.5, "fault": "drop", "count": 3},
    {"at": 0.9, "fault": "duplicate", "instrument": "BTC-USDT", "count": 2},
    {"at": 1.3, "fault": "relisting", "instrument": "ETH-USDT"},
    {"at": 1.7, "fault": "skew", "seconds": 0.5},
    {"at": 2.6, "fault": "jump", "instrument": "BTC-USDT", "count": 5},
    {"at": 2.6, "fault": "malformed", "count": 4},
    {"at": 3.1, "fault": "clear"},
]


async def performed(folder: Path, steps: list[float], seed: int = 5) -> tuple[list[object], list[object]]:
    """(what was printed, what the faults hit) of one run of the script, its time cut into these steps (s)."""
    clock = Clock()
    faults = [fault_from(line) for line in SCRIPT]
    async with serve(rate=200, seed=seed, truth=folder, clock=clock, faults=faults) as simulator:
        async with client(simulator) as one:
            await one.subscribed("BTC-USDT", "ETH-USDT")
            for step in steps:
                clock.pass_(step)
                await until(lambda: simulator.market._time >= simulator._reading())
                await one.fence()
        start = simulator.market.start
    printed: list[object] = [
        (fill.instrument, fill.epoch, fill.sequence, fill.price, fill.time - start) for fill in read_truth(folder)
    ]
    return printed, [(line["fault"], line.get("instrument"), line.get("ids")) for line in read_faults(folder)]


async def test_the_same_seed_and_script_are_the_same_run_however_time_is_sliced(tmp_path: Path) -> None:
    fine = await performed(tmp_path / "fine", [0.05] * 80)
    coarse = await performed(tmp_path / "coarse", [0.65, 1.0, 0.05, 1.9, 0.4])
    assert len(fine[0]) > 500
    assert {"drop_done", "duplicate_done", "malformed_done"} <= {line[0] for line in fine[1]}  # type: ignore[index]
    assert fine == coarse
    assert fine != await performed(tmp_path / "other", [0.65, 1.0, 0.05, 1.9, 0.4], seed=6)


async def test_the_same_requests_to_the_control_endpoint_are_the_same_run(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        async with (
            serve(rate=0, seed=5, truth=tmp_path / name, clock=Clock()) as simulator,
            client(simulator) as connected,
            aiohttp.ClientSession() as session,
        ):
            await connected.subscribed("BTC-USDT", "ETH-USDT")
            for line in SCRIPT:
                wanted = {key: value for key, value in line.items() if key != "at"}
                for asked in (*({"print": 7, "instrument": one} for one in ("BTC-USDT", "ETH-USDT")), wanted):
                    async with session.post(simulator.control_url, json=asked) as answer:
                        assert answer.status == 200
                    await connected.fence()
        told = [(line["fault"], line.get("ids")) for line in read_faults(tmp_path / name)]
        runs.append((list(read_truth(tmp_path / name)), told))
    assert len(runs[0][0]) > 90
    assert runs[0] == runs[1]


def test_script_is_read_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    path.write_text('{"at": 5, "fault": "disconnect"}\n\n{"at": 1.5, "fault": "drop", "count": 2}\n')
    assert [(fault.at, fault.fault) for fault in read_script(path)] == [(1.5, "drop"), (5, "disconnect")]
    path.write_text('{"at": 5, "fault": "disconnect"}\n{"at":\n')
    with pytest.raises(SettingsError, match="line 2"):
        read_script(path)
