"""`pipeline status`: the page to look at each morning. Changes nothing, and answers when servers do not."""

import json
import time
from typing import Any

import click

from pipeline import settings, text
from pipeline.cli import FINDING, GOOD, UNHEALTHY, version
from pipeline.commands._status.exchange import Lines, length, of_exchange, of_exchanges, under_way
from pipeline.rows import Document
from pipeline.settings import Settings
from pipeline.snapshot import look
from pipeline.status import document, of_name

EXIT_CODES = {"healthy": GOOD, "notice": GOOD, "degraded": FINDING, "unhealthy": UNHEALTHY, "stopped": UNHEALTHY}
COLOURS = {"healthy": "green", "running": "green", "degraded": "yellow", "starting": "yellow"}
MOST_READERS = 10


@click.command()
@click.argument("name", required=False)
@click.option("--watch", type=click.FloatRange(min=0.5), metavar="N", help="Show it again every N seconds.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document (fields: docs/status.md).")
@click.pass_context
def status(ctx: click.Context, name: str | None, watch: float | None, as_json: bool) -> None:
    """Show what runs, how fresh the data is and what is missing.

    NAME is a process (ingest-okx: its connections too) or an exchange (okx: each subscription). Without it: everything.
    Exit code: 0 healthy, 1 degraded, 3 unhealthy or nothing running.

    \b
    Examples:
      pipeline status
      pipeline status okx
      pipeline status ingest-okx --json
      pipeline status --watch 5
    """
    given = settings.load(ctx.obj)
    code = _show(given, name, as_json)
    while watch is not None:
        time.sleep(watch)
        if not as_json:
            click.clear()
        code = _show(given, name, as_json)
    ctx.exit(code)


def _show(given: Settings, name: str | None, as_json: bool) -> int:
    snapshot, verdict = look(given)
    whole = document(snapshot, verdict, given, version())
    part = whole if name is None else of_name(whole, name)
    if as_json:
        click.echo(json.dumps(part, indent=2))
    else:
        click.echo("\n".join(_page(whole, snapshot.at) if name is None else _detail(part, snapshot.at)))
    return EXIT_CODES[whole["status"] if name is None else part["level"]]


def _page(whole: Document, now: int) -> Lines:
    """Everything at a glance."""
    lines = _header(whole)
    if whole["service_running"]:
        lines += ["", *_processes(whole["processes"]), "", *of_exchanges(whole["exchanges"]), "", *_servers(whole)]
    else:
        lines += ["", "start it with `pipeline up`"]
    return [*lines, f"as of {text.moment(now)} UTC"]


def _header(whole: Document) -> Lines:
    configuration = whole["configuration"]
    kind = "simulated" if configuration["simulated"] else "live"
    state = _coloured(whole["status"], whole["status"].upper())
    lines = [f"tapeline {whole['version']}: {state} since {_at(whole['since'], whole['at'])}"]
    for label, key in (("settings", "config_file"), ("state", "state_dir")):
        lines += text.paragraph(label, configuration[key])
    lines.append(f"namespace  {configuration['namespace']}, {kind}")
    for reason in whole["reasons"]:
        what = f"{reason['subject']}: {reason['text']} (since {_at(reason['since'], whole['at'])})"
        lines += text.paragraph(reason["level"], what)
    return lines


def _processes(processes: dict[str, Document]) -> Lines:
    rows = [
        (
            name,
            row["status"],
            length(row["statistics"]["uptime_seconds"]),
            str(row["statistics"]["restarts"]),
            length(row["health"]["time_since_data"]),
            text.number(_rate(row["rates"])),
            text.number(row["lag"]),
            text.number(row["statistics"]["errors"]),
        )
        for name, row in processes.items()
    ]
    header = ("PROCESS", "STATE", "UP", "RESTARTS", "DATA", "RATE/s", "LAG", "ERRORS")
    lines = text.table(header, rows, left=2)
    for name, row in processes.items():
        if row["statistics"]["last_error"]:
            when = row["statistics"]["last_error_time"]
            lines += text.paragraph(
                "", f"{name} last error {_clock(when)}: {row['statistics']['last_error']}", indent=2
            )
    return lines


def _servers(whole: Document) -> Lines:
    redis, postgres, dead = whole["redis"], whole["postgres"], whole["dead_letters"]
    memory = f"{text.size(redis['used_bytes'])} of {text.size(redis['budget_bytes'])}, version {redis['version']}"
    newest = ", ".join(f"{table} {length(past)}" for table, past in postgres["time_since_newest"].items())
    rate = postgres["growth_bytes_per_day"]
    grows = "growth not measured yet" if rate is None else f"grows by {text.size(rate)} a day"
    rows = f"{text.size(postgres['bytes'])}, {grows}; newest row: {newest or 'none'}"
    lines = text.paragraph("redis", redis["error"] or memory)
    lines += text.paragraph("postgres", postgres["error"] or rows)
    for row in whole["readers"][:MOST_READERS]:
        lines += text.paragraph("reader", _reader(row))
    lines += text.paragraph("disk", _disk(whole["disk"], rate))
    if kept := _kept(whole["retention"], postgres["kept_since"]):
        lines += text.paragraph("kept", kept)
    return lines + text.paragraph("dead", _dead(dead, redis["error"]))


def _reader(row: Document) -> str:
    """A group of others on one stream."""
    parts = [f"{row['name']} of {row['stream']}: lag {text.number(row['lag'])}"]
    if row["pending"]:
        parts.append(f"{text.number(row['pending'])} pending")
    parts.append(f"holds about {text.size(row['held_bytes'])}")
    if row["lost"]:
        parts.append(f"lost {'' if row['lost']['exact'] else 'over '}{row['lost']['entries']} entries")
    return ", ".join(parts)


def _disk(disk: Document, rate: int | None) -> str:
    free = f"{text.size(disk['free_bytes'])} free"
    if disk["data_free_bytes"] is None or rate is None:
        return free
    left = disk["days_until_full"]
    return f"{free}; {'not full' if left is None else f'full in {text.span(left * 86_400)}'} at the database's growth"


def _kept(retention: Document, since: dict[str, str]) -> str:
    """What is not kept for ever."""
    days: dict[str, int] = retention["days"]
    said = [
        kind
        + (f" {days[kind]} days" if kind in days else "")
        + (f" (whole since {since[kind][:10]})" if kind in since else "")
        for kind in dict.fromkeys((*days, *since))
    ]
    said += [f"too old, but stays: {name} ({why})" for name, why in retention["held"].items()]
    return "; ".join([*said, *([retention["trouble"]] if retention["trouble"] else [])])


def _dead(dead: Document, unknown: str | None) -> str:
    if unknown:
        return "unknown while Redis is away"
    if not dead["last_hour"]:
        return "no dead letters in the last hour"
    top = next(iter(dead["reasons"]))
    return f"{'over ' if dead['more'] else ''}{dead['last_hour']} dead letters in the last hour, most for: {top}"


def _detail(part: Document, now: int) -> Lines:
    """One process or one exchange."""
    statistics, health = part["statistics"], part["health"]
    state = _coloured(part["status"], part["status"].upper())
    lines = [f"{part['name']}: {state}, up {length(statistics['uptime_seconds'])}, pid {part['pid'] or '-'}"]
    for issue in part["issues"]:
        lines += text.paragraph("issue", issue)
    lines += text.paragraph(
        "messages",
        f"{statistics['messages_received']} received, {statistics['messages_processed']} processed, "
        f"{statistics['errors']} errors, lag {text.number(part['lag'])}",
    )
    lines.append(
        f"heartbeat  {length(health['time_since_heartbeat'])} ago, data {length(health['time_since_data'])} ago"
    )
    lines += text.paragraph("restarts", f"{statistics['restarts']}, last {_clock(statistics['last_restart_time'])}")
    if statistics["last_error"]:
        error = f"{_clock(statistics['last_error_time'])} {statistics['last_error']}"
        lines += text.paragraph("last error", error)
    if part["rates"]:
        lines += text.paragraph("rates/s", ", ".join(f"{name} {rate}" for name, rate in part["rates"].items()))
    lines += _connections(part.get("connections", []))
    if "subscriptions" in part:
        lines += ["", *of_exchange(part["exchange"], part), *under_way(part)]
    return [*lines, "", f"as of {text.moment(now)} UTC"]


def _connections(rows: list[Document]) -> Lines:
    lines: Lines = []
    for row in rows:
        lines += text.paragraph("socket", row["connection"])
        told = (
            f"{row['state']} since {_clock(row['opened'])}, last frame {length(row['time_since_frame'])} ago, "
            f"{row['frames']} frames, {row['reconnects']} reconnects, pings {row['pings']}/{row['pongs']}"
        )
        lines += text.paragraph("", told)
    return lines


def _rate(rates: dict[str, float]) -> float | None:
    """The rate of what a process takes in."""
    return next((rates[name] for name in ("written", "entries") if name in rates), None)


def _clock(moment: str | None) -> str:
    return f"{moment[:10]} {moment[11:19]} UTC" if moment else "never"


def _at(moment: str, now: str) -> str:
    """`2026-11-21 09:48:00 UTC, 3m ago`."""
    return f"{_clock(moment)}, {text.span(text.between(moment, now))} ago"


def _coloured(state: Any, shown: str) -> str:
    """Coloured on a terminal; click drops the colour when the output goes elsewhere."""
    return click.style(shown, fg=COLOURS.get(state, "red"), bold=True)
