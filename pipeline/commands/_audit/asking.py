"""Asks exchanges for their bars, by REST, within their allowances and with half of them: collecting goes first."""

import asyncio
import contextlib
import importlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

import msgspec

from pipeline.commands._audit.bars import Bar
from pipeline.commands._audit.pages import Klines, Listing, Page, load
from pipeline.commands._audit.period import Period
from pipeline.errors import ExchangeError
from pipeline.exchanges import EXCHANGES
from pipeline.settings import Settings
from pipeline.timeframes import SECOND, WIDTHS

if TYPE_CHECKING:
    from ingest.rest import Rest

TRIES = 2
SHARE = 0.5
PATIENCE = 10 * SECOND


class Unasked(Exception):
    """No bars, for a reason that is for people. `lasting`: others of the exchange need not be asked for either."""

    def __init__(self, reason: str, lasting: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting


class Venue(msgspec.Struct):
    """One exchange. `trouble`: why it is not asked any more."""

    klines: Klines
    rest: "Rest"
    trouble: str | None = None


class Venues(contextlib.ExitStack):
    """All exchanges of the settings; a context, because connections are kept."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._venues: dict[str, Venue] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self._runner = self.enter_context(asyncio.Runner())
        return self

    def bars(self, exchange: str, listing: Listing, timeframe: str, period: Period) -> Iterator[Bar]:
        """The bars that open in the period, closed or not, in any order; page by page. Raises Unasked."""
        venue = self._venue(exchange)
        if venue.trouble is not None:
            raise Unasked(venue.trouble, lasting=True)
        if timeframe not in venue.klines.timeframes:
            raise Unasked(f"{exchange} has no bars of {timeframe}", lasting=True)
        start, end = period
        width = timedelta(microseconds=WIDTHS[timeframe] // 1_000)
        while start < end:
            page = venue.klines.page(listing, timeframe, start, end, datetime.now(UTC))
            found = [bar for bar in self._read(venue, page, listing) if start <= bar.open_time < end]
            yield from found
            if not found:
                return
            if venue.klines.newest_first:
                end = min(bar.open_time for bar in found)
            else:
                start = max(bar.open_time for bar in found) + width

    def _read(self, venue: Venue, page: Page, listing: Listing) -> list[Bar]:
        from ingest.declined import Declined

        try:
            return list(venue.klines.read(self._runner.run(self._get(venue.rest, page)), listing))
        except ExchangeError as error:
            # The address that was asked stands before it, with a query that is long and tells nobody anything.
            reason = str(error).removeprefix(f"{venue.rest.url}{page.path}: ")
            lasting = not (isinstance(error, Declined) and error.permanent)
            told = f"{venue.rest.url}: {reason}" if lasting else f"{listing.instrument}: {reason}"
            if lasting:
                venue.trouble = told
            raise Unasked(told, lasting) from error

    async def _get(self, rest: "Rest", page: Page) -> str:
        from ingest.feed import Request

        request = Request(page.path, page.allowance, page.weight)
        return (await rest.get(request, tries=TRIES, share=SHARE)).body

    def _venue(self, exchange: str) -> Venue:
        """Raises Unasked."""
        if exchange not in self._venues:
            wanted = self._settings.file.exchanges.get(exchange)
            if wanted is None or exchange not in EXCHANGES:
                raise Unasked(f"{exchange} is not in the settings", lasting=True)
            url = wanted.rest_url or EXCHANGES[exchange].rest_url
            self._venues[exchange] = self._runner.run(self._open(exchange, url))
        return self._venues[exchange]

    async def _open(self, exchange: str, url: str) -> Venue:
        from ingest.budget import Budget
        from ingest.clock import HostClock
        from ingest.feed import Rate
        from ingest.rest import Rest
        from ingest.timing import Timing

        known = EXCHANGES[exchange]
        feed = importlib.import_module(f"ingest.exchanges.{known.module}").Feed()
        klines = load(known)
        rest = Rest(url, feed, HostClock(), Timing(rest_timeout=PATIENCE), random.random)
        rest.budgets |= {name: Budget(Rate(*rate)) for name, rate in klines.allowances.items()}
        await rest.__aenter__()
        self.callback(self._close, rest)
        return Venue(klines, rest)

    def _close(self, rest: "Rest") -> None:
        self._runner.run(rest.__aexit__(None, None, None))
