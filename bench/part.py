"""What a part of the bench is: a module with NAME, SUMMARY, KEYS and `measure`. Loaded by its name in PARTS.

`KEYS` maps every key that `measure` returns to what it means, unit first. `measure` returns a figure for each of
them; None where a yardstick is not installed.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Protocol, cast

import msgspec

from bench.instance import Instance
from pipeline.errors import SettingsError, TapelineError
from pipeline.spelling import advice

PARTS = ("ingest", "normalize", "aggregate", "store", "chain", "latency", "idle", "growth", "memory")
"""In the order in which they run. `bench/<name>.py`."""
ASIDE = ("soak",)
"""Parts that run only when they are named: they take minutes whatever the rounds."""

Figure = float | int | None
Figures = Mapping[str, Figure]


class WrongResult(TapelineError):
    """A run lost something, or doubled it: how fast it was means nothing."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked for. `rounds`: of each measurement, alternating with its yardsticks; figures are medians.
    `quick`: small sizes, to see that everything works. `cryptofeed`: an interpreter in which it is installed."""

    seed: int = 1
    rounds: int = 3
    quick: bool = False
    cryptofeed: Path | None = None

    def size(self, full: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else full


class Part(Protocol):
    """See above."""

    NAME: str
    SUMMARY: str
    KEYS: Mapping[str, str]

    def measure(self, terms: Terms, instance: Instance) -> Figures:
        """The figures. `instance` has running, empty servers; `reset` it before each measurement. Raises
        WrongResult."""


def parts(only: Sequence[str] = ()) -> list[Part]:
    """All of PARTS, or those, ASIDE too, whose name begins with one of `only`. Raises SettingsError when one of these
    fits none."""
    known = (*PARTS, *ASIDE)
    for prefix in only:
        if not any(name.startswith(prefix) for name in known):
            raise SettingsError(f"--only {prefix}: no such part{advice(prefix, list(known))}")
    chosen = [name for name in known if name.startswith(tuple(only))] if only else PARTS
    return [cast("Part", importlib.import_module(f"bench.{name}")) for name in chosen]


def medians(rounds: Iterable[Figures]) -> dict[str, Figure]:
    """Of each key over the rounds; None where no round has a figure."""
    found: dict[str, list[float]] = {}
    for figures in rounds:
        for key, figure in figures.items():
            found.setdefault(key, []).extend([] if figure is None else [figure])
    return {key: rounded(median(values)) if values else None for key, values in found.items()}


def ratio(ours: Figure, theirs: Figure) -> Figure:
    """Ours for one of theirs, both from one round; None where either is not known."""
    return None if ours is None or not theirs else ours / theirs


def expect(what: str, found: int, expected: int) -> None:
    """Raises WrongResult unless both are the same."""
    if found != expected:
        lost = f"{expected - found} lost" if found < expected else f"{found - expected} too many"
        raise WrongResult(f"{what}: {found} of {expected} ({lost})")


def rounded(figure: float) -> float | int:
    """To four digits that count; whole from a thousand up."""
    if figure == 0 or abs(figure) >= 1_000:
        return round(figure)
    return float(f"{figure:.4g}")


def meanings(chosen: Iterable[Part]) -> Iterator[tuple[str, str]]:
    """(key, what it means) of every figure of these parts."""
    for part in chosen:
        yield from part.KEYS.items()
