"""`pipeline down`: stop everything in order. Deletes nothing."""

import fcntl
import os
import signal
import time

import click

from pipeline import settings as settings_module
from pipeline.errors import ServerAway
from pipeline.settings import Settings
from pipeline.shutdown import stop_all
from pipeline.stanzas import socket_of
from pipeline.supervisor import Supervisor

KEEPER_DEADLINE = 120.0
POLL = 0.1


@click.command()
@click.option("--force", is_flag=True, help="Kill the stages instead of letting them finish their step.")
@click.pass_context
def down(ctx: click.Context, force: bool) -> None:
    """Stop everything in order: stages from the exchange down, then the servers. Deletes nothing.

    \b
    Examples:
      pipeline down
      pipeline down --force
    """
    settings = settings_module.load(ctx.obj)
    supervisor = Supervisor(socket_of(settings))
    keeper = keeper_pid(settings)
    if supervisor.answers():
        stop_all(supervisor, click.echo, force=lambda: force)
    elif keeper:
        os.kill(keeper, signal.SIGTERM)
    else:
        click.echo(f"nothing is running ({settings.state_dir})")
        return
    end = time.monotonic() + KEEPER_DEADLINE
    while keeper_pid(settings) and time.monotonic() < end:
        time.sleep(POLL)
    if supervisor.answers() or keeper_pid(settings):
        raise ServerAway(f"something still runs after {KEEPER_DEADLINE:g} s: see `pipeline status`")
    click.echo("down")


def keeper_pid(settings: Settings) -> int:
    """The process id of the `pipeline up` that holds this instance, 0 when there is none."""
    try:
        descriptor = os.open(settings.run_dir / "up.lock", os.O_RDWR)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 20, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return 0
