"""Does what normalize wants of one partition: snapshots by REST, resyncs on their connection; tells the end of each.

Each (key, number) is done once. What is taken back before its turn is dropped. Never judges an answer.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import msgspec

from ingest.context import Context
from ingest.declined import Declined
from ingest.feed import Subscription
from ingest.repairs import Repairs
from ingest.rest import Rest
from ingest.session import Session
from pipeline.frames import Frame, RequestData
from pipeline.wants import Want

SNAPSHOTS = 4
RESYNCS = 16
"""At a time."""
SNAPSHOT_SHARE = 0.8
"""Of the REST allowance. The rest is for lists and the clock; repairs make do with less (repairs.SHARE)."""


class Request(msgspec.Struct):
    """One want on its way. `task` is None once it has come to an end."""

    want: Want
    state: Literal["queued", "asked", "answered", "refused"] = "queued"
    reason: str | None = None
    task: asyncio.Task[None] | None = None


class Requests:
    """`session` finds a live session by its name; `repairs`, which all partitions share, fetches trades."""

    def __init__(
        self, rest: Rest, context: Context, session: Callable[[str], Session | None], repairs: Repairs
    ) -> None:
        self._rest = rest
        self._repairs = repairs
        self._context = context
        self._session = session
        self._wanted: Mapping[str, Want] = {}
        self._requests: dict[str, Request] = {}
        self._group: asyncio.TaskGroup | None = None
        self._turns = {"snapshot": asyncio.Semaphore(SNAPSHOTS), "resync": asyncio.Semaphore(RESYNCS)}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._advance()
            await asyncio.Event().wait()

    def take(self, wanted: Mapping[str, Want]) -> None:
        """All that is wanted now."""
        self._wanted = {key: want for key, want in wanted.items() if want.what != "trades"}
        self._repairs.take(self._context, {key: want for key, want in wanted.items() if want.what == "trades"})
        self._advance()

    def rows(self) -> dict[str, dict[str, Any]]:
        """What `pipeline status` is told: key to number, state and reason; of trades see `Repair.row`."""
        rows = {
            key: {"number": request.want.number, "state": request.state, "reason": request.reason}
            for key, request in self._requests.items()
        }
        return {**rows, **self._repairs.rows(self._context)}

    def _advance(self) -> None:
        """Drops what is not wanted any more and begins what is new. What was asked is left to its end first."""
        for key, request in list(self._requests.items()):
            want = self._wanted.get(key)
            if want is not None and want.number == request.want.number:
                continue
            if request.task is None:
                del self._requests[key]
            elif request.state == "queued":
                request.task.cancel()
                del self._requests[key]
        for key, want in self._wanted.items():
            if key not in self._requests and self._group is not None:
                request = self._requests[key] = Request(want)
                request.task = self._group.create_task(self._do(key, request))

    async def _do(self, key: str, request: Request) -> None:
        asked = partial(self._tell, key, request, "asked")
        try:
            async with self._turns[request.want.what]:
                if request.want.what == "snapshot":
                    await self._snapshot(key, request.want, asked)
                else:
                    await self._resync(request.want, asked)
        except Declined as error:
            self._tell(key, request, "refused", str(error), error.permanent)
        else:
            self._tell(key, request, "answered")
        request.task = None
        # What came in the meantime may wait for this one.
        self._advance()

    async def _snapshot(self, key: str, want: Want, asked: Callable[[], None]) -> None:
        """Raises Declined."""
        wanted = self._context.feed.snapshot(want.instrument)
        answer = await self._rest.get(wanted, tries=1, share=SNAPSHOT_SHARE, sending=asked)
        now = self._context.clock.now()
        self._context.sink(Frame(now, self._rest.url, "in", "rest", answer.body, answer.url, key))

    async def _resync(self, want: Want, asked: Callable[[], None]) -> None:
        """Raises Declined."""
        asked()
        session = self._session(want.connection or "")
        # Names are numbered anew in each process: what was wanted before the connection opened means another one.
        if session is None or session.opened is None or want.since < session.opened:
            raise Declined("the connection is gone", permanent=True)
        book = self._book(session, want.instrument)
        if book is None:
            raise Declined("no order book of it is subscribed there", permanent=True)
        await session.resync(book)

    def _book(self, session: Session, instrument: str) -> Subscription | None:
        """The subscription of the order book, where it is in force or may come to be."""
        channels = self._context.feed.book_channels
        for each, entry in session.ledger.entries.items():
            if each.instrument == instrument and each.channel in channels and entry.state != "refused":
                return each
        return None

    def _tell(
        self,
        key: str,
        request: Request,
        state: Literal["asked", "answered", "refused"],
        reason: str | None = None,
        permanent: bool = False,
    ) -> None:
        request.state, request.reason = state, reason
        data = RequestData(key, request.want.number, state, reason, permanent)
        where = self._rest.url if request.want.what == "snapshot" else request.want.connection or ""
        self._context.sink(Frame(self._context.clock.now(), where, "in", "request", msgspec.json.encode(data).decode()))
