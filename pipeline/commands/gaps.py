"""`pipeline gaps`: the ledger of trades that did not arrive, from Postgres."""

import json
import time
from datetime import datetime
from typing import Any, LiteralString

import click
import psycopg
from psycopg.rows import dict_row

from pipeline import settings, text
from pipeline.cli import FINDING, GOOD
from pipeline.commands._options import DURATION
from pipeline.errors import ServerAway, TapelineError
from pipeline.probes.postgres import connect, nanoseconds, short
from pipeline.settings import Settings

STATEMENT_MS = 30_000

# Open ones first, so that a limit never hides one behind closed ones.
_QUERY: LiteralString = """
    SELECT i.exchange, coalesce(i.symbol, i.instrument) AS symbol, i.instrument, g.epoch, g.from_sequence,
           g.to_sequence, g.from_time, g.to_time, g.cause, g.state, g.reason, g.repaired,
           (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM unnest(g.remaining) AS r) AS missing,
           (SELECT coalesce(array_agg(ARRAY[lower(r), upper(r) - 1]), '{}') FROM unnest(g.remaining) AS r) AS remaining,
           g.opened, g.time
    FROM trade_gaps g JOIN instruments i ON i.id = g.instrument_id
    WHERE (NOT %(open)s OR g.state <> 'closed')
      AND (%(exchange)s::text IS NULL OR i.exchange = lower(%(exchange)s))
      AND (%(symbol)s::text IS NULL OR upper(%(symbol)s) IN (upper(i.symbol), upper(i.instrument)))
      AND (%(since)s::float8 IS NULL OR g.received > now() - %(since)s * interval '1 second')
    ORDER BY g.state = 'closed', g.from_time DESC
    LIMIT %(limit)s"""


@click.command()
@click.option("--open", "only_open", is_flag=True, help="Only those that still miss trades.")
@click.option("--exchange", help="Only of this exchange.")
@click.option("--symbol", help="Only of this symbol or instrument.")
@click.option("--since", type=DURATION, help="Only those that changed within this time: 10m, 24h, 7d.")
@click.option("-n", "limit", default=1_000, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document (fields: docs/status.md).")
@click.pass_context
def gaps(
    ctx: click.Context,
    only_open: bool,
    exchange: str | None,
    symbol: str | None,
    since: float | None,
    limit: int,
    as_json: bool,
) -> None:
    """List what is missing, by trade number, and what became of it.

    Exit code: 0 when none of those listed is open, 1 when some are, 3 when Postgres is away.

    \b
    Examples:
      pipeline gaps --open
      pipeline gaps --exchange okx --symbol BTC-USDT --since 24h
      pipeline gaps --json | jq '.[] | select(.state != "closed")'
    """
    given = settings.load(ctx.obj)
    wanted = {"open": only_open, "exchange": exchange, "symbol": symbol, "since": since, "limit": limit + 1}
    rows = _read(given, wanted)
    shown = sorted(rows[:limit], key=lambda row: row["from_time"])
    if as_json:
        click.echo(json.dumps([_plain(row) for row in shown], indent=2))
    else:
        click.echo("\n".join(_lines(shown, time.time_ns())))
    if len(rows) > limit:
        click.echo(f"pipeline: more than {limit} match; -n shows more", err=True)
    ctx.exit(FINDING if any(row["state"] != "closed" for row in rows) else GOOD)


def _read(given: Settings, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        with connect(given, timeout_ms=STATEMENT_MS) as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_QUERY, wanted).fetchall()
    except psycopg.errors.UndefinedTable as error:
        raise TapelineError("the database has no ledger of gaps yet: store has not run on it") from error
    except psycopg.Error as error:
        raise ServerAway(f"the ledger is in Postgres, which does not answer: {short(error)}") from error


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON values; times as everywhere."""
    return {key: text.iso(nanoseconds(value)) if isinstance(value, datetime) else value for key, value in row.items()}


def _lines(rows: list[dict[str, Any]], now: int) -> list[str]:
    if not rows:
        return ["no gaps"]
    table = [
        (
            f"{row['exchange']} {row['symbol']}",
            f"{row['from_sequence']}-{row['to_sequence']}",
            text.number(row["missing"]),
            row["state"],
            f"{text.moment(nanoseconds(row['from_time']))} {text.age(nanoseconds(row['from_time']), now)}",
        )
        for row in rows
    ]
    lines = text.table(("SYMBOL", "NUMBERS", "MISSING", "STATE", "FROM (UTC)"), table, left=2)
    return [*lines, "", *text.paragraph("in all", _sum(rows))]


def _sum(rows: list[dict[str, Any]]) -> str:
    open_rows = [row for row in rows if row["state"] != "closed"]
    missing = sum(row["missing"] for row in open_rows)
    repaired = sum(row["repaired"] for row in rows)
    return f"{len(rows)} gaps, {len(open_rows)} open with {missing} trades missing; {repaired} trades came later"
