"""How fast a recording is played: as the frames' own times say, times a factor."""

import time
from collections.abc import Callable

from pipeline.timeframes import MINUTE, SECOND

LONGEST = MINUTE
"""A longer pause in the recording (it was interrupted), and such a jump back, is skipped."""


class Pace:
    """`speed` 1 is as recorded, 2 twice as fast; 0 waits never."""

    def __init__(
        self,
        speed: float,
        monotonic: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._speed = speed
        self._monotonic = monotonic
        self._sleep = sleep
        self._anchor: tuple[int, int] | None = None
        self._last = 0

    @property
    def waits(self) -> bool:
        return self._speed > 0

    def wait(self, moment: int | None) -> None:
        """Returns when a frame of this time (ns) is due."""
        if not self.waits or moment is None:
            return
        now = self._monotonic()
        if self._anchor is None or abs(moment - self._last) > LONGEST:
            self._anchor = (moment, now)
        self._last = moment
        begun, at = self._anchor
        due = at + round((moment - begun) / self._speed)
        if due > now:
            self._sleep((due - now) / SECOND)
