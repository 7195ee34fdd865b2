"""Brings what is missed in large numbers from the exchange's daily files: which file next, and its pieces at a pace.

One file at a time. Decides over no number: what a file lacks, or where there is none, is left to pages.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ingest.archive import Day, worth
from ingest.clock import HostClock
from ingest.cutting import Cutter, Piece
from ingest.download import downloaded
from ingest.events import until
from ingest.feed import Archive, Feed
from ingest.history import Wanted
from ingest.repair import Repair
from ingest.timing import MILLISECOND, Timing
from ingest.websocket import LOOPBACK
from pipeline.errors import ExchangeError
from pipeline.exchanges import Exchange

LOOK = 100 * MILLISECOND
"""How often is looked whether there is room again."""


class Bulk:
    """The files below `root`; they are held in `folder`, without a name."""

    def __init__(self, archive: Archive, root: str, folder: Path, clock: HostClock, timing: Timing) -> None:
        self.root = root.rstrip("/")
        self._archive = archive
        self._folder = folder
        self._clock = clock
        self._timing = timing
        self._tried: dict[tuple[str, int], int] = {}
        """(key of the repair, or instrument; begin of the day) to when it may be tried again (monotonic ns)."""

    def choose(self, repairs: Iterable[Repair], rate: float) -> tuple[Repair, Day] | None:
        """The file to fetch next, the most urgent first. `rate`: numbers a second by pages at best."""
        now, host = self._clock.monotonic(), self._clock.now()
        self._tried = {name: due for name, due in self._tried.items() if due > now}
        for repair in sorted(repairs, key=lambda repair: repair.urgency):
            for day in worth(self._archive, repair.want, repair.left, rate, host, self._timing.file_over):
                if self._tried.keys().isdisjoint(_names(repair, day)):
                    return repair, day
        return None

    def url(self, repair: Repair, day: Day) -> str:
        """Of the file."""
        return self.root + self._archive.path(repair.want.instrument, day.date)

    async def pieces(self, repair: Repair, day: Day) -> AsyncGenerator[Piece, None]:
        """The pieces of the file, as fast as there is room for them. Raises ExchangeError for what is no such file; it
        is left alone for a while."""
        by_key, by_instrument = _names(repair, day)
        checksum = self.root + self._archive.checksum(repair.want.instrument, day.date)
        try:
            async with downloaded(self.url(repair, day), checksum, self._folder, self._timing) as file:
                cutter = Cutter(file, self._archive, Wanted.of(repair.want))
                while (piece := await asyncio.to_thread(cutter.next)) is not None:
                    if piece.trades:
                        await until(repair.context.room, LOOK)
                        yield piece
                        await asyncio.sleep(piece.trades / self._timing.file_pace)
            self._tried[by_key] = self._due()
        except ExchangeError:
            self._tried[by_instrument] = self._due()
            raise
        except OSError as error:
            self._tried[by_instrument] = self._due()
            raise ExchangeError(f"no place for it in {self._folder}: {error}") from error

    def _due(self) -> int:
        return self._clock.monotonic() + self._timing.file_retry


def bulk_of(
    feed: Feed, exchange: Exchange, rest_url: str | None, folder: Path, clock: HostClock, timing: Timing
) -> Bulk | None:
    """None where there are no daily files. A simulated exchange has them beside its REST; of another host than the
    usual (a testnet) they would be other trades."""
    simulated = rest_url is not None and urlsplit(rest_url).hostname in LOOPBACK
    root = exchange.files_url if rest_url is None else rest_url if simulated else None
    return None if root is None or feed.archive is None else Bulk(feed.archive, root, folder, clock, timing)


def _names(repair: Repair, day: Day) -> Iterator[tuple[str, int]]:
    yield repair.key, day.begin
    yield repair.want.instrument, day.begin
