"""What the process says of itself: rows by table, latency, cursors, and what each partition waits for."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.heartbeat import Heartbeat
from store.batch import Batch
from store.latency import Latency
from store.postgres import Written

log = logging.getLogger(__name__)


class Progress:
    """Shared by the partitions' loops; written into the heartbeat's report."""

    def __init__(self, heartbeat: Heartbeat, clock: Callable[[], int] = time.time_ns) -> None:
        self._heartbeat = heartbeat
        self._clock = clock
        self._waiting: dict[str, str] = {}
        self._rows: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._cursors: dict[str, str] = {}
        self._batches = 0
        self._latency: defaultdict[str, Latency] = defaultdict(Latency)
        self._rebuilds: dict[str, int] = {}
        self._spills: dict[str, Callable[[], Mapping[str, Any]]] = {}
        heartbeat.describe("", self.details)

    def running(self, partition: str) -> None:
        self._waiting.pop(partition, None)
        self._heartbeat.status = "running"
        self._heartbeat.waiting_for = next(iter(self._waiting.values()), None)

    def waits(self, partition: str, server: str, error: str | None = None) -> None:
        """`server`: redis, postgres, or operator where nothing moves until someone looks."""
        self._waiting[partition] = server
        self._heartbeat.waiting_for = server
        if error is not None:
            self.error(partition, error)

    def error(self, partition: str, text: str) -> None:
        self._heartbeat.error(f"{partition}: {text}")

    def restored(self, partition: str, reason: str) -> None:
        self._heartbeat.counters["restores"] += 1
        self.error(partition, reason)

    def written(self, batch: Batch, written: Written) -> None:
        """A batch was committed just now."""
        self._batches += 1
        counters = self._heartbeat.counters
        counters["entries"] += batch.entries
        counters["known"] += written.known
        counters["buried"] += written.buried
        counters["skipped"] += written.skipped
        for table, rows in written.rows.items():
            counters[table] += rows
            self._rows[table] = self._rows.get(table, 0) + rows
        self._cursors.update({stream: move.new for stream, move in batch.moves.items()})
        committed = self._clock()
        for table, arrivals in _arrivals(batch).items():
            self._latency[table].add(arrivals, committed)
        for table, times in _times(batch).items():
            if times:
                self._newest[table] = max(self._newest.get(table, 0), *times)
        last = [found[-1].record.received for found in (batch.quotes, batch.tickers, batch.books) if found]
        last += [trade.received for trade in batch.trades.records[-1:]]
        if last:
            self._heartbeat.last_data = max(last)

    def rebuilds(self, partition: str, waiting: int | None, windows: int) -> None:
        """So many requests to compute candles wait (None: as before), and so many windows were corrected just now."""
        if waiting is not None:
            self._rebuilds[partition] = waiting
        self._heartbeat.counters["rebuilt"] += windows

    def left_alone(self, partition: str, requests: int, candles: str) -> None:
        """So many requests were for windows of which trades or candles are no longer kept, too."""
        self._heartbeat.counters["not_kept"] += requests
        log.warning("%s: %s stay as they are where trades or candles are no longer kept", partition, candles)

    def retains(self, row: Callable[[], Mapping[str, Any]]) -> None:
        """`row` tells what retention dropped and what it could not."""
        self._heartbeat.describe("retention", row)

    def spills(self, partition: str, row: Callable[[], Mapping[str, Any]]) -> None:
        """`row` tells what of the partition waits on disk."""
        self._spills[partition] = row

    def details(self) -> Mapping[str, Any]:
        """As docs/architecture.md lists it; rows and latency are since the process started. The latency of the whole
        is that of trades."""
        return {
            "tables": {
                table: {"rows": rows, "newest": self._newest.get(table), **self._latency_of(table)}
                for table, rows in sorted(self._rows.items())
            },
            "latency_ms": _percentiles(self._latency["trades"]),
            "latency_buckets": self._latency["trades"].buckets(),
            "batches": self._batches,
            "rebuilds": {"waiting": sum(self._rebuilds.values()), "windows": self._heartbeat.counters["rebuilt"]},
            "spill": {partition: dict(row()) for partition, row in sorted(self._spills.items())},
            "cursors": dict(sorted(self._cursors.items())),
        }

    def _latency_of(self, table: str) -> dict[str, Any]:
        return {"latency_ms": _percentiles(self._latency[table])} if table in self._latency else {}


def _percentiles(latency: Latency) -> dict[str, float | None]:
    return {"p50": latency.percentile(0.5), "p99": latency.percentile(0.99), "count": latency.count}


def _arrivals(batch: Batch) -> dict[str, list[int]]:
    """When the frames of the batch's rows came in (ns), by table; of those kinds that a frame makes at once."""
    return {
        "trades": [trade.received for trade in batch.trades.records if not trade.repaired],
        "quotes": [item.record.received for item in batch.quotes],
        "tickers": [item.record.received for item in batch.tickers],
        "orderbooks": [item.record.received for item in batch.books if item.record.snapshot_time is not None],
        "klines": [item.record.received for item in batch.klines],
    }


def _times(batch: Batch) -> dict[str, list[int]]:
    """The times (ns) of the batch's rows by table; that of a bar is its window's end."""
    return {
        "trades": batch.trades.times,
        "candles": [item.record.close_time for item in batch.candles],
        "klines": [item.record.close_time for item in batch.klines],
        "quotes": [item.record.received for item in batch.quotes],
        "tickers": [item.record.received for item in batch.tickers],
        "orderbooks": [item.record.snapshot_time for item in batch.books if item.record.snapshot_time is not None],
        "trade_gaps": [item.record.time for item in batch.gaps if item.record.time is not None],
        "coverage": [item.record.time for item in batch.coverage if item.record.time is not None],
        "instrument_history": [item.record.received for item in batch.instruments],
    }
