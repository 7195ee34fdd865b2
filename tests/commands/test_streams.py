"""`pipeline streams` and `pipeline tail` on a real Redis."""

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_client

from pipeline.records import KINDS, Clock, Coverage, DeadLetter, Instrument, Trade, encode
from pipeline.streams import Keys, index_key
from pipeline.timeframes import SECOND
from tests.commands.conftest import Instance
from tests.servers import RedisServer

KEYS = Keys("md", "okx")
NOW = 1_763_719_200_123_456_789


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_client.Redis.from_url(redis_server.url) as connection:
        yield connection


def trade(number: int, symbol: str = "BTC-USDT") -> Trade:
    return Trade(
        exchange="okx",
        market="spot",
        symbol=symbol,
        instrument=symbol,
        time=NOW + number,
        received=NOW + number,
        id=str(number),
        sequence=number,
        price="83725.9",
        size="0.01",
        side="buy",
    )


def add_trade(client: Any, number: int, symbol: str = "BTC-USDT", **where: Any) -> None:
    client.xadd(KEYS.trade, {"symbol": symbol, "data": encode(trade(number, symbol))}, **where)


def add_controls(client: Any) -> None:
    clock = Clock(exchange="okx", time=NOW, received=NOW)
    client.xadd(KEYS.trade, {"control": "clock", "data": encode(clock)})
    for symbol in ("BTC-USDT", "ETH-USDT"):
        coverage = Coverage(
            exchange="okx",
            market="spot",
            symbol=symbol,
            instrument=symbol,
            time=NOW,
            received=NOW,
            state="covered",
            cause="open",
        )
        client.xadd(KEYS.trade, {"control": "coverage", "data": encode(coverage)})


def sequences(output: str) -> list[int]:
    return [json.loads(line)["sequence"] for line in output.splitlines()]


def test_streams_shows_entries_readers_and_lag(instance: Instance, client: Any) -> None:
    for number in range(5):
        add_trade(client, number, id=f"{1000 + number}-0")
    client.xgroup_create(KEYS.trade, "aggregate", id="0")
    client.execute_command("XGROUP", "SETID", KEYS.trade, "aggregate", "1002-0", "ENTRIESREAD", 3)
    other = "md:trade:{kraken}"
    client.hset(index_key("md"), other, json.dumps({"kind": "trade", "exchange": "kraken", "partition": "kraken"}))
    client.xadd(other, {"symbol": "BTC-USD", "data": "{}"})
    rows = {row["key"]: row for row in json.loads(instance.run("streams", "--json").stdout)}
    assert set(rows) == {KEYS.trade, other}, "what does not exist is not listed"
    assert rows[KEYS.trade]["entries"] == 5
    assert rows[KEYS.trade]["bytes"] > 0
    assert rows[KEYS.trade]["newest"] == "1970-01-01T00:00:01.004000Z"
    (ours,) = rows[KEYS.trade]["groups"]
    assert ours == {
        "name": "aggregate",
        "outside": False,
        "lag": 2,
        "cursor": "1002-0",
        "pending": None,
        "held_bytes": None,
        "lost": None,
    }
    plain = instance.run("streams").stdout
    assert "aggregate 2" in plain
    assert max(map(len, plain.splitlines())) <= 80


def test_streams_and_status_show_groups_of_others(instance: Instance, client: Any) -> None:
    """The bot needs the last three fifths of what ours have read, and lost 12 entries; what it does with raw frames
    holds nothing."""
    for number in range(5):
        add_trade(client, number, id=f"{1000 + number}-0")
    for group in ("aggregate", "store"):
        client.xgroup_create(KEYS.trade, group, id="1004-0")
    client.xgroup_create(KEYS.trade, "bot", id="0")
    client.xreadgroup("bot", "c", {KEYS.trade: ">"}, count=3)
    client.xack(KEYS.trade, "bot", "1000-0")
    client.xadd(KEYS.raw, {"v": "1"})
    client.xgroup_create(KEYS.raw, "tap", id="0")
    record = {"stream": KEYS.trade, "group": "bot", "entries": 12, "exact": True, "after": "7-0", "to": "999-0"}
    now = time.time_ns()
    client.hset(KEYS.lost, f"{KEYS.trade} bot", json.dumps(record | {"since": now - 60 * SECOND, "time": now}))
    client.hset(KEYS.lost, f"{KEYS.trade} gone", "not of ours")
    rows = {row["key"]: row for row in json.loads(instance.run("streams", "--json").stdout)}
    bot = rows[KEYS.trade]["groups"][1]
    assert (bot["name"], bot["outside"], bot["lag"], bot["cursor"], bot["pending"]) == ("bot", True, 2, "1002-0", 2)
    assert bot["held_bytes"] == rows[KEYS.trade]["bytes"] * 3 // 4
    assert (bot["lost"]["entries"], bot["lost"]["exact"], bot["lost"]["to"]) == (12, True, "999-0")
    assert rows[KEYS.raw]["groups"][0]["held_bytes"] == 0
    assert "bot 2 (LOST 12)" in instance.run("streams").stdout
    document = json.loads(instance.run("status", "--json").stdout)
    assert [(row["name"], row["stream"]) for row in document["readers"]] == [("tap", KEYS.raw), ("bot", KEYS.trade)]
    assert document["readers"][1] == {"stream": KEYS.trade} | bot


def test_streams_of_an_empty_redis(instance: Instance) -> None:
    result = instance.run("streams")
    assert result.exit_code == 0
    assert "no streams in namespace md yet" in result.stdout


def test_tail_begins_with_the_last_ones(instance: Instance, client: Any) -> None:
    for number in range(15):
        add_trade(client, number)
    add_controls(client)
    assert sequences(instance.run("tail", "trade", "--no-follow", "--json").stdout) == list(range(5, 15))
    assert sequences(instance.run("tail", "trade", "--no-follow", "--json", "-n", "2").stdout) == [13, 14]
    assert instance.run("tail", "trade", "--no-follow", "-n", "0").stdout == ""


def test_tail_finds_a_symbol_behind_many_others(instance: Instance, client: Any) -> None:
    add_trade(client, 1, "ETH-USDT")
    with client.pipeline() as batch:
        for number in range(2, 1_502):
            batch.xadd(KEYS.trade, {"symbol": "BTC-USDT", "data": encode(trade(number))})
        batch.execute()
    result = instance.run("tail", "trade", "--no-follow", "--json", "--symbol", "eth-usdt")
    assert sequences(result.stdout) == [1]
    whole = instance.run("tail", "trade", "--no-follow", "--json", "--since", "1h")
    assert sequences(whole.stdout) == list(range(1, 1_502)), "pages join without a hole or a double"


def test_tail_since(instance: Instance, client: Any) -> None:
    now = int(time.time() * 1000)
    for number, age in enumerate((3_600_000, 700_000, 500_000, 1_000)):
        add_trade(client, number, id=f"{now - age}-0")
    assert sequences(instance.run("tail", "trade", "--no-follow", "--json", "--since", "10m").stdout) == [2, 3]


def test_tail_shows_controls_in_place(instance: Instance, client: Any) -> None:
    add_trade(client, 1)
    add_controls(client)
    assert "exchange time 2025-11-21 10:00:00.123" in instance.run("tail", "clock", "--no-follow").stdout
    covered = instance.run("tail", "coverage", "--no-follow").stdout
    assert "okx BTC-USDT covered (open)" in covered
    assert covered.count("\n") == 2
    assert instance.run("tail", "coverage", "--no-follow", "--symbol", "ETH-USDT").stdout.count("\n") == 1


def test_tail_of_a_record_without_a_time_of_its_own(instance: Instance, client: Any) -> None:
    record = Instrument(
        exchange="okx",
        market="spot",
        symbol="BTC-USDT",
        instrument="BTC-USDT",
        time=None,
        received=NOW,
        base="BTC",
        quote="USDT",
        status="live",
    )
    client.xadd(KEYS.stream("instrument"), {"symbol": "BTC-USDT", "data": encode(record)})
    shown = instance.run("tail", "instrument", "--no-follow").stdout
    assert shown == "2025-11-21 10:00:00.123 okx BTC-USDT spot live tick -\n"


def test_tail_of_dead_letters(instance: Instance, client: Any) -> None:
    letter = DeadLetter(
        exchange="okx",
        stage="normalize",
        reason="bad size",
        detail="",
        received=NOW,
        entry="1-0",
        frame='{"sz": "-1"}',
        length=12,
        sha256="0",
    )
    client.xadd(KEYS.dead, {"reason": letter.reason, "data": encode(letter)})
    assert 'bad size: {"sz": "-1"}' in instance.run("tail", "dead", "--no-follow").stdout


def add_record(client: Any, kind: str, **own: Any) -> None:
    shared: dict[str, Any] = {
        "exchange": "okx",
        "market": "spot",
        "symbol": "BTC-USDT",
        "instrument": "BTC-USDT",
        "time": NOW,
        "received": NOW,
    }
    record = KINDS[kind.partition(":")[0]](**shared | own)
    client.xadd(KEYS.stream(kind), {"symbol": "BTC-USDT", "data": encode(record)})


BAR = {"open": "1", "high": "4", "low": "0.5", "close": "2", "volume": "7", "open_time": NOW, "close_time": NOW + 1}


@pytest.mark.parametrize(
    ("kind", "own", "shown"),
    [
        ("quote", {"bid": "9.5", "bid_size": "2", "ask": "9.6", "ask_size": "3", "sequence": 7}, "2@9.5 | 3@9.6 #7"),
        ("quote", {"ask": "9.6", "ask_size": "3"}, "- | 3@9.6"),
        (
            "orderbook",
            {"bids": (("9", "1"), ("8", "2"), ("7", "3"), ("6", "4")), "asks": (("10", "5"),), "depth": 20},
            "3@7 2@8 1@9 | 5@10",
        ),
        (
            "orderbook",
            {"bids": (), "asks": (), "depth": 20, "valid": False, "reason": "gap", "snapshot_time": NOW},
            "INVALID (gap) - | - grid",
        ),
        ("ticker", {"last": "9", "high_24h": "12", "volume_24h": "1.5"}, "last 9 high 12 volume 1.5"),
        ("kline:1m", {**BAR, "timeframe": "1m"}, "1m O 1 H 4 L 0.5 C 2 V 7"),
        ("kline:1m", {**BAR, "timeframe": "1m", "trades_count": 3}, "1m O 1 H 4 L 0.5 C 2 V 7 n 3"),
    ],
)
def test_tail_prints_every_kind(instance: Instance, client: Any, kind: str, own: dict[str, Any], shown: str) -> None:
    add_record(client, kind, **own)
    result = instance.run("tail", kind, "--no-follow")
    assert result.stdout == f"2025-11-21 10:00:00.123 okx BTC-USDT {shown}\n"
    assert instance.run("tail", kind.partition(":")[0], "--no-follow").stdout == result.stdout
    assert json.loads(instance.run("tail", kind, "--no-follow", "--json").stdout)["symbol"] == "BTC-USDT"


def test_streams_shows_the_new_kinds(instance: Instance, client: Any) -> None:
    add_record(client, "quote", bid="1", bid_size="1")
    add_record(client, "kline:1m", **BAR, timeframe="1m")
    rows = {row["key"]: row["kind"] for row in json.loads(instance.run("streams", "--json").stdout)}
    assert rows == {"md:quote:{okx}": "quote", "md:kline:1m:{okx}": "kline:1m"}


def test_tail_merges_time_frames_by_time(instance: Instance, client: Any) -> None:
    for entry, frame in enumerate(("1m", "5m", "1m"), start=1):
        record = {"exchange": "okx", "symbol": "BTC-USDT", "instrument": "BTC-USDT", "timeframe": frame, "n": entry}
        client.xadd(KEYS.stream(f"candle:{frame}"), {"symbol": "BTC-USDT", "data": json.dumps(record)}, id=f"{entry}-0")

    def shown(*arguments: str) -> list[int]:
        lines = instance.run("tail", *arguments, "--no-follow", "--json").stdout.splitlines()
        return [json.loads(line)["n"] for line in lines]

    assert shown("candle") == [1, 2, 3]
    assert shown("candle:1m") == shown("candle", "--timeframe", "1m") == [1, 3]


def test_tail_follows_until_interrupted(instance: Instance, client: Any) -> None:
    add_trade(client, 1)
    process = instance.start("tail", "trade", "--json")
    assert process.stdout is not None
    assert sequences(process.stdout.readline()) == [1]
    add_trade(client, 2, "ETH-USDT")
    add_controls(client)
    add_trade(client, 3)
    assert sequences(process.stdout.readline() + process.stdout.readline()) == [2, 3]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest) == (130, "")
    assert "Traceback" not in errors


def test_tail_ends_with_3_when_redis_goes(instance: Instance, client: Any, redis_server: RedisServer) -> None:
    add_trade(client, 1)
    process = instance.start("tail", "trade", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    redis_server.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert errors.startswith("pipeline: Redis does not answer")


def test_tail_leaves_no_trace(instance: Instance, client: Any) -> None:
    add_trade(client, 1)
    instance.run("tail", "trade", "--no-follow")
    assert client.keys("*") == [KEYS.trade.encode()]
    assert client.xinfo_groups(KEYS.trade) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trad"], "kinds are trade"),
        (["candle:2m"], "candles and klines come in"),
        (["quote:1m"], "no kind quote:1m"),
        (["trade", "--timeframe", "1m"], "no kind trade:1m"),
        (["dead", "--symbol", "BTC-USDT"], "belong to no symbol"),
        (["trade", "--exchange", "kraken"], "no trade stream of kraken"),
    ],
)
def test_tail_refuses_what_cannot_be(instance: Instance, arguments: list[str], told: str) -> None:
    result = instance.run("tail", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
