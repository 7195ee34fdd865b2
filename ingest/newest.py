"""Asking an exchange for its newest trades: whether it has any from a number on. Pure.

One page is enough: what lies between the number wanted and the lowest on the page is an ordinary gap. An answer that
does not even reach the trade before that number comes from a cache that is behind, and is asked for again.
"""

from ingest.feed import Numbers, Request
from ingest.history import TIMES, Source, numbers
from pipeline.wants import Want

ROWS = 100
"""On the page. Only an instrument that has been silent is asked for."""


class Newest:
    """See History. `spans` is from the number wanted to the newest that the exchange has; it ends below its beginning
    where there is nothing new, and is None where the exchange has not told."""

    def __init__(self, want: Want, source: Source) -> None:
        assert want.first is not None
        self.behind = 0
        self._first = want.first
        self._source = source
        self._newest: int | None = None

    @property
    def spans(self) -> tuple[int, int] | None:
        return None if self._newest is None else (self._first, self._newest)

    def cover(self, first: int, last: int) -> None:
        """No number tells of the ones behind it."""

    def next(self) -> Request | None:
        if self._newest is not None or self.behind > TIMES:
            return None
        return self._source.newest(min(ROWS, self._source.most))

    def take(self, body: str) -> Numbers:
        found = numbers(self._source.read(body))
        if found.highest is not None and found.highest >= self._first - 1:
            self._newest, self.behind = found.highest, 0
        else:
            self.behind += 1
        return found
