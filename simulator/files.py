"""Daily files of trades as exchanges publish them: a zip of one CSV for each day, and its SHA-256. Pure.

A file has what the market remembers of its day, is made when it is first asked for, and stays as it is.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable
from datetime import date

from simulator.days import DAY_MS
from simulator.market import MILLISECOND, Fill

DAY = DAY_MS * MILLISECOND
KEPT = 8
"""Files that stay in memory; older ones are made anew, the same as long as the market remembers their day."""
_ORDINAL_1970 = date(1970, 1, 1).toordinal()
_STAMP = (1980, 1, 1, 0, 0, 0)


class DailyFiles:
    """`after` is how long (ns) after its day a file appears; `line` spells a fill, its newline with it."""

    def __init__(self, after: int, line: Callable[[str, Fill], str]) -> None:
        self.after = after
        self._line = line
        self._made: dict[tuple[str, date], bytes] = {}

    def zipped(self, name: str, instrument: str, day: date, fills: Iterable[Fill], now: int) -> bytes | None:
        """The zip with the member `<name>.csv`; None before it appears, and where nothing was traded."""
        begin = (day.toordinal() - _ORDINAL_1970) * DAY
        if now < begin + DAY + self.after:
            return None
        if (instrument, day) not in self._made:
            lines = "".join(self._line(instrument, fill) for fill in fills if begin <= fill.time < begin + DAY)
            if not lines:
                return None
            if len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]
            self._made[instrument, day] = _zip(f"{name}.csv", lines)
        return self._made[instrument, day]


def checksum(name: str, content: bytes) -> str:
    """As `sha256sum` writes it."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n"


def _zip(name: str, text: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name, _STAMP), text, zipfile.ZIP_DEFLATED, compresslevel=1)
    return packed.getvalue()
