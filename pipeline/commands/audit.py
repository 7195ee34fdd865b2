"""`pipeline audit`: is anything missing, and is every candle right? Asked of what is stored, and of the exchanges."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline import settings
from pipeline.cli import FINDING, GOOD
from pipeline.commands._audit import statements
from pipeline.commands._audit.asking import Venues
from pipeline.commands._audit.database import Database, Row, database
from pipeline.commands._audit.document import document
from pipeline.commands._audit.examination import DONE, Asked, Examination, Step
from pipeline.commands._audit.explanation import explanation
from pipeline.commands._audit.page import page
from pipeline.commands._audit.period import Period
from pipeline.commands._audit.result import Result
from pipeline.errors import SettingsError
from pipeline.exchanges import EXCHANGES
from pipeline.spelling import advice
from pipeline.timeframes import TIMEFRAMES

LIVE = timedelta(hours=1)
SECOND_LOOK = 4.0
"""Seconds: what is on its way through Redis is stored by then."""


@click.command()
@click.option("--day", help="One UTC day: 2026-11-20, today or yesterday.")
@click.option("--from", "since", help="From then on: 2026-11-20 or 2026-11-20T12:00 (UTC unless it names a zone).")
@click.option("--to", "until", help="Until then, exclusive. Default: now.")
@click.option("--exchange", help="Only this exchange.")
@click.option("--symbol", help="Only this symbol or instrument.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document (fields: docs/status.md).")
@click.option("--explain", is_flag=True, help="Print the SQL instead, for psql; nothing else is done.")
@click.option("--no-klines", is_flag=True, help="Do not ask the exchanges for their bars.")
@click.option("--require-klines", is_flag=True, help="An exchange that gives no bars is a finding.")
@click.option(
    "--kline-timeframe", default="1m", show_default=True, type=click.Choice(TIMEFRAMES), help="Which bars to ask for."
)
@click.option("--accept-unrecoverable", is_flag=True, help="Trades that the ledger names as lost are no finding.")
@click.option("-n", "limit", default=20, show_default=True, type=click.IntRange(min=1), help="Findings shown of each.")
@click.pass_context
def audit(
    ctx: click.Context,
    day: str | None,
    since: str | None,
    until: str | None,
    exchange: str | None,
    symbol: str | None,
    as_json: bool,
    explain: bool,
    no_klines: bool,
    require_klines: bool,
    kline_timeframe: str,
    accept_unrecoverable: bool,
    limit: int,
) -> None:
    """Prove that nothing is missing: every trade by number, every candle against the trades.

    For each instrument: trades stored and expected by number, numbers missing (with what the ledger of gaps says) or
    stored twice, a digest; every candle against the one that its stored trades make; and complete candles against the
    exchange's own bars, stored ones and by REST. Without a range: yesterday and today. Nothing is changed.

    Exit code: 0 when nothing is missing or wrong, 1 when something is, 2 for wrong usage, 3 when Postgres is away.
    An exchange that gives no bars is said, and 1 only with --require-klines. Days that retention dropped are said and
    no finding; where no day of the range is kept the code is 1, for nothing is proven.

    \b
    Examples:
      pipeline audit --day yesterday
      pipeline audit --from 2026-11-20T12:00 --to 2026-11-20T18:00 --symbol BTC-USDT
      pipeline audit --day 2026-11-20 --json | jq '.symbols[] | {symbol, digest}'
      pipeline audit --day 2026-11-20 --symbol BTC-USDT --explain | psql
    """
    period = Period.asked(day, since, until, datetime.now(UTC))
    given = settings.load(ctx.obj)
    if exchange is not None and exchange.lower() not in EXCHANGES:
        raise SettingsError(f"no exchange {exchange!r}{advice(exchange, list(EXCHANGES))}")
    if no_klines and require_klines:
        raise click.UsageError("--no-klines and --require-klines contradict each other")
    with database(given) as opened:
        rows = _instruments(opened, exchange, symbol, period)
        if explain:
            click.echo("\n".join(_explained(opened, rows, period)))
            ctx.exit(GOOD)
        with contextlib.ExitStack() as stack:
            venues = None if no_klines else stack.enter_context(Venues(given))
            results = _examined(opened, rows, period, Asked(kline_timeframe, venues), quiet=as_json)
    good = any(one.proves for one in results)
    good = good and all(one.good(accept_unrecoverable=accept_unrecoverable) for one in results)
    good = good and not (require_klines and any(one.rest.unasked for one in results))
    if as_json:
        click.echo(json.dumps(document(results, period, good=good), indent=2))
    else:
        click.echo("\n".join(page(results, period.name, limit) if results else ["nothing was collected in this time"]))
    ctx.exit(GOOD if good else FINDING)


def _instruments(opened: Database, exchange: str | None, symbol: str | None, period: Period) -> list[Row]:
    """Raises SettingsError where none has the symbol."""
    rows = opened.all(statements.instruments(exchange, symbol, period))
    if not rows and symbol is not None:
        raise SettingsError(f"nothing was ever collected of {symbol!r}{f' on {exchange}' if exchange else ''}")
    return rows


def _explained(opened: Database, rows: list[Row], period: Period) -> Iterator[str]:
    for row in rows:
        for told, statement in explanation(row, period):
            yield f"-- {told}\n{opened.text(statement).strip()};\n"


def _examined(opened: Database, rows: list[Row], period: Period, asked: Asked, *, quiet: bool) -> list[Result]:
    """Every instrument; of a time that is not long over those a second time that seem wrong: what they lack may have
    been on its way."""
    steps = len(rows) * len(list(period.days()))
    with _progress(steps, shown=not quiet and sys.stderr.isatty()) as say:
        results = [Examination(opened, row, period, asked, say).run() for row in rows]
        doubtful = [place for place, one in enumerate(results) if not one.good()]
        if doubtful and period.end > datetime.now(UTC) - LIVE:
            say("a second look")
            time.sleep(SECOND_LOOK)
            for place in doubtful:
                results[place] = Examination(opened, rows[place], period, asked, lambda _: None).run()
    return results


@contextlib.contextmanager
def _progress(steps: int, *, shown: bool) -> Iterator[Step]:
    """A bar on the terminal."""
    if not shown:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("audit", total=steps)
        yield lambda what: bar.update(task, description=what) if what != DONE else bar.advance(task)
