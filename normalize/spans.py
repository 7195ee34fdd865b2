"""What numbers and what time a trade record stands for. Pure."""

from collections.abc import Iterable

from pipeline.records import Trade
from pipeline.timeframes import SECOND

PRINTS_PER_SECOND = 10_000
LEAP = 1_000_000
"""More numbers than PRINTS_PER_SECOND x elapsed time + LEAP are a new numbering, not a gap."""


def time_of(trade: Trade) -> int:
    """The exchange's time, or that of arrival where it gives none."""
    return trade.received if trade.time is None else trade.time


def span_of(trade: Trade) -> tuple[int, int]:
    """First and last number the record covers."""
    return (trade.sequence if trade.first_sequence is None else trade.first_sequence), trade.sequence


def overlaps(trade: Trade, first: int, last: int) -> bool:
    """Whether the record covers any of first…last."""
    low, high = span_of(trade)
    return low <= last and first <= high


def longest_run(trades: Iterable[Trade]) -> int:
    """Length of the longest run of records without a hole between them; the trades are sorted."""
    longest = run = 0
    following: int | None = None
    for trade in trades:
        first, last = span_of(trade)
        run = run + 1 if first == following else 1
        longest, following = max(longest, run), last + 1
    return longest


def printable(since: int, until: int) -> int:
    """How many numbers an exchange may have given out between the two times."""
    return PRINTS_PER_SECOND * max(0, until - since) // SECOND + LEAP
