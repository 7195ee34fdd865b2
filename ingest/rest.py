"""REST requests within the exchange's allowances, tried again where it says not now. Errors are ExchangeError."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ingest.budget import Backoff, Budget
from ingest.clock import HostClock
from ingest.declined import Declined
from ingest.feed import Feed, Request
from ingest.timing import Timing
from ingest.websocket import LOOPBACK
from pipeline.timeframes import MINUTE, SECOND

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

    async def get(
        self,
        request: Request,
        *,
        tries: int = MOST_TRIES,
        share: float = 1.0,
        sending: Callable[[], None] | None = None,
    ) -> Answer:
        """The answer to a request, after a few tries where the exchange says not now. Raises Declined.

        `share`: see Budget.reserve. `sending` is called when the allowance lets the request go, before it goes.
        """
        backoff = Backoff(SECOND // 2, 8 * SECOND, self._random)
        while True:
            await self._wait(request, share)
            if sending is not None:
                sending()
                sending = None
            answer, status, headers = await self._ask(request)
            self._told(headers)
            fault = self._feed.fault(status, answer.body)
            if fault is None:
                return answer
            backoff.failed()
            if fault.temporary:
                pause = _retry_after(headers) or fault.pause or backoff.delay()
                self._budgets[request.allowance].hold(self._clock.monotonic() + pause)
            if not fault.temporary or backoff.failures >= tries:
                raise Declined(f"{answer.url}: {fault.reason}", permanent=not fault.temporary)

    def rows(self) -> dict[str, dict[str, Any]]:
        """What `pipeline status` is told of each allowance; `period` and `held` (how long nothing goes yet) in ns."""
        now = self._clock.monotonic()
        return {
            name: {
                "used": budget.used(now),
                "limit": budget.rate.count,
                "period": budget.rate.period,
                "held": max(0, budget.held - now),
            }
            for name, budget in self._budgets.items()
        }

    async def _wait(self, request: Request, share: float) -> None:
        """Until the allowance lets the request go. Raises Declined while the exchange wants nothing for long."""
        while True:
            now, budget = self._clock.monotonic(), self._budgets[request.allowance]
            held = budget.held - now
            if held > self._timing.rest_patience:
                raise Declined(
                    f"{self.url}{request.path}: not asked for {held / SECOND:.0f} s, as the exchange demands"
                )
            place = budget.reserve(now, request.weight, share)
            await asyncio.sleep((place - now) / SECOND)
            if budget.held <= place:
                return

    async def _ask(self, request: Request) -> tuple[Answer, int, Mapping[str, str]]:
        assert self._session is not None, "used outside its context"
        url = self.url + request.path
        sent = self._clock.monotonic()
        try:
            async with self._session.get(url) as response:
                received = self._clock.monotonic()
                if (response.content_length or 0) > MOST_BYTES:
                    raise Declined(f"{url}: an answer of {response.content_length} bytes")
                return Answer(url, await response.text(), sent, received), response.status, response.headers
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise Declined(f"{url}: {error or type(error).__name__}") from error

    def _told(self, headers: Mapping[str, str]) -> None:
        for allowance, used in self._feed.used(headers).items():
            self._budgets[allowance].told(used, self._clock.monotonic())


def _retry_after(headers: Mapping[str, str]) -> int | None:
    """The pause in ns (https://www.rfc-editor.org/rfc/rfc9110#name-retry-after); a date is taken for a minute."""
    text = headers.get("Retry-After", "")
    if not text:
        return None
    return int(text) * SECOND if text.isascii() and text.isdigit() else MINUTE
