"""What a run says: a table with each figure, its goal and what it means, and one JSON object as the last line."""

from collections.abc import Iterable, Mapping

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.goals import GOALS
from bench.part import Figure, Figures, Part


def table(part: Part, figures: Figures) -> Table:
    """The figures of one part."""
    made = Table(title=f"{part.NAME}: {part.SUMMARY}", title_justify="left", title_style="bold")
    made.add_column("key", no_wrap=True)
    made.add_column("median", justify="right", no_wrap=True)
    made.add_column("goal", justify="right", no_wrap=True)
    made.add_column("what it is")
    for key, meaning in part.KEYS.items():
        figure = figures[key]
        made.add_row(key, _spelled(figure), _judged(key, figure), meaning)
    return made


def missing(figures: Figures) -> list[str]:
    """What to install for the figures that are not there."""
    lacking = sorted(key for key, figure in figures.items() if figure is None)
    if not lacking:
        return []
    return [
        f"not measured: {', '.join(lacking)}",
        "cryptofeed is not installed in this interpreter: make bench installs it for Python 3.13 and newer, "
        "--cryptofeed PYTHON names another interpreter that has it",
    ]


def line(facts: Mapping[str, object], figures: Mapping[str, Figure]) -> str:
    """The object of the last line: what was run, then every figure."""
    return msgspec.json.encode({**facts, **figures}).decode()


def show(console: Console, tables: Iterable[Table]) -> None:
    """Prints the tables."""
    for each in tables:
        console.print(each)


def _spelled(figure: Figure) -> str:
    return "not measured" if figure is None else f"{figure:,}"


def _judged(key: str, figure: Figure) -> Text:
    goal = GOALS.get(key)
    if goal is None or figure is None:
        return Text("" if goal is None else str(goal))
    met = goal.met(figure)
    return Text(f"{goal} {'✓' if met else 'missed'}", style="green" if met else "red")
