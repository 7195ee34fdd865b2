"""`pipeline logs`: the last lines of a process's log, and those to come."""

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import click

from pipeline import settings as settings_module
from pipeline.errors import SettingsError

POLL = 0.25


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Wait for more lines.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many lines.")
@click.pass_context
def logs(ctx: click.Context, name: str, follow: bool, lines: int) -> None:
    """Show the log of a process; `supervisord` and `up` have one too.

    \b
    Examples:
      pipeline logs ingest-okx
      pipeline logs store-0 -f
      pipeline logs postgres -n 500
    """
    settings = settings_module.load(ctx.obj)
    path = settings.log_dir / f"{name}.log"
    if not path.is_file() or Path(name).name != name:
        known = sorted(found.stem for found in settings.log_dir.glob("*.log"))
        shown = f"there are {' '.join(known)}" if known else "there is none: nothing was started yet"
        raise SettingsError(f"no log of {name!r} in {settings.log_dir}; {shown}")
    for line in last_lines(path, lines):
        click.echo(line)
    if follow:
        for line in _more_lines(path):
            click.echo(line)


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines, from the rotated files too where the newest has too few."""
    found: deque[str] = deque()
    for part in (path, *(path.with_name(f"{path.name}.{number}") for number in range(1, 4))):
        if len(found) >= count or not part.is_file():
            break
        with part.open(errors="replace") as file:
            newest = deque(file, maxlen=count - len(found))
        found.extendleft(reversed(newest))
    return [line.rstrip("\n") for line in found]


def _more_lines(path: Path) -> Iterator[str]:
    """Lines written from now on; goes on in the new file when supervisord rotates."""
    file = path.open(errors="replace")
    file.seek(0, 2)
    try:
        while True:
            if line := file.readline():
                yield line.rstrip("\n")
                continue
            time.sleep(POLL)
            if path.exists() and path.stat().st_ino != Path(f"/dev/fd/{file.fileno()}").stat().st_ino:
                file.close()
                file = path.open(errors="replace")
    finally:
        file.close()
