"""What Postgres holds, read whole for the proof. Reads the tables themselves, by the proof's own words."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

from pipeline.probes import postgres
from pipeline.settings import Settings

if TYPE_CHECKING:
    from simulator.listings import Listing
    from simulator.proof.evidence import Candle, Evidence, Trade

QUERY_TIMEOUT_MS = 600_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[str, str]
"""(exchange, the exchange's own id)."""

_TRADES: LiteralString = """
    SELECT i.exchange, i.instrument, t.epoch, t.sequence, t.time, t.received, t.price, t.size, t.side, t.contracts,
           t.id, t.fills
    FROM trades t JOIN instruments i ON i.id = t.instrument_id"""
_CANDLES: LiteralString = """
    SELECT i.exchange, i.instrument, c.timeframe, c.open_time, c.close_time, c.open, c.high, c.low, c.close, c.volume,
           c.quote_volume, c.buy_volume, c.buy_quote_volume, c.trades_count, c.contracts, c.first_id, c.last_id,
           c.quality, c.missing
    FROM candles c JOIN instruments i ON i.id = c.instrument_id"""


class Rows:
    """Trades and candles by (exchange, instrument)."""

    def __init__(self, trades: dict[Key, "list[Trade]"], candles: dict[Key, "list[Candle]"]) -> None:
        self.trades = trades
        self.candles = candles


def read(settings: Settings) -> Rows:
    """Everything that is stored. Raises psycopg.Error."""
    from simulator.proof.evidence import Candle, Trade

    trades: dict[Key, list[Trade]] = {}
    candles: dict[Key, list[Candle]] = {}
    with postgres.connect(settings, QUERY_TIMEOUT_MS) as connection:
        for exchange, instrument, *row in connection.execute(_TRADES):
            trades.setdefault((str(exchange), str(instrument)), []).append(_made(Trade, _TRADE_FIELDS, row))
        for exchange, instrument, *row in connection.execute(_CANDLES):
            candles.setdefault((str(exchange), str(instrument)), []).append(_made(Candle, _CANDLE_FIELDS, row))
    return Rows(trades, candles)


def evidence(rows: Rows, exchange: str, truth: Path, listings: "dict[str, Listing]") -> "Iterator[Evidence]":
    """One for each instrument the exchange lists (by its own id), and for each that only Postgres knows."""
    from simulator.proof.evidence import Evidence, Trade, link, true_trade
    from simulator.truth import read_connections, read_truth

    printed: dict[str, list[Trade]] = {instrument: [] for instrument in listings}
    for fill in read_truth(truth):
        if fill.instrument in listings:
            printed[fill.instrument].append(true_trade(fill, listings[fill.instrument]))
    connections = read_connections(truth)
    stored = {instrument for where, instrument in (*rows.trades, *rows.candles) if where == exchange}
    for instrument in sorted({*printed, *stored}):
        yield Evidence(
            instrument=f"{exchange} {instrument}",
            printed=printed.get(instrument, ()),
            trades=rows.trades.get((exchange, instrument), ()),
            candles=rows.candles.get((exchange, instrument), ()),
            link=link(connections, instrument),
        )


_TRADE_FIELDS = ("epoch", "sequence", "time", "received", "price", "size", "side", "contracts", "id", "fills")
_CANDLE_FIELDS = (
    "timeframe",
    "open_time",
    "close_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "buy_volume",
    "buy_quote_volume",
    "trades_count",
    "contracts",
    "first_id",
    "last_id",
    "quality",
    "missing",
)


def _made(kind: Any, fields: tuple[str, ...], row: list[object]) -> Any:
    return kind(**{name: _value(value) for name, value in zip(fields, row, strict=True)})


def _value(value: object) -> object:
    """Times as ns, by integers: floats cannot hold them."""
    if not isinstance(value, datetime):
        return value
    since = value - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
