"""Control records of one instrument: gaps, new epochs, coverage. Pure construction, no decisions."""

from typing import Any

from normalize.coverage import Change
from normalize.holes import Hole
from normalize.outcome import NewEpoch
from pipeline.records import CandleSettings, Coverage, Gap, Instrument


def gap(instrument: Instrument, hole: Hole, time: int | None, received: int) -> Gap:
    """The hole as it now stands. `time` is the exchange's clock at this change, `received` the host's."""
    missing = hole.missing
    return Gap(
        **_named(instrument),
        time=time,
        received=received,
        epoch=hole.epoch,
        from_sequence=hole.first,
        to_sequence=hole.last,
        from_time=hole.from_time,
        to_time=hole.to_time,
        cause="sequence",
        state="closed" if hole.closed or not missing else "shrunk" if hole.told else "opened",
        reason=hole.closed or (None if missing else "filled" if hole.fetched else "reordered"),
        repaired=hole.last - hole.first + 1 - missing - hole.absent,
        remaining=tuple(hole.remaining),
    )


def epoch(instrument: Instrument, new: NewEpoch, time: int | None, received: int) -> Gap:
    """The ledger's entry for numbers that began again: both sequences are the first one seen of the new
    epoch. How the epoch before ended, no number tells: what it printed after `from_time` is not known."""
    first = new.first.sequence if new.first.first_sequence is None else new.first.first_sequence
    return Gap(
        **_named(instrument),
        time=time,
        received=received,
        epoch=new.epoch,
        from_sequence=first,
        to_sequence=first,
        from_time=new.from_time,
        to_time=received if new.first.time is None else new.first.time,
        cause="epoch",
        state="closed",
        reason=new.reason,
    )


def coverage(instrument: Instrument, change: Change, candles: CandleSettings | None, received: int) -> Coverage:
    """The change of what proves the instrument's trades."""
    return Coverage(
        **_named(instrument),
        time=change.time,
        received=received,
        state=change.state,
        cause=change.cause,
        connection=change.connection,
        candles=candles,
    )


def _named(instrument: Instrument) -> dict[str, Any]:
    return {
        "exchange": instrument.exchange,
        "market": instrument.market,
        "symbol": instrument.symbol,
        "instrument": instrument.instrument,
    }
