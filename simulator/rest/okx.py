"""OKX's REST endpoints: time, instruments, trades, books, tickers, candles. Strict, sans-I/O.

Errors carry the envelope {"code", "msg", "data": []} with the HTTP status OKX gives them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from simulator.dialect import Response
from simulator.faults import Spells
from simulator.limits import Allowance
from simulator.market import MILLISECOND, SECOND, Fill, Pit
from simulator.rows.okx import (
    BARS,
    INST_TYPES,
    Numbers,
    bar_rows,
    book_row,
    dump,
    fill_row,
    instrument_row,
    ms,
    ticker_row,
)
from simulator.tape import Tape

INSTRUMENTS = "/api/v5/public/instruments"
LEVELS = 400
REFRESHED = 50 * MILLISECOND
REMEMBERED = 90 * 24 * 3600 * SECOND
"""How far back history-trades goes: three months."""


class _Refused(Exception):
    """A REST request that gets an error: (HTTP status, code, msg)."""

    def __init__(self, status: int, code: str, message: str, wait: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.wait = status, code, message, wait


class Rest:
    """The GET endpoints. Errors carry the envelope {"code","msg","data":[]}."""

    def __init__(self, tape: Tape, spells: Spells, limits: float, numbers: Numbers) -> None:
        self._tape = tape
        self._numbers = numbers
        self._cached: dict[str, tuple[int, dict[str, Any]]] = {}
        self._spells = spells
        routes: dict[str, tuple[int, Callable[[Mapping[str, str], int], list[Any]]]] = {
            # Requests per 2 s and address; instruments per address and instType.
            "/api/v5/public/time": (10, self._time),
            INSTRUMENTS: (20, self._instruments),
            "/api/v5/market/trades": (100, self._trades),
            "/api/v5/market/history-trades": (20, self._history_trades),
            "/api/v5/market/books": (40, self._books),
            "/api/v5/market/ticker": (20, self._ticker),
            "/api/v5/market/tickers": (20, self._tickers),
            "/api/v5/market/candles": (40, self._candles),
            "/api/v5/market/history-candles": (20, self._candles),
        }
        self._routes = {
            path: (Allowance(int(count * limits), 2 * SECOND), answer) for path, (count, answer) in routes.items()
        }

    def respond(self, path: str, query: Mapping[str, str], address: str, now: int) -> Response:
        """Answer one GET request."""
        try:
            return Response(200, dump({"code": "0", "msg": "", "data": self._answer(path, query, address, now)}))
        except _Refused as refused:
            headers = {} if refused.wait is None else {"Retry-After": str(-(-refused.wait // SECOND))}
            body = dump({"code": refused.code, "msg": refused.message, "data": []})
            return Response(refused.status, body, headers)

    def _answer(self, path: str, query: Mapping[str, str], address: str, now: int) -> list[Any]:
        error = self._spells.rest_error(now)
        if error is not None:
            # OKX itself tells no time; what stands before it may.
            wait = self._spells.rest_wait(now) if error[0] in (418, 429) else None
            raise _Refused(error[0], str(error[1] or 50001), "Service temporarily unavailable. Try again later", wait)
        if path not in self._routes:
            raise _Refused(404, "404", "Invalid request path")
        allowance, answer = self._routes[path]
        kind = query.get("instType", "") if path == INSTRUMENTS else ""
        if not allowance.take(f"{address} {kind}", now):
            raise _Refused(429, "50011", "Too Many Requests")
        return answer(query, now)

    def _time(self, query: Mapping[str, str], now: int) -> list[Any]:
        return [{"ts": ms(now)}]

    def _instruments(self, query: Mapping[str, str], now: int) -> list[Any]:
        kind = _required(query, "instType")
        if kind not in {*INST_TYPES.values(), "MARGIN"}:
            raise _Refused(400, "51000", "Parameter instType error")
        if kind == "OPTION":
            _required(query, "instFamily")
        rows = [instrument_row(pit, place) for place, pit in enumerate(self._tape.pits)]
        rows = [row for row in rows if row["instType"] == kind]
        if "instFamily" in query:
            rows = [row for row in rows if row["instFamily"] == query["instFamily"]]
        if "instId" in query:
            rows = [row for row in rows if row["instId"] == query["instId"]]
            if not rows:
                raise _Refused(200, "51001", "Instrument ID doesn't exist.")
        return rows

    def _trades(self, query: Mapping[str, str], now: int) -> list[Any]:
        return self._page(query, _number(query, "limit", 100, 500), now)

    def _history_trades(self, query: Mapping[str, str], now: int) -> list[Any]:
        """Pages back by id (type 1) or by ms (type 2, `after` only); `before` alone gives the latest page."""
        kind = _number(query, "type", 1, 2)
        limit = _number(query, "limit", 100, 100)
        after, before = (_number(query, name, None, None) for name in ("after", "before"))
        if kind == 2 and before is not None:
            raise _Refused(400, "51000", "Parameter before error")
        fills = self._listed(query)[1].fills
        first, end = bisect_left(fills, now - REMEMBERED, key=_time), len(fills)
        if after is not None:
            end = bisect_left(fills, after * MILLISECOND if kind == 2 else after, key=_time if kind == 2 else _sequence)
        if before is not None:
            first = max(first, bisect_right(fills, before, key=_sequence))
        return self._page(query, limit, now, first, end)

    def _page(
        self, query: Mapping[str, str], limit: int, now: int, first: int = 0, end: int | None = None
    ) -> list[Any]:
        """The newest of the fills from place `first` to `end`, newest first."""
        instrument, pit = self._listed(query)
        if self._spells.empties():
            return []
        shown = bisect_right(pit.fills, now - self._spells.lag, key=_time)
        end = shown if end is None else min(shown, end)
        page = list(islice(pit.fills, max(first, end - limit), end)) if first < end else []
        return [fill_row(instrument, fill) for fill in reversed(page)]

    def _books(self, query: Mapping[str, str], now: int) -> list[Any]:
        """The best `sz` levels (1 without it, at most 400), from a cache refreshed every 50 ms."""
        instrument, pit = self._listed(query)
        depth = _number(query, "sz", 1, LEVELS)
        time, row = self._cached.get(instrument, (0, {}))
        if now - time >= REFRESHED:
            book = pit.book.snapshot(now, LEVELS)
            number = self._numbers.of(instrument, book.version)
            row = {**book_row(pit.listing, book.bids, book.asks), "ts": ms(now), "seqId": number}
            self._cached[instrument] = (now, row)
        return [{**row, "asks": row["asks"][:depth], "bids": row["bids"][:depth]}]

    def _ticker(self, query: Mapping[str, str], now: int) -> list[Any]:
        instrument, _ = self._listed(query)
        return [ticker_row(self._tape, instrument, now)]

    def _tickers(self, query: Mapping[str, str], now: int) -> list[Any]:
        kind = _required(query, "instType")
        if kind not in INST_TYPES.values():
            raise _Refused(400, "51000", "Parameter instType error")
        family = query.get("instFamily")
        rows = [instrument_row(pit, place) for place, pit in enumerate(self._tape.pits)]
        return [
            ticker_row(self._tape, row["instId"], now)
            for row in rows
            if row["instType"] == kind and family in (None, row["instFamily"])
        ]

    def _candles(self, query: Mapping[str, str], now: int) -> list[Any]:
        """Newest first; `after` older than, `before` newer than an opening time in ms."""
        instrument, _ = self._listed(query)
        bar = query.get("bar", "1m")
        if bar not in BARS:
            raise _Refused(400, "51000", "Parameter bar error")
        limit = _number(query, "limit", 100, 300)
        after = _number(query, "after", now // MILLISECOND + 1, None)
        before = _number(query, "before", after - (limit + 2) * BARS[bar][0], None)
        rows = bar_rows(self._tape, (f"candle{bar}", instrument), before, now)
        return [row for row in reversed(rows) if before < int(row[0]) < after][:limit]

    def _listed(self, query: Mapping[str, str]) -> tuple[str, Pit]:
        instrument = _required(query, "instId")
        pit = self._tape.pit(instrument)
        if pit is None:
            raise _Refused(200, "51001", "Instrument ID doesn't exist.")
        return instrument, pit


def _time(fill: Fill) -> int:
    return fill.time


def _sequence(fill: Fill) -> int:
    return fill.sequence


def _required(query: Mapping[str, str], name: str) -> str:
    if not query.get(name):
        raise _Refused(400, "50014", f"Parameter {name} can not be empty.")
    return query[name]


def _number(query: Mapping[str, str], name: str, default: Any, most: int | None) -> Any:
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or (most is not None and not 1 <= int(text) <= most):
        raise _Refused(400, "51000", f"Parameter {name} error")
    return int(text)
