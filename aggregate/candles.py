"""What a window's candle says, and whether there is one at all. Pure."""

from typing import NamedTuple

from aggregate.frame import Frame
from aggregate.saved import Header
from aggregate.summary import Summary, text
from aggregate.windows import Windows
from pipeline.records import Candle, Quality

NOTHING = "0"


class Verdict(NamedTuple):
    """`missing`: ns of the window that are not covered. `price`: the close before a window without trades."""

    quality: Quality
    missing: int
    price: str | None


def verdict(windows: Windows, frame: Frame, start: int, known: int) -> Verdict | None:
    """What is to be said of the window that opens at `start`; None where nothing can be said (yet).

    `known` is the time up to which all trades are known, but for those that `windows.unknown` names.
    """
    end = start + frame.width
    if end <= frame.since or windows.unknown.waits(start, end):
        return None
    low = max(start, frame.since)
    high = max(low, min(end, known))
    missing = low - start + windows.unknown.missing(low, high) + end - high
    window = frame.windows.get(start)
    issued = window is not None and window.revision >= 0
    if window is not None and window.summary is not None:
        if missing:
            return Verdict("partial", missing, None)
        repaired = window.summary.repaired or window.quality in ("partial", "repaired")
        return Verdict("repaired" if repaired else "complete", 0, None)
    previous = frame.before(start)
    if previous is None or not (issued or (frame.quiet and not missing)):
        return None
    return Verdict("partial" if missing else "quiet", missing, text(previous.price))


def candle(
    header: Header, frame: Frame, start: int, summary: Summary | None, said: Verdict, revision: int, received: int
) -> Candle:
    """The record. Without trades all four prices are the previous close."""
    if summary is None:
        assert said.price is not None
        prices = (said.price,) * 4
        amounts = (NOTHING,) * 4
    else:
        prices = (
            text(summary.first.price),
            text(summary.high),
            text(summary.low),
            text(summary.last.price),
        )
        amounts = (
            text(summary.volume),
            text(summary.quote_volume),
            text(summary.buy_volume),
            text(summary.buy_quote_volume),
        )
    return Candle(
        exchange=header.exchange,
        market=header.market,
        symbol=header.symbol,
        instrument=header.instrument,
        time=start + frame.width,
        received=received,
        timeframe=frame.name,
        open_time=start,
        close_time=start + frame.width,
        open=prices[0],
        high=prices[1],
        low=prices[2],
        close=prices[3],
        volume=amounts[0],
        quote_volume=amounts[1],
        buy_volume=amounts[2],
        buy_quote_volume=amounts[3],
        trades_count=0 if summary is None else summary.trades,
        quality=said.quality,
        revision=revision,
        missing=said.missing,
        contracts=None if summary is None or summary.contracts is None else text(summary.contracts),
        first_id=None if summary is None else summary.first.id,
        last_id=None if summary is None else summary.last.id,
    )
