"""What can be found wrong with what is collected of an exchange. Pure."""

from collections.abc import Iterator

import msgspec

from pipeline.demands import Demand, demands
from pipeline.facts import Process, Snapshot
from pipeline.liveness import START_GRACE, beats
from pipeline.rules import Reason
from pipeline.seen import clock_offset, connections, patterns
from pipeline.settings import Settings
from pipeline.subscriptions import Subscription
from pipeline.timeframes import SECOND

CLOCK_SKEW = SECOND // 2
BOOK_GRACE = 10 * SECOND
"""How long an order book may be invalid: a resync takes a moment."""
WANT_GRACE = 60 * SECOND
TALKATIVE = ("orderbook", "ticker")
"""Kinds that come even when nobody trades. Of the others a quiet instrument is no finding, a quiet connection is."""


def of_exchanges(snapshot: Snapshot, settings: Settings, rows: tuple[Subscription, ...]) -> Iterator[Reason]:
    """The findings of every enabled exchange."""
    for exchange in settings.enabled_exchanges():
        ingest = next((p for p in snapshot.processes if p.name == f"ingest-{exchange}"), None)
        own = [row for row in rows if row.exchange == exchange]
        limit = settings.file.collection_settings.max_silence_duration * SECOND
        quiet: list[Subscription] = []
        heard: list[Subscription] = []
        for row in own:
            (quiet if _silent(row, ingest, snapshot.at, limit) else heard).append(row)
        yield from _silence(exchange, quiet, heard)
        yield from (reason for row in own for reason in _subscription(row, ingest, snapshot.at))
        if ingest is not None and ingest.report is not None:
            yield from _connections(exchange, ingest, settings)
            yield from _patterns(exchange, ingest, snapshot.at)
        yield from _wanted(exchange, snapshot)


def _silence(exchange: str, quiet: list[Subscription], heard: list[Subscription]) -> Iterator[Reason]:
    """One finding for the exchange where all is silent; else one for each connection and each subscription that
    should have spoken."""
    process = f"ingest-{exchange}"
    if quiet and not heard:
        text = f"no data on any of {len(quiet)} subscriptions"
        yield Reason(code="no_data", subject=exchange, text=text, process=process, since=_newest(quiet))
        return
    mute = {row.connection for row in quiet} - {row.connection for row in heard} - {None}
    for connection in sorted(filter(None, mute)):
        carried = [row for row in quiet if row.connection == connection]
        if len({row.instrument for row in carried}) > 1:
            text = f"no data on any of {len(carried)} subscriptions"
            yield Reason(code="silent", subject=connection, text=text, process=process, since=_newest(carried))
    yield from (_of(row, "silent", f"no {row.kind}", row.last_message) for row in quiet if row.kind in TALKATIVE)


def _newest(rows: list[Subscription]) -> int | None:
    return max((row.last_message for row in rows if row.last_message is not None), default=None)


def _patterns(exchange: str, ingest: Process, now: int) -> Iterator[Reason]:
    assert ingest.report is not None
    if now - ingest.report.started <= START_GRACE:
        return
    for pattern, count in patterns(ingest.report).items():
        if not count:
            text = "matches no instrument that is traded"
            yield Reason(code="no_match", subject=f"{exchange} {pattern}", text=text, process=ingest.name)


def _wanted(exchange: str, snapshot: Snapshot) -> Iterator[Reason]:
    for demand in demands(snapshot, exchange):
        if demand.trades is not None:
            # That trades are missing is told of their instrument; a large gap rightly takes hours.
            if demand.trades.late:
                yield _late(exchange, demand)
        elif snapshot.at - demand.since > WANT_GRACE:
            state = f", {demand.state}" if demand.state else ", not asked for"
            answer = f": {demand.answer}" if demand.answer else ""
            yield Reason(
                code="want_old",
                subject=f"{exchange} {demand.symbol}",
                text=f"{demand.what} wanted because of {demand.reason}{state}{answer}",
                process=f"ingest-{exchange}",
                since=demand.since,
            )


def _late(exchange: str, demand: Demand) -> Reason:
    return Reason(
        code="want_old",
        subject=f"{exchange} {demand.symbol}",
        text="the exchange forgets trades before they can all be fetched",
        process=f"ingest-{exchange}",
        since=demand.since,
    )


def _silent(row: Subscription, ingest: Process | None, now: int, limit: float) -> bool:
    """Whether data should have come by now. What was refused or never asked for has a reason of its own."""
    if row.state in ("refused", "missing", "unsubscribed"):
        return False
    heard = row.last_message
    if heard is None:
        heard = ingest.report.started if ingest and ingest.report else now
    return now - heard > limit


def _subscription(row: Subscription, ingest: Process | None, now: int) -> Iterator[Reason]:
    if row.state == "refused":
        yield _of(row, "refused", f"{row.kind} refused: {row.reason or 'no reason given'}")
    elif row.state in ("missing", "unsubscribed") and ingest and beats(ingest, now):
        assert ingest.report is not None
        if now - ingest.report.started > START_GRACE:
            yield _of(row, "not_subscribed", f"{row.kind} is not subscribed")
    book = row.book
    if book and not book.valid and book.since is not None and now - book.since > BOOK_GRACE and row.state != "refused":
        text = f"order book is not valid: {book.reason or 'no reason given'}"
        yield msgspec.structs.replace(_of(row, "book_invalid", text, book.since), process=f"normalize-{row.exchange}")
    if row.open_gaps:
        numbers = f", {row.missing} trades" if row.missing else ""
        gaps = f"{row.open_gaps} open gap{'s' if row.open_gaps > 1 else ''}{numbers}"
        yield msgspec.structs.replace(_of(row, "open_gaps", gaps), process=f"normalize-{row.exchange}")


def _of(row: Subscription, code: str, text: str, since: int | None = None) -> Reason:
    subject = f"{row.exchange} {row.symbol}"
    return Reason(code=code, subject=subject, text=text, process=f"ingest-{row.exchange}", since=since)


def _connections(exchange: str, ingest: Process, settings: Settings) -> Iterator[Reason]:
    most = settings.file.collection_settings.max_reconnect_attempts
    for name, facts in connections(ingest.report).items():
        if facts.get("attempts", 0) >= most:
            text = f"{facts['attempts']} attempts to connect failed"
            yield Reason(code="reconnecting", subject=name, text=text, process=ingest.name)
    offset = clock_offset(ingest.report)
    if offset is not None and abs(offset) > CLOCK_SKEW:
        ahead = "behind" if offset > 0 else "ahead of"
        text = f"this host's clock is {abs(offset) // 1_000_000} ms {ahead} the exchange's"
        yield Reason(code="clock_skew", subject=exchange, text=text, process=ingest.name)
