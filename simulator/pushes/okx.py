"""What OKX pushes by time: books, quotes, tickers, bars and changes of instruments. Pure; time (ns) is an argument.

Every connection gets the same pushes: the numbers of a book are per instrument and channel.
https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-order-book-channel
"""

from collections.abc import Iterable
from typing import Any

from simulator.book import Level
from simulator.depth import Depth
from simulator.dialect import BookView, Frame, Topic
from simulator.market import MILLISECOND, SECOND, Pit, spell
from simulator.rows.okx import (
    BARS,
    INST_TYPES,
    Numbers,
    bar_rows,
    book_row,
    data_frame,
    fill_row,
    instrument_row,
    merged_row,
    ms,
    ticker_row,
)
from simulator.tape import Tape

LEVELS = 400
KEEPALIVE = 60 * SECOND
LATEST = {"bbo-tbt": (1, 10 * MILLISECOND), "books5": (5, 100 * MILLISECOND)}
"""Channels that push the best levels whole: (levels, least time between pushes)."""
TENTH = 100 * MILLISECOND
RANK = {channel: place for place, channel in enumerate(("bbo-tbt", "books", "books5", "tickers"))}
"""The order of pushes within a connection, as documented; bars and instruments come after."""


class _Chain:
    """The `books` channel of one instrument: what was pushed, under which number, when."""

    def __init__(self, pit: Pit, number: int, now: int) -> None:
        self.depth = Depth(pit.book, LEVELS)
        self.number = number
        self.pushed = now


class Channels:
    """The pushes of one market. `numbers` numbers its books."""

    def __init__(self, tape: Tape, numbers: Numbers, now: int) -> None:
        self._tape = tape
        self._numbers = numbers
        self._chains = {
            instrument: _Chain(pit, numbers.of(instrument, pit.book.version), now)
            for instrument, pit in tape.instruments.items()
        }
        self._latest: dict[Topic, tuple[int, object, object]] = {}
        self._bars: dict[Topic, tuple[int, list[str]]] = {}
        self._listed = {instrument: pit.listed for instrument, pit in tape.instruments.items()}

    def due(self, wanted: Iterable[Topic], now: int, flush: bool) -> list[Frame]:
        """The pushes that are due; `flush`: what changed does not wait for its channel's cadence."""
        topics = set(wanted)
        frames = self._books(topics, now, flush)
        for topic in topics:
            if topic[0] in LATEST or topic[0] == "tickers":
                frames += self._newest(topic, now, flush)
            elif topic[0].startswith("candle"):
                frames += self._due_bars(topic, now)
        # Topics come from a set: their order is made here, the same in every run.
        frames.sort(key=lambda frame: (RANK.get(frame.topic[0], len(RANK)), frame.topic))
        return frames + self._relisted(topics)

    def first(self, topic: Topic, now: int) -> list[str]:
        """What a new subscription is sent at once: the last trade however old, the whole book, what is now."""
        channel, instrument = topic
        pit = self._tape.pit(instrument)
        if pit is None:
            # By type of instrument: changes only, nothing at first.
            return []
        if channel in ("trades-all", "trades"):
            if not pit.fills:
                return []
            last = pit.fills[-1]
            number = self._numbers.of(instrument, pit.book.version)
            row = fill_row(instrument, last) if channel == "trades-all" else merged_row(instrument, [last], number)
            return [data_frame(topic, [row])]
        if channel == "books":
            return [self._snapshot(topic, pit, now)]
        if channel.startswith("candle"):
            rows = bar_rows(self._tape, topic, now // MILLISECOND, now)[-1:]
            return [data_frame(topic, rows)] if rows else []
        return [data_frame(topic, [self._row(topic, pit, now)])]

    def views(self, depth: int | None) -> dict[str, BookView]:
        """By instrument, the book of the `books` channel as pushed."""
        views = {}
        for instrument, pit in self._tape.instruments.items():
            chain = self._chains[instrument]
            bids, asks = (_texts(pit, chain.depth.side(side, depth)) for side in ("bid", "ask"))
            views[instrument] = BookView(chain.number, bids, asks)
        return views

    def _books(self, wanted: set[Topic], now: int, flush: bool) -> list[Frame]:
        """The changes of each book since its last push, every 100 ms; an empty one after 60 s without any.

        Books nobody wants are followed too: who comes next joins the same chain."""
        frames = []
        for instrument, chain in self._chains.items():
            topic = ("books", instrument)
            if not flush and now - chain.pushed < TENTH:
                continue
            change = chain.depth.push()
            before = chain.number
            if change is not None:
                chain.number = self._numbers.of(instrument, change.until)
            elif topic not in wanted or now - chain.pushed < KEEPALIVE:
                continue
            chain.pushed = now
            if topic in wanted:
                pit = self._tape.instruments[instrument]
                bids, asks = ([], []) if change is None else (change.bids, change.asks)
                row = _incremental(pit, bids, asks, now, chain.number, before)
                frames.append(Frame(topic, data_frame(topic, [row], "update"), update=(before, chain.number)))
        return frames

    def _snapshot(self, topic: Topic, pit: Pit, now: int) -> str:
        chain = self._chains[topic[1]]
        bids, asks = chain.depth.side("bid"), chain.depth.side("ask")
        return data_frame(topic, [_incremental(pit, bids, asks, now, chain.number, -1)], "snapshot")

    def _newest(self, topic: Topic, now: int, flush: bool) -> list[Frame]:
        """Best levels or ticker whole, when they changed and their time has come."""
        pit = self._tape.instruments[topic[1]]
        pushed, seen, told = self._latest.get(topic, (0, None, None))
        cadence = LATEST[topic[0]][1] if topic[0] in LATEST else TENTH
        state = (pit.book.version, pit.printed)
        if state == seen or (not flush and now - pushed < cadence):
            return []
        levels = LATEST[topic[0]][0] if topic[0] in LATEST else 1
        tells = (
            pit.book.side("bid", levels),
            pit.book.side("ask", levels),
            pit.printed if topic[0] == "tickers" else 0,
        )
        if tells == told:
            self._latest[topic] = (pushed, state, told)
            return []
        self._latest[topic] = (now, state, tells)
        return [Frame(topic, data_frame(topic, [self._row(topic, pit, now)]))]

    def _row(self, topic: Topic, pit: Pit, now: int) -> dict[str, Any]:
        if topic[0] == "tickers":
            return ticker_row(self._tape, topic[1], now)
        levels = LATEST[topic[0]][0]
        number = self._numbers.of(topic[1], pit.book.version)
        row = book_row(pit.listing, pit.book.side("bid", levels), pit.book.side("ask", levels))
        if topic[0] == "books5":
            row["instId"] = topic[1]
        return {**row, "ts": ms(now), "seqId": number}

    def _due_bars(self, topic: Topic, now: int) -> list[Frame]:
        """Bars: the open one at most once a second when it changed, and each closed one once with confirm 1."""
        pushed, last = self._bars.get(topic, (0, []))
        if now - pushed < SECOND and not _ended(topic, last, now):
            return []
        first = int(last[0]) if last else now // MILLISECOND
        rows = [row for row in bar_rows(self._tape, topic, first, now) if row != last]
        if rows:
            self._bars[topic] = (now, rows[-1])
        return [Frame(topic, data_frame(topic, [row])) for row in rows]

    def _relisted(self, wanted: set[Topic]) -> list[Frame]:
        """The `instruments` channel tells of changes only: here, of an instrument listed anew."""
        frames = []
        for place, (instrument, pit) in enumerate(self._tape.instruments.items()):
            if pit.listed == self._listed[instrument]:
                continue
            self._listed[instrument] = pit.listed
            topic = ("instruments", INST_TYPES[pit.listing.market])
            if topic in wanted:
                frames.append(Frame(topic, data_frame(topic, [instrument_row(pit, place)])))
        return frames


def _incremental(pit: Pit, bids: list[Level], asks: list[Level], now: int, number: int, before: int) -> dict[str, Any]:
    # The checksum has been 0 since 2026-06.
    row = book_row(pit.listing, bids, asks)
    return {**row, "ts": ms(now), "checksum": 0, "seqId": number, "prevSeqId": before}


def _texts(pit: Pit, levels: list[Level]) -> list[tuple[str, str]]:
    listing = pit.listing
    return [(spell(ticks, listing.tick), spell(lots, listing.lot)) for ticks, lots in levels]


def _ended(topic: Topic, last: list[str], now: int) -> bool:
    width = BARS[topic[0].removeprefix("candle")][0]
    return bool(last) and last[-1] == "0" and int(last[0]) + width <= now // MILLISECOND
