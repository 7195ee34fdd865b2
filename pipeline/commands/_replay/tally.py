"""What a replay met: counts by kind, order books, and what could not be used, with its first place."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pipeline.records import DeadLetter


class _Trade(msgspec.Struct):
    fills: int = 1


class _Book(msgspec.Struct):
    exchange: str
    instrument: str
    symbol: str
    valid: bool = True


_TRADE = msgspec.json.Decoder(_Trade)
_BOOK = msgspec.json.Decoder(_Book)
_DEAD = msgspec.json.Decoder(DeadLetter)


class Tally:
    """Counts. `place` is that of the line being played."""

    def __init__(self) -> None:
        self.frames = 0
        self.place = ""
        self._fills = 0
        self._kinds: Counter[str] = Counter()
        self._valid: Counter[bool] = Counter()
        self._books: dict[tuple[str, str], tuple[str, bool]] = {}
        self._undecoded: dict[str, dict[str, Any]] = {}

    def saw(self, kind: str, data: bytes) -> None:
        """One more record of a kind (`candle:1m` counts as `candle`)."""
        name = kind.partition(":")[0]
        self._kinds[name] += 1
        if name == "trade":
            self._fills += _TRADE.decode(data).fills
        elif name == "dead":
            self.failed(_DEAD.decode(data).reason)
        elif name == "orderbook":
            book = _BOOK.decode(data)
            self._valid[book.valid] += 1
            key = (book.exchange, book.instrument)
            _, before = self._books.get(key, ("", False))
            self._books[key] = (book.symbol, before or book.valid)

    def failed(self, reason: str) -> None:
        """One more that could not be used, at the present place."""
        found = self._undecoded.setdefault(reason, {"count": 0, "first": self.place})
        found["count"] += 1

    def summary(self, reports: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
        """The counts, with what each normalize (exchange, report) says of itself."""
        reports = list(reports)
        rows = [row for _, report in reports for row in report["subscriptions"].values()]
        control: Counter[str] = sum((Counter(report["control"]) for _, report in reports), Counter())
        return {
            "frames": self.frames,
            "trades": self._kinds["trade"],
            "fills": self._fills,
            "duplicates": sum(row["duplicates"] for row in rows),
            "overlaps": sum(row["overlaps"] for row in rows),
            "reordered": sum(row["reordered"] for row in rows),
            "gaps": sum(row["open_gaps"] for row in rows),
            "missing": sum(row["missing"] for row in rows),
            **{f"{kind}s": self._kinds[kind] for kind in ("instrument", "candle", "quote", "ticker", "kline")},
            "orderbooks": self._kinds["orderbook"],
            "books": self._of_books(reports),
            "control": dict(sorted(control.items())),
            "undecoded": dict(sorted(self._undecoded.items())),
        }

    def _of_books(self, reports: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
        """`never_valid`: books that were begun or asked for, and of which no valid record came."""
        books = dict(self._books)
        for exchange, report in reports:
            for instrument, row in (report.get("books") or {}).items():
                books.setdefault((exchange, instrument), (row.get("symbol") or instrument, bool(row.get("valid"))))
        return {
            "instruments": len(books),
            "valid": self._valid[True],
            "invalid": self._valid[False],
            "never_valid": sorted(
                f"{exchange} {symbol}" for (exchange, _), (symbol, valid) in books.items() if not valid
            ),
        }
