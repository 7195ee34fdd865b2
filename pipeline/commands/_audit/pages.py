"""What the audit needs of an exchange to ask for its bars: a file `exchanges/<module>.py` each. Sans-I/O."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from importlib import import_module
from typing import NamedTuple, Protocol

from pipeline.commands._audit.bars import Bar
from pipeline.exchanges import Exchange


class Listing(NamedTuple):
    """What of an instrument changes the meaning of its bars; null where the exchange's list never came."""

    instrument: str
    market: str | None
    contract: str | None


class Page(NamedTuple):
    """One request: path and query, the allowance it draws on, and how much."""

    path: str
    allowance: str
    weight: int


class Klines(Protocol):
    """One exchange's bars."""

    timeframes: frozenset[str]
    newest_first: bool
    """Whether a page that does not hold the whole range holds its end, or its beginning."""
    allowances: Mapping[str, tuple[int, int]]
    """Those that its feed does not know: name to (count, period in ns)."""

    def page(self, listing: Listing, timeframe: str, start: datetime, end: datetime, now: datetime) -> Page:
        """The request for bars that open in [start, end)."""

    def read(self, body: str, listing: Listing) -> Sequence[Bar]:
        """The bars of an answer, in the order it has them. Raises ExchangeError."""


def load(exchange: Exchange) -> Klines:
    """The exchange's module, found by name."""
    klines: Klines = import_module(f"pipeline.commands._audit.exchanges.{exchange.module}").Klines()
    return klines


def milliseconds(moment: datetime) -> int:
    """ms UTC, exact."""
    return (moment - datetime.fromtimestamp(0, moment.tzinfo)) // timedelta(milliseconds=1)
