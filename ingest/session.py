"""One websocket from handshake to end: frames in, subscriptions accounted, keepalive, end noted. Never reconnects."""

import asyncio
from collections.abc import Callable
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ingest.budget import Budget
from ingest.clock import HostClock
from ingest.feed import Accepted, Ask, Data, Event, Feed, Keepalive, Notice, Plan, Pong, Refused, Subscription
from ingest.subscriptions import Ledger
from ingest.timing import Timing
from pipeline.errors import ExchangeError
from pipeline.frames import CloseData, Frame, FrameKind, OpenData, SubscriptionData
from pipeline.timeframes import SECOND

MOST_MESSAGE_BYTES = 16 * 1024 * 1024
MOST_QUEUED = 1024
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Context(msgspec.Struct, frozen=True):
    """What all connections of a partition share. `sink` takes their frames; `describe` gives the `requested`
    frame of a subscription, with what the settings ask of aggregate; `report` takes errors for people."""

    feed: Feed
    clock: HostClock
    timing: Timing
    sink: Callable[[Frame], None]
    describe: Callable[[Subscription], SubscriptionData]
    report: Callable[[str], None]


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
        self.ledger = Ledger(plan.subscriptions, context.timing.patience, context.timing.mute)
        self.settled = asyncio.Event()
        self.proven = asyncio.Event()
        self.leaving = asyncio.Event()
        self.ended = asyncio.Event()
        self._context = context
        self._feed = context.feed
        self._sink = context.sink
        self._now = context.clock.now
        self._requests = Budget(context.feed.requests)
        self._asked = 0
        self._socket: ClientConnection | None = None

    async def connect(self) -> None:
        """The handshake. Raises ExchangeError."""
        timing = self._context.timing
        try:
            self._socket = await connect(
                self.url,
                compression=None,
                proxy=None if urlsplit(self.url).hostname in LOOPBACK else True,
                open_timeout=timing.handshake / SECOND,
                close_timeout=timing.farewell / SECOND,
                ping_interval=None,
                max_size=MOST_MESSAGE_BYTES,
                max_queue=MOST_QUEUED,
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ExchangeError(f"cannot connect to {self.url}: {_spelt(error)}") from error
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
                ]
                reason = await self._read(self._socket)
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

    async def _read(self, socket: ClientConnection) -> str:
        classify, sink, now, name = self._feed.classify, self._sink, self._now, self.name
        try:
            while True:
                # Undecodable bytes are kept visible: normalize will name the frame.
                text = (await socket.recv(decode=False)).decode("utf-8", "backslashreplace")
                self.last_frame = at = now()
                self.frames += 1
                event = classify(text)
                if type(event) is Pong:
                    self.pongs += 1
                    continue
                sink(Frame(at, name, "in", "ws", text))
                if type(event) is Data:
                    self.last_data = at
                    if self.ledger.data(event.subscription, at):
                        self._note(event.subscription, "subscribed")
                    self._judge()
                else:
                    await self._take(event, socket, at)
        except ConnectionClosed as closed:
            return self.why or _spelt(closed)

    async def _take(self, event: Event, socket: ClientConnection, at: int) -> None:
        if isinstance(event, Accepted):
            if self.ledger.accepted(event.subscription, at):
                self._note(event.subscription, "subscribed")
        elif isinstance(event, Refused):
            self._refused(event, at)
        elif isinstance(event, Notice):
            self.leave(event.reason)
        elif isinstance(event, Ask):
            await socket.send(event.answer)
        self._judge()

    def _refused(self, event: Refused, at: int) -> None:
        settled = () if event.temporary else self.ledger.refused(event.request, event.subscription, event.reason, at)
        for subscription in settled:
            self._note(subscription, "refused", event.reason)
        what = ", ".join(" ".join(subscription) for subscription in settled) or "a request"
        self._context.report(f"{self.name}: {what} refused: {event.reason}")

    def _judge(self) -> None:
        if self.ledger.settled and not self.settled.is_set():
            self.settled.set()
        if self.ledger.proven and self.ledger.settled and not self.proven.is_set():
            self.proven.set()

    async def _subscribe(self, socket: ClientConnection) -> None:
        """Sends what is due, for as long as the connection lives."""
        pause = min(self._context.timing.patience // 5, SECOND // 2) / SECOND
        try:
            for text in self.plan.greeting:
                await self._send(socket, text)
            while True:
                now = self._now()
                if self.ledger.dead(now):
                    self._context.report(f"{self.name}: no data, although asked for again: connecting anew")
                    self.leave("silent")
                    return
                if self.ledger.deaf(now):
                    # It carries nothing that a replacement would have to take over.
                    self.why = "subscribe requests unanswered"
                    socket.transport.abort()
                    return
                for group in self.ledger.due(now):
                    for batch in self._feed.batches(group):
                        await self._ask(socket, batch)
                await asyncio.sleep(pause)
        except ConnectionClosed:
            return

    async def _ask(self, socket: ClientConnection, batch: tuple[Subscription, ...]) -> None:
        """One request, within the exchange's allowance of requests on a connection."""
        now = self._now()
        place = self._requests.reserve(now)
        if place > now:
            await asyncio.sleep((place - now) / SECOND)
        self._asked += 1
        request = f"r{self._asked}"
        for subscription in self.ledger.asked(request, batch, self._now()):
            self._note(subscription, "requested")
        await self._send(socket, self._feed.subscribe(request, batch))

    async def _send(self, socket: ClientConnection, text: str) -> None:
        self._sink(Frame(self._now(), self.name, "out", "ws", text))
        await socket.send(text)

    async def _keep_alive(self, socket: ClientConnection) -> None:
        """Pings after silence; without any frame by the deadline the connection is half-open and is cut."""
        keepalive = _keepalive(self._feed.keepalive, self._context.timing)
        try:
            while True:
                quiet = self._now() - self.last_frame
                if quiet < keepalive.silence:
                    await asyncio.sleep((keepalive.silence - quiet) / SECOND)
                    continue
                heard = self.last_frame
                await self._ping(socket, keepalive)
                self.pings += 1
                if not await self._heard_since(heard, keepalive.deadline):
                    self.why = "half-open"
                    socket.transport.abort()
                    return
        except ConnectionClosed:
            return

    async def _heard_since(self, heard: int, deadline: int) -> bool:
        until = self._now() + deadline
        while self.last_frame == heard:
            if self._now() >= until:
                return False
            await asyncio.sleep(min(deadline / 10, SECOND / 4) / SECOND)
        return True

    async def _ping(self, socket: ClientConnection, keepalive: Keepalive) -> None:
        if keepalive.ping is not None:
            await socket.send(keepalive.ping)
            return
        asyncio.ensure_future(await socket.ping()).add_done_callback(self._ponged)

    def _ponged(self, pong: asyncio.Future[float]) -> None:
        if not pong.cancelled() and pong.exception() is None:
            self.last_frame = self._now()
            self.pongs += 1

    def _note(
        self,
        subscription: Subscription | None,
        state: Literal["requested", "subscribed", "refused", "unsubscribed"],
        reason: str | None = None,
    ) -> None:
        if subscription is not None:
            described = self._context.describe(subscription)
            self._emit("subscription", msgspec.structs.replace(described, state=state, reason=reason))

    def _emit(self, kind: FrameKind, data: msgspec.Struct, at: int | None = None) -> None:
        self._sink(Frame(at or self._now(), self.name, "in", kind, msgspec.json.encode(data).decode()))


def _keepalive(keepalive: Keepalive, timing: Timing) -> Keepalive:
    return Keepalive(keepalive.ping, timing.silence or keepalive.silence, timing.deadline or keepalive.deadline)


def _spelt(error: Exception) -> str:
    """`1006`, `4004 No data received in 30s.`, `HTTP 429`, `refused`: short, for people."""
    if isinstance(error, ConnectionClosed):
        frame = error.rcvd or error.sent
        return f"{frame.code} {frame.reason}".strip() if frame else "1006"
    if isinstance(error, InvalidStatus):
        return f"HTTP {error.response.status_code}"
    return str(error) or type(error).__name__
