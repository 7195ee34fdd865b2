"""What aggregate keeps between steps: a header per instrument and one small value per window; between changes of
these, only a tally of the trades since. No logic.

Fields of the state hash: `partition`, `i|<instrument>`, `w|<frame>|<open>|<instrument>`, `t|<instrument>`; values are
msgpack.
"""

from decimal import Decimal

import msgspec

from aggregate.summary import Point, Summary
from aggregate.unknown import Range, Span
from pipeline.records import CandleSettings, Clock, Market, Quality, Trade


class SavedFrame(msgspec.Struct, frozen=True, array_like=True):
    """See `frame.Frame`."""

    name: str
    since: int
    rolled: int
    newest: int
    anchor: Point | None
    revised: int = 0
    ceded: int = 0


class SavedWindow(msgspec.Struct, frozen=True, array_like=True):
    """See `frame.Window`."""

    summary: Summary | None
    revision: int
    quality: Quality | None
    missing: int
    price: str | None
    stale: bool


class SavedPartition(msgspec.Struct, frozen=True, array_like=True):
    """The newest clock record, the newest `received` seen, and what was counted since the state began."""

    clock: Clock | None
    received: int
    candles: int
    late: int
    rebuilds: int = 0


class SavedPoint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """See `summary.Point`; the price as the trade has it."""

    time: int
    sequence: int
    epoch: int
    price: str
    id: str


class SavedTally(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """See `tally.Tally`: what came since the instrument's header and windows were saved. `received`: the newest of the
    partition then."""

    next: int
    newest: int
    received: int
    first: SavedPoint
    last: SavedPoint
    high: Decimal
    low: Decimal
    bought: Decimal
    paid: Decimal
    sold: Decimal
    earned: Decimal
    contracts: Decimal | None
    trades: int


class Header(msgspec.Struct, omit_defaults=True):
    """One instrument: who it is, and what is known of its trades.

    `place` orders instruments as they were first met. `next`: the number that continues the unbroken
    sequence; `anchor`: the number it began with (None: not begun), `newest`: the time of its last trade.
    Before it has begun, `next` continues what was replayed. `cut`: coverage ended since that trade. `since`:
    collection began.
    `known`: all trades up to this time are known but for the `ranges`.
    `reissued`: the clock second of the last re-issue. `rebuild`, `rebuild_frames`: what store is to be asked for,
    `asked`: the clock second in which it last was. `early` are trades from before coverage began.
    """

    place: int
    exchange: str
    market: Market
    symbol: str
    instrument: str
    candles: CandleSettings | None = None
    covered: bool = False
    connection: str | None = None
    epoch: int = 0
    next: int = 0
    anchor: int | None = None
    anchor_epoch: int = 0
    newest: int = 0
    cut: bool = False
    since: int | None = None
    known: int = 0
    closed: int = 0
    recheck: Span | None = None
    reissued: int = -1
    ranges: list[Range] = []
    lost: list[Span] = []
    rebuild: list[Span] = []
    rebuild_frames: list[str] = []
    asked: int = -1
    early: list[Trade] = []
    frames: list[SavedFrame] = []


def window_field(instrument: str, frame: str, open_time: int) -> str:
    return f"w|{frame}|{open_time}|{instrument}"


def tally_field(instrument: str) -> str:
    return f"t|{instrument}"
