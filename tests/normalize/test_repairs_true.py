"""A venue that prints, a socket that drops, an ingest that pages: in the end each number passed once or is named.

The model knows what was printed; normalize knows only the raw stream. The answers are hostile: in parts, cut,
doubled, in either direction and out of order, late, of caches that lag behind, refused for now or for good, from
before we began, beyond what the socket brought, and of another number than was asked for.
"""

import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.frames import Frame, RawEntry, pack
from pipeline.steps import Entry
from tests.normalize.fetching import answered, ascending, live, page, refused
from tests.normalize.playing import (
    KEYS,
    SPOT,
    Played,
    clock,
    closed,
    entries,
    exchange_info,
    go_on,
    opened,
    play,
    request,
    trade,
)

CONNECTION = {"okx": "wss://ws.okx.com/ws/v5/business#1", "binance": "wss://stream.binance.com/stream#1"}


class Venue:
    """One instrument, its socket, its REST, and an ingest that does what a Normalize that reads along wants.

    `kind`: while it is false, REST is hostile; then it gives whatever it has. `lost`: numbers it never has.
    """

    def __init__(self, exchange: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.exchange = exchange
        self.instrument = SPOT if exchange == "okx" else "BTCUSDT"
        self.raw: list[RawEntry] = []
        self.at = 1.0
        self.printed: dict[int, float] = {}
        self.next = 100
        self.lost: set[int] = set()
        self.kind = False
        self.soon: list[Frame] = []
        self.done: set[tuple[str, int]] = set()
        self.ends: Counter[str] = Counter()
        self.lags: Counter[str] = Counter()
        self.along = Played(exchange)
        self.along.stage.restore({})
        # A raw entry that was lost is never read by anybody.
        self.number = 0
        first = [clock(0, a=0), opened(0, CONNECTION[exchange])]
        if exchange == "binance":
            first.append(exchange_info(0, "BTCUSDT"))
        self.write(*first)

    def write(self, *frames: Frame, lose: bool = False) -> None:
        self.number += 1
        if lose:
            return
        entry = entries(frames, first=self.number, size=len(frames))[0]
        self.raw.append(entry)
        go_on(self.along, [Entry(b"%d-0" % len(self.raw), pack(entry))])

    def tick(self) -> None:
        """A quarter of a second: answers that are due, and the clock."""
        self.at += 0.25
        while self.soon and (self.kind or self.chance.random() < 0.85):
            self.write(_at(self.soon.pop(0), self.at), lose=not self.kind and self.chance.random() < 0.03)
        self.write(clock(self.at, a=self.at))
        for key, want in list(self.along.wants.items()):
            if want["what"] == "trades" and (key, want["number"]) not in self.done:
                self.done.add((key, want["number"]))
                self.soon += self.answer(key, want)

    def print(self, *, drop: bool) -> None:
        number, self.next = self.next, self.next + 1
        self.printed[number] = self.at
        if not drop:
            self.bring(number)

    def bring(self, number: int) -> None:
        conn, delay = CONNECTION[self.exchange], self.at - self.printed[number]
        brought = trade(number, self.printed[number], conn, delay + 0.001)
        if self.exchange == "binance":
            brought = _at(live(number, self.printed[number], conn), self.at)
        self.write(brought, lose=not self.kind and self.chance.random() < 0.02)

    def answer(self, key: str, want: dict[str, Any]) -> list[Frame]:
        """asked, the pages, and the end of it; in any disorder but that the end is last."""
        fate, number = self.chance.random(), want["number"]
        asked = request(key, number, "asked", 0)
        if not self.kind and fate < 0.2:
            self.ends["for now"] += 1
            return [asked, refused(number, 0, "429", key)]
        if not self.kind and fate < 0.23:
            self.ends["for good"] += 1
            return [asked, refused(number, 0, "beyond its horizon", key, permanent=True)]
        if "last" not in want:
            return [asked, *self.newest(key, want)]
        first, last, lag = want["first"], want["last"], 0
        if not self.kind and fate < 0.4:
            first = self.chance.randint(first, last)
        elif not self.kind and fate < 0.55:
            last = self.chance.randint(first, last)
        elif not self.kind and fate < 0.7 and self.lags[key] < 2:
            # A third time would be the exchange's word for it.
            lag = self.chance.randint(1, 4)
            self.lags[key] += 1
        self.ends["lagging" if lag else "answered"] += 1
        pages = self.pages(key, first - 2, last + 2, last - lag if lag else 10**9)
        return [asked, *pages, answered(number, 0, first, last, key)]

    def newest(self, key: str, want: dict[str, Any]) -> list[Frame]:
        """The page of the newest trades, of a cache that may be behind, and the end of it."""
        reach = self.next - 1 - (0 if self.kind else self.chance.randint(0, 3))
        listed = [number for number in self.printed if number <= reach and number not in self.lost]
        if not listed or listed[-1] < want["first"] - 1:
            return [refused(want["number"], 0, "lists nothing yet", key)]
        self.ends["newest"] += 1
        page = self.pages(key, max(1, listed[-1] - 5), listed[-1], 10**9) if listed[-1] >= want["first"] else []
        return [*page, answered(want["number"], 0, want["first"], listed[-1], key)]

    def pages(self, key: str, low: int, high: int, reach: int) -> list[Frame]:
        rows = [
            (number, self.printed[number])
            for number in range(low, high + 1)
            if number in self.printed and number not in self.lost and number <= reach
        ]
        size = self.chance.choice((1, 3, 100))
        if self.exchange == "okx":
            rows.reverse()
        cut = [rows[start : start + size + self.chance.randint(0, 1)] for start in range(0, len(rows), size)] or [[]]
        if not self.kind:
            cut += [piece for piece in cut if self.chance.random() < 0.2]
            if self.chance.random() < 0.3:
                self.chance.shuffle(cut)
        shape = page if self.exchange == "okx" else ascending
        return [shape(0, key, *piece, instrument=self.instrument) for piece in cut]

    def live_through(self) -> None:
        """Prints, drops, brings late, cuts the connection; then all comes right."""
        chance = self.chance
        late: list[int] = []
        for _ in range(chance.randint(20, 120)):
            for _ in range(chance.randint(0, 4)):
                fate = chance.random()
                self.print(drop=fate < 0.3 and len(self.printed) > 0)
                if fate < 0.1:
                    late.append(self.next - 1)
                elif fate < 0.13:
                    self.lost.add(self.next - 1)
            if late and chance.random() < 0.2:
                self.bring(late.pop(0))
            if chance.random() < 0.02:
                conn = CONNECTION[self.exchange]
                self.write(closed(self.at, conn), opened(self.at + 0.01, conn))
            self.tick()
        self.kind = True
        if self.printed and chance.random() < 0.5:
            # Then there is silence.
            for _ in range(chance.randint(0, 9)):
                self.print(drop=True)
            conn = CONNECTION[self.exchange]
            self.write(closed(self.at, conn), opened(self.at + 0.01, conn))
        else:
            self.print(drop=False)
        # The longest pause is 10 minutes, and a number is lacked three times.
        for _ in range(12):
            self.at += 601
            for _ in range(8):
                self.tick()


def _at(frame: Frame, at: float) -> Frame:
    return Frame(clock(at).ts, frame.conn, frame.dir, frame.kind, frame.data, frame.url, frame.key)


def check(venue: Venue, played: Played) -> None:
    """Once each, or named, and never both."""
    passed = [number for _, number in played.trades()]
    gaps = {gap["from_sequence"]: gap for gap in played.of("gap")}
    assert all(gap["state"] == "closed" for gap in gaps.values())
    named = [n for gap in gaps.values() for low, high in gap.get("remaining", []) for n in range(low, high + 1)]
    # Trades older than their connection say nothing of what follows them, until one sets the first number.
    seen = json.loads(played.state[f"continuity:{venue.instrument}".encode()])
    assert len(passed) == len(set(passed))
    assert sorted([*(n for n in passed if n >= seen["first"]), *named]) == list(range(seen["first"], venue.next))
    if "for good" not in venue.ends:
        # Only what the venue never has is named, and it is never named too soon.
        assert set(named) <= venue.lost
    assert played.wants == {}
    assert not any(field.startswith(b"hole:") for field in played.state)
    assert {gap["cause"] for gap in gaps.values()} <= {"sequence"}
    for record in played.of("trade"):
        assert record["sequence"] in venue.printed
    told: dict[tuple[int, str], int] = {}
    for gap in played.of("gap"):
        if gap["state"] == "shrunk":
            name = gap["from_sequence"], "shrunk"
            assert gap["time"] - told.get(name, 0) >= 1_000_000_000
            told[name] = gap["time"]


@pytest.mark.parametrize("exchange", ["okx", "binance"])
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**9))
def test_each_number_passes_once_or_is_named(exchange: str, seed: int) -> None:
    venue = Venue(exchange, seed)
    venue.live_through()
    check(venue, venue.along)


@pytest.mark.parametrize("exchange", ["okx", "binance"])
@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**9))
def test_the_same_bytes_however_the_answers_are_read_or_the_stage_restored(exchange: str, seed: int) -> None:
    venue = Venue(exchange, seed)
    venue.live_through()
    expected = venue.along
    for batch, restore in ((1, True), (7, True), (1_000, False)):
        played = play(venue.raw, batch=batch, restore=restore, exchange=exchange)
        for stream in {*expected.streams, *played.streams} - {KEYS.request}:
            assert played.streams.get(stream) == expected.streams.get(stream)
        assert played.state == expected.state
        assert played.wants == expected.wants


def test_the_answers_are_worth_the_trouble() -> None:
    ends: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    repaired = 0
    for seed in range(16):
        venue = Venue("okx", seed)
        venue.live_through()
        ends += venue.ends
        reasons.update(str(gap.get("reason", "")).partition(":")[0] for gap in venue.along.of("gap"))
        repaired += sum(record.get("repaired", False) for record in venue.along.of("trade"))
    assert min(ends[end] for end in ("for now", "for good", "lagging", "answered")) >= 3
    assert min(reasons["filled"], reasons["unrecoverable"]) >= 5
    assert repaired > 200
