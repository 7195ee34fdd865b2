"""Downloads one file to disk, checked against its published SHA-256. It has no name there: it is gone with its holder.

Follows no redirect: only the hosts of the table of exchanges are asked.
"""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import aiohttp

from ingest.timing import Timing
from ingest.websocket import LOOPBACK
from pipeline.errors import ExchangeError
from pipeline.timeframes import SECOND

MOST_BYTES = 4 * 1024**3
FREE_SHARE = 0.5
"""Of the disk space that is free a file may take at most so much."""
BLOCK = 1024 * 1024
_DIGEST = 64


@asynccontextmanager
async def downloaded(url: str, checksum_url: str, folder: Path, timing: Timing) -> AsyncIterator[IO[bytes]]:
    """The file, open at its beginning; it takes no place any more when the context ends, nor when the process is
    killed. Raises ExchangeError: not there, too large, torn, not what its checksum says; OSError of our own disk."""
    wait = timing.rest_timeout / SECOND
    timeout = aiohttp.ClientTimeout(total=timing.file_total / SECOND, sock_connect=wait, sock_read=wait)
    proxied = urlsplit(url).hostname not in LOOPBACK
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            async with aiohttp.ClientSession(timeout=timeout, trust_env=proxied, auto_decompress=False) as session:
                wanted = await _checksum(session, checksum_url)
                found = await _save(session, url, file, int(shutil.disk_usage(folder).free * FREE_SHARE))
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise ExchangeError(f"{url}: {error or type(error).__name__}") from error
        if found != wanted:
            raise ExchangeError(f"{url}: its SHA-256 is {found}, not {wanted} as published")
        file.seek(0)
        yield file


async def _checksum(session: aiohttp.ClientSession, url: str) -> str:
    """The digest in a line of `sha256sum`."""
    async with session.get(url, allow_redirects=False) as response:
        _check(response, url)
        text = (await response.content.read(BLOCK)).decode("ascii")
    digest = text.partition(" ")[0].strip().lower()
    if len(digest) != _DIGEST or not all(sign in "0123456789abcdef" for sign in digest):
        raise ExchangeError(f"{url}: not a checksum: {text[:80]!r}")
    return digest


async def _save(session: aiohttp.ClientSession, url: str, file: IO[bytes], most: int) -> str:
    """Writes the file in a thread; its SHA-256."""
    most = min(most, MOST_BYTES)
    digest, size = hashlib.sha256(), 0
    async with session.get(url, allow_redirects=False) as response:
        _check(response, url)
        if (response.content_length or 0) > most:
            raise ExchangeError(f"{url}: {response.content_length} bytes, and {most} at most may go to disk")
        async for block in response.content.iter_chunked(BLOCK):
            size += len(block)
            if size > most:
                raise ExchangeError(f"{url}: more than the {most} bytes that may go to disk")
            await asyncio.to_thread(_take, block, digest, file)
    return digest.hexdigest()


def _take(block: bytes, digest: "hashlib._Hash", file: IO[bytes]) -> None:
    digest.update(block)
    file.write(block)


def _check(response: aiohttp.ClientResponse, url: str) -> None:
    if response.status != 200:
        raise ExchangeError(f"{url}: HTTP {response.status}")
