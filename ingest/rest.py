"""REST requests within the exchange's allowances, tried again where it says not now. Errors are ExchangeError."""

import asyncio
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ingest.budget import Backoff, Budget
from ingest.clock import HostClock
from ingest.feed import Feed, Request
from ingest.session import LOOPBACK
from ingest.timing import Timing
from pipeline.errors import ExchangeError
from pipeline.timeframes import SECOND

MOST_TRIES = 4
MOST_BYTES = 64 * 1024 * 1024


class Answer(msgspec.Struct, frozen=True):
    """A good answer. `sent` and `received` are monotonic ns."""

    url: str
    body: str
    sent: int
    received: int


class Rest:
    """The REST side of one exchange; `url` is its root, without a slash at the end."""

    def __init__(self, url: str, feed: Feed, clock: HostClock, timing: Timing, random: Callable[[], float]) -> None:
        self.url = url.rstrip("/")
        self._feed = feed
        self._clock = clock
        self._timing = timing
        self._random = random
        self._budgets = {name: Budget(rate) for name, rate in feed.allowances.items()}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._timing.rest_timeout / SECOND)
        proxied = urlsplit(self.url).hostname not in LOOPBACK
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=proxied)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, request: Request) -> Answer:
        """The answer to a request, after a few tries where the exchange says not now. Raises ExchangeError."""
        backoff = Backoff(SECOND // 2, 8 * SECOND, self._random)
        while True:
            await self._wait(request)
            answer, status = await self._ask(request)
            fault = self._feed.fault(status, answer.body)
            if fault is None:
                return answer
            backoff.failed()
            if not fault.temporary or backoff.failures == MOST_TRIES:
                raise ExchangeError(f"{answer.url}: {fault.reason}")
            self._budgets[request.allowance].hold(self._clock.monotonic() + backoff.delay())

    async def _wait(self, request: Request) -> None:
        now = self._clock.monotonic()
        place = self._budgets[request.allowance].reserve(now)
        await asyncio.sleep((place - now) / SECOND)

    async def _ask(self, request: Request) -> tuple[Answer, int]:
        assert self._session is not None, "used outside its context"
        url = self.url + request.path
        sent = self._clock.monotonic()
        try:
            async with self._session.get(url) as response:
                received = self._clock.monotonic()
                if (response.content_length or 0) > MOST_BYTES:
                    raise ExchangeError(f"{url}: an answer of {response.content_length} bytes")
                return Answer(url, await response.text(), sent, received), response.status
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise ExchangeError(f"{url}: {error or type(error).__name__}") from error
