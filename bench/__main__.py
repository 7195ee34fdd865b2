"""`python -m bench`: measures the parts one after another on servers of its own, and prints what came out."""

import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench import report
from bench.frames import symbols
from bench.instance import Instance
from bench.part import ASIDE, PARTS, Figure, Terms, expect, parts
from pipeline.cli import INTERRUPTED, UNHEALTHY, exit_code
from pipeline.commands._demo.interruption import interruptible
from pipeline.errors import TapelineError

WIDTH = 140
"""Columns of the tables in a file or a pipe."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--json", "as_json", is_flag=True, help="Nothing but the line of JSON on stdout.")
@click.option("--only", multiple=True, metavar="NAME", help="Only parts whose name begins so; see --list. Repeatable.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 25), help="Of each measurement.")
@click.option("--quick", is_flag=True, help="Small sizes: to see that it works, not how fast.")
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same frames.")
@click.option(
    "--cryptofeed",
    metavar="PYTHON",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An interpreter in which cryptofeed is installed. Default: this one, if it is.",
)
@click.option(
    "--folder",
    "place",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the servers' data lie. Default: var/bench of the project folder.",
)
@click.option("--list", "listed", is_flag=True, help="Name the parts and end.")
def bench(
    as_json: bool,
    only: tuple[str, ...],
    rounds: int,
    quick: bool,
    seed: int,
    cryptofeed: Path | None,
    place: Path | None,
    listed: bool,
) -> None:
    """Measure every stage alone and the whole chain, beside what Redis, Postgres and others do in the same run.

    Figures are medians of the rounds; docs/performance.md says what each key means. The last line of stdout is one
    JSON object. Whatever is measured is counted as well.

    Exit code 0: measured; 1: something was lost or doubled; 2: usage; 3: a server did not come up.

    \b
    Examples:
      python -m bench --only store --only normalize
      python -m bench --quick --rounds 1 --json
    """
    if listed:
        for part in parts(only or (*PARTS, *ASIDE)):
            click.echo(f"{part.NAME:12}{part.SUMMARY}")
        return
    terms = Terms(seed=seed, rounds=rounds, quick=quick, cryptofeed=cryptofeed or _here())
    figures: dict[str, Figure] = {}
    plain = None if sys.stdout.isatty() else WIDTH
    console = Console(quiet=as_json, width=plain)
    chosen = parts(only)
    with interruptible(), Instance({"okx": symbols(), "binance": symbols()}, os.environ, place) as instance:
        for part in chosen:
            click.echo(f"bench: {part.NAME} …", err=True)
            instance.reset()
            found = part.measure(terms, instance)
            expect(f"{part.NAME}: keys that are told", len(set(found) & set(part.KEYS)), len(part.KEYS))
            figures |= found
            console.print(report.table(part, found))
    for words in report.missing(figures):
        click.echo(f"bench: {words}", err=True)
    click.echo(report.line(_facts(terms), figures))


def _here() -> Path | None:
    return Path(sys.executable) if find_spec("cryptofeed") else None


def _facts(terms: Terms) -> dict[str, Any]:
    """On what it ran, and how."""
    return {
        "seed": terms.seed,
        "rounds": terms.rounds,
        "quick": terms.quick,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }


def main() -> None:
    """The process: exit codes are those of `pipeline`."""
    try:
        bench.main(prog_name="python -m bench", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TapelineError as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(exit_code(error))
    except subprocess.TimeoutExpired as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(UNHEALTHY)


if __name__ == "__main__":
    main()
