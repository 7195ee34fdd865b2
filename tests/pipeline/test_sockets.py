"""How much the kernel holds for us, of real sockets."""

import socket

from pipeline.sockets import enlarge

SIZE = 1024 * 1024


def taken(sender: socket.socket) -> int:
    """Bytes that the kernel takes while nobody reads."""
    sender.setblocking(False)
    sent = 0
    while sent < 64 * SIZE:
        try:
            sent += sender.send(bytes(SIZE))
        except BlockingIOError:
            break
    return sent


def test_more_is_held_for_a_server_on_this_host() -> None:
    usual, _reader = socket.socketpair()
    larger, _other_reader = socket.socketpair()
    enlarge(larger.fileno(), SIZE)
    assert taken(larger) > taken(usual)
    for each in (usual, _reader, larger, _other_reader):
        each.close()


def test_the_buffer_of_tcp_goes_on_growing_by_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as ours:
        before = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        enlarge(ours.fileno(), 64 * SIZE)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before
