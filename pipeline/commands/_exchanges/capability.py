"""What can be collected of an exchange, read off the code that collects it: nothing is claimed that is not built."""

from typing import Any

from pipeline.exchanges import EXCHANGES, Exchange
from pipeline.timeframes import TIMEFRAMES

COLUMNS = ("trade", "candle", "orderbook", "quote", "ticker", "kline", "instrument")
"""Kinds of the matrix. Gaps and coverage go with trades."""
SOURCES = {"websocket": "WS", "websocket and rest": "WS+REST", "trades": "made", "rest": "REST"}
"""How a cell of the matrix is written."""

Capability = dict[str, Any]


def capabilities() -> dict[str, Capability]:
    """Every exchange, by name."""
    return {name: capability(exchange) for name, exchange in EXCHANGES.items()}


def capability(exchange: Exchange) -> Capability:
    """One exchange: JSON values; lengths of time in seconds."""
    import importlib

    from normalize.mapper import load

    feed = importlib.import_module(f"ingest.exchanges.{exchange.module}").Feed()
    mapper = load(exchange)
    return {
        "name": exchange.name,
        "title": exchange.title,
        "ws_url": exchange.ws_url,
        "rest_url": exchange.rest_url,
        "kinds": {kind: _kind(kind, feed, mapper) for kind in (*exchange.kinds, "instrument")},
        "limits": _limits(exchange, feed),
    }


def _kind(kind: str, feed: Any, mapper: Any) -> Capability:
    """`source`: websocket, websocket and rest, trades (made of them), rest. `channels` are the exchange's words, REST
    ones without the host; `timeframes` only of klines."""
    if kind == "instrument":
        paths = dict.fromkeys(request.path.partition("?")[0] for request in feed.listings(["*"]))
        return {"source": "rest", "channels": list(paths)}
    if kind == "candle":
        return {"source": "trades", "channels": list(feed.channels(kind, TIMEFRAMES)), "timeframes": list(TIMEFRAMES)}
    row: Capability = {"source": "websocket", "channels": list(feed.channels(kind, TIMEFRAMES))}
    if kind == "orderbook" and mapper.book_rule.by_request:
        row["source"] = "websocket and rest"
        row["channels"].append(feed.snapshot("").path.partition("?")[0])
    if kind == "kline":
        row["timeframes"] = [timeframe for timeframe in TIMEFRAMES if feed.channels(kind, (timeframe,))]
    return row


def _limits(exchange: Exchange, feed: Any) -> Capability:
    """What we keep to: mostly the exchange's own allowances."""
    from ingest.feed import Subscription

    channels = dict.fromkeys(channel for kind in exchange.kinds for channel in feed.channels(kind, TIMEFRAMES))
    routes = dict.fromkeys(feed.route(Subscription(channel, "")) for channel in channels)
    return {
        "connects": _rate(feed.connects),
        "requests": _rate(feed.requests),
        "subscriptions_per_connection": {route.group: route.most for route in routes},
        "connection_lifetime": None if feed.lifetime is None else feed.lifetime / 1e9,
        "rest": {name: _rate(rate) for name, rate in feed.allowances.items()},
    }


def _rate(rate: Any) -> Capability:
    return {"count": rate.count, "seconds": rate.period / 1e9}
