"""Speaking to a supervisord that dies in the midst of its answer."""

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ServerAway
from pipeline.supervisor import Supervisor

BODY = (
    b"<?xml version='1.0'?><methodResponse><params><param><value><array><data><value><struct><member><name>name</name>"
    b"<value><string>redis</string></value></member></struct></value></data></array></value></param></params>"
    b"</methodResponse>"
)
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % len(BODY)
WHOLE = HEAD + BODY


@contextlib.contextmanager
def answering(text: bytes) -> Iterator[Path]:
    """The path of a socket at which one request gets these bytes and then the end."""
    with tempfile.TemporaryDirectory(prefix="tapeline-") as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder) / "supervisor.sock"
        server.bind(str(path))
        server.listen(1)

        def serve() -> None:
            with server.accept()[0] as connection:
                while b"</methodCall>" not in connection.recv(65_536):
                    pass
                connection.sendall(text)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


def test_the_whole_answer_is_understood() -> None:
    with answering(WHOLE) as path:
        assert Supervisor(path).call("supervisor.getAllProcessInfo") == [{"name": "redis"}]


@pytest.mark.parametrize("length", [0, 9, len(HEAD) - 2, len(HEAD), len(HEAD) + 1, len(HEAD) + 60, len(WHOLE) - 1])
def test_half_an_answer_is_none(length: int) -> None:
    with answering(WHOLE[:length]) as path, pytest.raises(ServerAway, match="does not answer"):
        Supervisor(path).call("supervisor.getAllProcessInfo")
