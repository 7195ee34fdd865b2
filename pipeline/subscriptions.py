"""One row for each instrument and kind the settings ask for, of what ingest and normalize report. Pure.

Reports of an older version say less: what is not there is not known.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.facts import Snapshot
from pipeline.reports import Report
from pipeline.seen import Seen, details, reports_of, spellings
from pipeline.settings import Settings, TradingPair

Rows = list[Mapping[str, Any]]
WILD = frozenset("*?[")
KIND_OF = {"candle": "trade"}
"""Candles are made of trades: one subscription, one row."""
RATED = ("trade", "orderbook", "quote", "ticker")
"""Kinds with one stream, whose newest entries tell the rate."""
STATES = ("refused", "unsubscribed", "requested", "subscribed")
"""Worst first: several channels of one kind are as good as the worst of them."""


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """One order book. `levels` are those kept (bids, asks), `invalid` how often it became so, `since` (ns) when it
    last did, as far as is known; `chains` are the connections that keep it."""

    valid: bool
    reason: str | None
    since: int | None
    sequence: int | None
    levels: tuple[int, int]
    chains: int
    resyncs: int
    snapshots: int
    invalid: int


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: missing (ingest does not know it), requested, subscribed, refused or unsubscribed. `complete_since`
    is when the present unbroken run of trade numbers began; `wanted` are the gaps that are being fetched,
    `unrecoverable` the numbers that will never come. `records` are those that passed (trades, quotes …; null
    for books). Times in ns UTC."""

    exchange: str
    symbol: str
    kind: str
    state: str
    reason: str | None = None
    instrument: str | None = None
    connection: str | None = None
    covered: bool = False
    last_message: int | None = None
    last_trade: int | None = None
    rate: float | None = None
    records: int | None = None
    trades: int = 0
    duplicates: int = 0
    reordered: int = 0
    open_gaps: int = 0
    missing: int = 0
    wanted: int = 0
    unrecoverable: int = 0
    complete_since: int | None = None
    book: Book | None = None


def subscriptions(snapshot: Snapshot, settings: Settings) -> tuple[Subscription, ...]:
    """The rows of every enabled exchange, in the order of the settings; a pattern gives those of all it matches."""
    reports = reports_of(snapshot)
    rows: list[Subscription] = []
    for exchange, wanted in settings.enabled_exchanges().items():
        seen = Seen(reports.get(f"normalize-{exchange}"))
        asked = _asked(reports.get(f"ingest-{exchange}"))
        pairs = [pair for pair in wanted.trading_pairs if pair.enabled]
        for pair in pairs:
            rows += _of_pair(exchange, pair, asked, seen, snapshot)
    return tuple(rows)


def _asked(report: Report | None) -> Rows:
    return list((details(report).get("subscriptions") or {}).values())


def _of_pair(exchange: str, pair: TradingPair, asked: Rows, seen: Seen, snapshot: Snapshot) -> Iterator[Subscription]:
    """A row for each instrument of the pair and each kind."""
    own = _requests_of(pair, asked, seen)
    kinds = dict.fromkeys(KIND_OF.get(kind, kind) for kind in pair.data_types)
    if WILD & set(pair.symbol):
        names: Sequence[str | None] = list(dict.fromkeys(row.get("instrument") for row in own))
    else:
        names = [seen.find(pair.symbol) or next((row.get("instrument") for row in own), None)]
    for name in names:
        for kind in kinds:
            rows = [row for row in own if kind in _kinds(row) and row.get("instrument") in (name, None)]
            yield _row(exchange, pair, kind, name, rows or _without_kinds(own, name), seen, snapshot)


def _requests_of(pair: TradingPair, asked: Rows, seen: Seen) -> Rows:
    """What ingest asks for because of the pair."""
    if any("wanted" in row for row in asked):
        return [row for row in asked if row.get("wanted") == pair.symbol]
    instrument = seen.find(pair.symbol)
    names = spellings(pair.symbol, instrument, seen.symbol(instrument) if instrument else None)
    return [row for row in asked if names & spellings(row.get("instrument"), row.get("symbol"))]


def _kinds(row: Mapping[str, Any]) -> set[str]:
    return {KIND_OF.get(kind, kind) for kind in row.get("kinds", ())}


def _without_kinds(own: Rows, name: str | None) -> Rows:
    """Requests of a report that does not say which kinds they serve."""
    return [row for row in own if "kinds" not in row and row.get("instrument") in (name, None)]


def _row(
    exchange: str,
    pair: TradingPair,
    kind: str,
    instrument: str | None,
    requests: Rows,
    seen: Seen,
    snapshot: Snapshot,
) -> Subscription:
    facts: Mapping[str, Any] = seen.of(kind).get(instrument or "") or {}
    request = _worst(requests)
    named = seen.symbol(instrument) if instrument else None
    symbol = named if named and named != instrument else facts.get("symbol") or request.get("symbol") or pair.symbol
    row = Subscription(
        exchange=exchange,
        symbol=symbol,
        kind=kind,
        state=request.get("state", "missing"),
        reason=request.get("reason"),
        instrument=instrument or request.get("instrument"),
        connection=facts.get("connection") or request.get("conn"),
        last_message=facts.get("last_message") or None,
        rate=_rate(exchange, kind, symbol, snapshot),
        records=facts.get("records", facts.get("trades", 0)) if kind != "orderbook" else None,
        duplicates=facts.get("duplicates", 0),
    )
    if kind == "trade":
        return _of_trades(row, facts, snapshot)
    if kind == "orderbook" and facts:
        assert instrument is not None
        return msgspec.structs.replace(row, book=_book(facts, seen.invalid_since(instrument, facts)))
    return row


def _worst(requests: Rows) -> Mapping[str, Any]:
    def rank(row: Mapping[str, Any]) -> int:
        state = row.get("state")
        return STATES.index(state) if state in STATES else 0

    return min(requests, key=rank, default={})


def _of_trades(row: Subscription, facts: Mapping[str, Any], snapshot: Snapshot) -> Subscription:
    ledger = snapshot.postgres.open_gaps.get((row.exchange, row.symbol), 0)
    return msgspec.structs.replace(
        row,
        covered=bool(facts.get("covered")),
        last_trade=facts.get("last_trade"),
        trades=facts.get("trades", 0),
        reordered=facts.get("reordered", 0),
        open_gaps=max(facts.get("open_gaps", 0), ledger),
        missing=facts.get("missing", 0),
        wanted=facts.get("wanted", 0),
        unrecoverable=facts.get("unrecoverable", 0),
        complete_since=facts.get("since"),
    )


def _book(facts: Mapping[str, Any], since: int | None) -> Book:
    bids, asks = facts.get("levels") or (0, 0)
    valid = bool(facts.get("valid"))
    return Book(
        valid=valid,
        reason=facts.get("reason"),
        since=None if valid else since,
        sequence=facts.get("sequence"),
        levels=(bids, asks),
        chains=facts.get("chains", 0),
        resyncs=facts.get("resyncs", 0),
        snapshots=facts.get("snapshots", 0),
        invalid=facts.get("invalid", 0),
    )


def _rate(exchange: str, kind: str, symbol: str, snapshot: Snapshot) -> float | None:
    if snapshot.redis.error is not None or kind not in RATED:
        return None
    return snapshot.redis.rates.get((exchange, kind, symbol), 0.0)
