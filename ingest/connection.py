"""One wanted connection, kept up for ever: backoff with full jitter, and make before break when it must be replaced."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

from ingest.budget import Backoff, Budget
from ingest.context import Context
from ingest.events import first, unless, within
from ingest.feed import Plan, Subscription
from ingest.retry_after import retry_after
from ingest.session import Session
from ingest.turn import turn
from ingest.websocket import TurnedAway
from pipeline.errors import ExchangeError

JITTER = 24
"""A planned end comes up to one part in so many of the lifetime sooner."""
FRUITLESS = 2
"""Sockets in a row that stayed silent, after which a further one promises nothing."""

log = logging.getLogger(__name__)


class Connection:
    """The sessions of one plan, one after another; two at a time while one replaces the other.

    `numbers` counts the connections of the process; `connects` is its allowance of new ones.
    """

    def __init__(
        self,
        url: str,
        plan: Plan,
        context: Context,
        numbers: Iterator[int],
        connects: Budget,
        random: Callable[[], float],
    ) -> None:
        self.plan = plan
        self.sessions: list[Session] = []
        """Live ones, the newest last."""
        self.newest: Session | None = None
        """The last one tried, live or not."""
        self.opened = 0
        self._past_frames = 0
        self._past_data = 0
        self._url = url
        self._context = context
        self._numbers = numbers
        self._connects = connects
        self._backoff = Backoff(context.timing.first_delay, context.timing.most_delay, random)
        self._random = random
        self._barred: dict[str, str] = {}
        self._silent: deque[int] = deque(maxlen=FRUITLESS)

    @property
    def attempts(self) -> int:
        """Tries in a row that gave no data; 0 while there is some."""
        return 0 if any(session.last_data for session in self.sessions) else self._backoff.failures

    @property
    def frames(self) -> int:
        """Frames received by all sessions so far."""
        return self._past_frames + sum(session.frames for session in self.sessions)

    @property
    def last_data(self) -> int:
        """Host time of the last data of all sessions; 0 before any."""
        return max((session.last_data for session in self.sessions if session.last_data), default=self._past_data)

    @property
    def given_up(self) -> int | None:
        """Host time at which the last of so many sockets in a row was given up for its silence; None while there is
        hope."""
        fruitless = len(self._silent) == FRUITLESS and self._silent[0] > self.last_data
        return self._silent[-1] if fruitless else None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set and every socket is closed and its `close` frame written."""
        async with asyncio.TaskGroup() as group:
            while (session := await self._open(stop)) is not None:
                older = list(self.sessions)
                self.sessions.append(session)
                group.create_task(self._serve(session))
                if older:
                    group.create_task(self._retire(older, session))
                outlived = await self._outlived(session, stop)
                if session.silent_at is not None:
                    self._silent.append(session.silent_at)
                if not outlived:
                    session.leave("planned")
                elif not session.ended.is_set() and not self._lasted(session):
                    # An exchange that is about to close says so to each new connection, too.
                    self._backoff.failed()
            for session in self.sessions:
                group.create_task(session.close("stopped"))

    def add(self, subscriptions: Sequence[Subscription]) -> None:
        """Takes further subscriptions, on the live sockets at once."""
        self.plan = msgspec.structs.replace(self.plan, subscriptions=(*self.plan.subscriptions, *subscriptions))
        connecting = [self.newest] if self.newest is not None and self.newest not in self.sessions else []
        for session in (*self.sessions, *connecting):
            session.add(subscriptions)

    def bar(self, instrument: str, reason: str) -> None:
        """Refuses an instrument by ourselves, now and on every further socket, until it is readmitted."""
        self._barred[instrument] = reason
        for session in self.sessions:
            self._apply_bars(session)

    def readmit(self, instrument: str) -> None:
        """The instrument is there again."""
        if self._barred.pop(instrument, None) is not None:
            for session in self.sessions:
                for subscription in self._of(instrument):
                    session.ledger.readmit(subscription)

    def _apply_bars(self, session: Session) -> None:
        for instrument, reason in self._barred.items():
            for subscription in self._of(instrument):
                session.bar(subscription, reason)

    def _of(self, instrument: str) -> list[Subscription]:
        return [each for each in self.plan.subscriptions if each.instrument == instrument]

    async def _outlived(self, session: Session, stop: asyncio.Event) -> bool:
        """Waits until the session must be replaced; False when only its age says so."""
        lifetime = self._context.timing.lifetime or self._context.feed.lifetime
        if lifetime is None:
            await first(session.ended, session.leaving, stop)
            return True
        # Connections opened together should not all be replaced together.
        age = lifetime - int(lifetime / JITTER * self._random())
        return await within(age, session.ended, session.leaving, stop)

    async def _open(self, stop: asyncio.Event) -> Session | None:
        """The next connected session; None when `stop` came first."""
        while not await within(self._backoff.delay(), stop):
            self.newest = session = Session(f"{self._url}#{next(self._numbers)}", self._url, self.plan, self._context)
            try:
                if not await unless(stop, self._connect(session)):
                    break
            except ExchangeError as error:
                self._backoff.failed()
                self._context.report(str(error))
                if isinstance(error, TurnedAway):
                    self._obey(error)
            else:
                self.opened += 1
                self._apply_bars(session)
                log.info("%s is open", session.name)
                return session
        return None

    async def _connect(self, session: Session) -> None:
        """When it is its turn; until the handshake is over nobody knows when the exchange counted it. Raises
        ExchangeError."""
        monotonic = self._context.clock.monotonic
        place = await turn(self._connects, monotonic)
        with self._connects.flight(place, monotonic):
            await session.connect()

    def _obey(self, error: TurnedAway) -> None:
        """Nobody connects before the exchange wants it: it counts by address, and bans whoever goes on."""
        clock = self._context.clock
        fault = self._context.feed.fault(error.status, error.body)
        if pause := retry_after(error.status, error.headers, clock.now()) or (fault.pause if fault else 0):
            self._connects.hold(clock.monotonic() + pause)

    async def _serve(self, session: Session) -> None:
        """Runs a session to its end; how it went decides how soon the next one is tried."""
        try:
            reason = await session.run()
        except Exception as error:
            log.exception("%s broke", session.name)
            reason = f"broke: {error}"
        finally:
            self.sessions.remove(session)
            self._past_frames += session.frames
            self._past_data = max(self._past_data, session.last_data or 0)
        if session.last_data is not None and self._lasted(session):
            self._backoff.succeeded()
        elif not session.dropped:
            self._backoff.failed()
        if session.dropped:
            log.info("%s ended: %s", session.name, reason)
        else:
            self._context.report(f"{session.name} ended: {reason}")

    def _lasted(self, session: Session) -> bool:
        return self._context.clock.now() - (session.opened or 0) >= self._context.timing.stable

    async def _retire(self, older: list[Session], session: Session) -> None:
        """Drops the older sessions once the new one is known to carry what they carry."""
        await first(session.settled, session.ended)
        # A quiet instrument gives no data to wait for: its acknowledgement has to do in the end.
        await within(self._context.timing.overlap, session.proven, session.ended)
        # What an exchange has queued on a connection it throws away when that is closed, and may be behind with it.
        await within(self._context.timing.behind, session.ended)
        if not session.ended.is_set():
            await asyncio.gather(*(other.close(f"replaced: {other.why}") for other in older))
