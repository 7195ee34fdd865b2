"""The rows of an exchange in the status document: JSON values, times in ISO 8601, lengths in seconds. Pure."""

from collections.abc import Mapping
from typing import Any

from pipeline.demands import Demand, Fetching
from pipeline.subscriptions import Book, Subscription
from pipeline.text import iso, seconds

Document = dict[str, Any]


def subscription_row(row: Subscription, now: int) -> Document:
    """One instrument and kind. `covered` and what is counted of trades is null of other kinds."""
    of_trades = row.kind == "trade"
    return {
        "symbol": row.symbol,
        "instrument": row.instrument,
        "kind": row.kind,
        "state": row.state,
        "reason": row.reason,
        "connection": row.connection,
        "last_message": iso(row.last_message),
        "time_since_message": seconds(row.last_message, now),
        "rate": row.rate,
        "records": row.records,
        "duplicates": row.duplicates,
        "covered": row.covered if of_trades else None,
        "last_trade": iso(row.last_trade),
        "trades": row.trades if of_trades else None,
        "reordered": row.reordered if of_trades else None,
        "open_gaps": row.open_gaps if of_trades else None,
        "missing": row.missing if of_trades else None,
        "wanted": row.wanted if of_trades else None,
        "unrecoverable": row.unrecoverable if of_trades else None,
        "complete_since": iso(row.complete_since),
        "book": None if row.book is None else _book(row.book, now),
    }


def _book(book: Book, now: int) -> Document:
    bids, asks = book.levels
    return {
        "valid": book.valid,
        "reason": book.reason,
        "invalid_since": iso(book.since),
        "time_invalid": seconds(book.since, now),
        "sequence": book.sequence,
        "bid_levels": bids,
        "ask_levels": asks,
        "chains": book.chains,
        "resyncs": book.resyncs,
        "snapshots": book.snapshots,
        "invalid": book.invalid,
    }


def demand_row(demand: Demand, now: int) -> Document:
    """One thing that normalize wants of ingest."""
    return {
        "key": demand.key,
        "what": demand.what,
        "symbol": demand.symbol,
        "number": demand.number,
        "since": iso(demand.since),
        "age": seconds(demand.since, now),
        "reason": demand.reason,
        "state": demand.state,
        "answer": demand.answer,
        "trades": None if demand.trades is None else _fetching(demand.trades),
    }


def _fetching(trades: Fetching) -> Document:
    return {
        "first": trades.first,
        "last": trades.last,
        "from_time": iso(trades.from_time),
        "to_time": iso(trades.to_time),
        "done": trades.done,
        "wanted": trades.wanted,
        "pages": trades.pages,
        "rate": trades.rate,
        "seconds_left": trades.left,
        "forgotten_at": iso(trades.deadline),
        "late": trades.late,
    }


def budget_row(budget: Mapping[str, Any]) -> Document:
    """One allowance of the exchange."""
    return {
        "used": budget.get("used"),
        "limit": budget.get("limit"),
        "period": _length(budget.get("period")),
        "held": _length(budget.get("held")),
    }


def _length(length: int | None) -> float | None:
    """Nanoseconds to seconds."""
    return None if length is None else round(length / 1e9, 3)
