"""Builds streams of trades and control records, and plays them to the stage as the run loop would."""

from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from typing import Any

import msgspec

from aggregate.stage import Aggregate
from pipeline.records import Candle, CandleSettings, Clock, Coverage, Gap, Rebuild, Trade, encode
from pipeline.steps import Entry, Step
from pipeline.streams import Keys
from pipeline.timeframes import TIMEFRAMES, WIDTHS

MS = 1_000_000
SECOND = 1_000 * MS
MINUTE = 60 * SECOND
START = 1_800_000_000 * SECOND - (1_800_000_000 * SECOND) % (24 * 3600 * SECOND)
"""A midnight."""
CONNECTION = "wss://example#1"
KEYS = Keys("md", "okx")
DELAY = 5 * MS
"""From a trade's time to its arrival."""

Record = Trade | Clock | Coverage | Gap
NAMES: dict[type, bytes] = {Clock: b"clock", Coverage: b"coverage", Gap: b"gap"}


def at(seconds: float) -> int:
    """ns of a moment, in seconds since START."""
    return START + round(seconds * 1000) * MS


def identity(instrument: str) -> dict[str, Any]:
    return {"exchange": "okx", "market": "spot", "symbol": instrument, "instrument": instrument}


def trade(sequence: int, seconds: float, price: str = "100", size: str = "1", **more: Any) -> Trade:
    time = at(seconds)
    given = {"side": "buy", "received": time + DELAY, "id": str(sequence), "instrument": "BTC-USDT"} | more
    return Trade(**identity(given.pop("instrument")), time=time, sequence=sequence, price=price, size=size, **given)


def clock(seconds: float, heard: float | None = None, connection: str = CONNECTION, **more: Any) -> Clock:
    """The clock at `seconds`; the connection was last heard of at `heard`, if not at that very moment."""
    connections = {connection: at(seconds if heard is None else heard)}
    given = {"time": at(seconds), "received": at(seconds), "connections": connections} | more
    return Clock(exchange="okx", **given)


def covered(
    seconds: float, frames: Sequence[str] = ("1s", "1m"), instrument: str = "BTC-USDT", **more: Any
) -> Coverage:
    settings = CandleSettings(
        timeframes=tuple(frames), **{key: more.pop(key) for key in ("quiet_from",) if key in more}
    )
    given = {"cause": "open", "connection": CONNECTION, "candles": settings} | more
    return Coverage(**identity(instrument), time=at(seconds), received=at(seconds), state="covered", **given)


def uncovered(seconds: float, instrument: str = "BTC-USDT", cause: str = "closed") -> Coverage:
    return Coverage(**identity(instrument), time=at(seconds), received=at(seconds), state="uncovered", cause=cause)


def gap(state: str, first: int, last: int, start: float, end: float, seconds: float, **more: Any) -> Gap:
    given = {"cause": "sequence", "epoch": 0} | more
    return Gap(
        **identity("BTC-USDT"),
        time=at(seconds),
        received=at(seconds),
        from_sequence=first,
        to_sequence=last,
        from_time=at(start),
        to_time=at(end),
        state=state,  # type: ignore[arg-type]
        **given,
    )


def entries(records: Iterable[Record]) -> list[Entry]:
    """The records as entries of `md:trade:{okx}`."""
    found = []
    for number, record in enumerate(records, start=1):
        name = NAMES.get(type(record))
        label = {b"symbol": b"X"} if name is None else {b"control": name}
        found.append(Entry(f"{number}-1".encode(), {**label, b"data": encode(record)}))
    return found


class Player:
    """A stage, its saved state and all it wrote. `play` is one step: restore (if asked), process, save."""

    def __init__(self) -> None:
        self.saved: dict[bytes, bytes] = {}
        self.lines: dict[str, list[bytes]] = {}
        self.newest: dict[tuple[str, str], bytes] = {}
        self.dead: list[bytes] = []
        self.stage = Aggregate(KEYS, "okx")

    def play(self, batch: Iterable[Entry], *, restore: bool = False) -> None:
        if restore:
            self.stage = Aggregate(KEYS, "okx")
            self.stage.restore(self.saved)
        step = Step(KEYS, "aggregate")
        for entry in batch:
            self.stage.process(entry, step)
        self.stage.save(step)
        self._write(step)

    def finish(self) -> None:
        step = Step(KEYS, "aggregate")
        self.stage.finish(step)
        self.stage.save(step)
        self._write(step)

    def candles(self, frame: str | None = None) -> list[Candle]:
        wanted = [f"md:candle:{name}:{{okx}}" for name in (TIMEFRAMES if frame is None else (frame,))]
        lines = [line for stream in wanted for line in self.lines.get(stream, [])]
        return [msgspec.json.decode(line, type=Candle) for line in lines]

    def _write(self, step: Step) -> None:
        for command in step.commands():
            name, key, *rest = command
            if name == "XADD" and key == KEYS.dead:
                self.dead.append(rest[-1])  # type: ignore[arg-type]
            elif name == "XADD":
                self.lines.setdefault(str(key), []).append(rest[-1])  # type: ignore[arg-type]
            elif key == KEYS.state("aggregate") and name == "HSET":
                self.saved |= dict(zip((str(field).encode() for field in rest[::2]), rest[1::2], strict=True))  # type: ignore[arg-type]
            elif name == "HDEL":
                for field in rest:
                    self.saved.pop(str(field).encode(), None)
            else:
                self.newest |= {(str(key), str(field)): data for field, data in zip(rest[::2], rest[1::2], strict=True)}  # type: ignore[misc]


def played(*records: Record) -> Player:
    """All records in one step."""
    player = Player()
    player.play(entries(records))
    return player


def naive(trades: Iterable[Trade], frame: str, start: int) -> dict[str, Any] | None:
    """What the candle of the window must say, worked out in the plainest way; None without trades."""
    end = start + WIDTHS[frame]
    inside = [trade for trade in trades if trade.time is not None and start <= trade.time < end]
    if not inside:
        return None
    inside.sort(key=lambda trade: (trade.time, trade.sequence))
    prices = [Decimal(trade.price) for trade in inside]
    bought = [trade for trade in inside if trade.side == "buy"]
    with localcontext(prec=200):
        return {
            "open": prices[0],
            "high": max(prices),
            "low": min(prices),
            "close": prices[-1],
            "volume": sum(Decimal(trade.size) for trade in inside),
            "quote_volume": sum(Decimal(trade.size) * Decimal(trade.price) for trade in inside),
            "buy_volume": sum(Decimal(trade.size) for trade in bought),
            "buy_quote_volume": sum(Decimal(trade.size) * Decimal(trade.price) for trade in bought),
            "trades_count": sum(trade.fills for trade in inside),
            "first_id": inside[0].id,
            "last_id": inside[-1].id,
        }


def told(candle: Candle) -> dict[str, Any]:
    """The same fields of a candle, as values."""
    decimals = (
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_volume",
        "buy_volume",
        "buy_quote_volume",
    )
    values: dict[str, Any] = {name: Decimal(getattr(candle, name)) for name in decimals}
    return values | {name: getattr(candle, name) for name in ("trades_count", "first_id", "last_id")}


def brief(candles: Iterable[Candle]) -> list[tuple[float, str, int, float]]:
    """Start in seconds since START, quality, revision, missing in seconds."""
    return [((c.open_time - START) / SECOND, c.quality, c.revision, c.missing / SECOND) for c in candles]


def rebuilds(player: Player) -> list[tuple[float, float, tuple[str, ...], float]]:
    """From, to and horizon in seconds since START, and the time frames."""
    lines = player.lines.get("md:rebuild:{okx}", [])
    found = [msgspec.json.decode(line, type=Rebuild) for line in lines]
    times = [[(time - START) / 10**9 for time in (one.from_time, one.to_time, one.time or 0)] for one in found]
    return [(low, high, one.timeframes, horizon) for one, (low, high, horizon) in zip(found, times, strict=True)]


JUMP = (covered(0), trade(1, 0.2), trade(2, 1.5), trade(5, 3.5), trade(6, 4.5), trade(7, 5.5))
"""Numbers 3 and 4 are jumped over."""
