"""What is asked by REST again and again: the lists of instruments and the exchange's clock."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from ingest.clock import ExchangeClock, HostClock, Sample
from ingest.events import within
from ingest.feed import Feed, Listed, Request
from ingest.rest import Rest
from ingest.timing import Timing
from pipeline.errors import ExchangeError
from pipeline.frames import Frame
from pipeline.timeframes import SECOND

SAMPLES = 3
"""Requests per measurement of the clock: the first one of a fresh connection pays for the handshake."""


class Listings:
    """Writes the lists of instruments as `rest` frames, at once and then hourly; failed ones are tried sooner.
    `listed` is told of each list behind its frame. An empty list is not believed: no exchange delists all it has."""

    def __init__(
        self,
        feed: Feed,
        requests: Iterable[Request],
        rest: Rest,
        clock: HostClock,
        sink: Callable[[Frame], None],
        listed: Callable[[Request, Sequence[Listed]], None],
        report: Callable[[str], None],
        timing: Timing,
    ) -> None:
        self.complete = asyncio.Event()
        """Set when every list has been written once."""
        self._feed = feed
        self._requests = list(requests)
        self._rest = rest
        self._clock = clock
        self._sink = sink
        self._listed = listed
        self._report = report
        self._timing = timing

    async def run(self) -> None:
        """Until cancelled."""
        due = dict.fromkeys(self._requests, 0)
        failures = dict.fromkeys(self._requests, 0)
        written: set[Request] = set()
        if not due:
            self.complete.set()
        while True:
            now = self._clock.monotonic()
            for request in [request for request, at in due.items() if at <= now]:
                if await self._write(request):
                    written.add(request)
                    if len(written) == len(due):
                        self.complete.set()
                    failures[request], pause = 0, self._timing.listings
                else:
                    failures[request] += 1
                    pause = _pause(self._timing, failures[request])
                due[request] = self._clock.monotonic() + pause
            await asyncio.sleep((min(due.values(), default=now + self._timing.listings) - now) / SECOND)

    async def _write(self, request: Request) -> bool:
        try:
            answer = await self._rest.get(request)
            lines = self._feed.listed(answer.body)
            if not lines:
                raise ExchangeError(f"{answer.url}: there is nothing in it")
        except ExchangeError as error:
            self._report(f"list of instruments: {error}")
            return False
        self._sink(Frame(self._clock.now(), self._rest.url, "in", "rest", answer.body, answer.url))
        self._listed(request, lines)
        return True


class ClockPoll:
    """Measures the exchange's clock at the start, every ten minutes and when connections are opened."""

    def __init__(
        self,
        feed: Feed,
        rest: Rest,
        exchange: ExchangeClock,
        clock: HostClock,
        report: Callable[[str], None],
        timing: Timing,
    ) -> None:
        self.measured = asyncio.Event()
        """Set with the first measurement that is believed."""
        self._again = asyncio.Event()
        self._clock = clock
        self._feed = feed
        self._rest = rest
        self._exchange = exchange
        self._report = report
        self._timing = timing

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            try:
                await self.measure()
                failures, pause = 0, self._timing.clock
            except ExchangeError as error:
                self._report(f"clock: {error}")
                failures += 1
                pause = _pause(self._timing, failures)
            self._again.clear()
            await within(pause, self._again)

    def ask_again(self) -> None:
        """A connection was opened, or all is silent: measures anew unless that was done lately (a minute ago)."""
        measured = self._exchange.measured
        if measured is None or self._clock.monotonic() - measured > self._timing.clock // 10:
            self._again.set()

    async def measure(self) -> None:
        """Raises ExchangeError."""
        samples: list[Sample] = []
        for _ in range(SAMPLES):
            answer = await self._rest.get(self._feed.time())
            samples.append(Sample(answer.sent, answer.received, self._feed.read_time(answer.body)))
        self._exchange.measure(samples)
        self.measured.set()


def _pause(timing: Timing, failures: int) -> int:
    """How long after this many failures in a row (ns); the requests themselves come with jitter."""
    return min(timing.rest_retry << min(failures - 1, 32), timing.most_delay)
