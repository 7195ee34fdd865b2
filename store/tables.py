"""The tables that `store` fills: columns in the order of the lines, keys. Names only."""

from typing import NamedTuple


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

BAR = (
    "open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume", "contracts",
    "trades_count", "first_id", "last_id", "quality", "missing",
)  # fmt: skip
"""What a candle says of its window; the function candles_of_trades has the same columns."""

KLINES = Table(
    "klines",
    (
        "instrument_id", "timeframe", "open_time", "close_time", "received", "time", "trades_count", "entry_ms",
        "entry_seq", "open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume",
        "contracts", "first_id", "last_id",
    ),
    ("instrument_id", "timeframe", "open_time"),
)  # fmt: skip

ORDERBOOKS = Table(
    "orderbooks",
    (
        "instrument_id", "at", "received", "time", "snapshot_time", "sequence", "entry_ms", "entry_seq", "depth",
        "valid", "unit", "reason", "bid", "bid_size", "ask", "ask_size", "bid_prices", "bid_sizes", "ask_prices",
        "ask_sizes",
    ),
    ("instrument_id", "at", "entry_ms", "entry_seq"),
)  # fmt: skip

QUOTES = Table(
    "quotes",
    (
        "instrument_id", "received", "time", "sequence", "entry_ms", "entry_seq", "bid", "bid_size", "ask", "ask_size",
    ),
    ("instrument_id", "received", "entry_ms", "entry_seq"),
)  # fmt: skip

TICKERS = Table(
    "tickers",
    (
        "instrument_id", "received", "time", "entry_ms", "entry_seq", "last", "bid", "bid_size", "ask", "ask_size",
        "open_24h", "high_24h", "low_24h", "volume_24h", "quote_volume_24h",
    ),
    ("instrument_id", "received", "entry_ms", "entry_seq"),
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

REBUILDS = Table(
    "rebuilds",
    (
        "instrument_id", "entry_ms", "entry_seq", "from_time", "to_time", "until", "received", "partition",
        "quiet_from", "timeframes",
    ),
    ("instrument_id", "entry_ms", "entry_seq"),
)  # fmt: skip

METADATA = (
    "symbol", "market", "base", "quote", "settle", "contract", "contract_value", "contract_currency", "tick_size",
    "lot_size", "min_size", "expiry", "strike", "option", "status", "listed",
)  # fmt: skip

INSTRUMENTS = Table("instrument_history", ("instrument_id", "valid_from", *METADATA), ("instrument_id", "valid_from"))

TABLES = (TRADES, CANDLES, KLINES, ORDERBOOKS, QUOTES, TICKERS, GAPS, COVERAGE, REBUILDS, INSTRUMENTS)

DAILY = ("trades", "orderbooks", "quotes", "tickers", "candles_seconds", "klines_seconds")
"""Parents of partitions of a UTC day."""
MONTHLY = ("candles_minutes", "klines_minutes")
"""Parents of partitions of a UTC month."""
