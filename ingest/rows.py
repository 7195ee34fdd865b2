"""What `pipeline status` is told of connections and subscriptions. Pure."""

from collections.abc import Iterable
from typing import Any

from ingest.collection import Collection
from ingest.connection import Connection
from ingest.session import Session


def connection_rows(connections: Iterable[Connection]) -> dict[str, dict[str, Any]]:
    """`conn` to its facts: every live one, and the last one tried where none is live. Times in ns of the host."""
    rows: dict[str, dict[str, Any]] = {}
    for connection in connections:
        newest = connection.newest
        shown = connection.sessions or ([newest] if newest else [])
        for session in shown:
            rows[session.name] = {
                "state": session.state,
                "reason": session.why,
                "opened": session.opened,
                "last_frame": session.last_frame or None,
                "frames": session.frames,
                "reconnects": max(0, connection.opened - 1),
                "attempts": connection.attempts,
                "pings": session.pings,
                "pongs": session.pongs,
            }
    return rows


def subscription_rows(connections: Iterable[Connection], collection: Collection) -> dict[str, dict[str, Any]]:
    """`channel instrument` to its facts; without a live connection it is `requested`, whatever it was. `kinds` are the
    pair's data types it serves, `wanted` the pair as the settings spell it."""
    rows: dict[str, dict[str, Any]] = {}
    for connection in connections:
        session: Session | None = connection.sessions[-1] if connection.sessions else None
        for subscription in connection.plan.subscriptions:
            entry = session.ledger.entries[subscription] if session else None
            target = collection.symbols.targets[subscription.instrument]
            rows[" ".join(subscription)] = {
                "symbol": target.symbol,
                "wanted": target.pair.symbol,
                "instrument": subscription.instrument,
                "channel": subscription.channel,
                "kinds": list(collection.kinds[subscription]),
                "state": entry.state if entry else "requested",
                "reason": entry.reason if entry else None,
                "conn": session.name if session else None,
            }
    for subscription, kinds, pair, reason in collection.unlisted():
        rows[" ".join(subscription)] = {
            "symbol": pair.symbol,
            "wanted": pair.symbol,
            "instrument": subscription.instrument,
            "channel": subscription.channel,
            "kinds": list(kinds),
            "state": "refused" if reason else "requested",
            "reason": reason or "waits for the list of instruments",
            "conn": None,
        }
    return rows
