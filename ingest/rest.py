"""REST requests within the exchange's allowances, tried again where it says not now. Errors are ExchangeError."""

from collections.abc import Callable, Mapping
from typing import Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ingest.budget import Backoff, Budget
from ingest.clock import HostClock
from ingest.declined import Declined
from ingest.feed import Feed, Request
from ingest.retry_after import retry_after
from ingest.timing import Timing
from ingest.turn import turn
from ingest.websocket import LOOPBACK
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
        self.budgets = {name: Budget(rate) for name, rate in feed.allowances.items()}
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
                asked = retry_after(status, headers, self._clock.now())
                pause = asked or fault.pause or backoff.delay()
                self.budgets[request.allowance].hold(self._clock.monotonic() + pause)
            if not fault.temporary or backoff.failures >= tries:
                raise Declined(f"{answer.url}: {fault.reason}", not fault.temporary, fault.unknown)

    def rows(self) -> dict[str, dict[str, int]]:
        """What `pipeline status` is told of each allowance."""
        now = self._clock.monotonic()
        return {name: budget.row(now) for name, budget in self.budgets.items()}

    async def _wait(self, request: Request, share: float) -> None:
        """Until the allowance lets the request go. Raises Declined while the exchange wants nothing for long."""
        budget = self.budgets[request.allowance]

        def check() -> None:
            held = budget.held - self._clock.monotonic()
            if held > self._timing.rest_patience:
                where = f"{self.url}{request.path}"
                raise Declined(f"{where}: not asked for {held / SECOND:.0f} s, as the exchange demands")

        await turn(budget, self._clock.monotonic, request.weight, share, check)
        budget.goes(self._clock.monotonic(), request.weight)

    async def _ask(self, request: Request) -> tuple[Answer, int, Mapping[str, str]]:
        assert self._session is not None, "used outside its context"
        url = self.url + request.path
        sent = self._clock.monotonic()
        try:
            async with self._session.get(url) as response:
                received = self._clock.monotonic()
                body = bytearray()
                # Not told beforehand where the answer is compressed, or comes in chunks.
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise Declined(f"{url}: an answer of more than {MOST_BYTES} bytes")
                return Answer(url, body.decode(), sent, received), response.status, response.headers
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise Declined(f"{url}: {error or type(error).__name__}") from error

    def _told(self, headers: Mapping[str, str]) -> None:
        for allowance, used in self._feed.used(headers).items():
            self.budgets[allowance].told(used, self._clock.monotonic())
