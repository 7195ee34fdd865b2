"""What the process says of itself: rows by table, latency, cursors, and what each partition waits for."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.heartbeat import Heartbeat
from store.batch import Batch
from store.latency import Latency
from store.postgres import Written


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
        self._latency = Latency()
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
        for table, rows in written.rows.items():
            counters[table] += rows
            self._rows[table] = self._rows.get(table, 0) + rows
        self._cursors.update({stream: move.new for stream, move in batch.moves.items()})
        self._latency.add((item.record.received for item in batch.trades if not item.record.repaired), self._clock())
        for table, times in _times(batch).items():
            if times:
                self._newest[table] = max(self._newest.get(table, 0), *times)
        if batch.trades:
            self._heartbeat.last_data = batch.trades[-1].record.received

    def details(self) -> Mapping[str, Any]:
        """As docs/architecture.md lists it; rows and latency are since the process started."""
        percentiles = {"p50": self._latency.percentile(0.5), "p99": self._latency.percentile(0.99)}
        return {
            "tables": {
                table: {"rows": rows, "newest": self._newest.get(table)} for table, rows in sorted(self._rows.items())
            },
            "latency_ms": {**percentiles, "count": self._latency.count},
            "latency_buckets": self._latency.buckets(),
            "batches": self._batches,
            "cursors": dict(sorted(self._cursors.items())),
        }


def _times(batch: Batch) -> dict[str, list[int]]:
    """The times (ns) of the batch's rows by table; a candle's is its window's end."""
    return {
        "trades": [item.record.time for item in batch.trades if item.record.time is not None],
        "candles": [item.record.close_time for item in batch.candles],
        "trade_gaps": [item.record.time for item in batch.gaps if item.record.time is not None],
        "coverage": [item.record.time for item in batch.coverage if item.record.time is not None],
        "instrument_history": [item.record.received for item in batch.instruments],
    }
