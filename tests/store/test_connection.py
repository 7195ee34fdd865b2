"""The connection to Postgres itself."""

import os
import socket
from urllib.parse import quote

from store.postgres import Database
from tests.servers import PostgresServer
from tests.store.made import ready


async def test_the_kernel_holds_more_for_a_postgres_on_this_host(
    postgres_server: PostgresServer, database_url: str
) -> None:
    folder = quote(str(postgres_server.folder), safe="")
    name = ready(database_url).rpartition("/")[2]
    local = f"postgresql://postgres@/{name}?host={folder}&port={postgres_server.port}"
    database = await Database.open(local, "store-0")
    with (
        socket.socket(fileno=os.dup(database._connection.fileno())) as ours,
        socket.socket(socket.AF_UNIX) as untouched,
    ):
        held, usual = (each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in (ours, untouched))
    await database.close()
    assert held > usual
