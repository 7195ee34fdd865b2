"""What a process says of itself once a second: the file `run/hb/<name>` and its copy in Redis.

The file is touched by the process's own loop, so its age is the proof of life; nobody is killed for
what stands in Redis.
"""

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import DecodeError


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Times are ns UTC of the host. `counters` only grow while the process lives; `rates` are per second
    over the last few seconds. `waiting_for` says for which server or peer it waits (redis, postgres,
    exchange …). `stalled`: since then it does nothing although it should and could, and `stalled_why` it thinks so.
    `details` is the stage's own: see docs/architecture.md."""

    name: str
    pid: int
    started: int
    beat: int
    loops: int
    status: str = "running"
    waiting_for: str | None = None
    counters: dict[str, int] = {}
    rates: dict[str, float] = {}
    last_data: int | None = None
    stalled: int | None = None
    stalled_why: str | None = None
    errors: int = 0
    last_error: str | None = None
    last_error_at: int | None = None
    details: dict[str, Any] = {}


_DECODER = msgspec.json.Decoder(Report)


def write(directory: Path, report: Report) -> None:
    """Replaces the process's file at once, so that a reader never sees half of it."""
    target = directory / report.name
    fresh = directory / f".{report.name}.{report.pid}"
    fresh.write_text(json.dumps(msgspec.to_builtins(report), separators=(",", ":")))
    os.replace(fresh, target)


def read(path: Path) -> Report:
    """The report in the file. Raises DecodeError; FileNotFoundError where there is none."""
    try:
        return _DECODER.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise DecodeError("heartbeat is not a report", str(error)) from error


def read_all(directory: Path) -> dict[str, Report]:
    """Process name to its newest report; unreadable files are left out."""
    found: dict[str, Report] = {}
    for path in sorted(directory.glob("[!.]*")):
        try:
            found[path.name] = read(path)
        except (DecodeError, FileNotFoundError):
            continue
    return found
