"""The capabilities written out: for people on a terminal, and as docs/exchanges.md. Pure."""

from collections.abc import Iterator, Sequence

from pipeline import text
from pipeline.commands._exchanges.capability import COLUMNS, SOURCES, Capability

HEAD = """# Exchanges

This page is written by `pipeline exchanges --markdown`: it says what the code collects today, and nothing that is only
planned. A test fails when it is out of date.

WS: over a WebSocket, as it happens. REST: asked for. WS+REST: changes over a WebSocket, their starting point asked for.
made: built here of the trades.
"""


def matrix(found: dict[str, Capability]) -> list[str]:
    """Exchanges by kinds."""
    rows = [(name, *(_cell(row, kind) for kind in COLUMNS)) for name, row in found.items()]
    return text.table(("EXCHANGE", *(kind.upper() for kind in COLUMNS)), rows, left=len(COLUMNS) + 1)


def detail(row: Capability) -> list[str]:
    """One exchange."""
    limits = row["limits"]
    lines = [f"{row['name']}: {row['title']}"]
    lines += text.paragraph("websocket", row["ws_url"])
    lines += text.paragraph("rest", row["rest_url"])
    for kind, found in row["kinds"].items():
        lines += text.paragraph(kind, f"{SOURCES[found['source']]}: {_told(found)}")
    lines += text.paragraph("connects", _rate(limits["connects"]))
    lines += text.paragraph("requests", f"{_rate(limits['requests'])}, on each connection")
    each = ", ".join(f"{most} ({group})" for group, most in limits["subscriptions_per_connection"].items())
    lines += text.paragraph("channels", f"at most on a connection: {each}")
    if limits["connection_lifetime"] is not None:
        lines += text.paragraph(
            "rotation", f"a connection is replaced after {text.span(limits['connection_lifetime'])}"
        )
    return lines + text.paragraph("rest rate", "; ".join(f"{k}: {_rate(rate)}" for k, rate in limits["rest"].items()))


def markdown(found: dict[str, Capability]) -> str:
    """docs/exchanges.md."""
    parts = [HEAD, _table(("exchange", *COLUMNS), [(name, *_cells(row)) for name, row in found.items()])]
    return "\n".join([*parts, *(line for row in found.values() for line in _section(row))])


def _section(row: Capability) -> Iterator[str]:
    limits = row["limits"]
    yield f"\n## `{row['name']}`: {row['title']}\n"
    yield f"Endpoints: `{row['ws_url']}`, `{row['rest_url']}` (`ws_url` and `rest_url` in the settings change them).\n"
    yield _table(
        ("data type", "how", "channels or paths", "time frames"),
        [
            (f"`{kind}`", SOURCES[found["source"]], _code(found["channels"]), " ".join(found.get("timeframes", ())))
            for kind, found in row["kinds"].items()
        ],
    )
    yield "\nKept to:\n"
    rows = [("new connections", _rate(limits["connects"]))]
    rows.append(("requests on a connection", _rate(limits["requests"])))
    for group, most in limits["subscriptions_per_connection"].items():
        rows.append((f"subscriptions on a connection ({group})", str(most)))
    lifetime = limits["connection_lifetime"]
    rows.append(("a connection is replaced after", "-" if lifetime is None else text.span(lifetime)))
    rows += [(f"REST, {name}", _rate(rate)) for name, rate in limits["rest"].items()]
    yield _table(("limit", "value"), rows)


def _cells(row: Capability) -> list[str]:
    return [_cell(row, kind) for kind in COLUMNS]


def _cell(row: Capability, kind: str) -> str:
    return SOURCES[row["kinds"][kind]["source"]] if kind in row["kinds"] else text.NOTHING


def _told(found: Capability) -> str:
    frames = f" ({' '.join(found['timeframes'])})" if "timeframes" in found else ""
    return f"{' '.join(found['channels'])}{frames}"


def _rate(rate: Capability) -> str:
    seconds = rate["seconds"]
    return f"{rate['count']} in {text.span(seconds) if seconds >= 60 else f'{seconds:g}s'}"


def _code(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
