"""What may have been printed unseen behind the last trades of one partition: whom the exchange is asked for its
newest ones, and when it is believed. Pure.

A function of the raw stream. After a break of coverage the first live trade of an instrument tells by its number what
was missed. One that stays silent is asked for by REST, twice: soon, and once no answer can be of before the break. What
comes passes through continuity as everything does, and opens gaps where it leaves any.
"""

from collections.abc import Iterable, Iterator, Sequence

from normalize.continuity import Continuity
from normalize.coverage import Change
from normalize.outlet import Outlet
from normalize.repairs import MOST_REASON, pause
from normalize.state import State
from normalize.stream import count
from normalize.tail import AFTER, CERTAIN, Tail
from pipeline.frames import RequestData, SubscriptionData
from pipeline.records import Trade
from pipeline.wants import TradesKey, Want, newest_key, newest_of

MOST = 32
"""Wanted at a time of a partition. The others come when these end."""
LIVE = ("requested", "subscribed")
GIVEN_UP = "newest trades refused for good"
UNUSED = "there are newer ones, of which no use could be made"


class Tails:
    """Decides over the tails in `state`, writes wants to `outlet`."""

    def __init__(self, state: State, outlet: Outlet) -> None:
        self._state = state
        self._outlet = outlet
        self._wanted = {name for name, tail in state.tails.items() if tail.wanted}
        self._soonest = 0
        """No tail is due before this age."""

    def wants(self) -> Iterator[tuple[str, Want]]:
        """What stands in `md:want` because of tails."""
        for name in sorted(self._wanted):
            tail = self._state.tails[name]
            yield newest_key(name, *tail.first), _want(name, tail)

    def waiting(self) -> Iterator[tuple[str, Want, int, str | None]]:
        """What was refused and will be wanted anew: (key, the last want, in so many ns, what came of that)."""
        for name, tail in sorted(self._state.tails.items()):
            if not tail.wanted and tail.due is not None and tail.failures:
                waits = max(0, tail.due - self._state.stream.now)
                yield newest_key(name, *tail.first), _want(name, tail), waits, tail.answer

    def broken(self, changes: Iterable[Change]) -> None:
        """Coverage changed: of those that lost it trades may be missed from now on."""
        for change in changes:
            if change.state == "uncovered" and (tail := self._tail(change.instrument)) is not None:
                self._turn(change.instrument, tail)

    def closed(self, connection: str) -> None:
        """The connection is gone, and whatever it would have brought."""
        for name, tail in self._state.tails.items():
            if connection in tail.connections:
                tail.connections.remove(connection)
                self._turn(name, tail)

    def subscription(self, connection: str, data: SubscriptionData) -> None:
        """A subscription to trades changed: what comes from now on comes by it, or never."""
        cover = self._state.evidence.covers.get(data.instrument)
        tail = None if cover is not None and cover.active is not None else self._tail(data.instrument)
        if tail is None:
            return
        tail.connections = [name for name in tail.connections if name != connection]
        if data.state in LIVE:
            tail.connections.append(connection)
        self._turn(data.instrument, tail)

    def writer(self) -> None:
        """Another ingest took over. What it does not subscribe to is not collected any more, and not asked for."""
        for name, tail in self._state.tails.items():
            self._take_back(name, tail)
            tail.connections = []
            tail.turn(self._state.stream.now, None)
            self._state.changed_tails.add(name)

    def lost(self) -> None:
        """Frames were lost on their way here: subscriptions, trades, or the end of a want."""
        for name, tail in self._state.tails.items():
            self._take_back(name, tail)
            self._turn(name, tail)

    def came(self, trades: Sequence[Trade], *, live: bool) -> None:
        """Trades came over a socket. The next number from a `live` connection tells all that was before it."""
        if not self._state.tails:
            return
        for name in {trade.instrument for trade in trades}:
            tail, seen = self._state.tails.get(name), self._state.continuity.get(name)
            if tail is None or seen is None or seen.next is None or (seen.epoch, seen.next) <= (tail.epoch, tail.next):
                continue
            if live:
                self.forget(name)
            else:
                self._follow(name, tail, seen)

    def fetched(self, key: TradesKey) -> None:
        """A page of the newest trades came."""
        tail, seen = self._state.tails.get(key.instrument), self._state.continuity.get(key.instrument)
        if tail is not None and seen is not None:
            self._follow(key.instrument, tail, seen)

    def request(self, data: RequestData) -> None:
        """What became of a want."""
        key = newest_of(data.key)
        tail = None if key is None else self._state.tails.get(key.instrument)
        if key is None or tail is None or not tail.wanted or data.state == "asked":
            return
        if (key.epoch, key.first, data.number) != (*tail.first, tail.number):
            return
        self._take_back(key.instrument, tail)
        tail.answer = (data.reason or data.state)[:MOST_REASON]
        if data.state == "answered":
            self._answered(key, tail, data)
        elif data.permanent:
            # It can have none that is newer, or nobody will ever have it.
            tail.due = None
            count(self._state.stream.control, GIVEN_UP)
        else:
            self._again(tail)
        self._wait(key.instrument, tail)

    def look_after(self, received: int) -> None:
        """What only time does: those that stayed silent are asked for, as there is room."""
        now = self._state.stream.now
        if now < self._soonest or len(self._wanted) >= MOST:
            return
        waiting = [(tail.due, name) for name, tail in self._state.tails.items() if tail.due is not None]
        for _, name in sorted(row for row in waiting if row[0] <= now)[: MOST - len(self._wanted)]:
            self._issue(name, received)
        left = [tail.due for tail in self._state.tails.values() if tail.due is not None]
        self._soonest = min(left, default=now + AFTER)

    def forget(self, name: str) -> None:
        """Nothing is to be asked of the instrument."""
        if (tail := self._state.tails.get(name)) is not None:
            self._take_back(name, tail)
            del self._state.tails[name]
            self._state.changed_tails.add(name)

    def _tail(self, name: str) -> Tail | None:
        """That of the instrument, new where there is none; None while its numbers are not followed."""
        seen = self._state.continuity.get(name)
        if seen is None or seen.next is None:
            return None
        return self._state.tails.setdefault(name, Tail(0, seen.epoch, seen.next))

    def _answered(self, key: TradesKey, tail: Tail, data: RequestData) -> None:
        """The page stands before this in the stream."""
        if data.last is None or (tail.epoch == key.epoch and data.last >= tail.next):
            # Rows that could not be read, or were of another listing.
            tail.answer = UNUSED
            self._again(tail)
            return
        tail.failures = 0
        looks = (tail.since + AFTER, tail.since + CERTAIN)
        tail.due = next((age for age in looks if tail.asked < age), None)

    def _again(self, tail: Tail) -> None:
        tail.failures += 1
        tail.due = self._state.stream.now + pause(tail.failures)

    def _issue(self, name: str, received: int) -> None:
        tail = self._state.tails[name]
        tail.number += 1
        tail.wanted, tail.due, tail.asked, tail.wished = True, None, self._state.stream.now, received
        tail.first = tail.epoch, tail.next
        self._wanted.add(name)
        self._outlet.want(newest_key(name, *tail.first), _want(name, tail))
        self._state.changed_tails.add(name)

    def _take_back(self, name: str, tail: Tail) -> None:
        if tail.wanted:
            tail.wanted = False
            self._wanted.discard(name)
            self._outlet.want(newest_key(name, *tail.first), None)
            self._state.changed_tails.add(name)

    def _turn(self, name: str, tail: Tail) -> None:
        """What is wanted already is answered first; the answer will not be enough."""
        now = self._state.stream.now
        tail.turn(now, None if tail.wanted else now + AFTER)
        self._wait(name, tail)

    def _wait(self, name: str, tail: Tail) -> None:
        if tail.due is not None:
            self._soonest = min(self._soonest, tail.due)
        self._state.changed_tails.add(name)

    def _follow(self, name: str, tail: Tail, seen: Continuity) -> None:
        assert seen.next is not None
        tail.epoch, tail.next = seen.epoch, seen.next
        self._state.changed_tails.add(name)


def _want(name: str, tail: Tail) -> Want:
    return Want(
        what="trades",
        instrument=name,
        number=tail.number,
        since=tail.wished,
        reason="silence",
        epoch=tail.first[0],
        first=tail.first[1],
    )
