"""What becomes of the first gaps, told as it happens: opened, fetched again, and the candle that changes with it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import redis.exceptions

from pipeline.probes import redis as redis_probe
from pipeline.records import Candle, Gap
from pipeline.settings import Settings
from pipeline.streams import Keys
from pipeline.timeframes import SECOND

LOOK = 0.5
MOST = 2
"""Gaps of an exchange that are told of; the others are in the ledger."""
SHOWN = "1s"
READ = 1_000

_GAP = msgspec.json.Decoder(Gap)
_CANDLE = msgspec.json.Decoder(Candle)


class Story:
    """Reads `md:gap` and the candles of one second. `say` is told of each turn."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._say = say
        self._settings = settings
        self._told = [_Partition(Keys(settings.namespace, name)) for name in settings.all_partitions()]
        self._looked = 0.0

    def turn(self) -> None:
        """Looks twice a second. While Redis is away nothing is told; it is caught up with afterwards."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        client = redis_probe.connect(self._settings)
        try:
            for partition in self._told:
                for text in partition.news(client):
                    self._say(text)
        except (redis.exceptions.RedisError, OSError):
            return
        finally:
            client.close()


class _Partition:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._gaps_to = self._candles_to = "0"
        self._gaps: dict[tuple[str, int, int], Gap] = {}
        self._partial: dict[tuple[str, int], Candle] = {}

    def news(self, client: redis_probe.Client) -> list[str]:
        """What was written since the last call. Raises redis.exceptions.RedisError."""
        told = []
        entries, self._gaps_to = _read(client, self._keys.stream("gap"), self._gaps_to)
        for data in entries:
            told += self._gap(_GAP.decode(data))
        entries, self._candles_to = _read(client, self._keys.stream(f"candle:{SHOWN}"), self._candles_to)
        for data in entries:
            told += self._candle(_CANDLE.decode(data))
        return told

    def _gap(self, gap: Gap) -> list[str]:
        key = gap.instrument, gap.epoch, gap.from_sequence
        if gap.cause == "epoch" or (key not in self._gaps and len(self._gaps) == MOST):
            return []
        new = key not in self._gaps
        self._gaps[key] = gap
        named = f"gap {gap.exchange} {gap.symbol} {gap.from_sequence}…{gap.to_sequence}"
        if new:
            trades = gap.to_sequence - gap.from_sequence + 1
            return [f"{named}: {trades} trades missed, {_clock(gap.from_time)} to {_clock(gap.to_time)}"]
        return [f"{named}: {gap.reason}, {gap.repaired} fetched again"] if gap.state == "closed" else []

    def _candle(self, candle: Candle) -> list[str]:
        """A window in which a gap told of begins, when it is no longer partial."""
        key = candle.instrument, candle.open_time
        if candle.quality == "partial":
            self._partial.setdefault(key, candle)
            while len(self._partial) > READ:
                del self._partial[next(iter(self._partial))]
            return []
        before = self._partial.pop(key, None)
        if before is None or candle.quality != "repaired" or not self._touched(candle):
            return []
        name = f"candle {candle.exchange} {candle.symbol} {SHOWN} {_clock(candle.open_time)}"
        was, now = (f"revision {one.revision} {one.quality}, {one.trades_count} trades" for one in (before, candle))
        return [f"{name}: {was} -> {now}"]

    def _touched(self, candle: Candle) -> bool:
        """Whether a gap told of begins in it."""
        return any(
            gap.instrument == candle.instrument and candle.open_time <= gap.from_time < candle.close_time
            for gap in self._gaps.values()
        )


def _read(client: redis_probe.Client, stream: str, after: str) -> tuple[list[bytes], str]:
    """(records, the id of the last) of the entries after `after`."""
    found = redis_probe.call(client, "XRANGE", stream, f"({after}" if after != "0" else "-", "+", "COUNT", READ)
    return [fields[b"data"] for _, fields in found], found[-1][0].decode() if found else after


def _clock(time: int) -> str:
    return datetime.fromtimestamp(time // SECOND, UTC).strftime("%H:%M:%S") + f".{time % SECOND // 1_000_000:03d}"
