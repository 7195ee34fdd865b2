"""A made market and what a faultless product would have stored of it: two minutes of one instrument.

The collector is connected from second 3.25, cut off from 40.5 to 43.5, and the rows are read after two minutes.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

import msgspec

from simulator.proof.candles import Fault, Terms
from simulator.proof.evidence import Border, Candle, Evidence, Link, Trade
from simulator.proof.verdict import Line, verdict
from simulator.proof.windows import SECOND, WIDTHS, by_window, values

START = 1_790_000_040 * SECOND
"""A whole number of minutes."""
MS = SECOND // 1_000
OPENED, ENDED, BEGUN = START + 3_250 * MS, START + 40_500 * MS, START + 43_500 * MS
HORIZON = START + 119 * SECOND + 500 * MS
READ = START + 123 * SECOND
FRAMES = ("1s", "5s", "1m")
TERMS = Terms(timeframes=FRAMES, quiet_from="1m", horizon=HORIZON, read=READ)
DELAY = 2 * MS


def trade(number: int, at: int, *, received: int = 0, price: str | None = None) -> Trade:
    """Trade `number`, `at` ms after START."""
    return Trade(
        epoch=0,
        sequence=number,
        time=START + at * MS,
        received=received,
        price=Decimal(price or f"{100 + number % 7}.5"),
        size=Decimal("0.25") * (1 + number % 3),
        side="buy" if number % 2 else "sell",
        contracts=None,
        id=str(number),
    )


def printed() -> list[Trade]:
    """One fill each 400 ms until 110 s (none of 60–70 s), and a last one just before the horizon."""
    times = [at for at in range(0, 110_000, 400) if not 60_000 <= at < 70_000]
    return [trade(1_000 + place, at) for place, at in enumerate([*times, 119_500])]


def received(fills: Iterable[Trade]) -> list[Trade]:
    """What came through: the last fill before the connection replayed, then all but those of the border; the last
    fill of the border is replayed too."""
    fills = list(fills)
    replayed = max(fill.sequence for fill in fills if fill.time < OPENED)
    last_of_border = max(fill.sequence for fill in fills if ENDED <= fill.time < BEGUN)
    kept = []
    for fill in fills:
        if fill.sequence < replayed or (ENDED <= fill.time < BEGUN and fill.sequence != last_of_border):
            continue
        arrival = {replayed: OPENED, last_of_border: BEGUN}.get(fill.sequence, fill.time) + DELAY
        kept.append(msgspec.structs.replace(fill, received=arrival))
    return kept


def candle(timeframe: str, start: int, trades: Sequence[Trade], quality: str, close: Decimal | None = None) -> Candle:
    """The row of a window; without trades, one at `close`."""
    width = WIDTHS[timeframe]
    missing = width // 2 if quality == "partial" else 0
    frame = {"timeframe": timeframe, "open_time": start, "close_time": start + width}
    if trades:
        told = {name: getattr(values(trades), name) for name in values(trades).__struct_fields__}
        return Candle(**frame, quality=quality, missing=missing, **told)
    assert close is not None
    zero = Decimal(0)
    return Candle(
        **frame,
        open=close,
        high=close,
        low=close,
        close=close,
        volume=zero,
        quote_volume=zero,
        buy_volume=zero,
        buy_quote_volume=zero,
        trades_count=0,
        contracts=None,
        first_id=None,
        last_id=None,
        quality=quality,
        missing=missing,
    )


def candles(kept: Sequence[Trade], frames: Iterable[str] = FRAMES) -> list[Candle]:
    """What aggregate owes for the trades that came through, of every window closed by the last of them."""
    rows = []
    for timeframe in frames:
        width = WIDTHS[timeframe]
        for start, trades in by_window(kept, width).items():
            if start + width > HORIZON or start + width <= OPENED:
                continue
            touched = start < OPENED or (start < BEGUN and start + width > ENDED)
            if touched and start >= ENDED and start + width <= BEGUN:
                continue
            rows.append(candle(timeframe, start, trades, "partial" if touched else "complete"))
    return rows


class World(msgspec.Struct, kw_only=True):
    """Evidence that can be spoilt before it is judged."""

    printed: list[Trade]
    trades: list[Trade]
    candles: list[Candle]
    link: Link | None = Link(OPENED, (Border(ENDED, BEGUN),))
    terms: Terms = TERMS

    def judge(self) -> Line:
        evidence = Evidence(
            instrument="BTC-USDT", printed=self.printed, trades=self.trades, candles=self.candles, link=self.link
        )
        (line,) = verdict([evidence], self.terms).lines
        return line

    def spoil(self, timeframe: str, at: int, **change: object) -> None:
        """Changes the candle of `timeframe` whose window holds `at` ms after START."""
        place = self.place(timeframe, at)
        self.candles[place] = msgspec.structs.replace(self.candles[place], **change)

    def place(self, timeframe: str, at: int) -> int:
        start = (START + at * MS) // WIDTHS[timeframe] * WIDTHS[timeframe]
        (place,) = [
            place for place, row in enumerate(self.candles) if (row.timeframe, row.open_time) == (timeframe, start)
        ]
        return place

    def without(self, unwanted: Callable[[Trade], bool]) -> None:
        """Takes rows out of the stored trades; candles stay as they are."""
        self.trades = [row for row in self.trades if not unwanted(row)]


def world() -> World:
    """What a faultless product would leave behind."""
    fills = printed()
    kept = received(fills)
    return World(printed=fills, trades=kept, candles=candles(kept))


def at(fault: Fault) -> tuple[str, int]:
    """(time frame, ms after START) of a fault."""
    return fault.timeframe, (fault.open_time - START) // MS
