"""The bench's exchange: its frames are OKX's as our feed and mapper know them, numbered without a hole."""

from collections import defaultdict

import msgspec
import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame as SocketFrame
from websockets.protocol import State
from websockets.sync.client import connect
from websockets.uri import parse_uri

from bench.exchange import Exchange
from bench.tape import MOST_IN_CHUNK, Tape, frame_of, number, rounds_for
from ingest.exchanges.okx import Feed
from ingest.feed import Data, Subscription
from normalize.exchanges.okx import Mapper
from pipeline.errors import ServerAway
from pipeline.frames import Frame

NAMES = {0: "C000-USDT", 7: "C007-USDT"}
NOW = 1_767_268_800_123


def texts(wire: bytes) -> list[str]:
    """The messages of ready frames, as a WebSocket client reads them."""
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN)
    client.receive_data(wire)
    return [bytes(event.data).decode() for event in client.events_received() if isinstance(event, SocketFrame)]


def test_frames_are_trades_that_our_feed_and_mapper_read() -> None:
    tape = Tape(NAMES, rounds=10, seed=1)
    feed, mapper, numbers = Feed(), Mapper(), defaultdict(list)
    for chunk in (0, 1, 2):
        for text in texts(tape.print(chunk, NOW)):
            event = feed.classify(text)
            assert isinstance(event, Data)
            assert event.subscription is not None
            reading = mapper.read(Frame(NOW * 1_000_000, "c#1", "in", "ws", text), {})
            trade = reading.trades[0]
            assert trade.time == NOW * 1_000_000
            assert event.subscription == Subscription("trades-all", trade.instrument)
            numbers[trade.instrument].append(trade.sequence)
    for place, name in NAMES.items():
        first, last = number(place, 0, 0, 10), number(place, 2, 9, 10)
        assert numbers[name] == list(range(first, last + 1))


def test_single_frames_are_those_of_the_chunk() -> None:
    tape = Tape(NAMES, rounds=1, seed=1)
    assert b"".join(slot.print(9, NOW) for slot in tape.slots(9)) == tape.print(9, NOW)


def test_the_seed_decides() -> None:
    assert Tape(NAMES, 10, seed=1).print(0, NOW) == Tape(NAMES, 10, seed=1).print(0, NOW)
    assert Tape(NAMES, 10, seed=1).print(0, NOW) != Tape(NAMES, 10, seed=2).print(0, NOW)


@pytest.mark.parametrize("instruments", [1, 10, 40, 100, 500, 999])
def test_a_chunk_stays_small_and_the_rounds_a_power_of_ten(instruments: int) -> None:
    rounds = rounds_for(instruments)
    assert instruments * rounds <= MOST_IN_CHUNK
    assert set(str(rounds)[1:]) <= {"0"}


def test_a_frame_says_its_length() -> None:
    assert texts(frame_of(b"x" * 300)) == ["x" * 300]


def test_it_prints_what_it_says() -> None:
    with Exchange(2, seed=1) as exchange, connect(exchange.ws_url + "/business") as socket:
        asked = [{"channel": "trades-all", "instId": name} for name in exchange.names]
        socket.send(msgspec.json.encode({"id": "r1", "op": "subscribe", "args": asked}).decode())
        assert [msgspec.json.decode(socket.recv())["event"] for _ in asked] == ["subscribe", "subscribe"]
        socket.send("ping")
        assert socket.recv() == "pong"
        assert exchange.told().subscribed == 2
        exchange.print(200, rate=20_000)
        exchange.allow(10_000)
        printed: defaultdict[str, list[int]] = defaultdict(list)
        for _ in range(200):
            row = msgspec.json.decode(socket.recv())["data"][0]
            printed[row["instId"]].append(int(row["tradeId"]))
        told = exchange.told()
    assert told.numbers == {name: (numbers[0], numbers[-1]) for name, numbers in printed.items()}
    assert told.printed == 200
    assert all(told.sent_at.values())


def test_a_client_that_leaves_is_told_to_the_bench() -> None:
    with Exchange(1, seed=1) as exchange:
        with connect(exchange.ws_url) as socket:
            asked = [{"channel": "trades-all", "instId": exchange.names[0]}]
            socket.send(msgspec.json.encode({"id": "r1", "op": "subscribe", "args": asked}).decode())
            socket.recv()
            exchange.print(10_000_000, rate=1_000)
            socket.recv()
        with pytest.raises(ServerAway, match="broke"):
            until_told(exchange)


def until_told(exchange: Exchange) -> None:
    while exchange.told().printing:
        pass
