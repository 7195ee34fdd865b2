"""What Binance pushes by time: book changes, best prices, tickers, bars. Pure; nothing old is ever repeated.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
"""

from collections.abc import Iterable
from typing import Protocol

from simulator.bars import Bar
from simulator.book import Side
from simulator.depth import Depth
from simulator.dialect import BookView, Frame, Topic
from simulator.market import MILLISECOND, SECOND, Pit
from simulator.rows.binance import (
    INTERVALS,
    Day,
    Speller,
    best,
    book_ticker,
    dump,
    kline,
    mini_ticker,
    ms,
    ticker,
)
from simulator.tape import Tape

GRID = 100 * MILLISECOND
"""All but best prices is looked at in steps of this."""
REST_LAG = 250 * MILLISECOND
"""How far REST may lie behind the book; the streams are at most 100 ms behind it."""
PARTIAL = (5, 10, 20)
SIDES: tuple[Side, Side] = ("bid", "ask")
CHANNELS = frozenset(
    {
        "trade",
        "aggTrade",
        "bookTicker",
        "ticker",
        "miniTicker",
        *(f"depth{levels}{fast}" for levels in ("", *PARTIAL) for fast in ("", "@100ms")),
        *(f"kline_{interval}" for interval in INTERVALS),
    }
)


class Instrument:
    """One symbol: where it trades, how it is spelt and the book REST tells of."""

    def __init__(self, name: str, pit: Pit, tape: Tape) -> None:
        self.name = name
        self.pit = pit
        self.tape = tape
        self.spell = Speller(pit.listing)
        self.rest = Depth(pit.book)

    def day(self, now: int) -> Day:
        """The last 24 hours at `now` (ns)."""
        last = self.pit.fills[-1] if self.pit.fills else None
        day = self.tape.day(self.name, ms(now))
        bar, before = (Bar(ms(now), 0), None) if day is None else (day.bar, day.previous)
        return Day(ms(now), bar, before, last, *best(self.pit))

    def bars(self, interval: str, first: int, until: int) -> list[Bar]:
        """Bars opening in [`first`, `until`] (ms)."""
        return self.tape.bars(self.name, INTERVALS[interval], 0, first, until)


class Push(Protocol):
    """One topic somebody is subscribed to."""

    def due(self, now: int, flush: bool) -> Iterable[str]:
        """The texts due at `now` (ns), if any; `flush`: book changes do not wait."""


class _Cadence:
    """Due at most once in a period, on a grid of whole periods."""

    def __init__(self, period: int) -> None:
        self._period = period
        self._last = -1

    def due(self, now: int) -> bool:
        place = now // self._period
        if place == self._last:
            return False
        self._last = place
        return True


class BookTicker:
    """Best bid and ask, whenever one changes."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._version = -1
        self._best: object = None

    def due(self, now: int, flush: bool) -> Iterable[str]:
        one = self._instrument
        if one.pit.book.version == self._version:
            return ()
        self._version, before = one.pit.book.version, self._best
        self._best = best(one.pit)
        return () if self._best == before else (dump(book_ticker(one.name, one.spell, one.pit)),)


class Diff:
    """Changes of a book. `update` are the version before and after what `due` gave last, `told` is the book then.

    Every level touched is told of, also one that came and went in between or is as before: a snapshot from within
    the event may have it otherwise.
    """

    def __init__(self, instrument: Instrument, period: int, now: int) -> None:
        self._instrument = instrument
        self._cadence = _Cadence(period)
        self._cadence.due(now)
        self.told = Depth(instrument.pit.book)
        self.update = (self.told.version, self.told.version)

    def due(self, now: int, flush: bool) -> Iterable[str]:
        book, since = self._instrument.pit.book, self.update[1]
        if not (self._cadence.due(now) or flush) or book.version == since:
            return ()
        self.update = (since, book.version)
        touched, net = book.changed(since), self.told.push()
        if touched is None:
            # More than the book remembers: what it comes to must do.
            touched = ([], []) if net is None else (net.bids, net.asks)
        levels = self._instrument.spell.levels
        event = {"e": "depthUpdate", "E": ms(now), "s": self._instrument.name, "U": since + 1, "u": book.version}
        return (dump({**event, "b": levels(touched[0]), "a": levels(touched[1])}),)


class Partial:
    """The best levels whole, when the book changed; neither symbol nor time."""

    def __init__(self, instrument: Instrument, levels: int, period: int) -> None:
        self._instrument = instrument
        self._levels = levels
        self._cadence = _Cadence(period)
        self._version = -1

    def due(self, now: int, flush: bool) -> Iterable[str]:
        one, book = self._instrument, self._instrument.pit.book
        if not (self._cadence.due(now) or flush) or book.version == self._version:
            return ()
        self._version = book.version
        bids, asks = (one.spell.levels(book.side(side, self._levels)) for side in SIDES)
        return (dump({"lastUpdateId": book.version, "bids": bids, "asks": asks}),)


class Ticker:
    """The last 24 hours, once a second."""

    def __init__(self, instrument: Instrument, mini: bool) -> None:
        self._instrument = instrument
        self._cadence = _Cadence(SECOND)
        self._row = mini_ticker if mini else ticker

    def due(self, now: int, flush: bool) -> Iterable[str]:
        if not self._cadence.due(now):
            return ()
        return (dump(self._row(self._instrument.name, self._instrument.spell, self._instrument.day(now))),)


class Kline:
    """The open bar once a second (1s) or every two, and each bar once when it has ended: trades or not."""

    def __init__(self, instrument: Instrument, interval: str, now: int) -> None:
        self._instrument = instrument
        self._interval = interval
        self._width = INTERVALS[interval]
        self._cadence = _Cadence(SECOND if interval == "1s" else 2 * SECOND)
        self._opened = ms(now) - ms(now) % self._width

    def due(self, now: int, flush: bool) -> Iterable[str]:
        opened = ms(now) - ms(now) % self._width
        pushing = self._cadence.due(now)
        if not pushing and opened == self._opened:
            return
        since, self._opened = self._opened, opened
        one = self._instrument
        for bar in one.bars(self._interval, since, opened):
            if bar.opened < opened or pushing:
                yield dump(kline(one.name, one.spell, self._interval, bar, ms(now)))


class Pushes:
    """The topics somebody wants, each with what it was last told; what nobody wants any more is forgotten."""

    def __init__(self, instruments: dict[str, Instrument]) -> None:
        self._instruments = instruments
        self._wanted: set[Topic] = set()
        self._quick: dict[Topic, Push] = {}
        self._slow: dict[Topic, Push] = {}
        self._grid = _Cadence(GRID)
        self._rest = _Cadence(REST_LAG)

    def begin(self, topic: Topic, now: int) -> None:
        """Somebody wants this topic from `now` (ns) on."""
        if topic in self._wanted:
            return
        self._wanted.add(topic)
        push = self._make(topic, now)
        if push is not None:
            (self._quick if isinstance(push, BookTicker) else self._slow)[topic] = push

    def due(self, wanted: Iterable[Topic], now: int, flush: bool) -> list[Frame]:
        """The frames due at `now` (ns) for these topics."""
        self._want(wanted, now)
        if self._rest.due(now) or flush:
            for instrument in self._instruments.values():
                instrument.rest.push()
        frames = [Frame(topic, text) for topic, push in self._quick.items() for text in push.due(now, flush)]
        if self._grid.due(now) or flush:
            for topic, push in self._slow.items():
                for text in push.due(now, flush):
                    frames.append(Frame(topic, text, (), push.update if isinstance(push, Diff) else None))
        return frames

    def books(self, depth: int | None) -> dict[str, BookView]:
        """Each book as the fastest wanted diff stream has told it; else as REST tells it."""
        return {name: self._view(name, depth) for name in self._instruments}

    def _view(self, name: str, depth: int | None) -> BookView:
        one = self._instruments[name]
        diffs = [self._slow.get((channel, name)) for channel in ("depth@100ms", "depth")]
        diff = next((push for push in diffs if isinstance(push, Diff)), None)
        told = diff.told if diff else one.rest
        bids, asks = one.spell.levels(told.side("bid", depth)), one.spell.levels(told.side("ask", depth))
        return BookView(diff.update[1] if diff else told.version, bids, asks)

    def _want(self, wanted: Iterable[Topic], now: int) -> None:
        topics = set(wanted)
        if topics == self._wanted:
            return
        for topic in self._wanted - topics:
            self._quick.pop(topic, None)
            self._slow.pop(topic, None)
        for topic in sorted(topics - self._wanted):
            self.begin(topic, now)
        self._wanted = topics

    def _make(self, topic: Topic, now: int) -> Push | None:
        channel, instrument = topic[0], self._instruments[topic[1]]
        name, _, fast = channel.partition("@")
        period = 100 * MILLISECOND if fast else SECOND
        if name == "depth":
            return Diff(instrument, period, now)
        if name.startswith("depth"):
            return Partial(instrument, int(name.removeprefix("depth")), period)
        if name.startswith("kline_"):
            return Kline(instrument, name.removeprefix("kline_"), now)
        if name in ("ticker", "miniTicker"):
            return Ticker(instrument, name == "miniTicker")
        return BookTicker(instrument) if name == "bookTicker" else None
