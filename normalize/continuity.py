"""Which trades of one instrument were seen: every number passes once, what is missing is known by number.

Pure: the stream's time and the trades are arguments. The struct is the saved state; it holds a few
integers, the open holes and the trades that wait for proof that the venue's numbers began again.
"""

import msgspec

from normalize import intervals
from normalize.held import DOUBTED_FOR, HELD_FOR, MOST_DOUBTFUL, MOST_HELD, Held, proven
from normalize.holes import Hole, any_missing, hole_with
from normalize.intervals import Ranges
from normalize.missing import Missing
from normalize.outcome import Dropped, NewEpoch, Outcome
from normalize.spans import overlaps, printable, span_of, time_of
from pipeline.records import Trade
from pipeline.timeframes import MINUTE, SECOND

NEWER = SECOND
"""A known number is a duplicate only if it is not newer than the newest trade by more than this."""
MOST_EARLY = 1_000
NEAR = MINUTE
"""A fetched trade is of the hole's numbering if it was printed so near the trades on both sides of the hole. After a
relisting the exchange may answer with trades that only have the same numbers."""


class Continuity(Missing):
    """The state of one instrument.

    `next` is the number expected, `first` the lowest that set it; `early` are numbers below it that passed. `newest` is
    the newest time passed, `previous_*` the end of the epoch before. `message` and `shown` are only for the saved
    state: what of the instrument's cover (coverage.Cover) changes with each trade is saved with what else does.
    """

    next: int | None = None
    first: int | None = None
    since: int | None = None
    newest: int | None = None
    listed: int | None = None
    began: int = 0
    previous_next: int = 0
    previous_newest: int | None = None
    early: Ranges = msgspec.field(default_factory=list)
    held: list[Held] = msgspec.field(default_factory=list)
    trades: int = 0
    duplicates: int = 0
    overlaps: int = 0
    reordered: int = 0
    refused: int = 0
    repaired: int = 0
    repair_overlaps: int = 0
    message: int | None = None
    shown: int = 0

    @property
    def complete_since(self) -> int | None:
        """Time from which every number is here; None before the first trade."""
        ends = [hole.to_time for hole in (*self.holes, *self.old_holes)]
        return None if self.since is None else max([self.since, self.began, self.lost_until, *ends])

    @property
    def busy(self) -> bool:
        """Whether `tick` has anything to look after."""
        return bool(self.holes or self.old_holes or self.given_up or self.held)

    def take(self, trade: Trade, now: int, opened: int, listed: int | None, lowest: int = 1) -> Outcome:
        """Decides on one trade.

        `now` is stream time, `opened` the exchange's time at which the trade's connection opened,
        `listed` the instrument's listing time as known now, `lowest` the number with which the exchange may begin.
        """
        time = time_of(trade)
        self.listed = listed if self.listed is None else self.listed
        if self.next is None or self.newest is None:
            return self._start(trade, time, opened)
        first, last = span_of(trade)
        if self._of_previous_epoch(first, time):
            return self._take_previous(trade, first, last)
        if first >= self.next:
            return self._take_next(trade, first, last, now, listed, lowest)
        if last >= self.next:
            return self._drop("overlap")
        if time > self.newest + NEWER:
            return self._hold(trade, now, listed, lowest, doubtful=False)
        if hole := hole_with(self.holes, first, last):
            return self._fill(hole, trade, first, last)
        if time > self.newest:
            return self._hold(trade, now, listed, lowest, doubtful=True)
        return self._known(trade, first, last)

    def follow(self, trade: Trade, listed: int | None) -> Trade | None:
        """As `take`, of a trade that has the very number expected while nothing waits for proof: what most trades are.
        None where `take` has to decide; nothing is changed then."""
        time = trade.received if trade.time is None else trade.time
        if trade.first_sequence is not None or trade.sequence != self.next or self.newest is None or self.held:
            return None
        if self.previous_newest is not None and self._of_previous_epoch(trade.sequence, time):
            return None
        self.followed(self.next + 1, max(time, self.newest), listed)
        return trade if trade.epoch == self.epoch else msgspec.structs.replace(trade, epoch=self.epoch)

    def expected(self) -> tuple[int, int] | None:
        """The number expected and the newest time so far, where whatever has that number is the next one, whenever it
        was printed, and so on with the one after it."""
        if self.next is None or self.newest is None or self.held:
            return None
        if self.previous_newest is None or self.next >= self.first_number >= self.previous_next:
            return self.next, self.newest
        return None

    def followed(self, number: int, newest: int, listed: int | None) -> None:
        """All trades up to the one before `number` came in their order; `newest` is the latest time of all so far."""
        assert self.next is not None
        if self.listed is None:
            self.listed = listed
        self.trades += number - self.next
        self.next, self.newest = number, newest

    def repair(self, trade: Trade, epoch: int) -> Outcome:
        """A trade that was fetched to fill holes of the epoch: it fills one, or it counts for nothing. It never opens
        a hole, moves `next` or begins an epoch: what the exchange has beyond `next` the socket will bring."""
        first, last = span_of(trade)
        hole = self.within(epoch, first, last)
        if hole is None or not hole.from_time - NEAR <= time_of(trade) <= hole.to_time + NEAR:
            self.repair_overlaps += 1
            return Outcome(dropped="overlap")
        return self._fill(hole, msgspec.structs.replace(trade, repaired=True), first, last)

    def expire(self, now: int) -> Outcome:
        """Lets go of the trades held too long: nothing proved that the numbers began again."""
        ripe = [held for held in self.held if now - held.since > (DOUBTED_FOR if held.doubtful else HELD_FOR)]
        return self._release(ripe) if ripe else Outcome()

    def give_up(self) -> Outcome:
        """As `expire`, for all: the stream ends."""
        return self._release(list(self.held))

    @property
    def first_number(self) -> int:
        assert self.first is not None
        return self.first

    def _start(self, trade: Trade, time: int, opened: int) -> Outcome:
        """Nothing is known yet. A trade older than its connection was replayed on subscribing: it passes, but
        says nothing about what comes after it. Neither does one below those."""
        first, last = span_of(trade)
        self.newest = time if self.newest is None else max(self.newest, time)
        known = intervals.contains(self.early, first, last)
        partly = not known and intervals.overlaps(self.early, first, last)
        if time < opened or partly or (self.early and last < self.early[-1][1]):
            return self._known_early(trade, first, last)
        self.first, self.next, self.since = first, last + 1, time
        return self._drop("duplicate") if known else self._pass(trade)

    def _take_next(self, trade: Trade, first: int, last: int, now: int, listed: int | None, lowest: int) -> Outcome:
        assert self.next is not None
        assert self.newest is not None
        time = time_of(trade)
        if first - self.next > printable(self.newest, time):
            return self._begin([trade], now, listed, None, "numbers leapt")
        # Only trades of before and after it tell that the exchange did not just correct its list.
        if first > self.next and self._relisted(listed) and self.newest < (listed or 0) <= time:
            return self._begin([trade], now, listed, lowest, "relisted")
        return self._advance(trade, first, last, now)

    def _advance(self, trade: Trade, first: int, last: int, now: int) -> Outcome:
        """At next, or above it with a hole between."""
        assert self.next is not None
        assert self.newest is not None
        time = time_of(trade)
        if first > self.next:
            self.jump(self.next, first - 1, (min(self.newest, time), time), now)
        self.next = last + 1
        self.newest = max(self.newest, time)
        # The old numbering goes on past their times: it has not begun again.
        refuted = [held for held in self.held if time_of(held.trade) <= self.newest]
        passed = self._pass(trade)
        if not refuted:
            return passed
        released = self._release(refuted)
        return Outcome(passed.passed + released.passed, buried=released.buried)

    def _known(self, trade: Trade, first: int, last: int) -> Outcome:
        """Below next, in no hole, not newer: seen before, unless it is from before our start."""
        if last < self.first_number:
            return self._known_early(trade, first, last)
        partly = first < self.first_number or any_missing(self.holes, first, last)
        return self._drop("overlap" if partly else "duplicate")

    def _known_early(self, trade: Trade, first: int, last: int) -> Outcome:
        """Below the first number that counts: passes once."""
        if intervals.overlaps(self.early, first, last):
            return self._drop("duplicate" if intervals.contains(self.early, first, last) else "overlap")
        early = intervals.add(self.early, first, last)
        if len(early) > MOST_EARLY:
            return self._refuse(trade, "too many separate early trades")
        self.early = early
        return self._pass(trade)

    def _fill(self, hole: Hole, trade: Trade, first: int, last: int) -> Outcome:
        if not self.fill(hole, first, last, fetched=trade.repaired):
            return self._refuse(trade)
        self.repaired += trade.repaired
        self.reordered += not hole.told and not trade.repaired
        return self._pass(trade, hole.epoch)

    def _hold(self, trade: Trade, now: int, listed: int | None, lowest: int, *, doubtful: bool) -> Outcome:
        first, last = span_of(trade)
        if any(overlaps(held.trade, first, last) for held in self.held):
            return self._drop("duplicate")
        self.held.append(Held(trade, now, doubtful))
        relisted = not doubtful and self._relisted(listed)
        if relisted or proven(self.held):
            waiting = sorted((held.trade for held in self.held), key=span_of)
            return self._begin(waiting, now, listed, lowest, "relisted" if relisted else "numbers began again")
        most = MOST_DOUBTFUL if doubtful else MOST_HELD
        alike = [held for held in self.held if held.doubtful == doubtful]
        return self._release(alike[:1]) if len(alike) > most else Outcome()

    def _release(self, ripe: list[Held]) -> Outcome:
        """Held trades leave: the doubtful ones as the duplicates they look like, the others to the dead letters."""
        passed: list[Trade] = []
        buried: list[tuple[str, Trade]] = []
        self.held = [held for held in self.held if held not in ripe]
        for held in ripe:
            if held.doubtful:
                outcome = self._known(held.trade, *span_of(held.trade))
                passed.extend(outcome.passed)
                buried.extend(outcome.buried)
            else:
                buried.append(("known number with a newer time", held.trade))
        return Outcome(tuple(passed), buried=tuple(buried))

    def _relisted(self, listed: int | None) -> bool:
        """Whether the listing time is another than at the beginning of the epoch."""
        return None not in (listed, self.listed) and listed != self.listed

    def _begin(self, trades: list[Trade], now: int, listed: int | None, lowest: int | None, reason: str) -> Outcome:
        """A new epoch with these trades, lowest number first. What lies between `lowest` and them was missed, if so
        many can have been printed since the epoch before: no number tells how that one ended."""
        assert self.next is not None
        assert self.newest is not None
        head = trades[0]
        before = self.newest
        self.old_holes += self.holes
        self.previous_next, self.previous_newest = self.next, self.newest
        self.epoch, self.holes, self.early, self.held = self.epoch + 1, [], [], []
        self.first, self.next, self.listed = span_of(head)[0], span_of(head)[0], listed
        self.began = min(time_of(trade) for trade in trades)
        self.newest = time_of(head)
        if lowest is not None and 0 < self.next - lowest <= printable(before, self.newest):
            self.jump(lowest, self.next - 1, (min(before, self.newest), self.newest), now)
            self.first = lowest
        parts = [self._advance(trade, *span_of(trade), now) for trade in trades]
        passed = tuple(trade for part in parts for trade in part.passed)
        buried = tuple(pair for part in parts for pair in part.buried)
        return Outcome(passed, NewEpoch(self.epoch, passed[0], before, reason), buried=buried)

    def _of_previous_epoch(self, first: int, time: int) -> bool:
        """Whether it comes, by a slower connection or a repair, from before the numbers began again."""
        if self.previous_newest is None or first >= self.first_number >= self.previous_next:
            return False
        return time <= self.previous_newest or (first == self.previous_next and time <= self.began)

    def _take_previous(self, trade: Trade, first: int, last: int) -> Outcome:
        for hole in self.old_holes:
            if intervals.contains(hole.remaining, first, last):
                return self._fill(hole, trade, first, last)
        if first == self.previous_next:
            self.previous_next = last + 1
            return self._pass(trade, self.epoch - 1)
        if last >= self.previous_next:
            return self._refuse(trade, "trade of an ended epoch")
        return self._drop("duplicate")

    def _pass(self, trade: Trade, epoch: int | None = None) -> Outcome:
        self.trades += 1
        epoch = self.epoch if epoch is None else epoch
        return Outcome((msgspec.structs.replace(trade, epoch=epoch) if epoch != trade.epoch else trade,))

    def _drop(self, why: Dropped) -> Outcome:
        if why == "duplicate":
            self.duplicates += 1
        else:
            self.overlaps += 1
        return Outcome(dropped=why)

    def _refuse(self, trade: Trade, reason: str = "too many open gaps") -> Outcome:
        """What cannot be remembered does not pass."""
        self.refused += 1
        return Outcome(buried=((reason, trade),))
