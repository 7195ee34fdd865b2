"""The gate every writer passes after connecting: this Redis has rewritten its append-only file.

A kill can leave half a MULTI at the end of the file. Every server but Valkey >= 9.1.2 keeps it there,
appends to it, and executes both at its next start; a rewrite before anyone writes removes it.
"""

import asyncio
import logging

import redis.exceptions

from pipeline.errors import ServerAway
from pipeline.streams import ready_key
from pipeline.wire import Wire, check

POLL = 0.05

log = logging.getLogger(__name__)


async def wait_ready(wire: Wire, namespace: str) -> None:
    """Returns once the file was rewritten since this server started. Raises ServerAway while it loads."""
    info = await _info(wire)
    if info.get("loading") == "1":
        raise ServerAway("Redis is loading its data")
    run_id, marker = info["run_id"], ready_key(namespace)
    if check((await wire.call(("GET", marker)))[0]) == run_id.encode():
        return
    if info.get("aof_enabled") == "1" and not await _rewrite(wire):
        return
    check((await wire.call(("SET", marker, run_id)))[0])


async def _rewrite(wire: Wire) -> bool:
    """Rewrites and waits; False where we are not permitted to."""
    reply = (await wire.call(("BGREWRITEAOF",)))[0]
    if isinstance(reply, redis.exceptions.NoPermissionError):
        log.warning("BGREWRITEAOF is not permitted: after a crash of this Redis a torn transaction may be executed")
        return False
    if isinstance(reply, redis.exceptions.ResponseError) and "progress" not in str(reply):
        check(reply)
    while True:
        info = await _info(wire)
        if info["aof_rewrite_in_progress"] == "0" and info["aof_rewrite_scheduled"] == "0":
            break
        await asyncio.sleep(POLL)
    if info["aof_last_bgrewrite_status"] != "ok":
        raise ServerAway("Redis could not rewrite its append-only file")
    return True


async def _info(wire: Wire) -> dict[str, str]:
    text: bytes = check((await wire.call(("INFO",)))[0])
    pairs = (line.partition(":") for line in text.decode().splitlines() if ":" in line)
    return {name: value.strip() for name, _, value in pairs}
