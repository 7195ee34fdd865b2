"""The newest quote, ticker and kline of each instrument: repeats and older ones, as overlapping connections bring
them, do not pass. Pure."""

from hashlib import blake2b
from typing import Any

import msgspec

from pipeline.records import Kline, Quote, Ticker, encode
from pipeline.timeframes import MINUTE, SECOND, WIDTHS

PATIENCE = MINUTE
"""When for so long only older ones came, they are the truth: the venue's numbers began again, or one record was dated
ahead. For bars it is twice their width: a day's bar is no older for being told again an hour later."""
NEWER = SECOND
"""A lower number with a time so much newer is of numbers that began again: it need not wait for PATIENCE."""
MOST_ALIKE = 32
"""So many different records of one number or time are told apart."""

Told = Quote | Ticker | Kline


class Seen(msgspec.Struct):
    """The newest record of one (kind, instrument). `rank` is what orders them (its number, else its time; null where
    it has neither), `time` the venue's, `since` the stream time at which it passed, `alike` the digests of the records
    of this rank. `message` is when the last one of any age came in."""

    symbol: str
    rank: int | None = None
    time: int | None = None
    since: int = 0
    alike: list[str] = []
    message: int = 0
    records: int = 0
    duplicates: int = 0

    def passes(self, record: Told, now: int) -> bool:
        """Whether the record, which came at stream time `now`, tells something new; it is counted either way."""
        rank, digest = rank_of(record), digest_of(record)
        self.symbol, self.message = record.symbol, max(self.message, record.received)
        if not self._news(rank, digest, now - self.since >= patience_for(record) or self._began_again(record)):
            self.duplicates += 1
            return False
        if rank is None or rank != self.rank:
            self.alike = []
        self.alike = [*self.alike[1 - MOST_ALIKE :], digest]
        self.rank, self.time, self.since = rank, record.time, now
        self.records += 1
        return True

    def _began_again(self, record: Told) -> bool:
        numbered = isinstance(record, Quote) and record.sequence is not None
        return numbered and None not in (record.time, self.time) and (record.time or 0) > (self.time or 0) + NEWER

    def _news(self, rank: int | None, digest: str, older_pass: bool) -> bool:
        if rank is None or self.rank is None or rank == self.rank:
            return digest not in self.alike
        return rank > self.rank or older_pass


class Latest:
    """All of one partition, by `kind instrument` (klines: `kline:1m instrument`)."""

    def __init__(self, seen: dict[str, Seen]) -> None:
        self.seen = seen
        self.changed: set[str] = set()

    def passes(self, kind: str, record: Told, now: int) -> bool:
        """See Seen. `kind` as in the name of its stream."""
        name = f"{kind} {record.instrument}"
        found = self.seen.get(name)
        if found is None:
            found = self.seen[name] = Seen(record.symbol)
        self.changed.add(name)
        return found.passes(record, now)

    def forget(self, instrument: str) -> None:
        """Drops what is known of the instrument."""
        for name in [name for name in self.seen if name.partition(" ")[2] == instrument]:
            del self.seen[name]
            self.changed.add(name)

    @property
    def last_message(self) -> int | None:
        """When the newest of all came in (host time); None before the first."""
        return max((seen.message for seen in self.seen.values()), default=None)

    def report(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Per kind and instrument; the time frames of klines count together."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for name, seen in sorted(self.seen.items()):
            kind, _, instrument = name.partition(" ")
            rows = found.setdefault(kind.partition(":")[0], {})
            row = rows.setdefault(instrument, {"symbol": seen.symbol, "last_message": 0, "records": 0, "duplicates": 0})
            row["last_message"] = max(row["last_message"], seen.message)
            row["records"] += seen.records
            row["duplicates"] += seen.duplicates
        return found


def kind_of(record: Told) -> str:
    """The kind as its stream is named: `quote`, `ticker`, `kline:1m`."""
    if isinstance(record, Kline):
        return f"kline:{record.timeframe}"
    return "quote" if isinstance(record, Quote) else "ticker"


def patience_for(record: Told) -> int:
    """For how long (ns) older ones are not believed."""
    return max(PATIENCE, 2 * WIDTHS[record.timeframe]) if isinstance(record, Kline) else PATIENCE


def rank_of(record: Told) -> int | None:
    """What orders the records of one kind and instrument: the venue's number, a bar's opening, else the time."""
    if isinstance(record, Kline):
        return record.open_time
    if isinstance(record, Quote) and record.sequence is not None:
        return record.sequence
    return record.time


def digest_of(record: Told) -> str:
    """Of all that the record says but when it came in; of a bar also not when it was sent."""
    told = msgspec.structs.replace(record, received=0, time=None if isinstance(record, Kline) else record.time)
    return blake2b(encode(told), digest_size=8).hexdigest()
