"""What is done to the product, to what, when and for how long: drawn from a seed, or read from a file. Pure."""

import itertools
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pipeline.errors import SettingsError

BEGIN, END = 0.02, 0.95
"""Shares of the time between which faults begin: what comes after is for the longest of them to end."""
SUPERVISORD = "supervisord"


class Planned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault: `at` seconds after the start at the earliest, in force for `seconds`, against `target`: a process, an
    exchange, or a server. `arguments` are the fault's own."""

    at: float
    fault: str
    target: str
    seconds: float = 0.0
    arguments: dict[str, Any] = {}


class Ground(NamedTuple):
    """What there is to be harmed: each exchange's instruments (its own ids, busiest first), and the processes."""

    instruments: Mapping[str, Sequence[str]]
    processes: Sequence[str]

    @property
    def exchanges(self) -> tuple[str, ...]:
        return tuple(self.instruments)


class Kind(NamedTuple):
    """One kind of fault. `against`: processes, exchanges, redis or postgres; `weight` is its share among all;
    `seconds` the least and most it is in force; `choices` what else is drawn: a value of each list.

    Of weight 0: never drawn, only dealt when a plan in a file says so.
    `alone`: it begins only when nothing else is in force and all has recovered, and nothing begins until it is over
    and the product has caught up."""

    name: str
    against: str
    weight: int = 1
    seconds: tuple[float, float] = (0.0, 0.0)
    choices: Mapping[str, Sequence[Any]] = {}
    instrument: bool = False
    only: str | None = None
    alone: bool = False


FEW, SOME = (1, 2, 3), (1, 3, 10, 30)
PICK = (None, 0, 1, 2, 3)
"""Which connection, in the order in which they were opened; None: all of them."""
KINDS: tuple[Kind, ...] = (
    Kind("kill", "processes", 14),
    Kind("kill_twice", "redis", 2),
    Kind("stop", "processes", 9, (0.3, 6.0)),
    # Beyond 15 s (workers) and 10 s (servers) the watchdog takes a process for hung and kills it.
    Kind("hang", "processes", 2, (17.0, 22.0)),
    Kind("stutter", "redis", 2, (3.0, 8.0)),
    Kind("stutter", "postgres", 2, (3.0, 8.0)),
    Kind("slow_sync", "redis", 3, (2.0, 6.0), choices={"kill": (True, True, False)}),
    Kind("cut", "redis", 3),
    Kind("cut", "postgres", 3),
    Kind("stall", "redis", 3, (1.0, 8.0)),
    Kind("stall", "postgres", 3, (1.0, 8.0)),
    Kind("deaf", "redis", 3, (0.2, 2.0)),
    Kind("deaf", "postgres", 3, (0.2, 2.0)),
    Kind("fill", "redis", 2, (3.0, 12.0)),
    Kind("overflow", "redis", 1, (25.0, 35.0)),
    # Minutes long: by a plan of its own (see `outages`).
    Kind("away", "redis", 0),
    Kind("away", "postgres", 0),
    Kind("line_cut", "exchanges", 4, (0.0, 4.0)),
    Kind("line_stall", "exchanges", 4, (0.5, 14.0)),
    Kind("disconnect", "exchanges", 3, choices={"code": (None, 1001, 1011, 4004), "pick": PICK}),
    Kind("half_open", "exchanges", 2, choices={"pick": PICK}),
    Kind("notice", "exchanges", 1, choices={"wait": (1.0, 5.0), "pick": PICK}),
    Kind("slow_reader", "exchanges", 1, choices={"wait": (1.0, 4.0), "pick": PICK}),
    Kind("lifetime", "exchanges", 1, (4.0, 12.0), choices={"life": (2.0, 5.0)}),
    Kind("drop", "exchanges", 3, choices={"count": SOME}, instrument=True),
    Kind("duplicate", "exchanges", 2, choices={"count": SOME}, instrument=True),
    Kind("reorder", "exchanges", 2, choices={"count": SOME}, instrument=True),
    Kind("malformed", "exchanges", 2, choices={"count": FEW, "instead": (True, False)}, instrument=True),
    Kind("oversized", "exchanges", 1, choices={"count": (1,)}, instrument=True),
    Kind("book_gap", "exchanges", 2, choices={"count": FEW}, instrument=True),
    Kind("book_crossed", "exchanges", 1, choices={"seconds": (1.0, 3.0)}, instrument=True),
    Kind("book_stale", "exchanges", 1, choices={"seconds": (3.0, 6.0)}, instrument=True),
    Kind("book_reset", "exchanges", 1, instrument=True, only="okx"),
    Kind("refused_symbol", "exchanges", 1, (3.0, 8.0), choices={"whole_request": (True, False)}, instrument=True),
    Kind("silence_after_ack", "exchanges", 1, (2.0, 5.0), instrument=True),
    Kind("rest_error", "exchanges", 4, (2.0, 10.0), choices={"status": (429, 418, 500, 503, 451)}),
    Kind("rest_lag", "exchanges", 2, (3.0, 8.0), choices={"behind": (1.0, 3.0)}),
    # Thrice in a row would be believed.
    Kind("rest_empty", "exchanges", 1, choices={"count": (1, 2)}),
    Kind("skew", "exchanges", 2, (3.0, 10.0), choices={"ahead": (-3.0, -0.7, 0.7, 3.0)}),
    # What has not been fetched by then is unrecoverable.
    Kind("forget", "exchanges", 0, choices={"seconds": (0.0,)}),
    # The exchange forgets what it printed under the old numbers, and nothing after them tells of their end.
    Kind("relisting", "exchanges", 1, instrument=True, alone=True),
)
ALONE = frozenset(kind.name for kind in KINDS if kind.alone)


def plan(duration: float, every: float, rng: random.Random, ground: Ground) -> list[Planned]:
    """A fault each `every` seconds, a little early or late. Every kind has its turn before chance decides, as far as
    there is time for it, and so has every process for being killed."""
    span = (END - BEGIN) * duration
    count = max(1, round(span / every))
    step = span / count
    return [
        _drawn(kind, target, BEGIN * duration + (number + rng.uniform(0, 0.6)) * step, rng, ground, duration)
        for number, (kind, target) in enumerate(_kinds(count, duration, rng, ground))
    ]


def _kinds(count: int, duration: float, rng: random.Random, ground: Ground) -> list[tuple[Kind, str]]:
    """What happens, in its order. What lasts longer than a short run has time for is left out of it."""
    kinds = [kind for kind in KINDS if kind.weight and kind.seconds[1] <= duration / 4 and targets(kind, ground)]
    each = [(kind, target) for kind in kinds for target in _first_targets(kind, rng, ground)]
    rng.shuffle(each)
    while len(each) < count:
        (kind,) = rng.choices(kinds, [kind.weight for kind in kinds])
        each.append((kind, rng.choice(targets(kind, ground))))
    chosen = each[:count]
    rng.shuffle(chosen)
    # What needs all to be well comes first: later it would hold up the rest for long.
    return sorted(chosen, key=lambda one: not one[0].alone)


def _first_targets(kind: Kind, rng: random.Random, ground: Ground) -> list[str]:
    found = targets(kind, ground)
    return list(found) if kind.name == "kill" else [rng.choice(found)]


def targets(kind: Kind, ground: Ground) -> Sequence[str]:
    """What this kind may be dealt to."""
    if kind.against == "processes":
        # The watchdog looks after all others; who stops it finds out in `stop` already.
        return [name for name in ground.processes if kind.name != "hang" or name not in ("watchdog", SUPERVISORD)]
    if kind.against == "exchanges":
        return [name for name in ground.exchanges if kind.only in (None, name)]
    return [kind.against] if kind.against in ground.processes else []


def _drawn(kind: Kind, target: str, at: float, rng: random.Random, ground: Ground, duration: float) -> Planned:
    seconds = round(min(rng.uniform(*kind.seconds), duration / 4), 2)
    arguments = {name: rng.choice(list(values)) for name, values in kind.choices.items()}
    if kind.instrument:
        # The busier half: a fault of the next frame of a quiet instrument would never come about.
        instruments = ground.instruments[target]
        arguments["instrument"] = rng.choice(instruments[: max(1, len(instruments) // 2)])
    return Planned(at=round(at, 2), fault=kind.name, target=target, seconds=seconds, arguments=arguments)


def check(planned: Iterable[Planned], ground: Ground) -> None:
    """Raises SettingsError where a plan names a fault or a target that there is not."""
    for number, one in enumerate(planned, 1):
        kinds = [kind for kind in KINDS if kind.name == one.fault]
        if not kinds:
            names = ", ".join(sorted({kind.name for kind in KINDS}))
            raise SettingsError(f"fault {number} of the plan: no fault {one.fault!r}; there are {names}")
        may = list(itertools.chain.from_iterable(targets(kind, ground) for kind in kinds))
        if one.target not in may:
            raise SettingsError(f"fault {number} of the plan: {one.fault} of {one.target!r}; it may hit {may}")
        instrument = one.arguments.get("instrument")
        if instrument is not None and instrument not in ground.instruments[one.target]:
            raise SettingsError(f"fault {number} of the plan: {one.target} lists no {instrument!r}")


def write(path: Path, planned: Iterable[Planned]) -> None:
    """As JSON Lines."""
    path.write_text(lines(planned))


def lines(planned: Iterable[Planned]) -> str:
    """A fault a line, with a line break at the end of each."""
    return "".join(json.dumps(msgspec.to_builtins(one)) + "\n" for one in planned)


def read(path: Path) -> list[Planned]:
    """In order of `at`. Raises SettingsError that names the line at fault."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line, type=Planned))
            except msgspec.DecodeError as error:
                raise SettingsError(f"{path}, line {number}: {error}") from error
    return sorted(found, key=lambda one: one.at)
