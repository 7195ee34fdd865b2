"""The connection to Redis: command flow over fakeredis' TCP server, faults on a real one."""

import threading
from collections.abc import Callable, Iterator

import fakeredis
import pytest
import redis.exceptions

from pipeline.errors import ContractBroken, ServerAway, StepRefused
from pipeline.wire import Wire
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
