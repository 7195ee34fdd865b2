"""What `pipeline status` shows of a partition of normalize: JSON values, small. Reads the state, changes nothing."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from normalize.continuity import Continuity
from normalize.repairs import Repairs
from normalize.shelf import Shelf
from normalize.state import State
from normalize.tails import Tails
from pipeline.wants import Want

MOST_WANTS = 100
"""Of trades that are shown, those first that the exchange will forget first. All are counted."""


def describe(state: State, shelf: Shelf, repairs: Repairs, tails: Tails) -> dict[str, Any]:
    """The report; the fields are in docs/architecture.md."""
    stream = state.stream
    names = sorted({*state.evidence.covers, *state.continuity})
    wants = {key: _want(want) for key, want in sorted(shelf.wants.items())}
    wants |= dict(islice(_fetching(repairs), MOST_WANTS)) | dict(islice(_fetching(tails), MOST_WANTS))
    return {
        "subscriptions": {name: _trades(state, repairs, name) for name in names},
        "latest": state.latest.report(),
        "books": shelf.report(),
        "wants": wants,
        "dead": dict(stream.dead),
        "control": dict(stream.control),
        "writer": stream.writer,
        "stream_time": stream.received,
        "repeated": stream.repeated,
        "stale": stream.stale,
        "breaks": stream.breaks,
        "instruments": len(state.instruments),
    }


def _trades(state: State, repairs: Repairs, name: str) -> dict[str, Any]:
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
        "wanted": repairs.wanted(name),
        "repaired": seen.repaired,
        "repair_overlaps": seen.repair_overlaps,
        "unrecoverable": seen.unrecoverable,
    }


def _fetching(repairs: Repairs | Tails) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is wanted of trades, then what will be wanted anew: `waits` ns until then, and the `answer` before."""
    for key, want in repairs.wants():
        yield key, _want(want)
    for key, want, waits, answer in repairs.waiting():
        yield key, _want(want) | {"waits": waits, "answer": answer}


def _want(want: Want) -> dict[str, Any]:
    row: dict[str, Any] = {
        "what": want.what,
        "instrument": want.instrument,
        "number": want.number,
        "since": want.since,
        "reason": want.reason,
    }
    if want.what == "trades":
        row |= {"first": want.first, "last": want.last, "from_time": want.from_time, "to_time": want.to_time}
    return row
