"""How long rows take from the frame's arrival to the commit: counts in buckets that grow by a fifth. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

GROWTH = 1.2
UPPER_MS: tuple[float, ...] = tuple(round(GROWTH**step, 3) for step in range(90))
"""Upper bounds of the buckets in ms: 1 ms to about three hours. What is longer falls into the last."""


class Latency:
    """A histogram over the life of the process."""

    def __init__(self) -> None:
        self._counts = [0] * len(UPPER_MS)

    def add(self, received: Iterable[int], committed: int) -> None:
        """Counts rows by their times of arrival and the time of their commit (ns UTC of this host)."""
        last = len(UPPER_MS) - 1
        arrivals = sorted(received, reverse=True)

        def wait(arrival: int) -> float:
            return (committed - arrival) / 1e6

        start = 0
        while start < len(arrivals):
            # A batch falls into few buckets: their borders are looked up, not each row's bucket.
            bucket = min(last, bisect_left(UPPER_MS, wait(arrivals[start])))
            end = len(arrivals) if bucket == last else bisect_right(arrivals, UPPER_MS[bucket], lo=start, key=wait)
            self._counts[bucket] += end - start
            start = end

    @property
    def count(self) -> int:
        return sum(self._counts)

    def percentile(self, share: float) -> float | None:
        """The upper bound (ms) of the bucket that holds this share of all rows; None before the first."""
        wanted = share * self.count
        seen = 0
        for upper, count in zip(UPPER_MS, self._counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return upper
        return None

    def buckets(self) -> list[list[float]]:
        """[[upper bound in ms, rows in this bucket], …] of the buckets that are not empty."""
        return [[upper, count] for upper, count in zip(UPPER_MS, self._counts, strict=True) if count]
