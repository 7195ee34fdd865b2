"""The records on the streams: one struct a kind, and their JSON. [contract]

Fields are added, never renamed or re-meant; readers ignore fields they do not know. A field that
stands at its default is left out of the JSON. Times are integer nanoseconds UTC; prices and sizes
are exact decimals as text in plain notation.
"""

from typing import Annotated, Any, Literal

import msgspec

SCHEMA_VERSION = 1

Nanoseconds = Annotated[int, msgspec.Meta(description="nanoseconds since 1970-01-01 UTC")]
DecimalText = Annotated[
    str,
    msgspec.Meta(
        description="exact decimal in plain notation",
        extra_json_schema={"pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
    ),
]
Market = Literal["spot", "perpetual", "future", "option"]
Side = Literal["buy", "sell"]
Quality = Literal["complete", "quiet", "partial", "repaired"]
ENDED = "ended"
"""The `cause` of an instrument's last coverage record."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What every record says.

    `instrument` is the exchange's own id and, with `exchange`, the key; `symbol` is canonical and
    unique within the exchange. `time` is the exchange's event time, null where it gives none;
    `received` is when the frame came in.
    """

    exchange: str
    market: Market
    symbol: str
    instrument: str
    time: Nanoseconds | None
    received: Nanoseconds


class Trade(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One trade as the venue printed it.

    `id` is the venue's spelling, `sequence` the integer that orders an instrument's trades;
    `first_sequence` only where one record covers several numbers. `size` is in base units,
    `contracts` the exact native quantity where the venue counts contracts; `side` the aggressor's.
    """

    id: str
    sequence: int
    price: DecimalText
    size: DecimalText
    side: Side
    first_sequence: int | None = None
    epoch: int = 0
    fills: int = 1
    contracts: DecimalText | None = None
    conditions: tuple[str, ...] = ()
    repaired: bool = False


class Candle(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The trades of [open_time, close_time). `time` is close_time.

    `received` is the stream time at which this revision was decided. `missing` is how many ns of
    the window are not covered; 0 unless `quality` is `partial`. Quantities are in base units,
    `quote_*` in quote units, `contracts` in contracts where the venue counts them.
    """

    timeframe: str
    open_time: Nanoseconds
    close_time: Nanoseconds
    open: DecimalText
    high: DecimalText
    low: DecimalText
    close: DecimalText
    volume: DecimalText
    quote_volume: DecimalText
    buy_volume: DecimalText
    buy_quote_volume: DecimalText
    trades_count: int
    quality: Quality
    revision: int = 0
    missing: int = 0
    contracts: DecimalText | None = None
    first_id: str | None = None
    last_id: str | None = None


class Kline(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The exchange's own bar, once it is closed; kept apart from our candles. `time` is the venue's own time of the
    message, where it gives one. What the venue does not tell is null."""

    timeframe: str
    open_time: Nanoseconds
    close_time: Nanoseconds
    open: DecimalText
    high: DecimalText
    low: DecimalText
    close: DecimalText
    volume: DecimalText
    quote_volume: DecimalText | None = None
    buy_volume: DecimalText | None = None
    buy_quote_volume: DecimalText | None = None
    contracts: DecimalText | None = None
    trades_count: int | None = None
    first_id: str | None = None
    last_id: str | None = None


class Quote(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Best bid and ask of the venue's own channel. A side that is empty is null. Sizes are in base units;
    `sequence` orders the quotes of an instrument where the venue numbers them."""

    bid: DecimalText | None = None
    bid_size: DecimalText | None = None
    ask: DecimalText | None = None
    ask_size: DecimalText | None = None
    sequence: int | None = None


class OrderBook(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The best `depth` levels a side, [price, size], best first; fewer where the book has no more.

    `unit` of the sizes: base, or contracts (inverse instruments, where base depends on the price). `sequence` is the
    venue's number of the last change in it. `snapshot_time` is set on the records of the regular grid, which are
    stored: the exchange's clock, as estimated, at which the book stood so. While `valid` is false the levels are not
    to be relied on and `reason` says why: gap, checksum, crossed, closed, exhausted, waiting ….
    """

    bids: tuple[tuple[DecimalText, DecimalText], ...]
    asks: tuple[tuple[DecimalText, DecimalText], ...]
    depth: int
    unit: Literal["base", "contracts"] = "base"
    sequence: int | None = None
    snapshot_time: Nanoseconds | None = None
    valid: bool = True
    reason: str | None = None


class Ticker(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The venue's rolling 24 hours. `volume_24h` is in base units, `quote_volume_24h` in quote units; what the venue
    does not give is null."""

    last: DecimalText | None = None
    bid: DecimalText | None = None
    bid_size: DecimalText | None = None
    ask: DecimalText | None = None
    ask_size: DecimalText | None = None
    open_24h: DecimalText | None = None
    high_24h: DecimalText | None = None
    low_24h: DecimalText | None = None
    volume_24h: DecimalText | None = None
    quote_volume_24h: DecimalText | None = None


class Instrument(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is traded. `contract_value` is the face of one contract (multiplier included) in
    `contract_currency`; `expiry` and `listed` are ns; `status` is the venue's own word."""

    base: str
    quote: str
    status: str
    settle: str | None = None
    contract: Literal["linear", "inverse"] | None = None
    contract_value: DecimalText | None = None
    contract_currency: str | None = None
    tick_size: DecimalText | None = None
    lot_size: DecimalText | None = None
    min_size: DecimalText | None = None
    expiry: Nanoseconds | None = None
    strike: DecimalText | None = None
    option: Literal["call", "put"] | None = None
    listed: Nanoseconds | None = None


class Gap(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A run of trade numbers that did not arrive, and what became of it.

    (`exchange`, `instrument`, `epoch`, `from_sequence`) names the gap for its whole life;
    `from_sequence` and `to_sequence` are as it was opened (inclusive). `remaining` are the ranges
    still missing, `repaired` how many numbers came later. `from_time` and `to_time` are the times of
    the trades on both sides. `cause`: sequence (numbers jumped), epoch (the venue's numbers began
    again: a ledger entry, nothing is missing). `reason` says why a gap was closed: filled, reordered,
    unrecoverable …. `time` is the stream's clock at this change.
    """

    epoch: int
    from_sequence: int
    to_sequence: int
    from_time: Nanoseconds
    to_time: Nanoseconds
    cause: str
    state: Literal["opened", "shrunk", "closed"]
    reason: str | None = None
    repaired: int = 0
    remaining: tuple[tuple[int, int], ...] = ()


class Rebuild(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Trades came, or went missing, in windows that aggregate no longer keeps: store computes them from stored trades.

    Meant are the windows of `timeframes` that hold a time of `from_time`…`to_time` (inclusive) and end by `time`;
    later ones are still aggregate's. Windows without trades have candles from `quiet_from` upwards.
    """

    from_time: Nanoseconds
    to_time: Nanoseconds
    timeframes: tuple[str, ...]
    quiet_from: str = "1m"


class CandleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What aggregate is asked for, carried in the stream so that a replay needs no settings.

    `grace` (ns) is how long after a window's end the clock alone may close it; quiet candles are
    emitted from `quiet_from` upwards."""

    timeframes: tuple[str, ...]
    grace: int = 1_000_000_000
    quiet_from: str = "1m"


class Coverage(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Control record: from `time` on, this instrument's trades are seen (covered) or not.

    It begins with data, never with an acknowledgement. `connection` is the one whose frames prove
    it from here on; `cause` is open, moved, settings, closed, silent, writer, unsubscribed …; `ended` (ENDED): the
    contract is no more, whatever is kept of it may go.
    """

    state: Literal["covered", "uncovered"]
    cause: str
    connection: str | None = None
    candles: CandleSettings | None = None


class Clock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Control record: the stream's time, each 250 ms of the host's.

    `time` estimates the exchange's clock (null while unknown), `uncertainty` (ns) its error;
    `received` is the host's clock, which never goes back. `connections`: for each live connection the
    exchange's time, by the same estimate, at its last frame of any sort.
    """

    exchange: str
    time: Nanoseconds | None
    received: Nanoseconds
    uncertainty: int = 0
    connections: dict[str, int] = {}


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What could not be used, and why. `frame` is at most 64 KiB of it; `length` (bytes) and
    `sha256` are those of the whole. `entry` is the stream id it came from."""

    exchange: str
    stage: str
    reason: str
    detail: str
    received: Nanoseconds | None
    entry: str
    frame: str
    length: int
    sha256: str
    connection: str | None = None


KINDS: dict[str, type[Record]] = {
    "trade": Trade,
    "candle": Candle,
    "kline": Kline,
    "quote": Quote,
    "orderbook": OrderBook,
    "ticker": Ticker,
    "instrument": Instrument,
    "gap": Gap,
    "rebuild": Rebuild,
}
"""Kinds that have streams of their own (`md:<kind>:{p}`; candles and klines one a time frame)."""

CONTROLS: dict[str, type[msgspec.Struct]] = {"clock": Clock, "coverage": Coverage, "gap": Gap}
"""Control records, in place in `md:trade:{p}`: the entry's field `control` names the struct."""

_ENCODER = msgspec.json.Encoder()


def encode(record: msgspec.Struct) -> bytes:
    """The record's JSON."""
    return _ENCODER.encode(record)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of every record and control record."""
    structs = [*KINDS.values(), Clock, Coverage, DeadLetter]
    _, definitions = msgspec.json.schema_components(structs, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tapeline records",
        "version": SCHEMA_VERSION,
        "$defs": definitions,
    }
