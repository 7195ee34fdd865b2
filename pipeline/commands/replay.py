"""`pipeline replay`: recorded frames to records and candles, through the very code that runs live, without a server."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pipeline.cli import FINDING, GOOD
from pipeline.commands._replaying import KINDS, Outputs, Replay
from pipeline.exchanges import EXCHANGES
from pipeline.records import CandleSettings
from pipeline.timeframes import SECOND, TIMEFRAMES, WIDTHS

LONG = 5_000
"""Input of more lines gets a progress bar."""


def _timeframes(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words:
        if word not in WIDTHS:
            raise click.BadParameter(f"{word!r} is unknown; known are {', '.join(TIMEFRAMES)}")
    if not words:
        raise click.BadParameter("no time frame is given")
    return words


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH...")
@click.option(
    "--to", "target", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write."
)
@click.option("--exchange", type=click.Choice(sorted(EXCHANGES)), help="Where the connection does not tell.")
@click.option("--timeframes", callback=_timeframes, help="Candles to make, e.g. 1s,1m. Default: as recorded, else all.")
@click.option(
    "--grace", default=1.0, show_default=True, type=click.FloatRange(0, 3600), help="Seconds, as candle_grace."
)
@click.option("--force", is_flag=True, help="Overwrite files of an earlier replay.")
@click.option("--json", "as_json", is_flag=True, help="Summary as one JSON object on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no summary for people.")
def replay(
    paths: tuple[Path, ...],
    target: Path,
    exchange: str | None,
    timeframes: tuple[str, ...] | None,
    grace: float,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Turn recorded frames into records and candles, one file per kind.

    PATH is a file of frames (JSON Lines, plain or gzip) or a folder of *.jsonl and *.jsonl.gz, taken by name.
    All of them are one stream in the given order. Instrument lists may stand in any of them.
    Candles still open at the end are written as partial.

    Exit code: 0 when everything was decoded, 1 when something was not, 2 for wrong usage.

    \b
    Examples:
      pipeline replay okx.jsonl.gz --to out
      pipeline replay frames/okx --to out --timeframes 1s,1m --json
    """
    files = _files(paths)
    if not force and target.is_dir() and any(target.iterdir()):
        raise click.UsageError(f"{target} is not empty; --force overwrites {', '.join(f'{k}.jsonl' for k in KINDS)}")
    candles = CandleSettings(timeframes=timeframes or TIMEFRAMES, grace=round(grace * SECOND))
    with Outputs(target) as outputs:
        player = Replay(files, EXCHANGES[exchange] if exchange else None, candles, timeframes is not None, outputs)
        with _progress(player.survey(), quiet) as advance:
            summary = player.run(advance)
    if as_json:
        click.echo(json.dumps(summary, separators=(",", ":")))
    if not quiet:
        _tell(summary, target)
    return FINDING if summary["undecoded"] else GOOD


def _files(paths: Sequence[Path]) -> list[Path]:
    """Every file, folders opened and sorted by name."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(file for file in path.rglob("*") if file.name.endswith((".jsonl", ".jsonl.gz")))
        if not found:
            raise click.UsageError(f"no *.jsonl or *.jsonl.gz in {path}")
        files.extend(found)
    return files


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr for long input, when a person looks at it."""
    if quiet or total < LONG or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("replaying", total=total)
        yield lambda: bar.advance(task)


def _tell(summary: dict[str, Any], target: Path) -> None:
    """The summary for people, on stderr."""
    rows = [f"{summary['frames']} frames of {summary['files']} files -> {target}"]
    for name in ("trades", "fills", "duplicates", "overlaps", "reordered", "gaps", "missing", "instruments", "candles"):
        rows.append(f"  {name:<12} {summary[name]}")
    for name, count in summary["control"].items():
        rows.append(f"  control      {count} {name}")
    for reason, found in summary["undecoded"].items():
        rows.append(f"  undecoded    {found['count']} {reason} (first at {found['first']})")
    click.echo("\n".join(rows), err=True)
