"""`pipeline gaps`: the ledger of trades that did not arrive, from Postgres, and how far fetching them has come."""

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, LiteralString

import click
import psycopg
from psycopg.rows import dict_row

from pipeline import reports, settings, text
from pipeline.cli import FINDING, GOOD
from pipeline.commands._audit.ledger import OUTCOMES
from pipeline.commands._options import DURATION
from pipeline.errors import ServerAway, TapelineError
from pipeline.probes.postgres import connect, nanoseconds, short
from pipeline.settings import Settings
from pipeline.wants import trades_key

STATEMENT_MS = 30_000

Row = dict[str, Any]
Repairs = Mapping[str, Mapping[str, Any]]
"""Exchange and key of a want to what ingest says of it."""

# Open ones first, so that a limit never hides one behind closed ones.
_QUERY: LiteralString = """
    SELECT g.exchange, g.symbol, g.instrument, g.epoch, g.from_sequence, g.to_sequence, g.from_time, g.to_time, g.cause,
           g.state, g.outcome, g.reason, g.repaired, g.missing,
           (SELECT coalesce(array_agg(ARRAY[lower(r), upper(r) - 1]), '{}') FROM unnest(g.remaining) AS r) AS remaining,
           g.opened, g.time
    FROM gaps g
    WHERE (NOT %(open)s OR g.outcome = 'open')
      AND (%(exchange)s::text IS NULL OR g.exchange = lower(%(exchange)s))
      AND (%(symbol)s::text IS NULL OR upper(%(symbol)s) IN (upper(g.symbol), upper(g.instrument)))
      AND (%(since)s::float8 IS NULL OR g.received > now() - %(since)s * interval '1 second')
      AND (%(outcomes)s::text[] = '{}' OR g.outcome = ANY (%(outcomes)s))
    ORDER BY g.outcome <> 'open', g.from_time DESC
    LIMIT %(limit)s"""


@click.command()
@click.option("--open", "only_open", is_flag=True, help="Only those that still miss trades.")
@click.option("--exchange", help="Only of this exchange.")
@click.option("--symbol", help="Only of this symbol or instrument.")
@click.option("--since", type=DURATION, help="Only those that changed within this time: 10m, 24h, 7d.")
@click.option(
    "--outcome", "outcomes", multiple=True, type=click.Choice(OUTCOMES), help="Only these; may be given more than once."
)
@click.option("-n", "limit", default=1_000, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document (fields: docs/status.md).")
@click.pass_context
def gaps(
    ctx: click.Context,
    only_open: bool,
    exchange: str | None,
    symbol: str | None,
    since: float | None,
    outcomes: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """List what is missing, by trade number, and what became of it.

    Outcomes: open (being fetched; how far that has come is shown where ingest runs on this machine), filled, reordered
    (the trades came a little late), unrecoverable (lost for good, with the reason), epoch (the exchange began its
    numbers again: nothing is missing).

    Exit code: 0 when none of those listed is open, 1 when some are, 3 when Postgres is away.

    \b
    Examples:
      pipeline gaps --open
      pipeline gaps --exchange okx --symbol BTC-USDT --since 24h
      pipeline gaps --outcome unrecoverable --outcome epoch
      pipeline gaps --json | jq '.[] | select(.outcome == "open") | .repair'
    """
    given = settings.load(ctx.obj)
    wanted = {"open": only_open, "exchange": exchange, "symbol": symbol, "since": since, "limit": limit + 1}
    rows = _read(given, wanted | {"outcomes": list(outcomes)})
    repairs = _repairs(given)
    shown = [row | {"repair": _repair(row, repairs)} for row in sorted(rows[:limit], key=lambda row: row["from_time"])]
    if as_json:
        click.echo(json.dumps([_plain(row) for row in shown], indent=2))
    else:
        click.echo("\n".join(_lines(shown, time.time_ns())))
    if len(rows) > limit:
        click.echo(f"pipeline: more than {limit} match; -n shows more", err=True)
    ctx.exit(FINDING if any(row["outcome"] == "open" for row in rows) else GOOD)


def _read(given: Settings, wanted: dict[str, Any]) -> list[Row]:
    try:
        with connect(given, timeout_ms=STATEMENT_MS) as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_QUERY, wanted).fetchall()
    except psycopg.errors.UndefinedTable as error:
        raise TapelineError(
            "the database has no ledger of gaps yet: store of this version has not run on it"
        ) from error
    except psycopg.Error as error:
        raise ServerAway(f"the ledger is in Postgres, which does not answer: {short(error)}") from error


def _repairs(given: Settings) -> Repairs:
    """What the ingest processes of this machine reported last; and those of normalize, of what is to be fetched
    again after a while."""
    found: dict[str, Row] = {}
    waiting: dict[str, Row] = {}
    for name, report in reports.read_all(given.heartbeat_dir).items():
        stage, _, exchange = name.partition("-")
        if stage == "ingest":
            found |= {f"{exchange} {key}": row for key, row in (report.details.get("requests") or {}).items()}
        for partition in (report.details.get("partitions") or {}).values() if stage == "normalize" else ():
            for key, want in (partition.get("wants") or {}).items():
                if "waits" in want:
                    waiting[f"{exchange} {key}"] = {"state": "waiting", "reason": want.get("answer")}
    return found | waiting


def _repair(row: Row, repairs: Repairs) -> Row | None:
    """How far fetching an open gap has come; None where nobody fetches it now."""
    key = trades_key(row["instrument"], row["epoch"], row["from_sequence"])
    said = repairs.get(f"{row['exchange']} {key}")
    if row["outcome"] != "open" or said is None:
        return None
    return {
        "state": said.get("state"),
        "reason": said.get("reason"),
        "done": said.get("done"),
        "wanted": said.get("wanted"),
        "pages": said.get("pages"),
        "rate": said.get("rate"),
        "seconds_left": said.get("left"),
        "forgotten_at": text.iso(said.get("deadline")),
        "late": bool(said.get("late")),
    }


def _plain(row: Row) -> Row:
    """JSON values; times as everywhere."""
    return {key: text.iso(nanoseconds(value)) if isinstance(value, datetime) else value for key, value in row.items()}


def _lines(rows: list[Row], now: int) -> list[str]:
    if not rows:
        return ["no gaps"]
    table = [
        (
            f"{row['exchange']} {row['symbol']}",
            _numbers(row),
            text.number(row["missing"]),
            row["outcome"],
            f"{text.moment(nanoseconds(row['from_time']))} {text.age(nanoseconds(row['from_time']), now)}",
        )
        for row in rows
    ]
    head, *lines = text.table(("SYMBOL", "NUMBERS", "MISSING", "OUTCOME", "FROM (UTC)"), table, left=2)
    said = [head]
    for line, row in zip(lines, rows, strict=True):
        said += [line, *_remarks(row)]
    return [*said, "", *text.paragraph("in all", _sum(rows))]


def _numbers(row: Row) -> str:
    first, last = row["from_sequence"], row["to_sequence"]
    if row["outcome"] == "epoch":
        return f"from {first}"
    return str(first) if first == last else f"{first}-{last}"


def _remarks(row: Row) -> list[str]:
    """Below a gap: why it will stay, or how far fetching it has come."""
    if row["repair"] is not None:
        return text.paragraph("  fetching", _progress(row["repair"]))
    if row["outcome"] in ("unrecoverable", "epoch") and row["reason"]:
        return text.paragraph("  reason", row["reason"].removeprefix("unrecoverable: "))
    return []


def _progress(repair: Row) -> str:
    parts = [repair["state"] or "queued"]
    if repair["wanted"]:
        parts.append(f"{repair['done'] or 0} of {repair['wanted']} numbers")
    if repair["rate"] is not None:
        parts.append(f"{text.number(repair['rate'])} a second")
    if repair["seconds_left"] is not None:
        parts.append(f"{text.span(repair['seconds_left'])} left")
    if repair["late"]:
        parts.append(f"the exchange forgets them before that, at {repair['forgotten_at']}")
    return ", ".join(parts) + (f": {repair['reason']}" if repair["reason"] else "")


def _sum(rows: list[Row]) -> str:
    each = [row["outcome"] for row in rows]
    open_rows = [row for row in rows if row["outcome"] == "open"]
    missing = sum(row["missing"] for row in open_rows)
    repaired = sum(row["repaired"] for row in rows)
    lost = sum(row["missing"] for row in rows if row["outcome"] == "unrecoverable")
    said = [
        f"{len(rows) - each.count('epoch')} gaps, {len(open_rows)} open with {missing} trades missing",
        f"{repaired} trades came later",
    ]
    if reordered := each.count("reordered"):
        said.append(f"{reordered} were reordering")
    if lost:
        said.append(f"{lost} trades of {each.count('unrecoverable')} gaps are lost for good")
    if epochs := each.count("epoch"):
        said.append(f"numbers began again {epochs} times")
    return "; ".join(said)
