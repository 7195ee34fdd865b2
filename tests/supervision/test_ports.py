"""Ports for servers that come back on the port they had."""

import errno
import socket

import pytest

from pipeline.servers import ports


def test_different_ports_that_can_be_listened_on() -> None:
    found = ports.free_ports(50)
    assert len(set(found)) == 50
    for port in found:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_one_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", ports.free_ports(1)[0])) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "LOWEST", port)
        monkeypatch.setattr(ports, "HIGHEST", port + 1)
        with pytest.raises(OSError, match="no 1 free ports") as caught:
            ports.free_ports(1)
        assert caught.value.errno == errno.EADDRINUSE
