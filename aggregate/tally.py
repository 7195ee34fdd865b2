"""The trades of one instrument that only add to windows under way, until anything else happens. Pure.

Nearly all trades do: the next number, in the windows of the trade before. They go into the windows as one sum, so
what they cost does not depend on the number of time frames, and a step saves little of them.
"""

from decimal import Decimal, DecimalException, localcontext
from itertools import compress

from aggregate.columns import Columns
from aggregate.saved import SavedPoint, SavedTally
from aggregate.summary import FINEST, GREATEST, NOTHING, Point, Summary
from pipeline.instruments import EXACT
from pipeline.records import Trade

SHORT, LOW = 27, -10
"""A number of up to 27 digits whose first stands for 10^-10 or more ends by 10^-37: it is not too fine."""
_add, _multiply = EXACT.add, EXACT.multiply


class Tally:
    """Takes trades of times `start` ≤ time < `end` with the numbers of `epoch` from `next` on; none while closed.

    `newest` is the time of the trade with the newest number, `latest` the highest of all times. `changed`: since it was
    saved; `kept`: the saved state has it.
    """

    __slots__ = (
        "bought", "changed", "contracts", "earned", "end", "epoch", "first", "high", "kept", "last", "latest", "low",
        "newest", "next", "paid", "sold", "start", "trades",
    )  # fmt: skip

    def __init__(self) -> None:
        self.kept = False
        self.close()

    def close(self) -> None:
        """Forgets the trades and takes no more."""
        self.start = self.end = self.epoch = self.next = self.trades = 0
        self.newest = self.latest = -1
        self.first: Trade | SavedPoint | None = None
        self.last: Trade | SavedPoint | None = None
        self.high = self.low = self.bought = self.paid = self.sold = self.earned = NOTHING
        self.contracts: Decimal | None = None
        self.changed = self.kept

    def open(self, start: int, end: int, epoch: int, following: int) -> None:
        """Takes trades from now on."""
        self.start, self.end, self.epoch, self.next = start, end, epoch, following

    def take(self, trade: Trade, ahead: int) -> bool:
        """Takes the trade if it is one of these and dated at most `ahead` ns after its arrival. False: it is not for
        here to take or to refuse. Long, because nearly every trade comes this way."""
        time = trade.time
        first = trade.sequence if trade.first_sequence is None else trade.first_sequence
        if (
            time is None
            or not self.start <= time < self.end
            or not first == self.next <= trade.sequence
            or trade.epoch != self.epoch
            or trade.repaired
            or time - trade.received > ahead
        ):
            return False
        try:
            price, size = Decimal(trade.price), Decimal(trade.size)
            quote = _multiply(price, size)
            order, size_order = quote.adjusted(), size.adjusted()
            if order >= GREATEST or size_order >= GREATEST or not quote.is_finite():
                return False
            if order < LOW or size_order < LOW or len(trade.price) + len(trade.size) > SHORT:
                _add(size, FINEST), _add(quote, FINEST)
            if trade.contracts is not None:
                contracts = Decimal(trade.contracts)
                order = contracts.adjusted()
                if order >= GREATEST or not contracts.is_finite():
                    return False
                if order < LOW or len(trade.contracts) > SHORT:
                    _add(contracts, FINEST)
                self.contracts = contracts if self.contracts is None else _add(self.contracts, contracts)
        except DecimalException:
            return False
        if self.first is None:
            self.first, self.high, self.low = trade, price, price
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        if trade.side == "buy":
            self.bought, self.paid = _add(self.bought, size), _add(self.paid, quote)
        else:
            self.sold, self.earned = _add(self.sold, size), _add(self.earned, quote)
        if time >= self.latest:
            self.latest, self.last = time, trade
        elif time < (self.first.time or 0):
            self.first = trade
        self.trades += trade.fills
        self.next, self.newest, self.changed = trade.sequence + 1, time, True
        return True

    def reach(self, columns: Columns, start: int, stop: int) -> int:
        """The first of these trades that `take` would not take; `stop` where it would take all."""
        following = self.next
        if start < stop and columns.firsts[start] == following and self.start <= columns.times[start] < self.end:
            times = columns.times[start:stop]
            if (
                self.start <= min(times)
                and max(times) < self.end
                and columns.epochs[start:stop].count(self.epoch) == len(times)
                and columns.firsts[start:stop] == [following, *columns.nexts[start : stop - 1]]
            ):
                return stop
        for place in range(start, stop):
            if (
                not self.start <= columns.times[place] < self.end
                or columns.firsts[place] != following
                or columns.epochs[place] != self.epoch
            ):
                return place
            following = columns.nexts[place]
        return stop

    def add(self, columns: Columns, start: int, stop: int) -> None:
        """Takes these trades, one at least, as `take` does one by one; all are within `reach`."""
        times, prices = columns.times[start:stop], columns.prices[start:stop]
        sizes, quotes = columns.sizes[start:stop], columns.quotes[start:stop]
        bought, sold = columns.bought[start:stop], columns.sold[start:stop]
        earliest, latest, high, low = min(times), max(times), max(prices), min(prices)
        if self.first is None:
            self.high, self.low = high, low
        else:
            # The texts are those of the first trade of that price.
            self.high = high if high > self.high else self.high
            self.low = low if low < self.low else self.low
        if self.first is None or earliest < (self.first.time or 0):
            self.first = columns.trades[start + times.index(earliest)]
        if latest >= self.latest:
            self.latest = latest
            self.last = columns.trades[stop - 1 - times[::-1].index(latest)]
        with localcontext(EXACT):
            self.bought = sum(compress(sizes, bought), self.bought)
            self.paid = sum(compress(quotes, bought), self.paid)
            self.sold = sum(compress(sizes, sold), self.sold)
            self.earned = sum(compress(quotes, sold), self.earned)
        if columns.contracts is not None:
            for contracts in columns.contracts[start:stop]:
                if contracts is not None:
                    self.contracts = contracts if self.contracts is None else _add(self.contracts, contracts)
        self.trades += sum(columns.fills[start:stop])
        self.next, self.newest, self.changed = columns.nexts[stop - 1], times[-1], True

    def summary(self) -> Summary:
        """The sum of the trades; there is one at least."""
        assert self.first is not None
        assert self.last is not None
        return Summary(
            _point(self.first),
            _point(self.last),
            self.high,
            self.low,
            _add(self.bought, self.sold),
            _add(self.paid, self.earned),
            self.bought,
            self.paid,
            self.contracts,
            self.trades,
        )

    def saved(self, received: int) -> SavedTally | None:
        """As it is to be saved, with the newest `received` of the partition; None while there is no trade in it."""
        if self.first is None or self.last is None:
            return None
        return SavedTally(
            self.next,
            self.newest,
            received,
            _saved(self.first),
            _saved(self.last),
            self.high,
            self.low,
            self.bought,
            self.paid,
            self.sold,
            self.earned,
            self.contracts,
            self.trades,
        )

    def restore(self, saved: SavedTally) -> None:
        """Takes back what was saved."""
        self.next, self.newest = saved.next, saved.newest
        self.first, self.last, self.latest = saved.first, saved.last, saved.last.time
        self.high, self.low, self.contracts, self.trades = saved.high, saved.low, saved.contracts, saved.trades
        self.bought, self.paid, self.sold, self.earned = saved.bought, saved.paid, saved.sold, saved.earned
        self.kept, self.changed = True, False


def _point(trade: Trade | SavedPoint) -> Point:
    return Point(trade.time or 0, trade.sequence, trade.epoch, Decimal(trade.price), trade.id)


def _saved(trade: Trade | SavedPoint) -> SavedPoint:
    return SavedPoint(trade.time or 0, trade.sequence, trade.epoch, trade.price, trade.id)
