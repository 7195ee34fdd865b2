"""Latency and the report."""

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.heartbeat import Heartbeat
from store.batch import Batch
from store.latency import GROWTH, Latency
from store.postgres import Written
from store.progress import Progress
from tests.store.made import KEYS, NOON, SECOND, book, entry, kline, quote, ticker, trade

MS = 1_000_000


def test_percentiles_of_nothing_are_unknown() -> None:
    assert (Latency().percentile(0.5), Latency().buckets()) == (None, [])


@given(st.lists(st.integers(MS, 3_600_000 * MS), min_size=1, max_size=200))
def test_a_percentile_is_right_within_a_bucket(delays: list[int]) -> None:
    latency = Latency()
    latency.add((NOON - delay for delay in delays), NOON)
    for share in (0.5, 0.99):
        exact = sorted(delays)[math.ceil(share * len(delays)) - 1] / MS
        found = latency.percentile(share)
        assert found is not None
        assert exact / GROWTH <= found <= exact * GROWTH * 1.001
    assert sum(count for _, count in latency.buckets()) == latency.count == len(delays)


def test_what_is_longer_than_every_bucket_counts_and_so_does_a_clock_that_went_back() -> None:
    latency = Latency()
    latency.add([NOON - 10**18, NOON + 10**12], NOON)
    assert latency.count == 2


def test_repaired_trades_have_no_latency(tmp_path: Path) -> None:
    heartbeat = Heartbeat("store-0", tmp_path)
    progress = Progress(heartbeat, clock=lambda: NOON + 10**12)
    batch = Batch("okx")
    batch.take("trade", KEYS.trade, "0-0", [entry(1, trade(1)), entry(2, trade(2, repaired=True))])
    progress.written(batch, Written({"trades": 2}, 0, 0))
    report = heartbeat.report()
    assert report.details["latency_ms"]["count"] == 1
    assert report.counters["trades"] == 2
    assert report.last_data == trade(2).received


def test_every_table_has_its_rows_its_newest_time_and_its_latency(tmp_path: Path) -> None:
    heartbeat = Heartbeat("store-0", tmp_path)
    progress = Progress(heartbeat, clock=lambda: NOON + 60 * SECOND)
    batch = Batch("okx")
    kinds = {"quote": quote(1), "ticker": ticker(1), "kline:1s": kline(0, "1s"), "orderbook": book(10)}
    for kind, record in kinds.items():
        batch.take(kind, KEYS.stream(kind), "0-0", [entry(1, record)])
    batch.take("orderbook", KEYS.stream("orderbook"), "1700000000000-1", [entry(2, book(11, grid=False))])
    rows = {"quotes": 1, "tickers": 1, "klines": 1, "orderbooks": 1, "trades": 0}
    progress.written(batch, Written(rows, 0, 0, batch.skipped))
    tables = heartbeat.report().details["tables"]
    assert {name: (table["rows"], table["newest"]) for name, table in tables.items()} == {
        "quotes": (1, quote(1).received),
        "tickers": (1, ticker(1).received),
        "klines": (1, kline(0, "1s").close_time),
        "orderbooks": (1, book(10).snapshot_time),
        "trades": (0, None),
    }
    assert {name: table["latency_ms"]["count"] for name, table in tables.items()} == rows
    assert heartbeat.counters["skipped"] == 1
    assert heartbeat.last_data == book(10).received


def test_the_report_says_what_any_partition_waits_for(tmp_path: Path) -> None:
    heartbeat = Heartbeat("store-0", tmp_path)
    progress = Progress(heartbeat)
    progress.waits("okx.0", "postgres", "gone")
    progress.running("okx.1")
    assert heartbeat.waiting_for == "postgres"
    progress.running("okx.0")
    assert heartbeat.waiting_for is None
    assert heartbeat.report().last_error == "okx.0: gone"
