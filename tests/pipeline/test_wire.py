"""The connection to Redis: command flow over fakeredis' TCP server, faults on a real one."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import fakeredis
import hiredis
import pytest
import redis.exceptions
import uvloop

from pipeline.errors import ContractBroken, ServerAway, StepRefused
from pipeline.steps import Command
from pipeline.wire import Wire, packed
from tests.proxy import TcpProxy
from tests.servers import RedisServer, free_port


@pytest.fixture
def fake_url() -> Iterator[str]:
    server = fakeredis.TcpFakeServer(("127.0.0.1", free_port()), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_replies_come_in_order(fake_url: str) -> None:
    wire = await Wire.open(fake_url)
    replies = await wire.call(("SET", "a", 1), ("GET", "a"), ("GET", "none"), ("XADD", "s", "1-1", "f", b"\x00\xff"))
    assert replies == [b"OK", b"1", None, b"1-1"]
    read = (await wire.call(("XREAD", "COUNT", 5, "STREAMS", "s", "0")))[0]
    assert read == [[b"s", [[b"1-1", [b"f", b"\x00\xff"]]]]]
    await wire.close()


async def test_a_transaction_is_all_of_it(fake_url: str) -> None:
    wire = await Wire.open(fake_url)
    assert await wire.transact([("SET", "a", 1), ("INCR", "a")]) == [b"OK", 2]
    await wire.close()


async def test_what_comes_after_a_transaction_goes_with_it(redis_server: RedisServer) -> None:
    wire, other = await Wire.open(redis_server.url), await Wire.open(redis_server.url)
    *done, wrong = await wire.transact([("SET", "a", "x"), ("SET", "b", "y")], ("GET", "a"), ("INCR", "a"))
    assert done == [b"OK", b"OK", b"x"]
    assert isinstance(wrong, redis.exceptions.ResponseError)
    await wire.call(("WATCH", "a"))
    await other.call(("SET", "a", "z"))
    with pytest.raises(StepRefused):
        await wire.transact([("SET", "b", "z")], ("SET", "c", "z"))
    assert await wire.call(("MGET", "b", "c")) == [[b"y", b"z"]], (
        "a refused one leaves the connection as good as before"
    )
    await wire.close()
    await other.close()


def test_records_are_packed_as_anything_else() -> None:
    """Their beginning comes from a cache: of each it must be the one of that stream and that symbol."""
    records: list[Command] = [
        ("XADD", stream, "*", label, name, "data", data)
        for stream in ("md:trade:{okx}", "md:candle:1m:{okx}")
        for label in (b"symbol", b"control")
        for name in (b"BTC-USDT", b"ETH-USDT", "€", 12, b"")
        for data in (b"", b"\x00\r\n$5", "text", b"x" * 70_000)
    ]
    others: list[Command] = [
        ("PING",),
        ("SET", "a", 1, "PX", 5, "NX", "GET"),
        ("XADD", "s", "MAXLEN", 5, "*", "a", b"b"),
    ]
    for _ in range(2):
        assert packed([*records, *others]) == b"".join(map(hiredis.pack_command, [*records, *others]))  # type: ignore[arg-type]


async def test_an_error_is_a_value_among_the_replies(redis_server: RedisServer) -> None:
    wire = await Wire.open(redis_server.url)
    first, wrong, last = await wire.call(("SET", "a", "x"), ("INCR", "a"), ("GET", "a"))
    assert (first, last) == (b"OK", b"x")
    assert isinstance(wrong, redis.exceptions.ResponseError)
    await wire.close()


async def test_a_watched_key_that_changed_refuses_the_step(redis_server: RedisServer) -> None:
    wire, other = await Wire.open(redis_server.url), await Wire.open(redis_server.socket_url)
    await wire.call(("WATCH", "state"))
    await other.call(("HSET", "state", "cursor", "1-1"))
    with pytest.raises(StepRefused):
        await wire.transact([("SET", "a", 1)])
    assert (await other.call(("GET", "a"))) == [None]
    await wire.close()
    await other.close()


async def test_a_full_redis_is_away_not_broken(redis_server: RedisServer) -> None:
    wire = await Wire.open(redis_server.url)
    await wire.call(("CONFIG", "SET", "maxmemory", "1mb"))
    with pytest.raises(ServerAway, match="refuses for now"):
        await wire.transact([("XADD", "s", "*", "a", "b")])
    await wire.close()


async def test_a_wrong_command_is_our_fault(redis_server: RedisServer) -> None:
    wire = await Wire.open(redis_server.url)
    with pytest.raises(ContractBroken):
        await wire.transact([("XADD", "s")])
    await wire.close()


@pytest.mark.parametrize("fault", ["paused", "killed"])
async def test_no_answer_is_away(redis_server: RedisServer, fault: str) -> None:
    wire = await Wire.open(redis_server.url, timeout=0.2)
    if fault == "paused":
        redis_server.pause()
    else:
        redis_server.kill()
    with pytest.raises(ServerAway):
        await wire.call(("PING",))
    if fault == "paused":
        redis_server.resume()
    await wire.close()


async def test_nobody_there_is_away() -> None:
    with pytest.raises(ServerAway, match="cannot connect"):
        await Wire.open(f"redis://127.0.0.1:{free_port()}/0", timeout=0.5)


async def test_a_cut_connection_is_away(redis_server: RedisServer, tcp_proxy: Callable[[int], TcpProxy]) -> None:
    proxy = tcp_proxy(redis_server.port)
    wire = await Wire.open(proxy.redis_url())
    assert await wire.call(("PING",)) == [b"PONG"]
    proxy.cut()
    with pytest.raises(ServerAway):
        await wire.call(("PING",))
    await wire.close()


async def test_a_connection_that_was_in_doubt_once_is_not_used_again(redis_server: RedisServer) -> None:
    """Its next reply would be that to an older command."""
    wire = await Wire.open(redis_server.url, timeout=1.0)
    redis_server.pause()
    with pytest.raises(ServerAway):
        await wire.call(("INCR", "a"))
    redis_server.resume()
    with pytest.raises(ServerAway):
        await wire.call(("GET", "b"))
    await wire.close()
    with pytest.raises(ServerAway):
        await wire.call(("PING",))


async def test_a_call_that_is_cancelled_leaves_nothing_behind(redis_server: RedisServer) -> None:
    wire, other = await Wire.open(redis_server.url), await Wire.open(redis_server.url)
    call = asyncio.create_task(wire.call(("BLPOP", "list", 0)))
    while not (await other.call(("CLIENT", "LIST")))[0].count(b"cmd=blpop"):
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await other.call(("RPUSH", "list", "x"))
    with pytest.raises(ServerAway):
        await wire.call(("GET", "b"))
    await wire.close()
    await other.close()


async def test_a_reply_that_comes_in_pieces_is_one(
    redis_server: RedisServer, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    wire = await Wire.open(tcp_proxy(redis_server.port).redis_url())
    values = [bytes([letter]) * 300_000 for letter in b"abcdefghijklmnopqrstuvwxyz"]
    added = await wire.transact([("XADD", "s", "*", "data", value) for value in values])
    first, found, last = await wire.call(("XLEN", "s"), ("XREAD", "STREAMS", "s", "0"), ("XLEN", "s"))
    assert (first, last) == (26, 26)
    assert found == [[b"s", [[entry, [b"data", value]] for entry, value in zip(added, values, strict=True)]]]
    await wire.close()


async def test_an_error_inside_a_transaction_is_found(redis_server: RedisServer) -> None:
    wire = await Wire.open(redis_server.url)
    await wire.call(("SET", "text", "x"))
    *_, result = await wire.call(("MULTI",), ("SET", "a", 1), ("INCR", "text"), ("SET", "b", 2), ("EXEC",))
    assert isinstance(result[1], redis.exceptions.ResponseError)
    with pytest.raises(ContractBroken, match="INCR 'text' failed inside EXEC"):
        await wire.transact([("SET", "a", 1), ("INCR", "text")])
    await wire.close()


async def test_who_is_no_longer_let_in_is_away(redis_server: RedisServer) -> None:
    admin = await Wire.open(redis_server.url)
    await admin.call(("ACL", "SETUSER", "collector", "on", ">secret", "~*", "+@all"))
    address = redis_server.url.replace("//", "//collector:secret@")
    wire = await Wire.open(address)
    assert await wire.call(("ACL", "WHOAMI")) == [b"collector"]
    await admin.call(("ACL", "DELUSER", "collector"))
    with pytest.raises(ServerAway):
        await wire.call(("PING",))
    with pytest.raises(ServerAway, match="cannot connect"):
        await Wire.open(address)
    await wire.close()
    await admin.close()


async def test_what_nobody_asked_for_ends_the_connection() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(65_536):
            writer.write(b"+OK\r\n" * request.count(b"*") + b"+more\r\n" * request.count(b"PING"))
        writer.close()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    wire = await Wire.open(url)
    assert await wire.call(("GET", "a")) == [b"OK"]
    with pytest.raises(ServerAway, match="nothing we sent"):
        await wire.call(("PING",))
    with pytest.raises(ServerAway):
        await wire.call(("GET", "a"))
    await wire.close()
    await gone.wait()
    server.close()


def test_it_runs_on_uvloop(redis_server: RedisServer) -> None:
    async def run() -> None:
        for url in (redis_server.url, redis_server.socket_url + "?db=3"):
            wire = await Wire.open(url)
            await wire.transact([("XADD", "s", "*", "data", b"x" * 500_000)] * 9)
            assert len((await wire.call(("XREAD", "STREAMS", "s", "0")))[0][0][1]) == 9
            await wire.close()
            wire = await Wire.open(url, timeout=1.0)
            redis_server.pause()
            with pytest.raises(ServerAway):
                await wire.call(("PING",))
            redis_server.resume()
            with pytest.raises(ServerAway):
                await wire.call(("PING",))
            await wire.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
