"""The SQL of an audit, for psql: the same statements that the audit runs. Pure."""

from collections.abc import Iterator

from pipeline.commands._audit import statements
from pipeline.commands._audit.database import Row
from pipeline.commands._audit.period import Period
from pipeline.commands._audit.statements import Statement
from pipeline.timeframes import TIMEFRAMES


def explanation(row: Row, period: Period) -> Iterator[tuple[str, Statement]]:
    """(what it tells, the statement) for one instrument."""
    number, name = row["id"], f"{row['exchange']} {row['symbol']}"
    for day in period.days():
        yield f"{name} {day.name}: trades, first and last number, digest", statements.digest(number, day)
    yield (
        f"{name}: unbroken runs of numbers; between two of an epoch numbers are missing",
        statements.runs(number, period),
    )
    yield f"{name}: numbers stored more than once", statements.doubled(number, period)
    yield f"{name}: what the ledger says", statements.ledger(number, period)
    for timeframe in TIMEFRAMES:
        told = f"{name}: candles of {timeframe} that are not what the trades make of them, or may not be"
        yield told, statements.windows(number, timeframe, period)
