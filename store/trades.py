"""The trades of one batch: what is usual is decoded, judged and written as lines all at once. Pure.

Where anything that was read together is not as usual, all of it goes the general way instead, one by one (batch.py,
rows.py), to the same outcome.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, overload

import msgspec

from pipeline.records import Trade
from pipeline.steps import Entry
from pipeline.timeframes import DAY
from store.arrived import Arrived, Pair
from store.copytext import NULL, array, timestamps
from store.entries import are_near
from store.found import Found, InstrumentKey

_DECODER = msgspec.json.Decoder(Trade)
_BETWEEN = b'}\n{"exchange":"'
_NO_CONDITIONS = array(())


class Trades(Sequence[Found[Trade]]):
    """Trades in the order they were read, and the entries they came in."""

    def __init__(self) -> None:
        self.records: list[Trade] = []
        self.times: list[int] = []
        self.arrivals: list[int] = []
        self._entries: list[Sequence[Entry]] = []
        self._exchanges: set[str] = set()
        self._newest: dict[str, Trade] = {}
        self._plain = True
        """Whether all came by `take`. Only then the two above are kept; `_newest` is by instrument."""
        self._text: str | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Found[Trade]]:
        return map(Found, self.records, itertools.chain.from_iterable(self._entries))

    @overload
    def __getitem__(self, place: int) -> Found[Trade]: ...
    @overload
    def __getitem__(self, place: slice) -> list[Found[Trade]]: ...
    def __getitem__(self, place: int | slice) -> Found[Trade] | list[Found[Trade]]:
        return list(self)[place]

    def append(self, found: Found[Trade]) -> None:
        """Adds one that was decoded by itself."""
        trade = found.record
        assert trade.time is not None, "a trade without a time never gets this far"
        self.records.append(trade)
        self.times.append(trade.time)
        self.arrivals.append(trade.received)
        self._entries.append((found.entry,))
        self._plain = False

    def take(self, arrived: Arrived) -> Sequence[Entry] | None:
        """Adds all the trades of what was read and returns the other entries. None: anything in it is not as usual,
        and nothing was added."""
        split = _split(arrived.pairs)
        columns = None if split is None else decoded(split.texts)
        if split is None or columns is None:
            return None
        self.records += columns.trades
        self.times += columns.times
        self.arrivals += columns.arrivals
        self._entries.append(Arrived(split.trades))
        self._exchanges.update({trade.exchange for trade in columns.trades})
        self._newest.update({trade.instrument: trade for trade in columns.trades})
        return Arrived(split.controls)

    def headers(self) -> dict[InstrumentKey, Trade]:
        """The last trade of each instrument."""
        if self._plain and len(self._exchanges) == 1:
            (exchange,) = self._exchanges
            return {(exchange, instrument): trade for instrument, trade in self._newest.items()}
        return {(trade.exchange, trade.instrument): trade for trade in self.records}

    def days(self) -> set[int]:
        """Those of which there are trades, since 1970."""
        if self.times and (day := min(self.times) // DAY) == max(self.times) // DAY:
            return {day}
        return {time // DAY for time in self.times}

    def text(self, ids: Mapping[InstrumentKey, int]) -> str | None:
        """What COPY is given, or None where lines are to be made one by one. Made once."""
        if self._text is None and self._plain and len(self._exchanges) <= 1:
            columns = Columns(self.records, self.times, self.arrivals)
            self._text = rendered(columns, {key[1]: ids[key] for key in self.headers()})
        return self._text


class Columns(NamedTuple):
    """Trades beside their times and those of their arrivals."""

    trades: list[Trade]
    times: list[int]
    arrivals: list[int]


class _Split(NamedTuple):
    """What was read of a stream of trades: the trades and their texts, and what stands between them."""

    trades: Sequence[Pair]
    texts: Sequence[bytes]
    controls: Sequence[Pair]


def _split(pairs: Sequence[Pair]) -> _Split | None:
    """None where an entry has other fields than those two that each has."""
    trades: Sequence[Pair] = [pair for pair in pairs if pair[1][0] == b"symbol"]
    controls: Sequence[Pair] = ()
    if len(trades) < len(pairs):
        controls = [pair for pair in pairs if pair[1][0] == b"control" and pair[1][1]]
    texts = [flat[3] for _, flat in trades if len(flat) == 4 and flat[2] == b"data"]
    usual = len(texts) == len(trades) == len(pairs) - len(controls)
    return _Split(trades, texts, controls) if usual else None


def decoded(texts: Sequence[bytes]) -> Columns | None:
    """The trade in each text; None where one of them cannot be stored, or may hold what COPY takes for its own."""
    if not texts:
        return Columns([], [], [])
    whole = b"\n".join(texts)
    # No text of JSON holds a line feed but between its parts, and there no brace follows the other: so none of these
    # goes on in the next.
    separate = whole.startswith(b"{") and whole.count(b"\n") == whole.count(_BETWEEN) == len(texts) - 1
    if not separate or b"\\" in whole:
        return None
    try:
        trades = _DECODER.decode_lines(whole)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    times = [trade.time for trade in trades if trade.time is not None]
    if not len(times) == len(trades) == len(texts):
        return None
    arrivals = [trade.received for trade in trades]
    return Columns(trades, times, arrivals) if are_near(times, arrivals) else None


def rendered(columns: Columns, numbers: Mapping[str, int]) -> str:
    """The lines of COPY, as rows.trade_line makes them where no character needs an escape. `numbers` by instrument."""
    times, arrivals = timestamps(columns.times), timestamps(columns.arrivals)
    lines = [
        f"{numbers[trade.instrument]}\t{time}\t{received}\t{trade.sequence}"
        f"\t{NULL if (first := trade.first_sequence) is None else first}\t{trade.epoch}\t{trade.fills}"
        f"\t{'t' if trade.repaired else 'f'}\t{trade.side}\t{trade.price}\t{trade.size}"
        f"\t{NULL if (contracts := trade.contracts) is None else contracts}\t{trade.id}"
        f"\t{array(trade.conditions) if trade.conditions else _NO_CONDITIONS}\n"
        for trade, time, received in zip(columns.trades, times, arrivals, strict=True)
    ]
    return "".join(lines)
