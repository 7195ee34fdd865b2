"""When repairs will be done: at the pace of the last 30 s, or, before there is one, at the best the exchange allows.

Pure; times are monotonic ns.
"""

from collections.abc import Iterable

from ingest.repair import WINDOW, Pace, Repair
from pipeline.timeframes import SECOND


class Outlook:
    """Of all repairs of one exchange together."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._busy: int | None = None
        """Since when there has been something to fetch without a break."""

    def add(self, numbers: int, now: int) -> None:
        """A page covered so many numbers more."""
        self._pace.add(numbers, now)

    def seconds(self, repairs: Iterable[Repair], allowed: float, held: int, now: int) -> dict[str, float]:
        """Key of each open repair to the seconds until it is done, if what is more urgent is done before. `allowed`:
        numbers a second at best; `held`: until when the exchange wants nothing."""
        queue = sorted(repairs, key=lambda repair: repair.urgency)
        if not queue:
            self._busy = None
            return {}
        self._busy = now if self._busy is None else self._busy
        seen = self._pace.rate(now) if now - self._busy >= WINDOW else None
        rate = seen or allowed
        found: dict[str, float] = {}
        ahead = 0
        for repair in queue:
            ahead += repair.left
            found[repair.key] = max(0, held - now) / SECOND + ahead / rate
        return found
