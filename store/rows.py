"""Records as lines of COPY, and the columns they fill, table by table. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from pipeline.errors import DecodeError
from pipeline.records import Candle, Coverage, Gap, Instrument, Record, Trade
from pipeline.steps import Entry
from store.batch import Found, InstrumentKey
from store.copytext import NULL, array, maybe_timestamp, ranges, text, timestamp

T = TypeVar("T", bound=Record)


class Row(NamedTuple):
    """One line of COPY, without its newline, and the record it was made of."""

    line: str
    found: Found[Record]


class Table(NamedTuple):
    """Where rows go: the table, its columns in the order of the lines, its key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


TRADES = Table(
    "trades",
    (
        "instrument_id", "time", "received", "sequence", "first_sequence", "epoch", "fills", "repaired", "side",
        "price", "size", "contracts", "id", "conditions",
    ),
    ("instrument_id", "time", "sequence", "epoch"),
)  # fmt: skip

CANDLES = Table(
    "candles",
    (
        "instrument_id", "timeframe", "open_time", "close_time", "received", "missing", "trades_count", "entry_ms",
        "entry_seq", "revision", "quality", "open", "high", "low", "close", "volume", "quote_volume", "buy_volume",
        "buy_quote_volume", "contracts", "first_id", "last_id",
    ),
    ("instrument_id", "timeframe", "open_time"),
)  # fmt: skip

GAPS = Table(
    "trade_gaps",
    (
        "instrument_id", "epoch", "from_sequence", "to_sequence", "from_time", "to_time", "cause", "state", "reason",
        "repaired", "remaining", "opened", "time", "received", "entry_ms", "entry_seq",
    ),
    ("instrument_id", "epoch", "from_sequence"),
)  # fmt: skip

COVERAGE = Table(
    "coverage",
    (
        "instrument_id", "entry_ms", "entry_seq", "time", "received", "partition", "state", "cause", "connection",
        "timeframes",
    ),
    ("instrument_id", "entry_ms", "entry_seq"),
)  # fmt: skip

METADATA = (
    "symbol", "market", "base", "quote", "settle", "contract", "contract_value", "contract_currency", "tick_size",
    "lot_size", "min_size", "expiry", "strike", "option", "status", "listed",
)  # fmt: skip

INSTRUMENTS = Table("instrument_history", ("instrument_id", "valid_from", *METADATA), ("instrument_id", "valid_from"))


def render(
    found: Sequence[Found[T]], ids: Mapping[InstrumentKey, int], line: Callable[[Found[T], int], str]
) -> tuple[list[Row], list[tuple[Found[T], DecodeError]]]:
    """The rows, and the records that no line can be made of, with the reason."""
    rows: list[Row] = []
    bad: list[tuple[Found[T], DecodeError]] = []
    for item in found:
        try:
            rows.append(Row(line(item, ids[item.key]), item))
        except ValueError as error:
            bad.append((item, DecodeError("time out of range", str(error))))
    return rows, bad


def trade_line(found: Found[Trade], number: int) -> str:
    trade = found.record
    assert trade.time is not None, "a trade without a time never gets this far"
    first, contracts = trade.first_sequence, trade.contracts
    head = (
        f"{number}\t{timestamp(trade.time)}\t{timestamp(trade.received)}\t{trade.sequence}"
        f"\t{NULL if first is None else first}\t{trade.epoch}\t{trade.fills}\t{'t' if trade.repaired else 'f'}"
        f"\t{trade.side}\t"
    )
    # Only JSON with a backslash can hold a character that COPY would take for its own.
    if b"\\" in found.entry.fields[b"data"] or trade.conditions:
        return head + "\t".join(
            (text(trade.price), text(trade.size), text(contracts), text(trade.id), array(trade.conditions))
        )
    return f"{head}{trade.price}\t{trade.size}\t{NULL if contracts is None else contracts}\t{trade.id}\t{{}}"


def candle_line(found: Found[Candle], number: int) -> str:
    candle = found.record
    entry_ms, entry_seq = entry_id(found.entry)
    numbers = (candle.missing, candle.trades_count, entry_ms, entry_seq, candle.revision)
    words = (
        candle.quality, candle.open, candle.high, candle.low, candle.close, candle.volume, candle.quote_volume,
        candle.buy_volume, candle.buy_quote_volume, candle.contracts, candle.first_id, candle.last_id,
    )  # fmt: skip
    times = (timestamp(candle.open_time), timestamp(candle.close_time), timestamp(candle.received))
    return "\t".join((str(number), candle.timeframe, *times, *map(str, numbers), *map(text, words)))


def gap_line(found: Found[Gap], number: int) -> str:
    gap = found.record
    received = timestamp(gap.received)
    changed = maybe_timestamp(gap.time)
    entry_ms, entry_seq = entry_id(found.entry)
    return "\t".join(
        (
            f"{number}\t{gap.epoch}\t{gap.from_sequence}\t{gap.to_sequence}",
            f"{timestamp(gap.from_time)}\t{timestamp(gap.to_time)}",
            f"{text(gap.cause)}\t{gap.state}\t{text(gap.reason)}\t{gap.repaired}\t{ranges(gap.remaining)}",
            f"{received if gap.time is None else changed}\t{changed}\t{received}\t{entry_ms}\t{entry_seq}",
        )
    )


def coverage_line(partition: str) -> Callable[[Found[Coverage], int], str]:
    """Lines of coverage records of one partition."""

    def line(found: Found[Coverage], number: int) -> str:
        coverage = found.record
        entry_ms, entry_seq = entry_id(found.entry)
        received = timestamp(coverage.received)
        time = received if coverage.time is None else timestamp(coverage.time)
        words = (partition, coverage.state, coverage.cause, coverage.connection)
        frames = NULL if coverage.candles is None else array(coverage.candles.timeframes)
        return "\t".join((f"{number}\t{entry_ms}\t{entry_seq}\t{time}\t{received}", *map(text, words), frames))

    return line


def instrument_line(found: Found[Instrument], number: int) -> str:
    record = found.record
    times = ("expiry", "listed")
    values = [
        maybe_timestamp(getattr(record, name)) if name in times else text(getattr(record, name)) for name in METADATA
    ]
    return "\t".join((str(number), timestamp(record.received), *values))


def entry_id(entry: Entry) -> tuple[str, str]:
    """The two numbers of an entry's id, as text."""
    milliseconds, _, number = entry.id.decode().partition("-")
    return milliseconds, number or "0"
