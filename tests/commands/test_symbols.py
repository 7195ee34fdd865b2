"""`pipeline symbols`: from a real Redis, from the simulator's REST, and from neither."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_client

from pipeline.exchanges import EXCHANGES
from pipeline.records import Instrument, Market, encode
from pipeline.streams import Keys
from simulator.server import serve
from tests.commands.conftest import Instance
from tests.servers import RedisServer, free_port

NOW = 1_763_719_200_000_000_000


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_client.Redis.from_url(redis_server.url) as connection:
        yield connection


def know(client: Any, name: str, symbol: str, market: Market = "spot", status: str = "live", part: str = "okx") -> None:
    record = Instrument(
        exchange="okx",
        market=market,
        symbol=symbol,
        instrument=name,
        time=None,
        received=NOW,
        base=symbol.split("-", maxsplit=1)[0],
        quote="USDT",
        status=status,
        tick_size="0.1",
        lot_size="0.00001",
    )
    client.hset(Keys("md", part).last("instrument"), name, encode(record))


@pytest.fixture
def known(client: Any) -> None:
    know(client, "BTC-USDT", "BTC-USDT")
    know(client, "ETH-USDT", "ETH-USDT")
    know(client, "LUNA-USDT", "LUNA-USDT", status="suspend")
    know(client, "BTC-USDT-SWAP", "BTC-USDT-PERP", "perpetual")


def found(instance: Instance, *arguments: str) -> list[str]:
    result = instance.run("symbols", "okx", *arguments, "--json")
    assert result.exit_code in (0, 1), result.output
    return [row["symbol"] for row in json.loads(result.stdout)]


def nowhere(instance: Instance) -> None:
    """The exchange's REST is a port nobody listens on."""
    url = f"http://127.0.0.1:{free_port()}"
    pairs = [{"symbol": "BTC-USDT"}]
    instance.write(
        exchanges={name: {"trading_pairs": pairs, "rest_url": url} for name in EXCHANGES},
        simulated=True,
        redis={"namespace": "sim"},
    )


@pytest.mark.usefixtures("known")
def test_what_a_running_pipeline_knows(instance: Instance) -> None:
    assert found(instance) == ["BTC-USDT", "BTC-USDT-PERP", "ETH-USDT"]
    assert found(instance, "--all") == ["BTC-USDT", "BTC-USDT-PERP", "ETH-USDT", "LUNA-USDT"]
    assert found(instance, "btc-*") == ["BTC-USDT", "BTC-USDT-PERP"]
    assert found(instance, "*-swap") == ["BTC-USDT-PERP"]
    assert found(instance, "--market", "spot") == ["BTC-USDT", "ETH-USDT"]
    result = instance.run("symbols", "okx")
    assert "BTC-USDT-PERP  BTC-USDT-SWAP  perpetual  live     0.1  0.00001" in result.stdout
    assert "the running pipeline (namespace md)" in result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_all_partitions_are_one_list(instance: Instance, client: Any) -> None:
    instance.write(exchanges={"okx": {"trading_pairs": [{"symbol": "BTC-USDT"}], "partitions": 2}})
    know(client, "BTC-USDT", "BTC-USDT", part="okx.0")
    for part in ("okx.0", "okx.1"):
        know(client, "ETH-USDT", "ETH-USDT", part=part)
    assert found(instance) == ["BTC-USDT", "ETH-USDT"]


def test_json_has_every_field_of_the_record(instance: Instance, client: Any) -> None:
    know(client, "BTC-USDT", "BTC-USDT")
    (row,) = json.loads(instance.run("symbols", "okx", "--json").stdout)
    assert set(row) == set(Instrument.__struct_fields__)
    assert row["expiry"] is None


def test_neither_redis_nor_exchange_is_3(away: Instance) -> None:
    nowhere(away)
    result = away.run("symbols", "okx")
    assert result.exit_code == 3
    assert result.stderr.startswith("pipeline: no list of instruments of okx: Redis does not answer")
    assert "127.0.0.1" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("known")
def test_an_unknown_exchange_is_2(instance: Instance) -> None:
    result = instance.run("symbols", "okk")
    assert result.exit_code == 2
    assert "did you mean 'okx'?" in result.stderr


@pytest.fixture(scope="module", params=list(EXCHANGES))
def venue(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(exchange, REST URL) of a simulator in a thread of its own: the command has a loop of its own too."""
    loop, stop, urls = asyncio.new_event_loop(), asyncio.Event(), list[str]()
    begun = threading.Event()

    async def run() -> None:
        async with serve(exchange=request.param, rate=0) as simulator:
            urls.append(simulator.rest_url)
            begun.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert begun.wait(30)
        yield request.param, urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def test_an_exchange_that_is_asked(away: Instance, venue: tuple[str, str]) -> None:
    name, url = venue
    away.write(
        exchanges={name: {"trading_pairs": [{"symbol": "BTC-USDT"}], "rest_url": url}},
        simulated=True,
        redis={"namespace": "sim"},
    )
    result = away.run("symbols", name, "--json")
    assert result.exit_code == 0, result.output
    rows = {row["symbol"]: row for row in json.loads(result.stdout)}
    assert rows["BTC-USDT"]["base"] == "BTC"
    assert {row["status"] for row in rows.values()} == {EXCHANGES[name].traded}, "the word the exchange uses"
    everything = json.loads(away.run("symbols", name, "--all", "--json").stdout)
    assert len(everything) >= len(rows)
    one = away.run("symbols", name, "btc-usdt")
    assert [line.split()[0] for line in one.stdout.splitlines()] == ["SYMBOL", "BTC-USDT"]
    assert url in one.stderr
    none = away.run("symbols", name, "BTC")
    assert none.exit_code == 1
    assert "try '*BTC*'" in none.stdout


@pytest.mark.usefixtures("known")
def test_what_the_pipeline_does_not_know_is_asked_for(instance: Instance, venue: tuple[str, str]) -> None:
    name, url = venue
    instance.write(
        exchanges={name: {"trading_pairs": [{"symbol": "BTC-USDT"}], "rest_url": url}},
        simulated=True,
        redis={"namespace": "sim"},
    )
    result = instance.run("symbols", name, "ETH-USDT")
    assert (result.exit_code, url in result.stderr) == (0, True)
