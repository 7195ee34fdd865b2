"""`pipeline tail`: records as they come, from the streams. Reads as an outsider: no group, no cursor, no trace."""

import heapq
import json
import time
from collections.abc import Iterator
from typing import Any

import click
import msgspec
import redis.exceptions

from pipeline import settings
from pipeline.commands._options import DURATION
from pipeline.commands._tail.line import line
from pipeline.errors import ServerAway, SettingsError
from pipeline.probes.redis import Client, call, connect, fields, known, milliseconds
from pipeline.records import CONTROLS
from pipeline.settings import Settings
from pipeline.timeframes import WIDTHS

BLOCK_MS = 500
PAGE = 500
MOST_PAGES = 200
"""How far back `-n` searches for entries that match."""

KINDS = ("trade", "candle", "kline", "quote", "orderbook", "ticker", "instrument", "gap", "clock", "coverage", "dead")
BARS = ("candle", "kline")
"""Kinds with a stream for each time frame."""
WITHOUT_SYMBOL = ("clock", "dead")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries to show: `stream` is the kind of stream they are in, `control` the control record's name."""

    stream: str
    control: str | None
    symbol: str | None

    def matches(self, entry: Any) -> bool:
        """Whether the entry is one to show."""
        found = fields(entry)
        if self.control is not None and found.get(b"control") != self.control.encode():
            return False
        if self.control is None and b"control" in found:
            return False
        return self.symbol is None or self.symbol in _spellings(found)


@click.command()
@click.argument("kind")
@click.option("--exchange", help="Only of this exchange.")
@click.option("--symbol", help="Only of this symbol or instrument.")
@click.option("--timeframe", help="Only candles or klines of this time frame.")
@click.option("-n", "count", type=click.IntRange(min=0), help="Begin with the last N (default 10 without --since).")
@click.option("--since", type=DURATION, help="Begin this long ago: 10m, 1h.")
@click.option("-f/ ", "--follow/--no-follow", default=True, help="Go on with what comes (default), or end there.")
@click.option("--json", "as_json", is_flag=True, help="The records as they stand on the stream, one a line.")
@click.pass_context
def tail(
    ctx: click.Context,
    kind: str,
    exchange: str | None,
    symbol: str | None,
    timeframe: str | None,
    count: int | None,
    since: float | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print records as they come. Ctrl-C ends it.

    KIND is trade, candle (or candle:1m), kline (or kline:1m: the exchange's own), quote, orderbook, ticker, instrument,
    gap, clock, coverage or dead (what could not be decoded).

    \b
    Examples:
      pipeline tail trade --symbol BTC-USDT
      pipeline tail candle:1m -n 60 --no-follow --json
      pipeline tail orderbook --symbol BTC-USDT --exchange okx
      pipeline tail gap --since 1h
      pipeline tail dead --no-follow
    """
    given = settings.load(ctx.obj)
    wanted, only = _wanted(kind, symbol, timeframe)
    client = connect(given, timeout=5.0)
    try:
        keys = _keys(client, given, wanted.stream, only, exchange)
        last = {key: _last_id(client, key) for key in keys}
        for entry in _past(client, last, wanted, count, since):
            _print(entry, kind, as_json)
        if follow:
            for entry in _coming(client, last, wanted):
                _print(entry, kind, as_json)
    except redis.exceptions.RedisError as error:
        raise ServerAway(f"Redis does not answer: {error}") from error
    finally:
        client.close()


def _wanted(kind: str, symbol: str | None, timeframe: str | None) -> tuple[Wanted, str | None]:
    """What to show, and the one time frame to look at. Raises SettingsError."""
    name, _, frame = kind.partition(":")
    frame = timeframe or frame
    if name not in KINDS:
        raise SettingsError(f"no kind {name!r}; kinds are {', '.join(KINDS)}")
    if frame and (name not in BARS or frame not in WIDTHS):
        raise SettingsError(f"no kind {name}:{frame}; candles and klines come in {', '.join(WIDTHS)}")
    if symbol and name in WITHOUT_SYMBOL:
        raise SettingsError(f"{name} records belong to no symbol")
    in_place = name in CONTROLS and name != "gap"
    return Wanted(
        stream="trade" if in_place else name,
        control=name if in_place else None,
        symbol=symbol.upper() if symbol else None,
    ), frame or None


def _keys(client: Client, given: Settings, stream: str, frame: str | None, exchange: str | None) -> list[str]:
    found = [
        key
        for key, origin in known(client, given).items()
        if origin.kind.partition(":")[0] == stream
        and (frame is None or origin.kind == f"{stream}:{frame}")
        and (exchange is None or origin.exchange == exchange.lower())
    ]
    if not found:
        raise SettingsError(f"no {stream} stream{f' of {exchange}' if exchange else ''} in namespace {given.namespace}")
    return found


def _last_id(client: Client, key: str) -> bytes:
    newest = call(client, "XREVRANGE", key, "+", "-", "COUNT", 1)
    return bytes(newest[0][0]) if newest else b"0-0"


def _past(client: Client, last: dict[str, bytes], wanted: Wanted, count: int | None, since: float | None) -> list[Any]:
    """What is there already, oldest first, over all streams."""
    oldest = b"-" if since is None else b"%d" % int((time.time() - since) * 1000)
    most = count if count is not None else (10 if since is None else None)
    if most == 0:
        return []
    found = [list(_backwards(client, key, oldest, newest, wanted, most)) for key, newest in last.items()]
    merged = list(heapq.merge(*(reversed(part) for part in found), key=lambda entry: _order(entry[0])))
    return merged if most is None else merged[-most:]


def _backwards(
    client: Client, key: str, oldest: bytes, newest: bytes, wanted: Wanted, most: int | None
) -> Iterator[Any]:
    """Matching entries, newest first, page by page."""
    end, shown, pages = newest, 0, 0
    while most is None or shown < most:
        page = call(client, "XREVRANGE", key, end, oldest, "COUNT", PAGE)
        for entry in page:
            if wanted.matches(entry) and (most is None or shown < most):
                shown += 1
                yield entry
        if len(page) < PAGE:
            return
        pages += 1
        if most is not None and pages == MOST_PAGES:
            click.echo(f"pipeline: looked at the last {pages * PAGE} entries of {key} only", err=True)
            return
        end = b"(" + page[-1][0]


def _coming(client: Client, last: dict[str, bytes], wanted: Wanted) -> Iterator[Any]:
    """Matching entries from now on, without end."""
    while True:
        found = call(client, "XREAD", "COUNT", PAGE, "BLOCK", BLOCK_MS, "STREAMS", *last, *last.values())
        for key, entries in found or []:
            last[key.decode()] = entries[-1][0]
            yield from (entry for entry in entries if wanted.matches(entry))


def _order(entry_id: bytes) -> tuple[int, int]:
    return milliseconds(entry_id), int(entry_id.partition(b"-")[2])


def _spellings(found: dict[bytes, bytes]) -> set[str]:
    """The symbol of an entry and, looking into the record, its instrument."""
    record = msgspec.json.decode(found[b"data"])
    return {str(record[name]).upper() for name in ("symbol", "instrument") if record.get(name)}


def _print(entry: Any, kind: str, as_json: bool) -> None:
    data = fields(entry)[b"data"].decode()
    click.echo(data if as_json else line(kind.partition(":")[0], json.loads(data)))
