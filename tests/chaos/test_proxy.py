"""The proxy over real sockets: it passes all, cuts, refuses, stalls without losing a byte, and swallows replies."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.commands._chaos.proxy import Proxy
from pipeline.errors import ServerAway
from tests.servers import free_port, wait_until

PATIENCE = 10.0


class Echo(socketserver.ThreadingTCPServer):
    """Answers every chunk with itself, and remembers what it heard."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.heard = bytearray()
        super().__init__(("127.0.0.1", 0), EchoRequest)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class EchoRequest(socketserver.BaseRequestHandler):
    server: Echo

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65_536):
                self.server.heard += data
                self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    started = Proxy(echo.port).start()
    yield started
    started.close()


@contextlib.contextmanager
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as connection:
        yield connection


def read(connection: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        data = connection.recv(count - len(found))
        assert data, "ended too early"
        found += data
    return bytes(found)


def ask(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return read(connection, len(text))


def test_everything_passes_also_to_a_slow_reader(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 40_000
    with client(proxy) as connection:
        writer = threading.Thread(target=connection.sendall, args=(sent,))
        writer.start()
        assert read(connection, len(sent)) == sent
        writer.join()


def test_a_cut_resets_and_new_connections_are_served(proxy: Proxy) -> None:
    with client(proxy) as connection, client(proxy) as other:
        assert (ask(connection, b"one"), ask(other, b"two")) == (b"one", b"two")
        assert proxy.cut() == 2
        for cut in (connection, other):
            with pytest.raises(ConnectionResetError):
                cut.recv(1)
    with client(proxy) as connection:
        assert ask(connection, b"again") == b"again"


def test_while_it_refuses_nobody_is_served(proxy: Proxy) -> None:
    proxy.refuse()
    with contextlib.suppress(ConnectionResetError), client(proxy) as connection:
        assert connection.recv(1) == b""
    proxy.refuse(False)
    with client(proxy) as connection:
        assert ask(connection, b"now") == b"now"


def test_a_stall_loses_nothing(proxy: Proxy, echo: Echo) -> None:
    with client(proxy) as connection:
        assert ask(connection, b"before") == b"before"
        proxy.stall()
        connection.sendall(b"meanwhile")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        with client(proxy) as late:
            late.sendall(b"!")
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.recv(1)
            assert bytes(echo.heard) == b"before"
            proxy.stall(False)
            late.settimeout(PATIENCE)
            assert read(late, 1) == b"!"
        connection.settimeout(PATIENCE)
        assert read(connection, 9) == b"meanwhile"


def test_what_its_client_gave_up_still_arrives_after_a_stall(proxy: Proxy, echo: Echo) -> None:
    with client(proxy) as connection:
        assert ask(connection, b"before") == b"before"
        proxy.stall()
        connection.sendall(b"late")
    proxy.stall(False)
    wait_until(lambda: bytes(echo.heard) == b"beforelate", "the request of a client that is gone")


def test_swallowed_replies_are_gone_and_the_request_was_heard(proxy: Proxy, echo: Echo) -> None:
    with client(proxy) as connection:
        assert ask(connection, b"a") == b"a"
        proxy.swallow()
        connection.sendall(b"b")
        wait_until(lambda: bytes(echo.heard) == b"ab", "the request")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        proxy.swallow(False)


def test_who_ends_ends_the_other_side(proxy: Proxy, echo: Echo) -> None:
    with client(proxy) as connection:
        ask(connection, b"x")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_an_absent_server_is_a_cut(proxy: Proxy) -> None:
    proxy.target = free_port()
    with contextlib.suppress(ConnectionResetError), client(proxy) as connection:
        assert connection.recv(1) == b""


def test_it_stands_between_unix_sockets(echo: Echo, tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    first = Proxy(echo.port, listen=inner).start()
    second = Proxy(inner, listen=outer).start()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(outer))
            assert ask(connection, b"hello") == b"hello"
    finally:
        second.close()
        first.close()
        first.close()


def test_a_place_that_cannot_be_taken_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServerAway, match="did not start"):
        Proxy(1, listen=tmp_path / "no such folder" / "socket").start()
