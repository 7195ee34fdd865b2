"""Plans: drawn from the seed alone, with something of everything, and as good when read from a file."""

import itertools
import random
from pathlib import Path

import pytest

from pipeline.commands._chaos import plan as plans
from pipeline.commands._chaos.campaign import FAULTS
from pipeline.commands._chaos.outages import MINUTES, outages
from pipeline.commands._chaos.plan import KINDS, Ground, Planned, check, plan
from pipeline.errors import SettingsError

SERVERS = ("redis", "postgres")
STAGES = ("store-0", "aggregate-0", "normalize-okx", "normalize-binance", "ingest-okx", "ingest-binance")
GROUND = Ground(
    {"okx": ("BTC-USDT", "ETH-USDT", "SOL-USDT", "QUIET-USDT"), "binance": ("BTCUSDT", "ETHUSDT")},
    (*SERVERS, *STAGES, "watchdog", "supervisord"),
)


def drawn(duration: float = 600.0, every: float = 4.5, seed: int = 1) -> list[Planned]:
    return plan(duration, every, random.Random(seed), GROUND)


def test_the_same_seed_draws_the_same_plan() -> None:
    assert drawn(seed=7) == drawn(seed=7) != drawn(seed=8)


@pytest.mark.parametrize("seed", range(5))
def test_ten_minutes_hold_more_than_a_hundred_faults_of_every_kind(seed: int) -> None:
    planned = drawn(seed=seed)
    assert len(planned) >= 100
    assert {one.fault for one in planned} == {kind.name for kind in KINDS if kind.weight}
    assert {one.target for one in planned if one.fault == "kill"} == set(GROUND.processes)
    for server in SERVERS:
        assert {"cut", "stall", "deaf", "stutter"} <= {one.fault for one in planned if one.target == server}


@pytest.mark.parametrize("duration", [30.0, 90.0, 600.0])
def test_faults_begin_in_order_within_the_time_and_are_over_by_its_end(duration: float) -> None:
    planned = drawn(duration, 3.0)
    times = [one.at for one in planned]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] < plans.END * duration
    assert max(one.seconds for one in planned) <= duration / 4
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 6.0


def test_every_fault_is_known_and_every_kind_can_be_dealt() -> None:
    assert set(FAULTS) == {kind.name for kind in KINDS}
    check([*drawn(), Planned(at=700, fault="forget", target="okx")], GROUND)


def test_outages_are_redis_alone_and_both_at_once() -> None:
    alone, postgres, within = outages(MINUTES)
    check([alone, postgres, within], GROUND)
    assert [one.target for one in (alone, postgres, within)] == ["redis", "postgres", "redis"]
    assert [one.seconds for one in (alone, postgres, within)] == [120, 600, 120]
    assert alone.at + alone.seconds < postgres.at < within.at
    assert within.at + within.seconds < postgres.at + postgres.seconds < MINUTES * 60
    assert [one.seconds for one in outages(MINUTES / 10)] == [12, 60, 12]


def test_what_must_be_alone_comes_first() -> None:
    alone = [one.fault == "relisting" for one in drawn()]
    assert alone == sorted(alone, reverse=True)
    assert any(alone)


def test_only_okx_begins_the_numbers_of_books_anew() -> None:
    assert {one.target for seed in range(20) for one in drawn(seed=seed) if one.fault == "book_reset"} == {"okx"}


def test_quiet_instruments_are_left_alone() -> None:
    instruments = {one.arguments.get("instrument") for seed in range(20) for one in drawn(seed=seed)}
    assert instruments == {None, "BTC-USDT", "ETH-USDT", "BTCUSDT"}


def test_a_plan_is_the_same_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    plans.write(path, drawn())
    assert plans.read(path) == drawn()


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    path.write_text('{"at": 1, "fault": "kill", "target": "redis"}\n\n{"at": "soon"}\n')
    with pytest.raises(SettingsError, match="line 3"):
        plans.read(path)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Planned(at=1, fault="flood", target="okx"), "no fault 'flood'; there are away, book_crossed"),
        (Planned(at=1, fault="kill", target="web"), "kill of 'web'"),
        (Planned(at=1, fault="fill", target="postgres"), "fill of 'postgres'"),
        (Planned(at=1, fault="book_reset", target="binance"), "book_reset of 'binance'"),
        (Planned(at=1, fault="drop", target="okx", arguments={"instrument": "BTCUSDT"}), "lists no 'BTCUSDT'"),
    ],
)
def test_what_cannot_be_dealt_is_refused(wrong: Planned, told: str) -> None:
    with pytest.raises(SettingsError, match=f"fault 2 of the plan: .*{told}"):
        check([Planned(at=0, fault="kill", target="redis"), wrong], GROUND)
