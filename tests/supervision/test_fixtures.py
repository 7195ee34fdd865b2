"""The fixtures themselves: what is written survives a kill, and the proxy fails as told."""

import asyncio
import socket
from collections.abc import Callable

import psycopg
import pytest
import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.proxy import TcpProxy
from tests.servers import PostgresServer, RedisServer


def client(url: str, timeout: float = 10.0) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))


def test_redis_keeps_what_it_acknowledged_through_a_kill(redis_server: RedisServer) -> None:
    with client(redis_server.url) as connection:
        for number in range(100):
            connection.xadd("s", {"n": number})
    redis_server.kill()
    redis_server.start()
    with client(redis_server.socket_url) as connection:
        assert connection.xlen("s") == 100
    redis_server.restart()
    with client(redis_server.url) as connection:
        assert connection.xlen("s") == 100


def test_a_paused_redis_answers_again_after_resume(redis_server: RedisServer) -> None:
    redis_server.pause()
    with client(redis_server.url, 0.2) as connection, pytest.raises(redis.exceptions.TimeoutError):
        connection.ping()
    redis_server.resume()
    with client(redis_server.url) as connection:
        assert connection.ping()


def test_postgres_keeps_what_it_committed_through_a_kill(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url) as connection:
        connection.execute("CREATE TABLE t (n int)")
        connection.execute("INSERT INTO t SELECT generate_series(1, 50)")
    own_postgres.kill()
    own_postgres.start()
    with psycopg.connect(own_postgres.url) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (50,)


def test_each_test_has_a_database_of_its_own(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE only_here (n int)")
        row = connection.execute("SELECT current_database()").fetchone()
        assert row is not None
        assert row[0].startswith("test_")


def test_the_proxy_loses_a_reply_whose_command_was_done(
    redis_server: RedisServer, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    proxy = tcp_proxy(redis_server.port)
    with client(proxy.redis_url(), 0.3) as connection:
        connection.ping()
        proxy.drop_replies()
        with pytest.raises(redis.exceptions.TimeoutError):
            connection.incr("n")
        proxy.pass_replies()
        assert connection.get("n") == b"1"


def test_the_proxy_cuts_stalls_and_refuses(redis_server: RedisServer, tcp_proxy: Callable[[int], TcpProxy]) -> None:
    proxy = tcp_proxy(redis_server.port)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(10) == b"+PONG\r\n"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            raw.recv(10)
    with client(proxy.redis_url(), 0.3) as connection:
        proxy.stall()
        with pytest.raises(redis.exceptions.TimeoutError):
            connection.ping()
        proxy.resume()
        assert connection.ping()
        proxy.refuse()
        proxy.cut()
        with pytest.raises(redis.exceptions.ConnectionError):
            connection.ping()


async def test_a_request_filter_cuts_before_the_server_sees_it(
    redis_server: RedisServer, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    proxy = tcp_proxy(redis_server.port)
    proxy.requests = lambda data: None if b"INCR" in data else data
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"INCR n\r\n")
    with pytest.raises(ConnectionResetError):
        assert await reader.read(10)
    writer.close()
    with client(redis_server.url) as connection:
        assert connection.get("n") is None
