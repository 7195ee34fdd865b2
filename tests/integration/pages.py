"""Trades by REST as OKX has them and as ingest pages them, newest first: in parts, cut, doubled, overlapping, from
caches that lag behind, refused for now or for good. Written from the protocol reference."""

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec

from pipeline.frames import RequestData
from pipeline.wants import Want

REST = "https://openapi.okx.com"
Row = dict[str, str]


class Ink(Protocol):
    """What it needs of the writer of the raw stream."""

    def add(self, connection: str, kind: str, data: str, url: str | None = None, key: str | None = None) -> None:
        """A frame, now."""


class Pages:
    """`printed`: every trade the exchange printed, by instrument and number. `done` counts how wants ended."""

    def __init__(self, ink: Ink, seed: int) -> None:
        self.printed: dict[str, dict[int, Row]] = {}
        self.done: Counter[str] = Counter()
        self._ink = ink
        self._random = random.Random(seed)

    def fetch(self, key: str, want: Want, later: Callable[[int, Callable[[], None]], None]) -> None:
        """What ingest does with a want; `later` acts after so many milliseconds."""
        assert want.first is not None
        assert want.last is not None
        fate = self._random.random()
        later(5, lambda: self._tell(key, want, "asked"))
        if fate < 0.15:
            later(60, lambda: self._tell(key, want, "refused", "429"))
            return
        if fate < 0.18:
            later(60, lambda: self._tell(key, want, "refused", "older than the exchange keeps", permanent=True))
            return
        first, last = want.first, want.last
        if fate < 0.35:
            first += (last - first) // 2
        lacks = 2 if 0.35 <= fate < 0.5 else 0
        at = 60
        for page in self._pages(want.instrument, first, last, lacks):
            for _ in range(1 + (self._random.random() < 0.1)):
                later(at, lambda page=page: self._page(key, want.instrument, page))  # type: ignore[misc]
            at += self._random.choice((10, 60, 300))
        later(at, lambda: self._tell(key, want, "answered", None, first, last))

    def _pages(self, instrument: str, first: int, last: int, lacks: int) -> list[list[Row]]:
        """Newest first, with a trade beyond either end; the newest `lacks` are not in this cache yet."""
        known = self.printed[instrument]
        rows = [known[number] for number in range(last + 1 - lacks, first - 2, -1) if number in known]
        size = self._random.choice((1, 2, 3, 100))
        pages = [rows[start : start + size + (size > 1)] for start in range(0, len(rows), size)] or [[]]
        if self._random.random() < 0.2:
            self._random.shuffle(pages)
        return pages

    def _page(self, key: str, instrument: str, rows: list[Row]) -> None:
        body = json.dumps({"code": "0", "msg": "", "data": rows})
        if self._random.random() < 0.03:
            body = body[: len(body) // 2]
        self._ink.add(REST, "rest", body, f"{REST}/api/v5/market/history-trades?instId={instrument}&type=1", key)

    def _tell(
        self,
        key: str,
        want: Want,
        state: str,
        reason: str | None = None,
        first: int | None = None,
        last: int | None = None,
        *,
        permanent: bool = False,
    ) -> None:
        self.done[reason or state] += 1
        data = RequestData(key, want.number, state, reason, permanent, first, last)  # type: ignore[arg-type]
        self._ink.add(REST, "request", msgspec.json.encode(data).decode())
