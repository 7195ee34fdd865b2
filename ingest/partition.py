"""One partition of an exchange: its writer and its connections. Decides which connection carries what."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from ingest.budget import Budget
from ingest.connection import Connection
from ingest.context import Context
from ingest.feed import Plan, Route, Subscription
from ingest.session import Session


class Venue(msgspec.Struct, frozen=True):
    """What all partitions of an exchange share: the root of its WebSocket URLs, running numbers of connections, the
    allowance of new ones."""

    url: str
    numbers: Iterator[int]
    connects: Budget
    random: Callable[[], float]


class Partition:
    """Connections are added while it runs; those there are keep what they have, and take more where they have room."""

    def __init__(self, venue: Venue, context: Context) -> None:
        self.connections: list[Connection] = []
        self.context = context
        self._venue = venue
        self._start: Callable[[Connection], object] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Keeps every connection up until `stop`."""
        async with asyncio.TaskGroup() as group:
            self._start = lambda connection: group.create_task(connection.run(stop))
            for connection in self.connections:
                self._start(connection)
            await stop.wait()
            self._start = None

    def take(self, subscriptions: Iterable[Subscription]) -> None:
        """Carries further subscriptions from now on."""
        groups: dict[Route, list[Subscription]] = {}
        for subscription in subscriptions:
            groups.setdefault(self.context.feed.route(subscription), []).append(subscription)
        for route, group in groups.items():
            rest = self._fill(route, group)
            for start in range(0, len(rest), route.most):
                self._connect(Plan(route, tuple(rest[start : start + route.most])))

    def session(self, name: str) -> Session | None:
        """The live session of that name."""
        sessions = (session for connection in self.connections for session in connection.sessions)
        return next((session for session in sessions if session.name == name), None)

    def last_frames(self) -> dict[str, int]:
        """Each live session to the host time of its last frame."""
        return {session.name: session.last_frame for connection in self.connections for session in connection.sessions}

    def _fill(self, route: Route, group: Sequence[Subscription]) -> Sequence[Subscription]:
        """Gives connections with room as much as they hold; what is left over."""
        for connection in self.connections:
            if group and connection.plan.route == route:
                room = max(0, route.most - len(connection.plan.subscriptions))
                if room:
                    connection.add(group[:room])
                    group = group[room:]
        return group

    def _connect(self, plan: Plan) -> None:
        venue = self._venue
        connection = Connection(
            venue.url + plan.route.path, plan, self.context, venue.numbers, venue.connects, venue.random
        )
        self.connections.append(connection)
        if self._start is not None:
            self._start(connection)
