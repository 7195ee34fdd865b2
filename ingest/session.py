"""One websocket from handshake to end: frames in, subscriptions accounted, keepalive, end noted. Never reconnects."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.typing import BytesLike

from ingest.budget import Budget
from ingest.context import Context
from ingest.declined import Declined
from ingest.feed import Accepted, Ask, Data, Ended, Event, Notice, Plan, Pong, Refused, Subscription
from ingest.keepalive import keepalive_of, until_half_open
from ingest.resync import REQUESTS, Resync
from ingest.subscriptions import Ledger
from ingest.turn import turn
from ingest.websocket import Socket, open_socket, spelt
from pipeline.frames import CloseData, Frame, FrameKind, OpenData
from pipeline.timeframes import MINUTE, SECOND

SHARE = 0.75
"""Of the requests on a connection, for resyncs: they may not keep us from subscribing."""
ROUSING_SHARE = 0.5
"""Of the same, for what is only silent."""
MOST_ANSWERS = 16
"""Waiting to be sent. An exchange that does not take so many is to be left."""
WORTH_TOGETHER = 3
"""Messages of one read: fewer are taken one by one, for that is as fast."""
STOOD_STILL = 2 * SECOND
"""A turn that takes so much longer than it should: the whole process did not run."""


class Session:
    """One socket. `name` is the `conn` of its frames.

    `settled` is set when every subscription was answered, `proven` when all accepted ones gave data, `leaving`
    when it should be replaced, with the reason in `why`, `ended` when it is gone. Times are ns of the host clock.
    """

    def __init__(self, name: str, url: str, plan: Plan, context: Context) -> None:
        self.name = name
        self.url = url
        self.plan = plan
        self.state: Literal["connecting", "open", "leaving", "closed"] = "connecting"
        self.why: str | None = None
        self.dropped = False
        """Whether its end was our own wish."""
        self.opened: int | None = None
        self.last_frame = 0
        self.last_data: int | None = None
        self.frames = self.pings = self.pongs = 0
        self.silent_at: int | None = None
        """When it was given up for its silence."""
        timing = context.timing
        self.ledger = Ledger(plan.subscriptions, timing.patience, timing.mute, timing.brisk, context.steady)
        self.settled = asyncio.Event()
        self.proven = asyncio.Event()
        self.leaving = asyncio.Event()
        self.ended = asyncio.Event()
        self._context = context
        self._feed = context.feed
        self._classify = context.feed.classify
        self._sink = context.sink
        self._pour = context.pour or self._sink_each
        self._now = context.clock.now
        self._monotonic = context.clock.monotonic
        self._requests = Budget(context.feed.requests)
        self._asked = 0
        self._resyncs: dict[Subscription, Resync] = {}
        self._ending: dict[str, Subscription] = {}
        self._answers: asyncio.Queue[str] = asyncio.Queue(MOST_ANSWERS)
        self._socket: Socket | None = None

    async def connect(self) -> None:
        """The handshake. Raises ExchangeError."""
        self._socket = await open_socket(self.url, self._context.timing)
        self._socket.heard = self._heard
        self._socket.crowded = self._context.crowded
        self.state = "open"
        self.opened = self.last_frame = self._now()
        self._emit("open", OpenData(self.url), self.opened)

    async def run(self) -> str:
        """Serves the connected socket to its end; the answer is why it ended."""
        assert self._socket is not None, "connect comes first"
        reason = "cancelled"
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._keep_alive(self._socket)),
                    group.create_task(self._subscribe(self._socket)),
                    group.create_task(self._answer()),
                ]
                ended = await self._socket.listen(self._received)
                reason = self.why or spelt(ended)
                for task in tasks:
                    task.cancel()
        finally:
            self.state = "closed"
            self._socket.transport.abort()
            self._emit("close", CloseData(reason))
            self.ended.set()
        return reason

    async def close(self, reason: str) -> None:
        """Ends the connection. What came before its end is still read by `run`."""
        self.why, self.dropped = reason, True
        if self._socket is not None:
            await self._socket.close()

    def leave(self, reason: str) -> None:
        """Asks to be replaced; the connection serves on until it is."""
        if not self.leaving.is_set():
            self.state, self.why = "leaving", reason
            self.leaving.set()

    def add(self, subscriptions: Sequence[Subscription]) -> None:
        """Takes further subscriptions."""
        self.plan = msgspec.structs.replace(self.plan, subscriptions=(*self.plan.subscriptions, *subscriptions))
        self.ledger.add(subscriptions)

    def bar(self, subscription: Subscription, reason: str) -> None:
        """Notes that it is refused although the exchange does not say so; data would be believed."""
        if self.ledger.bar(subscription, reason) and not self.ended.is_set():
            self._note(subscription, "refused", reason)

    async def resync(self, subscription: Subscription) -> None:
        """Unsubscribes and subscribes anew, within the allowance of requests. Raises Declined."""
        if self.state not in ("open", "leaving") or self.ended.is_set():
            raise Declined("the connection is gone", permanent=True)
        if subscription in self._resyncs:
            raise Declined("is being done already")
        now = self._monotonic()
        if self._requests.next(now, REQUESTS, SHARE) - now > MINUTE:
            # A new connection begins with fresh order books, and has an allowance of its own.
            self.leave("too many resyncs")
            raise Declined("no requests are left on this connection: it is replaced")
        resync = self._resyncs[subscription] = Resync(subscription)
        try:
            await resync.run(self, self._context.timing.patience)
        except ConnectionClosed:
            raise Declined("the connection is gone", permanent=True) from None
        finally:
            del self._resyncs[subscription]
            self._ending = {request: ended for request, ended in self._ending.items() if ended != subscription}

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Sends the request. Raises ConnectionClosed."""
        request = await self._next_request()
        self._ending[request] = subscription
        await self._send(self._feed.unsubscribe(request, (subscription,)))

    async def subscribe_anew(self, subscription: Subscription) -> None:
        """The subscription has ended: asks for it again. Raises ConnectionClosed."""
        self.ledger.left(subscription, self._now())
        self._note(subscription, "unsubscribed", "resync")
        await self._ask((subscription,))

    def _received(self, messages: Sequence[BytesLike]) -> None:
        """What one read of the socket brought: it came at one time."""
        if len(messages) < WORTH_TOGETHER or not self._flowed(messages):
            for message in messages:
                self._heed(message)

    def _flowed(self, messages: Sequence[BytesLike]) -> bool:
        """Takes them at once where all are data of subscriptions that give data, as nearly all are: nothing is to be
        said of them. Otherwise takes none."""
        at = self._now()
        texts = [str(message, "utf-8", "backslashreplace") for message in messages]
        if (counts := self._feed.counts(texts)) is None or not self.ledger.flowed(counts, at):
            return False
        self.frames += len(texts)
        self.last_frame = self.last_data = at
        self._pour([Frame(at, self.name, "in", "ws", text) for text in texts])
        if not self.proven.is_set():
            self._judge()
        return True

    def _heed(self, message: BytesLike) -> None:
        # Undecodable bytes are kept visible: normalize will name the frame.
        text = str(message, "utf-8", "backslashreplace")
        self.last_frame = at = self._now()
        self.frames += 1
        event = self._classify(text)
        if type(event) is Data:
            self._sink(Frame(at, self.name, "in", "ws", text))
            self.last_data = at
            if self.ledger.data(event.subscription, at):
                self._subscribed(event.subscription)
            if not self.proven.is_set():
                self._judge()
        elif type(event) is Pong:
            self.pongs += 1
        else:
            self._sink(Frame(at, self.name, "in", "ws", text))
            self._take(event, at)
            self._judge()

    def _take(self, event: Event, at: int) -> None:
        if isinstance(event, Accepted):
            self._accepted(event, at)
        elif isinstance(event, Ended):
            self._released(event.subscription)
        elif isinstance(event, Refused):
            self._refused(event, at)
        elif isinstance(event, Notice):
            self.leave(event.reason)
        elif isinstance(event, Ask):
            if self._answers.full():
                self.leave("takes no answers")
            else:
                self._answers.put_nowait(event.answer)

    def _accepted(self, event: Accepted, at: int) -> None:
        """Some exchanges name the subscription, others only the request, whatever it asked."""
        if event.request is not None and (ended := self._ending.pop(event.request, None)) is not None:
            self._released(ended)
        elif event.subscription is not None:
            if self.ledger.accepted(event.subscription, at):
                self._subscribed(event.subscription)
        elif event.request is not None:
            for subscription in self.ledger.pending(event.request):
                self.ledger.accepted(subscription, at)
                self._subscribed(subscription)

    def _subscribed(self, subscription: Subscription | None) -> None:
        self._note(subscription, "subscribed")
        if subscription is not None and (resync := self._resyncs.get(subscription)) is not None:
            resync.accepted.set()

    def _released(self, subscription: Subscription) -> None:
        if (resync := self._resyncs.get(subscription)) is not None:
            resync.released.set()

    def _refused(self, event: Refused, at: int) -> None:
        if event.request is not None and self._ending.pop(event.request, None) is not None:
            # It may still be in force: asked for again all the same, before long.
            self._context.report(f"{self.name}: unsubscribing refused: {event.reason}")
            return
        settled = () if event.temporary else self.ledger.refused(event.request, event.subscription, event.reason, at)
        for subscription in settled:
            self._note(subscription, "refused", event.reason)
            if (resync := self._resyncs.get(subscription)) is not None:
                resync.refused = event.reason
                resync.accepted.set()
        what = ", ".join(" ".join(subscription) for subscription in settled) or "a request"
        self._context.report(f"{self.name}: {what} refused: {event.reason}")

    def _judge(self) -> None:
        if self.ledger.settled and not self.settled.is_set():
            self.settled.set()
        if self.ledger.proven and self.ledger.settled and not self.proven.is_set():
            self.proven.set()

    async def _subscribe(self, socket: Socket) -> None:
        """Sends what is due, for as long as the connection lives."""
        pause = min(self._context.timing.patience // 5, SECOND // 2) / SECOND
        try:
            for text in self.plan.route.greeting:
                await self._send(text)
            while True:
                now = self._now()
                if self.ledger.dead(now):
                    self.silent_at = now
                    self._context.report(f"{self.name}: no data, although asked for again: connecting anew")
                    self.leave("silent")
                    return
                if self.ledger.deaf(now):
                    # It carries nothing that a replacement would have to take over.
                    self.silent_at = now
                    self.why = "subscribe requests unanswered"
                    socket.transport.abort()
                    return
                for group in self.ledger.due(now, self._has_requests_to_spare()):
                    for batch in self._feed.batches(group):
                        await self._ask(batch)
                await asyncio.sleep(pause)
                if self._now() - now > pause * SECOND + STOOD_STILL:
                    self.ledger.excuse(self._now())
        except ConnectionClosed:
            return

    async def _answer(self) -> None:
        """Sends what the exchange asks for, for as long as the connection lives."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._send(await self._answers.get())

    async def _ask(self, batch: tuple[Subscription, ...]) -> None:
        """One request. Raises ConnectionClosed."""
        request = await self._next_request()
        for subscription in self.ledger.asked(request, batch, self._now()):
            self._note(subscription, "requested")
        await self._send(self._feed.subscribe(request, batch))

    def _has_requests_to_spare(self) -> bool:
        now = self._monotonic()
        return self._requests.next(now, share=ROUSING_SHARE) <= now

    async def _next_request(self) -> str:
        """The name of the next request, when the exchange's allowance of requests on a connection lets it go."""
        await turn(self._requests, self._monotonic)
        if self.ended.is_set():
            raise Declined("the connection is gone", permanent=True)
        self._asked += 1
        return f"r{self._asked}"

    async def _send(self, text: str) -> None:
        assert self._socket is not None, "connect comes first"
        self._sink(Frame(self._now(), self.name, "out", "ws", text))
        await self._socket.send(text)

    async def _keep_alive(self, socket: Socket) -> None:
        with contextlib.suppress(ConnectionClosed):
            await until_half_open(socket, self, keepalive_of(self._feed.keepalive, self._context.timing), self._now)
            self.why = "half-open"
            socket.transport.abort()

    def _heard(self, pong: bool) -> None:
        """A ping or a pong of the WebSocket protocol came."""
        self.last_frame = self._now()
        self.pongs += pong

    def _note(
        self,
        subscription: Subscription | None,
        state: Literal["requested", "subscribed", "refused", "unsubscribed"],
        reason: str | None = None,
    ) -> None:
        if subscription is not None:
            described = self._context.describe(subscription)
            self._emit("subscription", msgspec.structs.replace(described, state=state, reason=reason))

    def _sink_each(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self._sink(frame)

    def _emit(self, kind: FrameKind, data: msgspec.Struct, at: int | None = None) -> None:
        self._sink(Frame(at or self._now(), self.name, "in", kind, msgspec.json.encode(data).decode()))
