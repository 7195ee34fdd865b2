"""`pipeline health`: one line and an exit code, for probes of containers and service managers."""

import json

import click

from pipeline import settings, text
from pipeline.cli import FINDING, GOOD, UNHEALTHY, version
from pipeline.rows import Document
from pipeline.snapshot import look
from pipeline.status import HEALTH_FIELDS, document, of_name

LONGEST = 400
"""Probes keep little of what they print."""


@click.command()
@click.argument("name", required=False)
@click.option("--strict", is_flag=True, help="Exit 1 when degraded.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document (fields: docs/status.md).")
@click.pass_context
def health(ctx: click.Context, name: str | None, strict: bool, as_json: bool) -> None:
    """Say in one line whether all is well: 0 for healthy and degraded, 3 for unhealthy or stopped.

    NAME is a process or an exchange; without it, the whole instance. A degraded pipeline still collects, so a probe
    that restarts what is unhealthy leaves it alone, unless --strict is given.

    \b
    Examples:
      pipeline health
      pipeline health ingest-okx --strict
      pipeline health --json
    """
    given = settings.load(ctx.obj)
    snapshot, verdict = look(given)
    whole = document(snapshot, verdict, given, version())
    part = whole if name is None else of_name(whole, name)
    level = whole["status"] if name is None else part["level"]
    issues = (
        [f"{reason['subject']} {reason['text']}" for reason in whole["reasons"]] if name is None else part["issues"]
    )
    if as_json:
        click.echo(json.dumps(_short(whole, issues) if name is None else {key: part[key] for key in HEALTH_FIELDS}))
    else:
        line = f"{name or 'tapeline'} {level}"
        click.echo(text.cut(f"{line}: {'; '.join(issues)}" if issues else line, LONGEST))
    codes = {"healthy": GOOD, "notice": GOOD, "degraded": FINDING if strict else GOOD}
    ctx.exit(codes.get(level, UNHEALTHY))


def _short(whole: Document, issues: list[str]) -> Document:
    """The whole instance in the seeds' words."""
    return {
        "status": whole["status"],
        "reason": whole["reason"],
        "since": whole["since"],
        "is_healthy": whole["status"] in ("healthy", "degraded"),
        "issues": issues,
    }
