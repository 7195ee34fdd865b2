"""A real ingest process for tests: `pipeline run ingest-<exchange>` with shorter times and other allowances.

Called as `python -m tests.ingest.process OPTIONS`, a JSON object: `settings` (path), `name`, `timing` (fields of
Timing), `rates` (`connects`, or the name of a REST allowance, to [count, period in ns]; others stay the exchange's).
"""

import asyncio
import contextlib
import importlib
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

import ingest.main
from ingest.feed import Rate
from ingest.timing import Timing
from pipeline.cli import main
from pipeline.exchanges import EXCHANGES
from pipeline.settings import Settings, encode

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0


@contextlib.asynccontextmanager
async def ingest_process(
    settings: Settings, name: str, timing: Timing, rates: Mapping[str, tuple[int, int]], log: Path
) -> AsyncIterator[Process]:
    """The process, its log appended to `log`; killed at the end where it still runs. Writes the settings file."""
    settings.path.write_bytes(encode(settings.file))
    options = {
        "settings": str(settings.path),
        "name": name,
        "timing": msgspec.to_builtins(timing),
        "rates": rates,
    }
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.ingest.process",
            json.dumps(options),
            cwd=ROOT,
            env={**os.environ, "REDIS_URL": settings.redis_address()},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def run(options: dict[str, Any]) -> None:
    """Becomes the process."""
    name, timing = options["name"], Timing(**options["timing"])
    lift(name.partition("-")[2], options["rates"])
    ingest.main.timing_of = lambda _: timing
    sys.argv = ["pipeline", "-c", options["settings"], "run", name]
    main()


def lift(exchange: str, rates: Mapping[str, tuple[int, int]]) -> None:
    """Gives the exchange's feed other allowances."""
    feed = importlib.import_module(f"ingest.exchanges.{EXCHANGES[exchange].module}").Feed
    given = {allowance: Rate(*rate) for allowance, rate in rates.items()}
    feed.connects = given.pop("connects", feed.connects)
    feed.allowances = {**feed.allowances, **given}


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
