"""What stored trades say of a window against what its stored candle says, and the candle that sets it right. Pure.

Windows without trades of which not all is known have no candle; one that was stored there is said to be partial.
Trades are only ever added: where the candle counts more than are stored, they were deleted, and it stays. Windows whose
trades or candles retention dropped are not asked for at all.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from pipeline.instruments import EXACT, decimal_text
from pipeline.records import Candle, Quality, Rebuild
from pipeline.timeframes import HOUR, WIDTHS

MOST_WINDOWS = 2_000
LONGEST = 6 * HOUR
"""One query computes so many windows, of so much time, but at least one window."""

NEAR = 60_000_000_000
"""Wanted spans so near each other (ns) are computed together."""

_NUMBERS = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume", "contracts")
_VALUES = (*_NUMBERS, "trades_count", "first_id", "last_id", "quality", "missing")

Key = tuple[int, int, int]
"""Instrument, and the two numbers of the stream entry."""


class Wanted(NamedTuple):
    """Rows of the table `rebuilds` that are computed together. Times in ns, both ends of the span inclusive.
    `not_kept`: of part of the span trades or candles were dropped."""

    keys: tuple[Key, ...]
    number: int
    rebuild: Rebuild
    not_kept: bool = False


class Bar(NamedTuple):
    """One window's candle, in the database's values; `missing` in ns."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    buy_volume: Decimal
    buy_quote_volume: Decimal
    contracts: Decimal | None
    trades_count: int
    first_id: str | None
    last_id: str | None
    quality: Quality
    missing: int


class Window(NamedTuple):
    """What is known of one window: `computed` from trades, `stored` with its `revision`, and how many ns of it are
    `unknown`."""

    open_time: int
    computed: Bar | None
    stored: Bar | None
    revision: int | None
    unknown: int


def together(wanted: Sequence[Wanted]) -> list[Wanted]:
    """The same windows in as few spans as need be: requests come one a second while a long gap is filled."""
    joined: list[Wanted] = []
    for one in sorted(wanted, key=lambda one: (_alike(one), one.rebuild.from_time)):
        last = joined[-1] if joined else None
        if last and _alike(last) == _alike(one) and one.rebuild.from_time <= last.rebuild.to_time + NEAR:
            both = _both(last.rebuild, one.rebuild)
            joined[-1] = Wanted((*last.keys, *one.keys), last.number, both, last.not_kept or one.not_kept)
        else:
            joined.append(one)
    return joined


def pieces(rebuild: Rebuild, timeframe: str) -> Iterator[tuple[int, int]]:
    """The wanted windows of one time frame as spans [start, end) in ns, each the work of one query."""
    width, until = WIDTHS[timeframe], rebuild.time or 0
    start = rebuild.from_time - rebuild.from_time % width
    end = min(rebuild.to_time - rebuild.to_time % width + width, until - until % width)
    step = max(width, min(MOST_WINDOWS * width, LONGEST - LONGEST % width))
    for low in range(start, end, step):
        yield low, min(low + step, end)


def corrected(rebuild: Rebuild, timeframe: str, window: Window) -> Candle | None:
    """The candle to publish; None where what is stored is right, or nothing can be said."""
    bar = _bar(rebuild, timeframe, window)
    if bar is None or bar == window.stored:
        return None
    close_time = window.open_time + WIDTHS[timeframe]
    numbers = {name: _text(getattr(bar, name)) for name in _NUMBERS}
    return Candle(
        exchange=rebuild.exchange,
        market=rebuild.market,
        symbol=rebuild.symbol,
        instrument=rebuild.instrument,
        time=close_time,
        received=rebuild.received,
        timeframe=timeframe,
        open_time=window.open_time,
        close_time=close_time,
        revision=0 if window.revision is None else window.revision + 1,
        **numbers,  # type: ignore[arg-type]
        **{name: getattr(bar, name) for name in _VALUES if name not in _NUMBERS},
    )


def _bar(rebuild: Rebuild, timeframe: str, window: Window) -> Bar | None:
    """What the window's candle should say; None where nothing is to be changed."""
    computed, stored = window.computed, window.stored
    if computed is None:
        false = stored is not None and not stored.trades_count and window.unknown
        return stored._replace(quality="partial", missing=window.unknown) if stored is not None and false else None
    if stored is not None:
        return computed if computed.trades_count >= stored.trades_count else None
    quiet = not computed.trades_count and WIDTHS[timeframe] < WIDTHS[rebuild.quiet_from]
    return None if quiet else computed


def _text(value: Decimal | None) -> str | None:
    """As aggregate spells sums: plain, without zeros at the end."""
    return None if value is None else decimal_text(value.normalize(EXACT))


def _alike(one: Wanted) -> tuple[int, tuple[str, ...], str]:
    return one.number, one.rebuild.timeframes, one.rebuild.quiet_from


def _both(one: Rebuild, other: Rebuild) -> Rebuild:
    return Rebuild(
        exchange=one.exchange,
        market=one.market,
        symbol=one.symbol,
        instrument=one.instrument,
        time=max(one.time or 0, other.time or 0),
        received=max(one.received, other.received),
        from_time=one.from_time,
        to_time=max(one.to_time, other.to_time),
        timeframes=one.timeframes,
        quiet_from=one.quiet_from,
    )
