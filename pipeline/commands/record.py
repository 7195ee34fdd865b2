"""`pipeline record`: the live raw streams into a file of frames. Reads as an outsider and changes nothing."""

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import redis.exceptions

from pipeline import settings, text
from pipeline.cli import FINDING, GOOD
from pipeline.commands._options import DURATION
from pipeline.commands._record.tap import Tap, Tapped
from pipeline.commands._record.tape import Tape
from pipeline.errors import ServerAway, SettingsError
from pipeline.probes.redis import connect
from pipeline.recordings import lines_of
from pipeline.settings import Settings
from pipeline.spelling import advice
from pipeline.streams import Keys

FLUSH = 1.0
SHOWN_PIPED = 10.0
"""Seconds between two lines of progress where nobody looks at a terminal."""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--exchange", "exchanges", multiple=True, help="Only of this exchange; may be given more than once.")
@click.option("--from-start", is_flag=True, help="Begin with the oldest entry still there, not with what comes.")
@click.option("--for", "duration", type=DURATION, help="Stop after this long: 90s, 10m, 8h.")
@click.option("-f/ ", "--follow/--no-follow", default=True, help="Go on with what comes (default), or end there.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--json", "as_json", is_flag=True, help="Summary as one JSON object on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="No progress, no summary for people.")
@click.pass_context
def record(
    ctx: click.Context,
    file: Path,
    exchanges: tuple[str, ...],
    from_start: bool,
    duration: float | None,
    follow: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Record what comes in: every frame of the raw streams, as JSON Lines (gzip where FILE ends in .gz).

    `pipeline replay FILE` makes the records of it again. Ctrl-C or --for ends the recording; both are a success.
    Without --from-start it begins with what comes now, and notes the instruments known at that moment.

    Exit code: 0, or 1 when something is not in the recording (entries trimmed away before they were read, or not
    ours), 2 for wrong usage, 3 when Redis does not answer.

    \b
    Examples:
      pipeline record okx.jsonl.gz --exchange okx --for 10m
      pipeline record all.jsonl.gz --from-start
      pipeline record now.jsonl --from-start --no-follow --json
    """
    given = settings.load(ctx.obj)
    partitions = _partitions(given, exchanges)
    client = connect(given, timeout=5.0)
    try:
        tap = Tap(client, partitions)
        if not from_start:
            tap.skip_to_end()
        ends = None if follow else tap.ends()
        with Tape(file, force=force) as tape:
            recorder = Recorder(tap, tape, Progress(quiet))
            recorder.run(duration, ends)
    except redis.exceptions.RedisError as error:
        raise ServerAway(f"Redis does not answer: {error}") from error
    finally:
        client.close()
    summary = recorder.summary()
    if as_json:
        click.echo(json.dumps(summary, separators=(",", ":")))
    if not quiet:
        click.echo("\n".join(_told(summary)), err=True)
    ctx.exit(FINDING if summary["lost"] else GOOD)


def _partitions(given: Settings, exchanges: tuple[str, ...]) -> list[Keys]:
    """Every partition of the chosen exchanges. Raises SettingsError for one that is not enabled."""
    enabled = given.enabled_exchanges()
    for name in exchanges:
        if name.lower() not in enabled:
            raise SettingsError(f"exchange {name!r} is not enabled in {given.path}{advice(name, list(enabled))}")
    chosen = [name.lower() for name in exchanges] or list(enabled)
    return [Keys(given.namespace, part) for name in dict.fromkeys(chosen) for part in given.partitions(name)]


class Progress:
    """Frames, bytes and rate on stderr: one line that changes on a terminal, else a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()
        self._frames = 0

    def show(self, frames: int, size: int) -> None:
        """Tells how far it is, when it is time to."""
        now = time.monotonic()
        past = now - self._shown
        if self._quiet or past < (FLUSH if self._terminal else SHOWN_PIPED):
            return
        rate = (frames - self._frames) / past
        line = f"{frames} frames, {text.size(size)}, {text.number(rate)} frames/s"
        click.echo(f"\r{line:<60}" if self._terminal else line, err=True, nl=not self._terminal)
        self._shown, self._frames = now, frames

    def end(self) -> None:
        """Leaves the line on a terminal."""
        if self._terminal and not self._quiet:
            click.echo(err=True)


class Recorder:
    """From the tap to the tape, until time, end of the streams or a signal."""

    def __init__(self, tap: Tap, tape: Tape, progress: Progress) -> None:
        self._tap = tap
        self._tape = tape
        self._progress = progress
        self._frames: Counter[str] = Counter()
        self._entries: Counter[str] = Counter()
        self._bounds: dict[str, tuple[str, str]] = {}
        self._joined: set[str] = set()
        self._ended = "interrupted"
        self._seconds = 0.0

    def run(self, duration: float | None, ends: dict[str, bytes] | None) -> None:
        """Records for `duration` seconds, or up to `ends` (id by stream), or until SIGINT or SIGTERM."""
        begun = flushed = time.monotonic()
        with _signals() as told:
            while not told:
                if ends is not None and self._tap.reached(ends):
                    self._ended = "end"
                    break
                if duration is not None and time.monotonic() - begun >= duration:
                    self._ended = "time"
                    break
                for tapped in self._tap.read():
                    self._write(tapped)
                if time.monotonic() - flushed >= FLUSH:
                    self._tape.flush()
                    flushed = time.monotonic()
                self._progress.show(self._frames.total(), self._tape.bytes)
        self._progress.end()
        self._seconds = time.monotonic() - begun

    def summary(self) -> dict[str, Any]:
        """What was recorded, and what could not be."""
        return {
            "file": str(self._tape.path),
            "frames": self._frames.total(),
            "entries": self._entries.total(),
            "bytes": self._tape.bytes,
            "file_bytes": self._tape.path.stat().st_size,
            "seconds": round(self._seconds, 3),
            "ended": self._ended,
            "partitions": {
                partition: {
                    "frames": self._frames[partition],
                    "entries": count,
                    "first": first,
                    "last": last,
                    "from_beginning": partition not in self._joined,
                }
                for partition, count in sorted(self._entries.items())
                for first, last in (self._bounds[partition],)
            },
            "lost": self._tap.lost,
        }

    def _write(self, tapped: Tapped) -> None:
        entry_id = tapped.id.decode()
        for line in lines_of(tapped.partition, entry_id, tapped.entry, tapped.instruments):
            self._tape.write(line)
        if not self._entries[tapped.partition] and tapped.entry.n > 1:
            self._joined.add(tapped.partition)
        self._entries[tapped.partition] += 1
        self._frames[tapped.partition] += len(tapped.entry.frames)
        first, _ = self._bounds.get(tapped.partition, (entry_id, entry_id))
        self._bounds[tapped.partition] = (first, entry_id)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that becomes true at the first SIGINT or SIGTERM, so that no line is torn; the second one ends us."""
    told: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, old in before.items():
            signal.signal(number, old)

    def tell(number: int, _: FrameType | None) -> None:
        told.append(number)
        restore()

    for number in before:
        signal.signal(number, tell)
    try:
        yield told
    finally:
        restore()


def _told(summary: dict[str, Any]) -> list[str]:
    """The summary for people."""
    lines = [
        f"{summary['frames']} frames in {summary['entries']} entries, {text.size(summary['bytes'])} "
        f"({text.size(summary['file_bytes'])} on disk), {text.span(summary['seconds'])} -> {summary['file']}"
    ]
    for partition, row in summary["partitions"].items():
        lines.append(f"  {partition:<12} {row['frames']} frames, entries {row['first']} to {row['last']}")
        if not row["from_beginning"]:
            lines.append(f"  {'':<12} joined in mid-course: a replay begins with what it sees, not with what live knew")
    return lines + [f"  lost         {loss}" for loss in summary["lost"]]
