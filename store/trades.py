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
        self._entries: list[Sequence[Entry]] = []
        self._exchanges: set[str] = set()
        self._plain = True
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

    @property
    def times(self) -> list[int]:
        return [trade.time for trade in self.records if trade.time is not None]

    def append(self, found: Found[Trade]) -> None:
        """Adds one that was decoded by itself."""
        self.records.append(found.record)
        self._entries.append((found.entry,))
        self._exchanges.add(found.record.exchange)
        self._plain = False

    def take(self, arrived: Arrived) -> Sequence[Entry] | None:
        """Adds all the trades of what was read and returns the other entries. None: anything in it is not as usual,
        and nothing was added."""
        split = _split(arrived.pairs)
        records = None if split is None else decoded(split.texts)
        if split is None or records is None:
            return None
        self.records += records
        self._exchanges.update({trade.exchange for trade in records})
        self._entries.append(Arrived(split.trades))
        return Arrived(split.controls)

    def headers(self) -> dict[InstrumentKey, Trade]:
        """The last trade of each instrument."""
        if len(self._exchanges) == 1:
            (exchange,) = self._exchanges
            newest = {trade.instrument: trade for trade in self.records}
            return {(exchange, instrument): trade for instrument, trade in newest.items()}
        return {(trade.exchange, trade.instrument): trade for trade in self.records}

    def days(self) -> set[int]:
        """Those of which there are trades, since 1970."""
        times = self.times
        first, last = (min(times) // DAY, max(times) // DAY) if times else (0, -1)
        return {first} if first == last else {time // DAY for time in times}

    def text(self, ids: Mapping[InstrumentKey, int]) -> str | None:
        """What COPY is given, or None where lines are to be made one by one. Made once."""
        if self._text is None and self._plain and len(self._exchanges) <= 1:
            self._text = rendered(self.records, {key[1]: ids[key] for key in self.headers()})
        return self._text


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


def decoded(texts: Sequence[bytes]) -> list[Trade] | None:
    """The trade in each text; None where one of them cannot be stored, or may hold what COPY takes for its own."""
    if not texts:
        return []
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
    return trades if are_near(times, [trade.received for trade in trades]) else None


def rendered(trades: Sequence[Trade], numbers: Mapping[str, int]) -> str:
    """The lines of COPY, as rows.trade_line makes them where no character needs an escape. `numbers` by instrument."""
    times = timestamps([trade.time for trade in trades if trade.time is not None])
    arrivals = timestamps([trade.received for trade in trades])
    lines = [
        f"{numbers[trade.instrument]}\t{time}\t{received}\t{trade.sequence}"
        f"\t{NULL if (first := trade.first_sequence) is None else first}\t{trade.epoch}\t{trade.fills}"
        f"\t{'t' if trade.repaired else 'f'}\t{trade.side}\t{trade.price}\t{trade.size}"
        f"\t{NULL if (contracts := trade.contracts) is None else contracts}\t{trade.id}"
        f"\t{array(trade.conditions) if trade.conditions else _NO_CONDITIONS}\n"
        for trade, time, received in zip(trades, times, arrivals, strict=True)
    ]
    return "".join(lines)
