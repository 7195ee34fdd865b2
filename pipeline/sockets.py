"""How much the kernel holds of what is on its way to a server on this host."""

import os
import socket


def enlarge(descriptor: int, size: int) -> None:
    """Lets it hold `size` bytes, as far as it may (`net.core.wmem_max`): whoever sends goes on while the server still
    reads. Of a unix socket only: the buffer of TCP grows by itself as long as nobody sets it."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family == socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
