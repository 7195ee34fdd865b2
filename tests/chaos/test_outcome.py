"""The outcome: the line of JSON, when it is good, and what it says when it is not."""

import json
from typing import Any

import msgspec
import pytest

from pipeline.commands._chaos.auditing import Audited
from pipeline.commands._chaos.outcome import Outcome
from pipeline.commands._chaos.resources import Resources, Sample, Use
from simulator.proof.books import BookFault
from simulator.proof.evidence import Evidence
from simulator.proof.ledger import Judged, LedgerFault, judge
from tests.demo.made import World, world

KEYS = [
    "trades_printed",
    "trades_stored",
    "lost",
    "duplicated",
    "candles_checked",
    "candles_wrong",
    "gaps_opened",
    "gaps_open",
    "unrecoverable",
    "faults",
    "by_fault",
    "seed",
    "audit",
    "memory_mib",
    "disk_mib",
    "longest_silence_s",
    "longest_return_s",
]


def judged(made: World) -> Judged:
    evidence = Evidence(
        instrument="okx BTC-USDT", printed=made.printed, trades=made.trades, candles=made.candles, link=made.link
    )
    return judge(evidence, (), made.terms)


def flawless() -> Judged:
    """Nothing was printed while nobody was connected."""
    made = world()
    kept = {row.sequence for row in made.trades}
    made.printed = [fill for fill in made.printed if fill.sequence in kept]
    one = judged(made)
    return msgspec.structs.replace(one, line=msgspec.structs.replace(one.line, faults=()))


def resources() -> Resources:
    found = Resources()
    use = Use(memory=3 * 2**20, files=12, disk=3 * 2**19)
    found.add(Sample(time=1.0, uses={"store-0": use}, newest={}, postgres=True, redis=(5, 2**28)))
    return found


def outcome(*all_judged: Judged, **change: Any) -> Outcome:
    made = Outcome(
        judged=all_judged,
        books=(None,),
        dealt={"kill": 3, "cut": 2},
        dropped={"kill": 1},
        seed=7,
        not_back=None,
        unsettled=(),
        gaps_stay=False,
        audited=Audited(0, "", 1.0),
        unseen=None,
        resources=resources(),
    )
    return msgspec.structs.replace(made, **change)


def test_the_line_of_json() -> None:
    line = outcome(flawless(), flawless()).json
    assert "\n" not in line
    told = json.loads(line)
    assert list(told) == KEYS
    assert told["trades_printed"] == told["trades_stored"] > 400
    assert told["candles_checked"] > 200
    assert [told[name] for name in KEYS[-5:]] == [0, 3, 1.5, None, None]
    assert (told["faults"], told["by_fault"], told["seed"]) == (5, {"cut": 2, "kill": 3}, 7)
    assert not any(told[name] for name in ("lost", "duplicated", "candles_wrong", "gaps_open", "unrecoverable"))


def test_good_is_good() -> None:
    assert outcome(flawless()).exit_code == 0
    assert list(outcome(flawless()).findings()) == []


def test_where_no_audit_was_made_none_is_told() -> None:
    made = outcome(flawless(), audited=None)
    assert json.loads(made.json)["audit"] is None
    assert made.exit_code == 0


def test_an_audit_that_finds_something_is_a_finding() -> None:
    made = outcome(flawless(), audited=Audited(1, "okx BTC-USDT\n  missing   trade 7\n", 1.0))
    assert made.exit_code == 1
    assert list(made.findings()) == ["audit: exit code 1; it printed:\nokx BTC-USDT\n  missing   trade 7"]


def test_an_audit_that_does_not_see_what_was_spoilt_is_a_finding() -> None:
    made = outcome(flawless(), unseen=["it does not name okx BTC-USDT: trade 7"])
    assert made.exit_code == 1
    assert list(made.findings()) == ["audit of what was spoilt: it does not name okx BTC-USDT: trade 7"]
    assert outcome(flawless(), unseen=[]).exit_code == 0


@pytest.mark.parametrize(("silent", "code"), [(14.0, 0), (16.0, 1)])
def test_streams_that_stand_still_while_postgres_is_away_are_a_finding(silent: float, code: int) -> None:
    found = resources()
    for time, newest in ((0.0, b"1"), (1.0, b"2"), (1.0 + silent, b"3")):
        sample = Sample(time=time, uses={}, newest={"md:trade:{okx}": newest}, postgres=False, redis=(5, 2**28))
        found.listen(sample, ["md:trade:{okx}"])
    made = outcome(flawless(), resources=found, dealt={"away": 3})
    assert made.exit_code == code
    told = ["md:trade:{okx} stood still for 16 s while Postgres was away"]
    assert list(made.findings()) == (told if code else [])
    assert outcome(flawless(), resources=found).exit_code == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"books": (BookFault("okx BTC-USDT", "no book"),)}, "okx BTC-USDT: book: no book"),
        ({"unsettled": ("3 gaps are open",)}, "not settled: 3 gaps are open"),
        ({"dealt": {}}, None),
        ({"judged": ()}, None),
    ],
)
def test_what_is_wrong_beside_the_numbers_is_a_finding(change: dict[str, Any], told: str | None) -> None:
    made = outcome(flawless(), **change)
    assert made.exit_code == 1
    assert list(made.findings()) == ([told] if told else [])


@pytest.mark.parametrize("count", ["open", "unrecoverable"])
def test_gaps_are_findings(count: str) -> None:
    assert outcome(msgspec.structs.replace(flawless(), **{count: 1})).exit_code == 1


def test_open_gaps_may_stay_when_asked_for_but_not_unrecoverable_ones() -> None:
    assert outcome(msgspec.structs.replace(flawless(), open=1), gaps_stay=True).exit_code == 0
    assert outcome(msgspec.structs.replace(flawless(), unrecoverable=1), gaps_stay=True).exit_code == 1


def test_what_a_forgetful_exchange_takes_along_is_no_finding() -> None:
    one = msgspec.structs.replace(flawless(), unrecoverable=1)
    assert outcome(one, dealt={"forget": 1, "kill": 1}).exit_code == 0


def test_a_false_ledger_is_a_finding() -> None:
    made = outcome(msgspec.structs.replace(flawless(), faults=(LedgerFault("okx BTC-USDT", "says so"),)))
    assert made.exit_code == 1
    assert list(made.findings()) == ["okx BTC-USDT: ledger: says so"]


def test_lost_doubled_and_wrong_are_told_by_number_and_window() -> None:
    lost, doubled, wrong = world(), world(), world()
    row = lost.trades[80]
    lost.without(lambda one: one is row)
    doubled.trades.append(doubled.trades[80])
    wrong.spoil("5s", 20_000, trades_count=1)
    texts = list(outcome(judged(lost), judged(doubled), judged(wrong)).findings())
    assert any(f"fill {row.id} (epoch 0) of {row.time} is lost" in text for text in texts)
    made = outcome(judged(lost), judged(doubled), judged(wrong), books=())
    assert made.counts["duplicated"] == 1
    assert made.exit_code == 1


def test_many_findings_are_cut_short() -> None:
    made = world()
    made.trades.clear()
    texts = list(outcome(judged(made)).findings())
    assert len(texts) == 31
    assert texts[-1].startswith("… and ")


def test_a_product_that_did_not_come_back_is_worse_than_a_finding() -> None:
    made = outcome(flawless(), not_back="waited 240 s in vain for every process to run")
    assert made.exit_code == 3
    assert next(made.findings()).startswith("did not come back: waited")


def test_the_tables_sum_up() -> None:
    made = outcome(flawless(), flawless())
    assert made.table().row_count == 3
    assert made.faults_table().row_count == 2
