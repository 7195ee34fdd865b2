"""The chains of one instrument over its connections, and which of them is shown. Pure.

Make before break: a younger chain takes over when it is valid and not older, any valid one when the one shown breaks
or its connection closes. Nothing is wanted for chains that are not shown.
"""

from collections.abc import Mapping

from normalize.asking import SECOND, SNAPSHOT_AFTER, Need
from normalize.book import Book
from normalize.chain import WAITING, Chain
from normalize.mapper import BookRule, BookUpdate

CROSSED_FOR = 10 * SECOND
"""A book that stays crossed so long is not believed any more: it is wanted anew."""
LINKS_SOON = 2 * SECOND
"""After frames were lost between ingest and here, most books go on by their numbers at their next change."""
CHANGES_SOON = 2 * SECOND
"""A snapshot by REST comes from a cache: asked for with the subscription it may be older, and only the first change
tells. So late after the subscription it is not, also where nothing changes."""
KEPT_FOR = 60 * SECOND
"""So long a snapshot that came before any change waits for one that links to it."""
FEWEST_KNOWN = 50
"""Known levels a side below which a book is fetched anew, before it runs out."""


class Chains:
    """`every` by connection. `active` is the connection of the one shown; `book` is the book shown last, also while no
    chain is live; `cause` says why none is since the last one closed. `kept`: a snapshot that came before any change,
    with the stream's age at its arrival. `depth`: levels a side that are to be known."""

    def __init__(self, rule: BookRule, depth: int) -> None:
        self.rule = rule
        self.depth = depth
        self.every: dict[str, Chain] = {}
        self.active: str | None = None
        self.book: Book | None = None
        self.shown_on: str | None = None
        self.cause: str | None = None
        self.kept: tuple[int, BookUpdate] | None = None
        self.born = 0

    @property
    def shown(self) -> Chain | None:
        """The active chain, live or not."""
        return None if self.active is None else self.every.get(self.active)

    @property
    def flaw(self) -> str | None:
        """Why there is no valid book; null when there is."""
        chain = self.shown
        if chain is None or chain.reason == WAITING:
            return self.cause or WAITING
        return self._flaw(chain)

    def heard(self, connection: str, received: int) -> Chain:
        """The connection's chain, begun if need be; a frame came on it."""
        chain = self.every.get(connection)
        if chain is None:
            self.born += 1
            chain = self.every[connection] = Chain(connection, self.born)
        chain.alive = max(chain.alive or 0, received)
        return chain

    def lived(self, connections: Mapping[str, int]) -> None:
        """The host time of the last frame of any sort on each connection."""
        for name, chain in self.every.items():
            if name in connections:
                chain.alive = max(chain.alive or 0, connections[name])

    def take(self, chain: Chain, update: BookUpdate, now: int) -> bool:
        """An update of the socket. True when it changed something within `depth` of the book that is shown."""
        shown = chain.book is self.book
        touched = chain.take(update, self.rule, now)
        self._use_kept(chain, now)
        self.choose(now)
        return shown and touched < self.depth

    def answer(self, snapshot: BookUpdate, now: int) -> None:
        """A snapshot by REST: for all that wait for one; kept a while where there is no chain yet."""
        if all(chain.cut and not chain.owing for chain in self.every.values()):
            self.kept = (now, snapshot)
        for chain in self.every.values():
            if chain.waits:
                chain.join(Book.of(snapshot, self.rule.levels, self.rule.partial), self.rule, now)
        self.choose(now)

    def drop(self, connection: str, cause: str, now: int) -> bool:
        """The chain is no more. A valid book is handed over to a chain that was subscribed in its time: what changes
        from now on, that one will tell. True when it was the one shown."""
        chain = self.every.pop(connection, None)
        if chain is None or self.active != connection:
            return False
        self.active, self.cause = None, cause
        donor = self.donor if chain.live else None
        for other in self.every.values():
            if donor is not None and not other.live and not other.held and not other.cut:
                other.join(donor.copy(), self.rule, now)
        self.choose(now)
        return True

    def lose(self, cause: str, now: int) -> None:
        """Frames were lost on their way here. Another writer's connections are others: none of ours lives on."""
        self.kept = None
        for chain in self.every.values():
            # Its book stays right where it stands: shared numbers prove by themselves whether a change is missing.
            chain.fail(cause)
        if cause == "writer":
            for connection in sorted(self.every):
                self.drop(connection, cause, now)

    def choose(self, now: int) -> None:
        """Joins what can be joined and decides which chain is shown."""
        for chain in self.every.values():
            if chain.held and (chain.owing or not chain.live):
                donor = self.donor
                if donor is not None and chain.meets(donor, self.rule):
                    chain.join(donor.copy(), self.rule, now)
        best = before = self.shown
        for chain in self.every.values():
            if best is None or (chain is not best and self._better(chain, best)):
                best = chain
        if best is not None and best is not before:
            self.active = best.connection
            if before is not None:
                before.renew(False)

    def turn(self) -> tuple[Book, bool] | None:
        """The book that is shown from now on, where it is another, and whether its numbers can be compared with those
        of the one before; null where nothing turned."""
        chain = self.shown
        if chain is None or not chain.live or chain.book is None or chain.book is self.book:
            return None
        same = self.book is not None and self.book.cut and chain.book.cut and chain.connection == self.shown_on
        numbered = self.rule.shared and not same
        self.book, self.shown_on, self.cause = chain.book, chain.connection, None
        return chain.book, numbered

    def need(self, now: int) -> Need | None:
        """What would heal the chain that is shown, or keep it whole."""
        chain = self.shown
        if chain is None:
            return None
        if not chain.live or chain.book is None:
            reason = chain.reason if chain.reason not in (WAITING, None) else self.cause or "first"
            return self._by(chain, reason, self._grace(chain))
        if chain.cut:
            return self._by(chain, "first" if self.rule.by_request else "gap") if chain.owing else None
        if chain.crossed is not None and now - chain.crossed > CROSSED_FOR:
            return self._by(chain, "crossed")
        known = chain.book.known()
        if known is not None and known < max(2 * self.depth, FEWEST_KNOWN):
            return self._by(chain, "exhausted")
        return None

    @property
    def donor(self) -> Book | None:
        """The full book from which another chain may go on: right where it stands, in numbers all connections share."""
        book = self.book
        if not self.rule.shared or book is None or book.cut or not book.sound or book.sequence is None:
            return None
        return book

    def _by(self, chain: Chain, reason: str, grace: int = 0) -> Need:
        if self.rule.by_request:
            return Need("snapshot", reason, None, grace)
        return Need("resync", reason, chain.connection, grace)

    def _grace(self, chain: Chain) -> int:
        if chain.held:
            return 0
        if chain.reason == WAITING:
            return CHANGES_SOON if self.rule.by_request else SNAPSHOT_AFTER
        return LINKS_SOON if self.donor is not None else 0

    def _flaw(self, chain: Chain) -> str | None:
        if not chain.live or chain.book is None:
            return chain.reason
        if chain.crossed is not None:
            return "crossed"
        known = chain.book.known()
        return "exhausted" if known is not None and known < self.depth else None

    def _use_kept(self, chain: Chain, now: int) -> None:
        """A snapshot that came first serves the first change that links to it; one that does not link never will."""
        if self.kept is None or not chain.waits or not chain.held:
            return
        (at, snapshot), self.kept = self.kept, None
        if now - at <= KEPT_FOR:
            chain.join(Book.of(snapshot, self.rule.levels, self.rule.partial), self.rule, now)

    def _better(self, chain: Chain, best: Chain) -> bool:
        """Whether `chain` is to be shown rather than `best`: when it alone is live, or valid and not older. A full book
        is not given up for small snapshots, not while it is broken either: it would never be wanted anew."""
        if chain.cut and best.whole and (best.live or best is self.shown):
            return False
        if chain.live != best.live:
            return chain.live
        if not chain.live:
            return self.shown is None and chain.born > best.born
        if self._flaw(chain) is not None or not self._not_older(chain, best):
            return False
        return self._flaw(best) is not None or (chain.whole and best.cut) or chain.born > best.born

    def _not_older(self, chain: Chain, best: Chain) -> bool:
        one, other = chain.book, best.book
        if one is None or other is None:
            return other is None
        in_time = one.time is None or other.time is None or one.time >= other.time
        if not self.rule.shared or one.sequence is None or other.sequence is None:
            return in_time
        # Numbers that began anew on one connection only (OKX after maintenance) are told by the time.
        return one.sequence == other.sequence or (one.sequence > other.sequence and in_time)
