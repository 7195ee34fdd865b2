"""What `pipeline status` shows of a partition of normalize: JSON values, small. Reads the state, changes nothing."""

from typing import Any

from normalize.continuity import Continuity
from normalize.shelf import Shelf
from normalize.state import State
from pipeline.wants import Want


def describe(state: State, shelf: Shelf) -> dict[str, Any]:
    """The report; the fields are in docs/architecture.md."""
    stream = state.stream
    names = sorted({*state.evidence.covers, *state.continuity})
    return {
        "subscriptions": {name: _trades(state, name) for name in names},
        "latest": state.latest.report(),
        "books": shelf.report(),
        "wants": {key: _want(want) for key, want in sorted(shelf.wants.items())},
        "dead": dict(stream.dead),
        "control": dict(stream.control),
        "writer": stream.writer,
        "stream_time": stream.received,
        "repeated": stream.repeated,
        "stale": stream.stale,
        "breaks": stream.breaks,
        "instruments": len(state.instruments),
    }


def _trades(state: State, name: str) -> dict[str, Any]:
    """The trades of one instrument."""
    cover, seen = state.evidence.covers.get(name), state.continuity.get(name, Continuity())
    instrument = state.instruments.get(name)
    return {
        "symbol": instrument.symbol if instrument else name,
        "kind": "trade",
        "connection": cover.active if cover else None,
        "covered": bool(cover and cover.active),
        "since": seen.complete_since if cover and cover.active else None,
        "last_message": cover.message if cover else None,
        "last_trade": seen.newest,
        "epoch": seen.epoch,
        "trades": seen.trades,
        "duplicates": seen.duplicates,
        "overlaps": seen.overlaps,
        "reordered": seen.reordered,
        "refused": seen.refused,
        "held": len(seen.held),
        "open_gaps": seen.open_gaps,
        "missing": seen.missing,
    }


def _want(want: Want) -> dict[str, Any]:
    return {
        "what": want.what,
        "instrument": want.instrument,
        "number": want.number,
        "since": want.since,
        "reason": want.reason,
    }
