"""`pipeline simulate`: serve an exchange on loopback from a seeded synthetic market."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.commands._options import DURATION
from pipeline.errors import SettingsError
from pipeline.exchanges import EXCHANGES

EXAMPLES = """\b
Examples:
  pipeline simulate
  pipeline simulate --exchange binance
  pipeline simulate --rate 500 --symbols 100 --for 10m
  pipeline simulate --seed 7 --truth proof --faults faults.jsonl --json

\b
A line of the faults file: {"at": 12.5, "fault": "disconnect"}
While it runs:
  curl -d '{"fault": "drop", "count": 3}' CONTROL_URL
  curl -d '{"fault": "book_gap", "instrument": "BTC-USDT"}' CONTROL_URL
  curl -d '{"pause": true}' CONTROL_URL
  curl CONTROL_URL/state
  curl 'CONTROL_URL/books?depth=5'

All faults: docs/simulator.md
"""


@click.command(epilog=EXAMPLES)
@click.option("--exchange", default="okx", show_default=True, help=f"Whose protocol to speak: {', '.join(EXCHANGES)}.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on.")
@click.option("--ws-port", default=0, type=click.IntRange(0, 65_535), help="WebSocket port (0: choose one).")
@click.option("--rest-port", default=0, type=click.IntRange(0, 65_535), help="REST and control port (0: choose one).")
@click.option("--seed", default=1, show_default=True, help="The same seed prints the same market.")
@click.option(
    "--rate", default=50.0, show_default=True, type=click.FloatRange(0, 100_000), help="Fills per second in all."
)
@click.option("--symbols", default=0, type=click.IntRange(0, 999), help="Made spot pairs SIM001-USDT … to add.")
@click.option("--truth", type=click.Path(file_okay=False, path_type=Path), help="Folder for the truth log.")
@click.option("--for", "duration", type=DURATION, help="Stop after this long: 60s, 10m, 8h.")
@click.option(
    "--faults", "script", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Faults, one JSON a line."
)
@click.option("--limits", default=1.0, type=click.FloatRange(min=1), help="Multiply the exchange's allowances.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when ready.")
def simulate(duration: float | None, script: Path | None, as_json: bool, **options: Any) -> None:
    """Serve an exchange on loopback: its WebSocket and REST protocol, fed by a seeded synthetic market.

    Trades are printed and order books change in real time; with --truth every trade is logged, whoever received it.
    Ctrl-C stops it.
    """
    from simulator.faults import read_script

    try:
        faults = read_script(script) if script is not None else []
        code = asyncio.run(_serve(duration, as_json, {**options, "faults": faults}))
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    click.get_current_context().exit(code)


async def _serve(duration: float | None, as_json: bool, options: dict[str, Any]) -> int:
    """Serve until a signal or the end of `duration`; the exit code."""
    from simulator.server import serve

    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def stop(code: int) -> None:
        if not stopped.done():
            stopped.set_result(code)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop, 130)
    loop.add_signal_handler(signal.SIGTERM, stop, 0)
    async with serve(**options) as simulator:
        urls = {
            "ws_url": simulator.ws_url,
            "rest_url": simulator.rest_url,
            "control_url": simulator.control_url,
            "pid": os.getpid(),
        }
        lines = [json.dumps(urls)] if as_json else [f"{name:<12} {value}" for name, value in urls.items()]
        click.echo("\n".join(lines))
        sys.stdout.flush()
        if duration is not None:
            loop.call_later(duration, stop, 0)
        return await stopped
