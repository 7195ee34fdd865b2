"""What one order book wants of ingest: when it is wanted, under which number, and when anew. Pure.

Numbers only rise. Times are the stream's age (ns), so that no step of a host's clock matters; `received` goes into
what people read.
"""

from typing import Literal, NamedTuple

import msgspec

from pipeline.frames import RequestData
from pipeline.wants import Want, resync_key, snapshot_key

SECOND = 1_000_000_000
LONGEST_PAUSE = 60 * SECOND
CALM = 60 * SECOND
"""A book that breaks again so soon after it could be healed is not healed as fast as it breaks."""
LONGEST_ANSWER = 60 * SECOND
"""An answer that was begun is not waited for any longer."""
SNAPSHOT_AFTER = 5 * SECOND
"""So long after a subscription the snapshot that comes by itself may take.
https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-order-book-channel"""


class Need(NamedTuple):
    """What would heal the book now. `grace` (ns): it may well heal by itself so soon."""

    what: Literal["snapshot", "resync"]
    reason: str
    connection: str | None = None
    grace: int = 0


class Asking(msgspec.Struct):
    """`want` is what stands in `md:want`; `key` what is needed, wanted yet or not; `due` the age at which it is wanted
    (anew), null while an answer is waited for; `refused`: for good, as long as the need is the same one.
    `failures` sets the pause; `broke` is the age at which a book last broke or an answer last failed."""

    number: int = 0
    failures: int = 0
    key: str | None = None
    since: int = 0
    want: Want | None = None
    due: int | None = None
    refused: bool = False
    broke: int | None = None
    snapshots: int = 0
    resyncs: int = 0

    def settle(
        self, need: Need | None, instrument: str, first: bool, now: int, received: int
    ) -> dict[str, Want | None]:
        """What changes in the wants, now that `need` is what the book needs. `first`: it never broke, it begins."""
        changes: dict[str, Want | None] = {}
        key = None if need is None else _key(need, instrument)
        if key != self.key:
            if self.want is not None and self.key is not None:
                changes[self.key] = None
            self._turn(key, need, first, now, received)
        elif need is not None and self.want is None and self.due is not None:
            # It will not heal by itself after all.
            self.due = min(self.due, now + need.grace + pause(self.failures))
        if need is not None and key is not None and self.due is not None and now >= self.due:
            changes[key] = self._issue(need, instrument)
        return changes

    def told(self, request: RequestData, now: int) -> bool:
        """What became of the want. True when it was refused for good: the want is to be taken back."""
        if self.want is None or request.key != self.key or request.number != self.number or self.refused:
            return False
        if request.state == "asked":
            self.due = now + LONGEST_ANSWER
        elif request.permanent and request.state == "refused":
            self.refused, self.due, self.want = True, None, None
            return True
        else:
            # An answer that heals ends the need; the snapshot of a resync comes behind its acknowledgement.
            self.failures += 1
            self.broke = now
            waits = SNAPSHOT_AFTER if request.state == "answered" and self.want.what == "resync" else 0
            self.due = now + waits + pause(self.failures)
        return False

    def doubt(self, now: int) -> None:
        """Frames were lost, the answer may be among them: it is wanted anew."""
        if self.want is not None:
            self.due = now + pause(max(1, self.failures))

    def turned(self) -> None:
        """Another connection is asked for now: what was refused for good may be asked again."""
        if self.refused:
            self.key = None

    def _turn(self, key: str | None, need: Need | None, first: bool, now: int, received: int) -> None:
        self.key, self.want, self.due, self.refused = key, None, None, False
        if need is None:
            return
        self.since = received
        again = self.broke is not None and now - self.broke < CALM + pause(self.failures)
        self.failures = self.failures + (not first) if again else 0
        if not first:
            self.broke = now
        self.due = now + need.grace + pause(self.failures)

    def _issue(self, need: Need, instrument: str) -> Want:
        self.number += 1
        self.due = None
        if need.what == "snapshot":
            self.snapshots += 1
        else:
            self.resyncs += 1
        self.want = Want(
            what=need.what,
            instrument=instrument,
            number=self.number,
            since=self.since,
            reason=need.reason,
            connection=need.connection,
        )
        return self.want


def pause(failures: int) -> int:
    """0, 1, 2, 4 … 60 s before the next try."""
    return 0 if failures == 0 else min(LONGEST_PAUSE, SECOND << min(failures - 1, 6))


def _key(need: Need, instrument: str) -> str:
    if need.what == "snapshot" or need.connection is None:
        return snapshot_key(instrument)
    return resync_key(instrument, need.connection)
