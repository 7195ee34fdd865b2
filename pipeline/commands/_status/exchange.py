"""An exchange on the status page: its subscriptions, what is wanted of it, what of its allowances is used. Pure."""

from pipeline import text
from pipeline.rows import Document

MOST_ROWS = 20
"""More subscriptions than this are summed up by exchange."""
MOST_WANTS = 10

Lines = list[str]


def of_exchanges(exchanges: dict[str, Document]) -> Lines:
    """Each subscription of all exchanges, or a sum of each exchange."""
    if sum(len(row["subscriptions"]) for row in exchanges.values()) > MOST_ROWS:
        return [line for name, row in exchanges.items() for line in text.paragraph(name, _summary(row))]
    return [line for name, row in exchanges.items() for line in of_exchange(name, row)]


def of_exchange(name: str, exchange: Document) -> Lines:
    """Each subscription of one exchange."""
    rows: list[tuple[str, ...]] = [
        (
            row["symbol"],
            row["kind"],
            length(row["time_since_message"]),
            text.number(row["rate"]),
            text.number(row["duplicates"]),
            _state(row),
        )
        for row in exchange["subscriptions"]
    ]
    if not rows:
        return [f"{name.upper()}  no subscription"]
    header, *rows = _flush([(name.upper(), "KIND", "LAST", "RATE/s", "DUPS", "STATE"), *rows])
    lines = text.table(header, rows, left=2)
    for row in exchange["subscriptions"]:
        if row["reason"]:
            lines += text.paragraph("", f"{row['symbol']} {row['kind']} {row['state']}: {row['reason']}", indent=2)
    return lines


def under_way(exchange: Document) -> Lines:
    """Patterns, wants and allowances of one exchange."""
    lines: Lines = []
    for pattern, count in exchange["patterns"].items():
        lines += text.paragraph("pattern", f"{pattern} matches {count} instruments")
    wants = exchange["wants"]
    for want in wants[:MOST_WANTS]:
        state = want["state"] or "not asked for yet"
        answer = f" ({want['answer']})" if want["answer"] else ""
        what = f"{want['what']} {want['symbol']} {_numbers(want)}because of {want['reason']}, for {length(want['age'])}"
        lines += text.paragraph("wanted", f"{what}: {state}{answer}{_progress(want)}")
    if len(wants) > MOST_WANTS:
        lines += text.paragraph("wanted", f"{len(wants) - MOST_WANTS} more")
    used = [f"{name} {_budget(row)}" for name, row in exchange["budgets"].items() if row["used"] or row["held"]]
    return lines + (text.paragraph("allowances", "; ".join(used)) if used else [])


def _numbers(want: Document) -> str:
    trades = want["trades"]
    if not trades:
        return ""
    return f"from {trades['first']} on " if trades["last"] is None else f"{trades['first']}-{trades['last']} "


def _progress(want: Document) -> str:
    """How far fetching trades has come."""
    trades = want["trades"]
    if not trades or not trades["wanted"]:
        return ""
    parts = [f", {trades['done'] or 0} of {trades['wanted']} numbers"]
    if trades["seconds_left"] is not None:
        parts.append(f"{length(trades['seconds_left'])} left")
    if trades["late"]:
        parts.append("the exchange forgets them before that")
    return ", ".join(parts)


def length(span: float | None) -> str:
    """A length of time in seconds, or a dash."""
    return text.NOTHING if span is None else text.span(span)


def _budget(row: Document) -> str:
    held = f", nothing goes for {length(row['held'])}" if row["held"] else ""
    return f"{row['used']} of {row['limit']} in {length(row['period'])}{held}"


def _state(row: Document) -> str:
    """In few words: what is wrong with it, or how well it is."""
    if row["state"] != "subscribed":
        return str(row["state"])
    if row["kind"] == "trade":
        return _of_trades(row)
    return _of_book(row["book"]) if row["book"] else "subscribed"


def _of_trades(row: Document) -> str:
    if row["open_gaps"]:
        return f"{text.number(row['open_gaps'])} gaps, {text.number(row['missing'])} missing"
    if not row["covered"] or row["complete_since"] is None:
        return "subscribed"
    since = row["complete_since"]
    return f"complete since {since[:10]} {since[11:16]}"


def _of_book(book: Document) -> str:
    again = f", {text.number(book['resyncs'])} resyncs" if book["resyncs"] else ""
    if not book["valid"]:
        return f"INVALID: {text.cut(book['reason'] or '?', 12)}{again}"
    return f"valid {book['bid_levels']}/{book['ask_levels']}{again}"


def _flush(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The last column stands to the left: filled up to its widest cell."""
    width = max(len(row[-1]) for row in rows)
    return [(*row[:-1], row[-1].ljust(width)) for row in rows]


def _summary(exchange: Document) -> str:
    """All subscriptions of an exchange in a few words."""
    rows = exchange["subscriptions"]
    trades = [row for row in rows if row["kind"] == "trade"]
    books = [row["book"] for row in rows if row["book"]]
    newest = min((row["time_since_message"] for row in rows if row["time_since_message"] is not None), default=None)
    parts = [
        f"{len(rows)} subscriptions",
        f"{sum(row['state'] == 'refused' for row in rows)} refused",
        f"trades of {sum(row['covered'] for row in trades)} of {len(trades)} covered",
        f"{sum(row['open_gaps'] for row in trades)} open gaps",
        f"{text.number(sum(row['rate'] or 0 for row in trades))} trades/s",
    ]
    if books:
        parts.append(f"{sum(book['valid'] for book in books)} of {len(books)} books valid")
    if exchange["wants"]:
        parts.append(f"{len(exchange['wants'])} wants, the oldest for {length(exchange['wants'][0]['age'])}")
    return ", ".join([*parts, f"newest {length(newest)} ago"])
