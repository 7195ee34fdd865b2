"""The candle time frames: names, widths and window borders. Pure arithmetic on UTC nanoseconds."""

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

WIDTHS: dict[str, int] = {
    "1s": SECOND,
    "5s": 5 * SECOND,
    "10s": 10 * SECOND,
    "15s": 15 * SECOND,
    "30s": 30 * SECOND,
    "1m": MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "1h": HOUR,
    "4h": 4 * HOUR,
    "1d": DAY,
}
"""Time frame to width in ns, shortest first. Every width divides a day, so windows start at UTC midnight."""

TIMEFRAMES: tuple[str, ...] = tuple(WIDTHS)
DEFAULT_TIMEFRAMES: tuple[str, ...] = ("1m", "5m", "15m", "1h", "4h", "1d")


def open_time(time: int, timeframe: str) -> int:
    """The start (ns, inclusive) of the window of `timeframe` that holds `time` (ns)."""
    width = WIDTHS[timeframe]
    return time - time % width


def close_time(time: int, timeframe: str) -> int:
    """The end (ns, exclusive) of the window of `timeframe` that holds `time` (ns)."""
    return open_time(time, timeframe) + WIDTHS[timeframe]


def sources(timeframes: tuple[str, ...]) -> dict[str, str | None]:
    """For each frame asked for, the longest other one that divides it, or None: built from trades.

    The answer is ordered shortest first, so that a roll-up never meets a source after its user.
    """
    ordered = sorted(set(timeframes), key=WIDTHS.__getitem__)
    answer: dict[str, str | None] = {}
    for position, timeframe in enumerate(ordered):
        shorter = [other for other in ordered[:position] if WIDTHS[timeframe] % WIDTHS[other] == 0]
        answer[timeframe] = shorter[-1] if shorter else None
    return answer
