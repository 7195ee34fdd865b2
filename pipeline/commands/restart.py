"""`pipeline restart`: stop and start processes, one after the other, with one result line each."""

import json
import sys
import time

import click
import msgspec

from pipeline import settings as settings_module
from pipeline.errors import SettingsError
from pipeline.shutdown import tier_of
from pipeline.stanzas import socket_of
from pipeline.supervisor import DOWN, Fault, Program, Supervisor

DEADLINE = 90.0
POLL = 0.05
SERVERS = ("redis", "postgres")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`before` and `after` are process ids, null when it did not run."""

    name: str
    restarted: bool
    before: int | None
    after: int | None
    error: str | None = None

    def __str__(self) -> str:
        if self.restarted:
            return f"{self.name} restarted (pid {self.before or '-'} -> {self.after})"
        return f"{self.name} not restarted: {self.error}"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
@click.pass_context
def restart(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Restart the named processes; without a name, all stages and the watchdog, but not the servers.

    \b
    Examples:
      pipeline restart
      pipeline restart ingest-okx
      pipeline restart redis postgres --json
    """
    settings = settings_module.load(ctx.obj)
    supervisor = Supervisor(socket_of(settings))
    programs = supervisor.programs()
    known = [name for name in ("watchdog", *settings.processes()) if name in programs]
    if unknown := [name for name in names if name not in known]:
        raise SettingsError(f"no process {unknown[0]!r}: known are {' '.join(known)}")
    wanted = names or tuple(sorted((name for name in known if name not in SERVERS), key=tier_of, reverse=True))
    results = []
    for name in wanted:
        results.append(restart_one(supervisor, name))
        if not as_json:
            click.echo(str(results[-1]))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(results), indent=2))
    sys.exit(0 if all(result.restarted for result in results) else 1)


def restart_one(supervisor: Supervisor, name: str) -> Result:
    """Stops the process, starts it and waits until supervisord says that it runs. Raises ServerAway."""
    before = supervisor.programs()[name].pid or None
    try:
        supervisor.stop(name)
        _wait(supervisor, name, DOWN)
        supervisor.start(name)
        program = _wait(supervisor, name, ("RUNNING", "FATAL"))
    except Fault as fault:
        return Result(name=name, restarted=False, before=before, after=None, error=fault.faultString)
    running = program.state == "RUNNING"
    error = None if running else program.error or f"it is {program.state} after {DEADLINE:g} s"
    return Result(name=name, restarted=running, before=before, after=program.pid or None, error=error)


def _wait(supervisor: Supervisor, name: str, states: tuple[str, ...]) -> Program:
    end = time.monotonic() + DEADLINE
    while (program := supervisor.programs()[name]).state not in states and time.monotonic() < end:
        time.sleep(POLL)
    return program
