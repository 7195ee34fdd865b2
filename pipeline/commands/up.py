"""`pipeline up`: check, start everything the settings ask for, and stay beside it."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import click

from pipeline import settings as settings_module
from pipeline.commands._options import DURATION
from pipeline.errors import ServerAway, SettingsError
from pipeline.installation import refuse_foreign_names
from pipeline.keeper import Keeper, detach
from pipeline.servers.binary import find_postgres, find_redis
from pipeline.servers.fitness import check_redis
from pipeline.servers.folders import run_folder
from pipeline.servers.launch import check_port
from pipeline.servers.postgres import home_of
from pipeline.servers.redis import record_of
from pipeline.settings import Settings
from pipeline.stanzas import configuration, socket_of
from pipeline.supervisor import Supervisor

DETACH_DEADLINE = 90.0
PORT_PATIENCE = 2.0
POLL = 0.1


@click.command()
@click.option("--for", "duration", type=DURATION, help="Stop after this long: 8h, 90m, 1h30m.")
@click.option("--detach", is_flag=True, help="Return once everything runs; stop it with `pipeline down`.")
@click.pass_context
def up(ctx: click.Context, duration: float | None, detach: bool) -> None:
    """Start everything the settings ask for and stay beside it. Ctrl-C stops all in order, twice forces.

    Settings for BTC-USDT and ETH-USDT on OKX are written when there are none.

    \b
    Examples:
      pipeline up
      pipeline up --for 8h
      pipeline up --detach
    """
    settings = default_settings(ctx.obj)
    run_folder(settings)
    if detach:
        _detach(settings, duration)
        return
    keeper = Keeper(settings, os.environ, click.echo)
    keeper.hold()
    _preflight(settings)
    for line in _introduction(settings):
        click.echo(line)
    ended_by = keeper.keep(duration)
    sys.exit(130 if ended_by == signal.SIGINT else 0)


def default_settings(given: Path | None) -> Settings:
    """Loads them. Writes the default ones where nobody named a file and there is none."""
    path = settings_module.settings_path(given)
    named = given is not None or os.environ.get(settings_module.PATH_VARIABLE)
    if not path.exists() and not named:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(settings_module.encode(settings_module.default_file()))
        click.echo(f"wrote {path}: collecting BTC-USDT and ETH-USDT from OKX")
    return settings_module.load(given)


def _preflight(settings: Settings) -> None:
    """All that can be refused before anything starts. Raises SettingsError."""
    refuse_foreign_names()
    if settings.redis_url is None:
        find_redis(record_of(settings))
        _wait_port(settings.file.redis.port, "redis.port")
    else:
        _refuse_unfit_redis(settings, settings.redis_url)
    if settings.database_url is None:
        find_postgres(home_of(settings) / "postgres.json")
        _wait_port(settings.file.postgres.port, "postgres.port")
    configuration(settings, os.environ)


def _wait_port(port: int, setting: str) -> None:
    """As check_port, with patience for a server that is just ending."""
    end = time.monotonic() + PORT_PATIENCE
    while True:
        try:
            check_port(port, setting)
        except SettingsError:
            if time.monotonic() > end:
                raise
            time.sleep(POLL)
        else:
            return


def _refuse_unfit_redis(settings: Settings, url: str) -> None:
    try:
        checks = asyncio.run(check_redis(url, settings.file.redis.accept_eviction))
    except ServerAway as error:
        click.echo(f"{settings_module.redacted(url)} does not answer now, everything waits for it: {error}", err=True)
        return
    for check in checks:
        if check.level == "fail":
            raise SettingsError(f"{settings_module.redacted(url)}: {check.text}: {check.advice}")
        if check.level == "warn":
            click.echo(f"{check.name}: {check.text}; {check.advice}", err=True)


def _introduction(settings: Settings) -> list[str]:
    what = [
        f"{name} {' '.join(pair.symbol for pair in exchange.trading_pairs if pair.enabled)}"
        for name, exchange in settings.enabled_exchanges().items()
    ]
    kind = "simulated" if settings.file.simulated else "live"
    return [
        f"collecting {', '.join(what)} ({kind})",
        f"settings {settings.path}",
        f"state    {settings.state_dir}",
        f"postgres {settings_module.redacted(settings.database_address())}",
        *_elsewhere(settings),
        "look with `pipeline status`; Ctrl-C or `pipeline down` stops everything",
    ]


def _elsewhere(settings: Settings) -> list[str]:
    """Says it where the user of Postgres cannot reach the state folder."""
    home = home_of(settings)
    return [f"data     of postgres in {home}: its user cannot reach the state folder"] * (home != settings.state_dir)


def _detach(settings: Settings, duration: float | None) -> None:
    """Starts the keeper in the background and waits until everything runs, or says why not."""
    log_path = settings.log_dir / "up.log"
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    begun = log_path.stat().st_size if log_path.exists() else 0
    arguments = ["-c", str(settings.path), "up", *(["--for", f"{duration:g}s"] if duration else [])]
    process = detach(arguments, log_path, os.environ)
    supervisor, end = Supervisor(socket_of(settings)), time.monotonic() + DETACH_DEADLINE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SettingsError(_since(log_path, begun) or "`pipeline up` ended at once")
        if _all_run(settings, supervisor):
            click.echo(_since(log_path, begun))
            click.echo(f"up (pid {process.pid}); `pipeline down` stops it, its lines are in {log_path}")
            # It outlives us on purpose.
            process.returncode = 0
            return
        time.sleep(POLL)
    click.echo(_since(log_path, begun))
    click.echo(f"not everything runs after {DETACH_DEADLINE:g} s: see `pipeline status`", err=True)
    process.returncode = 0
    sys.exit(3)


def _all_run(settings: Settings, supervisor: Supervisor) -> bool:
    try:
        programs = supervisor.programs()
    except ServerAway:
        return False
    return all(name in programs and programs[name].state == "RUNNING" for name in settings.processes())


def _since(log_path: Path, offset: int) -> str:
    with log_path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace").strip()
