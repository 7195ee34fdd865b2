"""`pipeline doctor`: what stands in the way, line by line, and what to do about it."""

import asyncio
import json
import sys

import click
import msgspec

from pipeline import settings as settings_module
from pipeline.diagnosis import diagnose


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look at installation, settings, folders, servers, ports, disk and clock. Changes nothing.

    Exit code 1 when something has to be changed before Tapeline can run.

    \b
    Examples:
      pipeline doctor
      pipeline doctor --json
    """
    checks = asyncio.run(diagnose(lambda: settings_module.load(ctx.obj)))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(checks), indent=2))
    else:
        for check in checks:
            click.echo(f"{check.level:<4} {check.name}: {check.text}")
            if check.advice and check.level != "ok":
                click.echo(f"     -> {check.advice}")
    sys.exit(1 if any(check.level == "fail" for check in checks) else 0)
