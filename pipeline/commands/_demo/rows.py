"""What Postgres holds, read whole for the proof. Reads the tables themselves, by the proof's own words."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

from pipeline.probes import postgres
from pipeline.settings import Settings

if TYPE_CHECKING:
    from simulator.listings import Listing
    from simulator.proof.evidence import Candle, Evidence, Trade
    from simulator.proof.ledger import GapRow
    from simulator.truth import ConnectionChange, TrueFill

QUERY_TIMEOUT_MS = 600_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[str, str]
"""(exchange, the exchange's own id)."""

_GAPS: LiteralString = """
    SELECT i.exchange, i.instrument, g.epoch, g.from_sequence, g.to_sequence, g.from_time, g.to_time, g.cause, g.state,
           g.reason, (SELECT coalesce(array_agg(ARRAY[lower(r), upper(r) - 1] ORDER BY r), '{}')
                      FROM unnest(g.remaining) AS r)
    FROM trade_gaps g JOIN instruments i ON i.id = g.instrument_id"""
_ONE: LiteralString = " WHERE i.exchange = %s AND i.instrument = %s"
_KNOWN: LiteralString = """
    SELECT DISTINCT i.instrument FROM instruments i
    WHERE i.exchange = %s AND EXISTS (SELECT FROM trades t WHERE t.instrument_id = i.id)"""
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


def one_by_one(
    settings: Settings, exchange: str, truth: Path, listings: "dict[str, Listing]"
) -> "Iterator[tuple[Evidence, list[GapRow]]]":
    """As `evidence`, with each instrument's part of the ledger, read one instrument at a time: a long run of many
    trades need not fit into memory. Raises psycopg.Error."""
    from simulator.truth import read_connections, read_truth

    printed: dict[str, list[TrueFill]] = {}
    for fill in read_truth(truth):
        printed.setdefault(fill.instrument, []).append(fill)
    connections = read_connections(truth)
    with postgres.connect(settings, QUERY_TIMEOUT_MS) as connection:
        stored = {str(row[0]) for row in connection.execute(_KNOWN, (exchange,))}
        for instrument in sorted({*listings, *stored}):
            fills = printed.pop(instrument, [])
            yield _read_one(connection, (exchange, instrument), fills, listings.get(instrument), connections)


def _read_one(
    connection: postgres.Connection,
    key: Key,
    fills: "list[TrueFill]",
    listing: "Listing | None",
    connections: "list[ConnectionChange]",
) -> "tuple[Evidence, list[GapRow]]":
    from simulator.proof.evidence import Candle, Evidence, Trade, link, true_trade
    from simulator.proof.ledger import GapRow

    found = Evidence(
        instrument=" ".join(key),
        printed=[true_trade(fill, listing) for fill in fills] if listing else (),
        trades=[_made(Trade, _TRADE_FIELDS, row[2:]) for row in connection.execute(_TRADES + _ONE, key)],
        candles=[_made(Candle, _CANDLE_FIELDS, row[2:]) for row in connection.execute(_CANDLES + _ONE, key)],
        link=link(connections, key[1]),
    )
    gaps: list[GapRow] = []
    for row in connection.execute(_GAPS + _ONE, key):
        ranges: Any = row[-1]
        gaps.append(_made(GapRow, _GAP_FIELDS, (*row[2:-1], tuple((first, last) for first, last in ranges))))
    return found, gaps


_GAP_FIELDS = ("epoch", "first", "last", "from_time", "to_time", "cause", "state", "reason", "remaining")
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


def _made(kind: Any, fields: tuple[str, ...], row: Sequence[object]) -> Any:
    return kind(**{name: _value(value) for name, value in zip(fields, row, strict=True)})


def _value(value: object) -> object:
    """Times as ns, by integers: floats cannot hold them."""
    if not isinstance(value, datetime):
        return value
    since = value - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
