"""Binance's public spot REST endpoints under /api/v3, with weights a minute and address, and its daily files of trades.
Strict, sans-I/O.

Errors are {"code", "msg"} with the HTTP status Binance gives them; every answer says the weight used this minute.
https://developers.binance.com/docs/binance-spot-api-docs/rest-api
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from datetime import date
from itertools import islice
from typing import Any

from simulator.aggregates import Aggregates
from simulator.dialect import Response
from simulator.faults import Spells
from simulator.files import DailyFiles, checksum
from simulator.market import MILLISECOND, SECOND
from simulator.pushes.binance import Instrument
from simulator.rows.binance import (
    INTERVALS,
    aggregate_row,
    best,
    daily_line,
    dump,
    kline_row,
    ms,
    symbol_row,
    ticker_row,
    trade_row,
)
from simulator.weights import MINUTE, Weights

WEIGHT_A_MINUTE = 6000
MOST_ROWS = 1000
MOST_LEVELS = 5000
SYMBOL = re.compile(r"[A-Z0-9\-_.]{1,20}")
DAILY = re.compile(r"/data/spot/daily/trades/([^/]+)/(\1-trades-(\d{4}-\d{2}-\d{2}))\.zip(\.CHECKSUM)?", re.ASCII)
FILES_AFTER = 6 * 3600 * SECOND
"""How long after its day a daily file appears: "the next day"."""
NO_FILE = "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
Query = Mapping[str, str]
Answer = Callable[[Query, int], Any]


class _Refused(Exception):
    """A REST request that gets an error: (HTTP status, code, msg)."""

    def __init__(self, status: int, code: int, message: str, wait: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.wait = status, code, message, wait


class Rest:
    """The GET endpoints."""

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        aggregates: Mapping[str, Aggregates],
        spells: Spells,
        limits: float,
    ) -> None:
        self._instruments = instruments
        self._aggregates = aggregates
        self._spells = spells
        self._limits = limits
        self._weights = Weights(int(WEIGHT_A_MINUTE * limits))
        self.files = DailyFiles(FILES_AFTER, lambda name, fill: daily_line(instruments[name].spell, fill))
        self._routes: dict[str, tuple[Callable[[Query], int], frozenset[str], Answer]] = {
            f"/api/v3/{name}": (weight, frozenset(parameters.split()), answer)
            for name, weight, parameters, answer in self._table()
        }

    def _table(self) -> list[tuple[str, Callable[[Query], int], str, Answer]]:
        return [
            ("ping", lambda query: 1, "", lambda query, now: {}),
            ("time", lambda query: 1, "", lambda query, now: {"serverTime": ms(now)}),
            ("exchangeInfo", lambda query: 20, "symbol symbols permissions showPermissionSets", self._exchange_info),
            ("depth", _depth_weight, "symbol limit", self._depth),
            ("trades", lambda query: 25, "symbol limit", self._trades),
            ("historicalTrades", lambda query: 25, "symbol limit fromId", self._trades),
            ("aggTrades", lambda query: 4, "symbol limit fromId startTime endTime", self._agg_trades),
            ("klines", lambda query: 2, "symbol interval startTime endTime timeZone limit", self._klines),
            ("ticker/24hr", _ticker_weight, "symbol symbols type", self._ticker),
            ("ticker/bookTicker", lambda query: 2 if "symbol" in query else 4, "symbol symbols", self._book_ticker),
        ]

    def respond(self, path: str, query: Query, address: str, now: int) -> Response:
        """Answer one GET request."""
        if (named := DAILY.fullmatch(path)) is not None:
            return self._file(named, now)
        headers: dict[str, str] = {}
        status, body = 200, ""
        try:
            body = dump(self._answer(path, query, address, now))
        except _Refused as refused:
            status, body = refused.status, dump({"code": refused.code, "msg": refused.message})
            if refused.wait is not None:
                headers["Retry-After"] = str(-(-refused.wait // SECOND))
        used = str(self._weights.used(address))
        return Response(status, body, {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used, **headers})

    def _file(self, named: re.Match[str], now: int) -> Response:
        """A daily file or its checksum, from a host without weights."""
        instrument, name, text, wants_checksum = named.groups()
        try:
            day = date.fromisoformat(text)
            fills = self._instruments[instrument].pit.fills
        except (ValueError, KeyError):
            return Response(404, NO_FILE)
        content = self.files.zipped(name, instrument, day, fills, now)
        if content is None:
            return Response(404, NO_FILE)
        if wants_checksum:
            return Response(200, "", content=checksum(f"{name}.zip", content).encode())
        return Response(200, "", content=content)

    def _answer(self, path: str, query: Query, address: str, now: int) -> Any:
        error = self._spells.rest_error(now)
        if error is not None:
            wait = (self._spells.rest_wait(now) or MINUTE) if error[0] in (418, 429) else None
            raise _Refused(error[0], error[1] or -1000, "An unknown error occurred while processing the request.", wait)
        if path not in self._routes:
            raise _Refused(404, 404, "Not Found")
        weight, parameters, answer = self._routes[path]
        self._charge(address, weight(query), now)
        unread = query.keys() - parameters
        if unread:
            counts = f"read '{len(query) - len(unread)}' parameter(s) but was sent '{len(query)}'"
            raise _Refused(400, -1104, f"Not all sent parameters were read; {counts}.")
        return answer(query, now)

    def _charge(self, address: str, weight: int, now: int) -> None:
        refusal = self._weights.take(address, weight, now)
        if refusal is None:
            return
        message = f"Way too much request weight used; IP banned until {ms(now + refusal.wait)}."
        if refusal.status == 429:
            most = f"current limit is {self._weights.limit} request weight per 1 MINUTE"
            message = f"Too much request weight used; {most}. Please use WebSocket Streams for live updates."
        raise _Refused(refusal.status, -1003, message, refusal.wait)

    def _exchange_info(self, query: Query, now: int) -> dict[str, Any]:
        if "symbol" in query and "symbols" in query:
            raise _Refused(400, -1128, "Combination of optional parameters invalid.")
        weight, raw = self._weights.limit, int(300_000 * self._limits)
        return {
            "timezone": "UTC",
            "serverTime": ms(now),
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": weight},
                {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": raw},
            ],
            "exchangeFilters": [],
            "symbols": [symbol_row(one.pit.listing) for one in self._chosen(query, now)],
        }

    def _depth(self, query: Query, now: int) -> dict[str, Any]:
        """The book as of a moment ago, or as it was frozen: `lastUpdateId` may lie behind the streams."""
        one = self._symbol(query, now)
        limit = _number(query, "limit", 100, MOST_LEVELS)
        live = one.pit.book.snapshot(now, limit)
        version, bids, asks = live.version, live.bids, live.asks
        if version == one.pit.book.version:
            version, bids, asks = one.rest.version, one.rest.side("bid", limit), one.rest.side("ask", limit)
        return {"lastUpdateId": version, "bids": one.spell.levels(bids), "asks": one.spell.levels(asks)}

    def _trades(self, query: Query, now: int) -> list[Any]:
        """Ascending: from an id on, or the newest."""
        one = self._symbol(query, now)
        limit = _number(query, "limit", 500, MOST_ROWS)
        first = _number(query, "fromId", None, None)
        fills = one.pit.fills
        if self._spells.empties():
            return []
        end = bisect_right(fills, now - self._spells.lag, key=lambda fill: fill.time)
        start = max(0, end - limit if first is None else bisect_left(fills, first, key=lambda fill: fill.sequence))
        return [trade_row(one.spell, fill) for fill in islice(fills, start, min(start + limit, end))]

    def _agg_trades(self, query: Query, now: int) -> list[Any]:
        """Ascending: from an aggregate id on, from a time on, or the newest."""
        one = self._symbol(query, now)
        limit = _number(query, "limit", 500, MOST_ROWS)
        number, start, end = (_number(query, name, None, None) for name in ("fromId", "startTime", "endTime"))
        kept = self._aggregates[one.name]
        if number is not None and (start is not None or end is not None):
            raise _Refused(400, -1128, "Combination of optional parameters invalid.")
        if number is not None:
            page = kept.since(number, limit)
        elif start is not None or end is not None:
            page = kept.after((start or 0) * MILLISECOND, limit)
        else:
            page = kept.newest(limit)
        return [aggregate_row(one.spell, row) for row in page if end is None or ms(row.time) <= end]

    def _klines(self, query: Query, now: int) -> list[Any]:
        """Ascending; the last may not have ended."""
        one = self._symbol(query, now)
        interval = _required(query, "interval")
        if interval not in INTERVALS:
            raise _Refused(400, -1120, "Invalid interval.")
        if query.get("timeZone", "0") != "0":
            raise _Refused(400, -1130, "Data sent for parameter 'timeZone' is not valid.")
        limit, width = _number(query, "limit", 500, MOST_ROWS), INTERVALS[interval]
        start, end = (_number(query, name, None, None) for name in ("startTime", "endTime"))
        until = min(ms(now), ms(now) if end is None else end)
        first = until - until % width - (limit - 1) * width if start is None else start
        bars = one.bars(interval, first, min(until, first + limit * width))
        return [kline_row(one.spell, interval, bar) for bar in bars[:limit]]

    def _ticker(self, query: Query, now: int) -> Any:
        mini = query.get("type", "FULL") == "MINI"
        rows = [ticker_row(one.name, one.spell, one.day(now), mini) for one in self._chosen(query, now)]
        return rows[0] if "symbol" in query else rows

    def _book_ticker(self, query: Query, now: int) -> Any:
        rows = []
        for one in self._chosen(query, now):
            bid, ask = best(one.pit)
            texts = (*one.spell.levels([bid])[0], *one.spell.levels([ask])[0])
            rows.append(
                dict(zip(("symbol", "bidPrice", "bidQty", "askPrice", "askQty"), (one.name, *texts), strict=True))
            )
        return rows[0] if "symbol" in query else rows

    def _chosen(self, query: Query, now: int) -> list[Instrument]:
        """The instruments `symbol` or `symbols` name; all that are listed without either."""
        if "symbol" in query:
            return [self._symbol(query, now)]
        if "symbols" in query:
            return [self._named(name, "symbols", now) for name in _names(query["symbols"])]
        return [one for name, one in self._instruments.items() if not self._spells.refuses(name, now)]

    def _symbol(self, query: Query, now: int) -> Instrument:
        return self._named(_required(query, "symbol"), "symbol", now)

    def _named(self, name: str, parameter: str, now: int) -> Instrument:
        if not SYMBOL.fullmatch(name):
            raise _illegal(parameter, "^[A-Z0-9-_.]{1,20}$")
        if name not in self._instruments or self._spells.refuses(name, now):
            raise _Refused(400, -1121, "Invalid symbol.")
        return self._instruments[name]


def _depth_weight(query: Query) -> int:
    text = query.get("limit", "100")
    limit = int(text) if text.isascii() and text.isdigit() else 100
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250


def _ticker_weight(query: Query) -> int:
    if "symbol" in query:
        return 2
    count = query.get("symbols", "").count(",") + 1 if query.get("symbols") else 101
    return 2 if count <= 20 else 40 if count <= 100 else 80


def _names(text: str) -> list[str]:
    try:
        names = json.loads(text)
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise _illegal("symbols", '^\\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}){0,1}\\]$')
    return names


def _required(query: Query, name: str) -> str:
    if not query.get(name):
        message = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise _Refused(400, -1102, message)
    return query[name]


def _number(query: Query, name: str, default: Any, most: int | None) -> Any:
    """A number of the query; what is above `most` is cut to it, as Binance does."""
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise _illegal(name, "^[0-9]{1,20}$")
    if most is not None and int(text) == 0:
        raise _Refused(400, -1130, f"Data sent for parameter '{name}' is not valid.")
    return int(text) if most is None else min(int(text), most)


def _illegal(name: str, legal: str) -> _Refused:
    return _Refused(400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
