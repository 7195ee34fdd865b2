"""The account of one connection's subscriptions: asked, accepted, refused, silent. Pure; times are ns arguments.

A refusal that names its subscription settles that one alone. One that names only its request makes the
request suspect: what of it stays unanswered is asked again in halves, until the culprit stands alone.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from ingest.feed import Subscription
from ingest.pace import Pace
from pipeline.timeframes import HOUR, SECOND

State = Literal["requested", "subscribed", "refused"]
MOST_DOUBLINGS = 6
MOST_UNANSWERED = 3
ROUNDS = 5
"""In the time after which a subscription counts as silent; those that are silent are asked for again together."""
NEVER = 2**63
LONGER = 12
"""Times the usual silence are the most for what comes only when somebody trades."""


class Entry(msgspec.Struct):
    """One subscription. `due` is when it is asked for again; None while it gives data: then its pace says. `roused` is
    when that was first done, or would have been, for its silence since its last data. `refusals` are those in a row.
    `most` is the longest silence it is ever allowed (ns)."""

    state: State = "requested"
    reason: str | None = None
    request: str | None = None
    tries: int = 0
    due: int | None = 0
    roused: int | None = None
    asked: bool = False
    refusals: int = 0
    most: int = 0
    pace: Pace = msgspec.field(default_factory=Pace)


class Ledger:
    """Unanswered requests are repeated after `patience`, doubling; accepted subscriptions without data after their
    silence, doubling; refused ones after 4 x `patience`, doubling to an hour: exchanges were seen to refuse for
    seconds what they list, and an instrument may come back.

    How much silence is too much: `silence` while little is known of a subscription's pace, then what its pace says,
    at least `brisk`. What is `steady` comes even when nobody trades: never more than `silence`; the rest may prove to
    be quiet. All of it together has a pace, too: where that is broken, everything is asked for again."""

    def __init__(
        self,
        wanted: Iterable[Subscription],
        patience: int,
        silence: int,
        brisk: int = 15 * SECOND,
        steady: Callable[[Subscription], bool] = lambda _: False,
    ) -> None:
        self._patience = patience
        self._silence = silence
        self._brisk = min(brisk, silence)
        self._steady = steady
        self.entries = {subscription: self._entry(subscription) for subscription in wanted}
        self._pace = Pace()
        self._excused = 0
        self._next_round = 0
        self._suspects: set[str] = set()
        self._unanswered = set(self.entries)
        self._unheard = set(self.entries)

    @property
    def settled(self) -> bool:
        """Whether every subscription was accepted or refused."""
        return not self._unanswered

    @property
    def proven(self) -> bool:
        """Whether data has come for every subscription that was not refused."""
        return not self._unheard

    def dead(self, now: int) -> bool:
        """Whether something is subscribed and all of it stays silent although it was asked for again."""
        live = [entry for entry in self.entries.values() if entry.state == "subscribed"]
        if not live or now < self._excused:
            return False
        limit = self._limit_of_all()
        return all(entry.roused is not None and entry.roused + 2 * limit <= now for entry in live)

    def excuse(self, now: int) -> None:
        """It was we who did not look: what came meanwhile is still to be read."""
        self._excused = now + self._brisk

    def deaf(self, now: int) -> bool:
        """Whether nothing was ever answered although it was asked for again and again."""
        wanted = [entry for entry in self.entries.values() if entry.state != "refused"]
        return bool(wanted) and all(
            entry.state == "requested" and entry.tries >= MOST_UNANSWERED and self._due(entry) <= now
            for entry in wanted
        )

    def add(self, wanted: Iterable[Subscription]) -> None:
        """Takes further subscriptions, due at once."""
        for subscription in wanted:
            if subscription not in self.entries:
                self.entries[subscription] = self._entry(subscription)
                self._unanswered.add(subscription)
                self._unheard.add(subscription)

    def pending(self, request: str) -> list[Subscription]:
        """What of a request is not answered yet."""
        return [
            subscription
            for subscription, entry in self.entries.items()
            if entry.request == request and entry.state != "subscribed"
        ]

    def bar(self, subscription: Subscription, reason: str) -> bool:
        """Refuses by ourselves, without asking again until `readmit` or data comes; True where that is new."""
        entry = self.entries[subscription]
        barred, entry.due = entry.due == NEVER, NEVER
        if barred:
            return False
        self._unanswered.discard(subscription)
        self._unheard.discard(subscription)
        # An acknowledgement that is still on its way means nothing: some exchanges give it to whatever is asked.
        entry.state, entry.reason, entry.request = "refused", reason, None
        return True

    def readmit(self, subscription: Subscription) -> None:
        """What was barred is asked for again."""
        entry = self.entries[subscription]
        if entry.due == NEVER:
            entry.state, entry.reason, entry.due, entry.tries, entry.asked = "requested", None, 0, 0, False
            entry.roused, entry.refusals = None, 0

    def left(self, subscription: Subscription, now: int) -> None:
        """Notes that a subscription is given up to be asked for anew: by whoever does so, or else after a while."""
        entry = self.entries[subscription]
        entry.state, entry.reason, entry.request, entry.tries = "requested", None, None, 0
        entry.asked, entry.due, entry.roused = False, now + 4 * self._patience, None

    def due(self, now: int, rouse: bool = True) -> list[tuple[Subscription, ...]]:
        """The groups to ask for now. A group is one request, or has to be cut further by size. Without `rouse`, those
        that are only silent wait: there are few requests left for what matters more."""
        late = self._late(now, rouse)
        groups: list[tuple[Subscription, ...]] = []
        rest: list[Subscription] = []
        for subscription in late:
            if self.entries[subscription].request not in self._suspects:
                rest.append(subscription)
        for suspect in sorted(self._suspects):
            group = [subscription for subscription in late if self.entries[subscription].request == suspect]
            groups += _halves(group)
            if group:
                self._suspects.discard(suspect)
        return [tuple(rest), *groups] if rest else groups

    def asked(self, request: str, group: Sequence[Subscription], now: int) -> list[Subscription]:
        """Notes a request; the answer is what of it is asked for the first time on this connection."""
        fresh = [subscription for subscription in group if not self.entries[subscription].asked]
        for subscription in group:
            entry = self.entries[subscription]
            wait = self._limit(entry) if entry.state == "subscribed" else self._patience
            entry.due = now + (self._pardon(entry) if entry.refusals else wait << min(entry.tries, MOST_DOUBLINGS))
            entry.tries += 1
            if entry.state == "subscribed":
                self._rouse(entry, now)
            entry.request, entry.asked = request, True
        return fresh

    def accepted(self, subscription: Subscription, now: int) -> bool:
        """Notes an acknowledgement; True where it changes the state."""
        entry = self.entries.get(subscription)
        if entry is None or entry.state == "subscribed":
            return False
        self._unanswered.discard(subscription)
        entry.state, entry.reason, entry.tries, entry.refusals = "subscribed", None, 1, 0
        entry.due, entry.roused = now + self._limit(entry), None
        return True

    def data(self, subscription: Subscription | None, now: int) -> bool:
        """Notes data, which is worth an acknowledgement; True where it changes the state."""
        self._pace.data(now)
        if subscription is None or (entry := self.entries.get(subscription)) is None:
            return False
        entry.pace.data(now)
        entry.roused = None
        if entry.due is None:
            return False
        entry.tries, entry.due = 1, None
        self._unheard.discard(subscription)
        if entry.state == "subscribed":
            return False
        self._unanswered.discard(subscription)
        entry.state, entry.reason, entry.refusals = "subscribed", None, 0
        return True

    def flowed(self, counts: Sequence[tuple[Subscription | None, int]], now: int) -> bool:
        """Notes so much data of each, as `data` would, if all of them give data already; else nothing, and False."""
        found: list[tuple[Entry, int]] = []
        for subscription, count in counts:
            entry = self.entries.get(subscription) if subscription else None
            if entry is None or entry.due is not None:
                return False
            found.append((entry, count))
        for entry, count in found:
            self._pace.data(now, count)
            entry.pace.data(now, count)
            entry.roused = None
        return True

    def refused(self, request: str | None, named: Subscription | None, reason: str, now: int) -> list[Subscription]:
        """Notes a refusal for good; the answer is which subscriptions it settles."""
        if named is not None and named in self.entries:
            return [named] if self._refuse(named, reason, now) else []
        pending = [] if request is None else self.pending(request)
        if len(pending) == 1:
            return pending if self._refuse(pending[0], reason, now) else []
        if pending and request is not None:
            self._suspects.add(request)
        return []

    def _late(self, now: int, rouse: bool) -> list[Subscription]:
        late = [subscription for subscription, entry in self.entries.items() if self._due(entry) <= now]
        silent = {subscription for subscription in late if self.entries[subscription].state == "subscribed"}
        if now < self._excused:
            return [subscription for subscription in late if subscription not in silent]
        if self._all_silent(now) and (whole := self._not_roused()):
            late += [subscription for subscription in whole if subscription not in silent]
            silent.update(whole)
            self._next_round = min(self._next_round, now)
        if not rouse:
            # A connection with no requests to spare may be dead all the same.
            for subscription in silent:
                self._rouse(self.entries[subscription], now)
        if silent and rouse and now >= self._next_round:
            self._next_round = now + self._silence // ROUNDS
            return late
        return [subscription for subscription in late if subscription not in silent]

    def _entry(self, subscription: Subscription) -> Entry:
        return Entry(most=self._silence if self._steady(subscription) else LONGER * self._silence)

    def _all_silent(self, now: int) -> bool:
        return self._pace.heard is not None and self._pace.heard + self._limit_of_all() <= now

    def _not_roused(self) -> list[Subscription]:
        return [
            subscription
            for subscription, entry in self.entries.items()
            if entry.state == "subscribed" and entry.roused is None
        ]

    def _due(self, entry: Entry) -> int:
        """When it is asked for again."""
        return (entry.pace.heard or 0) + self._limit(entry) if entry.due is None else entry.due

    def _limit(self, entry: Entry) -> int:
        """After how much silence one is asked for again."""
        return entry.pace.limit(self._silence, self._brisk, entry.most)

    def _limit_of_all(self) -> int:
        """After how much silence everything is asked for again; twice as much more, and the connection is dead."""
        most = [entry.most for entry in self.entries.values() if entry.state == "subscribed"]
        return self._pace.limit(self._silence, self._brisk, min(most, default=self._silence))

    def _rouse(self, entry: Entry, now: int) -> None:
        entry.roused = now if entry.roused is None else entry.roused

    def _refuse(self, subscription: Subscription, reason: str, now: int) -> bool:
        entry = self.entries[subscription]
        changed = (entry.state, entry.reason) != ("refused", reason)
        self._unanswered.discard(subscription)
        self._unheard.discard(subscription)
        entry.refusals += 1
        entry.state, entry.reason, entry.request, entry.due = "refused", reason, None, now + self._pardon(entry)
        return changed

    def _pardon(self, entry: Entry) -> int:
        """How long a refused one waits."""
        return min(HOUR, 4 * self._patience << min(entry.refusals - 1, 2 * MOST_DOUBLINGS))


def _halves(group: list[Subscription]) -> list[tuple[Subscription, ...]]:
    middle = (len(group) + 1) // 2
    return [tuple(part) for part in (group[:middle], group[middle:]) if part]
