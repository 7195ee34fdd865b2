"""`pipeline replay`: recorded frames to records and candles, through the very code that runs live."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import redis.exceptions

from pipeline import settings
from pipeline.cli import FINDING, GOOD
from pipeline.commands._replay.chain import Asked
from pipeline.commands._replay.lines import Survey, survey
from pipeline.commands._replay.namespace import Namespace
from pipeline.commands._replay.pace import Pace
from pipeline.commands._replay.player import Options, Player
from pipeline.commands._replay.target import FILES, Files, Target
from pipeline.errors import ServerAway, SettingsError
from pipeline.exchanges import EXCHANGES
from pipeline.probes.redis import connect
from pipeline.records import CandleSettings
from pipeline.timeframes import SECOND, TIMEFRAMES, WIDTHS

LONG = 5_000
"""Input of more lines gets a progress bar."""
STREAM = "stream"
NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,31}")


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


def _namespace(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    if name is not None and not NAMESPACE.fullmatch(name):
        raise click.BadParameter(f"{name!r} is not a name of small letters, digits and underscores")
    return name


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH...")
@click.option("--to", "target", required=True, metavar="DIR|stream", help="Folder to write, or `stream`: into Redis.")
@click.option("--namespace", callback=_namespace, help="Of the streams; one of its own (with --to stream).")
@click.option("--exchange", type=click.Choice(sorted(EXCHANGES)), help="Where the connection does not tell.")
@click.option("--timeframes", callback=_timeframes, help="Candles to make, e.g. 1s,1m. Default: as recorded, else all.")
@click.option(
    "--grace", default=1.0, show_default=True, type=click.FloatRange(0, 3600), help="Seconds, as candle_grace."
)
@click.option("--open-end", is_flag=True, help="Leave all open at the last frame, as live does, instead of closing.")
@click.option(
    "--speed", default=0.0, type=click.FloatRange(min=0), help="1: as recorded, 2: twice as fast; 0 (default): at once."
)
@click.option("--force", is_flag=True, help="Overwrite the files, or empty the namespace, of an earlier replay.")
@click.option("--json", "as_json", is_flag=True, help="Summary as one JSON object on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no summary for people.")
@click.pass_context
def replay(
    ctx: click.Context,
    paths: tuple[Path, ...],
    target: str,
    namespace: str | None,
    exchange: str | None,
    timeframes: tuple[str, ...] | None,
    grace: float,
    open_end: bool,
    speed: float,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Turn recorded frames into records and candles: one file per kind, or streams as live ones.

    PATH is a file of frames (JSON Lines, plain or gzip) or a folder of *.jsonl and *.jsonl.gz, taken by name.
    All of them are one stream in the given order. Instrument lists may stand in any of them. What `pipeline record`
    wrote from the beginning of a stream gives, with --open-end, the very bytes that live gave. Otherwise candles still
    open at the end are written as partial, and the last change of each order book is, however soon after another.

    With --to stream the records go to the Redis of the settings (or REDIS_URL), into a namespace that holds nothing
    else; it says mode `replay`. Pauses of over a minute are not waited for.

    Exit code: 0 when everything was decoded, 1 when something was not, 2 for wrong usage, 3 when Redis is away or full.

    \b
    Examples:
      pipeline replay okx.jsonl.gz --to out
      pipeline replay frames/okx --to out --timeframes 1s,1m --json
      pipeline replay okx.jsonl.gz --to stream --namespace lab --speed 1
    """
    files = _files(paths)
    candles = CandleSettings(timeframes=timeframes or TIMEFRAMES, grace=round(grace * SECOND))
    asked = Asked(candles, forced=timeframes is not None)
    options = Options(EXCHANGES[exchange] if exchange else None, asked, open_end, Pace(speed))
    place = _Streams(ctx.obj, namespace, force) if target == STREAM else _Folder(target, namespace, force)
    place.check()
    found = survey(files, options.default)
    with place.open(found) as opened, _progress(found.lines, quiet) as advance:
        summary = Player(files, found, options, opened).run(advance)
    if as_json:
        click.echo(json.dumps(summary, separators=(",", ":")))
    if not quiet:
        _tell(summary, place.name)
    return FINDING if summary["undecoded"] else GOOD


class _Folder:
    """`--to DIR`."""

    def __init__(self, name: str, namespace: str | None, force: bool) -> None:
        self.name = name
        self._path, self._namespace, self._force = Path(name), namespace, force

    def check(self) -> None:
        """Refuses before anything is read."""
        if self._namespace is not None:
            raise click.UsageError("--namespace goes with --to stream")
        if self._path.exists() and not self._path.is_dir():
            raise click.UsageError(f"{self._path} is not a folder")
        if not self._force and self._path.is_dir() and any(self._path.iterdir()):
            raise click.UsageError(
                f"{self._path} is not empty; --force overwrites {', '.join(f'{kind}.jsonl' for kind in FILES)}"
            )

    @contextmanager
    def open(self, found: Survey) -> Iterator[Target]:
        """The files, closed in any case."""
        with Files(self._path) as files:
            yield files


class _Streams:
    """`--to stream`."""

    def __init__(self, config: Path | None, namespace: str | None, force: bool) -> None:
        self.name = f"streams of namespace {namespace}"
        self._namespace, self._force = namespace or "", force
        self._settings = _settings(config)

    def check(self) -> None:
        """Refuses before anything is read."""
        if not self._namespace:
            raise click.UsageError("--to stream needs a --namespace of its own")
        if self._namespace == self._settings.namespace:
            raise click.UsageError(f"namespace {self._namespace!r} is that of {self._settings.path}: give another one")

    @contextmanager
    def open(self, found: Survey) -> Iterator[Target]:
        """The namespace, ours from here on."""
        client = connect(self._settings, timeout=10.0)
        try:
            streams = Namespace(client, self._namespace, found.partitions)
            streams.claim(force=self._force)
            with streams:
                yield streams
        except redis.exceptions.RedisError as error:
            raise ServerAway(f"Redis does not answer: {error}") from error
        finally:
            client.close()


def _settings(config: Path | None) -> settings.Settings:
    """The settings; where there are none, REDIS_URL alone will do."""
    try:
        return settings.load(config)
    except SettingsError:
        path = settings.settings_path(config)
        given = settings.complete(settings.default_file(), path)
        if path.exists() or given.redis_url is None:
            raise
        return given


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


_SHOWN = ("trades", "fills", "duplicates", "overlaps", "reordered", "gaps", "missing", "instruments", "candles")
_OF_NEWER_KINDS = ("quotes", "orderbooks", "tickers", "klines")


def _tell(summary: dict[str, Any], target: str) -> None:
    """The summary for people, on stderr."""
    rows = [f"{summary['frames']} frames of {summary['files']} files -> {target}"]
    for name in (*_SHOWN, *_OF_NEWER_KINDS):
        rows.append(f"  {name:<12} {summary[name]}")
    books = summary["books"]
    if books["instruments"]:
        rows.append(f"  books        {books['instruments']}; records {books['valid']} valid, {books['invalid']} not")
    for name in books["never_valid"]:
        rows.append(f"  never valid  {name}")
    for name, count in summary["control"].items():
        rows.append(f"  control      {count} {name}")
    for reason, found in summary["undecoded"].items():
        rows.append(f"  undecoded    {found['count']} {reason} (first at {found['first']})")
    if "unknown instrument" in summary["undecoded"]:
        rows.append("  hint         give a recording of the exchange's list of instruments as well, in any place")
    click.echo("\n".join(rows), err=True)
