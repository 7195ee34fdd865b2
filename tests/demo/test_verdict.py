"""The verdict as a whole: its line of JSON, when it is good, and the latency added up over restarts."""

import json

from simulator.proof.books import BookFault
from simulator.proof.evidence import Evidence
from simulator.proof.verdict import Latency, Verdict, verdict
from tests.demo.made import TERMS, world


def test_the_line_of_json() -> None:
    made = world()
    judged = Verdict((made.judge(), made.judge()), (None, None, None))
    latency = Latency()
    latency.add(1, [(2.0, 98), (9.0, 1), (40.0, 1)])
    line = judged.json(kills=6, disconnects=2, latency=latency)
    assert "\n" not in line
    assert json.loads(line) == {
        "trades_printed": 2 * (len(made.trades) + 6),
        "trades_stored": 2 * len(made.trades),
        "lost": 0,
        "missed_while_disconnected": 12,
        "duplicated": 0,
        "candles_checked": 2 * len(made.candles),
        "candles_wrong": 0,
        "books_checked": 3,
        "books_wrong": 0,
        "kills": 6,
        "disconnects": 2,
        "frame_to_row_p50_ms": 2.0,
        "frame_to_row_p99_ms": 9.0,
    }
    assert judged.good


def test_a_wrong_book_makes_it_bad() -> None:
    judged = Verdict((world().judge(),), (None, BookFault("okx BTC-USDT", "no book")))
    assert judged.counts["books_wrong"] == 1
    assert not judged.good


def test_each_of_the_three_faults_makes_it_bad() -> None:
    lost, doubled, wrong = world(), world(), world()
    lost.without(lambda row: row is lost.trades[80])
    doubled.trades.append(doubled.trades[80])
    wrong.spoil("1m", 0, trades_count=1)
    assert [Verdict((made.judge(),)).good for made in (lost, doubled, wrong)] == [False] * 3
    assert Verdict((lost.judge(),)).counts["lost"] == 1
    assert Verdict((doubled.judge(),)).counts["duplicated"] == 1
    assert Verdict((wrong.judge(),)).counts["candles_wrong"] == 1


def test_nothing_judged_is_not_good() -> None:
    nothing = verdict([Evidence(instrument="X", printed=(), trades=(), candles=(), link=None)], TERMS)
    assert not nothing.good
    assert not verdict([], TERMS).good


def test_latency_is_added_up_over_the_lives_of_a_process() -> None:
    latency = Latency()
    assert latency.quantile(0.5) is None
    latency.add("first life", [(1.0, 10)])
    latency.add("first life", [(1.0, 10), (5.0, 10)])
    latency.add("second life", [(5.0, 79), (100.0, 1)])
    assert latency.count == 100
    assert latency.quantile(0.1) == 1.0
    assert latency.quantile(0.5) == 5.0
    assert latency.quantile(0.99) == 5.0
    assert latency.quantile(1.0) == 100.0
