"""What normalize wants of ingest, and what ingest has made of it, of their reports. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.facts import Snapshot
from pipeline.seen import Seen, details, reports_of


class Fetching(msgspec.Struct, frozen=True, kw_only=True):
    """A want of trades: the numbers wanted, printed between two times (ns), and how far ingest has come. `done` of
    `wanted` numbers are covered by `pages`, at `rate` a second over the last 30 s, for `left` seconds yet; null where
    ingest does not say. `late`: the exchange forgets them at `deadline` (ns), before that."""

    first: int | None
    last: int | None
    from_time: int | None
    to_time: int | None
    done: int | None
    wanted: int | None
    pages: int | None
    rate: float | None
    left: float | None
    deadline: int | None
    late: bool


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What normalize wants of ingest now, and what ingest has made of it (`state`: queued, asked …; waiting: until it
    is wanted anew; null where ingest does not know it yet). `since` in ns. `trades` is null of order books."""

    exchange: str
    key: str
    what: str
    symbol: str
    number: int
    since: int
    reason: str
    state: str | None
    answer: str | None
    trades: Fetching | None = None


def demands(snapshot: Snapshot, exchange: str) -> list[Demand]:
    """What is wanted of the exchange, the oldest first."""
    reports = reports_of(snapshot)
    requests = details(reports.get(f"ingest-{exchange}")).get("requests") or {}
    seen = Seen(reports.get(f"normalize-{exchange}"))
    found = [
        Demand(
            exchange=exchange,
            key=key,
            what=want["what"],
            symbol=seen.symbol(want["instrument"]),
            number=want["number"],
            since=want["since"],
            reason=want["reason"],
            state="waiting" if "waits" in want else request.get("state"),
            answer=want["answer"] if "waits" in want else request.get("reason"),
            trades=_fetching(want, request) if want["what"] == "trades" else None,
        )
        for key, want in seen.wants.items()
        for request in (_request(requests.get(key), want["number"]),)
    ]
    return sorted(found, key=lambda want: (want.since, want.key))


def _fetching(want: Mapping[str, Any], request: Mapping[str, Any]) -> Fetching:
    numbers = {field: want.get(field) for field in ("first", "last", "from_time", "to_time")}
    progress = {field: request.get(field) for field in ("done", "wanted", "pages", "rate", "left", "deadline")}
    return Fetching(**numbers, **progress, late=bool(request.get("late")))


def _request(request: Mapping[str, Any] | None, number: int) -> Mapping[str, Any]:
    """ingest's row, if it is of this number and not of an earlier one."""
    return request if request is not None and request.get("number") == number else {}
