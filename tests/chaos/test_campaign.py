"""The campaign: what is due begins when it may, what is over ends, and everything is undone in the end."""

import json
from pathlib import Path

import pytest

from pipeline.commands._chaos import campaign as campaigns
from pipeline.commands._chaos.campaign import Campaign
from pipeline.commands._chaos.fault import Fault
from pipeline.commands._chaos.plan import Planned
from pipeline.errors import ServerAway
from tests.chaos.made import scene_of, settings_of
from tests.servers import wait_until


class Recorded(Fault):
    """Writes down what is done with it; `absent` targets cannot be hit."""

    said: list[str] = []  # noqa: RUF012
    absent: set[str] = set()  # noqa: RUF012
    stubborn = 0

    @property
    def touches(self) -> frozenset[str]:
        return frozenset({self.planned.target})

    def begin(self) -> bool:
        if self.planned.target in self.absent:
            return False
        self.said.append(f"begin {self.planned.fault} {self.planned.target}")
        return True

    def end(self) -> None:
        if Recorded.stubborn:
            Recorded.stubborn -= 1
            raise ServerAway("not now")
        self.said.append(f"end {self.planned.fault} {self.planned.target}")


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    for name in campaigns.FAULTS:
        monkeypatch.setitem(campaigns.FAULTS, name, Recorded)
    monkeypatch.setattr(campaigns, "SPACING", 0.0)
    Recorded.said, Recorded.absent, Recorded.stubborn = [], set(), 0
    return Recorded


def campaign(tmp_path: Path, *planned: Planned) -> Campaign:
    scene = scene_of(settings_of(tmp_path))
    return Campaign(planned, scene, tmp_path / "dealt.jsonl", lambda _: None)


def fault(at: float, name: str, target: str, seconds: float = 0.0) -> Planned:
    return Planned(at=at, fault=name, target=target, seconds=seconds)


def turn_until(dealing: Campaign, elapsed: float, said: list[str]) -> None:
    def reached() -> bool:
        dealing.turn(elapsed)
        return Recorded.said == said

    wait_until(reached, f"{said}, not {Recorded.said}", 5.0)


def test_faults_begin_when_they_are_due_and_end_when_they_are_over(tmp_path: Path) -> None:
    dealing = campaign(tmp_path, fault(1, "stop", "redis", 0.1), fault(2, "stop", "postgres", 60))
    dealing.turn(0.9)
    assert Recorded.said == []
    turn_until(dealing, 1.0, ["begin stop redis", "end stop redis"])
    turn_until(dealing, 2.0, ["begin stop redis", "end stop redis", "begin stop postgres"])
    assert not dealing.done
    dealing.finish()
    assert dealing.done
    assert Recorded.said[-1] == "end stop postgres"
    assert dealing.dealt == {"stop": 2}
    told = [json.loads(line) for line in (tmp_path / "dealt.jsonl").read_text().splitlines()]
    assert [(line["event"], line["target"]) for line in told] == [
        ("began", "redis"),
        ("ended", "redis"),
        ("began", "postgres"),
        ("ended", "postgres"),
    ]


def test_two_faults_never_touch_the_same(tmp_path: Path) -> None:
    dealing = campaign(tmp_path, fault(0, "stop", "redis", 60), fault(0, "kill", "redis"), fault(0, "kill", "store-0"))
    turn_until(dealing, 1.0, ["begin stop redis", "begin kill store-0", "end kill store-0"])
    dealing.finish()
    turn_until(dealing, 1.0, [*Recorded.said, "begin kill redis"])


def test_a_fault_without_a_target_waits_and_lets_others_pass(tmp_path: Path) -> None:
    Recorded.absent = {"redis"}
    dealing = campaign(tmp_path, fault(0, "kill", "redis"), fault(0, "stop", "store-0", 60))
    turn_until(dealing, 1.0, ["begin stop store-0"])
    Recorded.absent = set()
    turn_until(dealing, 1.0, ["begin stop store-0", "begin kill redis"])


def test_what_never_could_begin_is_told(tmp_path: Path) -> None:
    Recorded.absent = {"redis"}
    dealing = campaign(tmp_path, fault(0, "kill", "redis"))
    dealing.turn(1.0)
    dealing.drop_rest()
    assert dealing.done
    assert (dealing.dealt, dealing.dropped) == ({}, {"kill": 1})


def test_what_cannot_be_undone_at_once_is_tried_again(tmp_path: Path) -> None:
    dealing = campaign(tmp_path, fault(0, "fill", "redis", 60))
    turn_until(dealing, 1.0, ["begin fill redis"])
    Recorded.stubborn = 3
    dealing.finish()
    assert Recorded.said == ["begin fill redis", "end fill redis"]


def test_a_relisting_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = [False]
    dealing = campaign(
        tmp_path, fault(0, "stop", "redis", 0.2), fault(0, "relisting", "okx", 0.3), fault(0, "kill", "store-0")
    )
    monkeypatch.setattr(dealing._scene, "recovered", lambda: calm[0])
    turn_until(dealing, 1.0, ["begin stop redis", "end stop redis"])
    for _ in range(10):
        dealing.turn(1.0)
    assert Recorded.said == ["begin stop redis", "end stop redis"]
    calm[0] = True
    turn_until(dealing, 1.0, ["begin stop redis", "end stop redis", "begin relisting okx"])
    dealing.turn(1.0)
    assert Recorded.said[-1] == "begin relisting okx"
    turn_until(
        dealing,
        1.0,
        ["begin stop redis", "end stop redis", "begin relisting okx", "end relisting okx", "begin kill store-0"],
    )


def test_without_recovery_a_relisting_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dealing = campaign(tmp_path, fault(0, "relisting", "okx"), fault(0, "kill", "store-0"))
    monkeypatch.setattr(dealing._scene, "recovered", lambda: False)
    monkeypatch.setattr(campaigns, "PATIENCE", 0.0)
    turn_until(dealing, 1.0, ["begin kill store-0"])
    assert dealing.dropped == {"relisting": 1}


def test_while_supervisord_is_harmed_nobody_asks_it(tmp_path: Path) -> None:
    dealing = campaign(tmp_path, fault(0, "stop", "supervisord", 60))
    assert not dealing.blind
    turn_until(dealing, 1.0, ["begin stop supervisord"])
    assert dealing.blind


def test_a_fault_of_which_nothing_came_is_not_counted(tmp_path: Path) -> None:
    dealing = campaign(tmp_path, fault(0, "half_open", "okx", 60), fault(0, "half_open", "binance"))
    turn_until(dealing, 1.0, ["begin half_open okx", "begin half_open binance", "end half_open binance"])
    dealing._in_force[0].fault.failed = "nobody was there"
    dealing.finish()
    assert (dealing.dealt, dealing.dropped) == ({"half_open": 1}, {"half_open": 1})
