"""Which connections are up and whose data proves that an instrument's trades are seen. Pure.

Coverage is evidence: it begins with data, never with an acknowledgement, and ends with the last frame
known on the connection that proved it.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from pipeline.frames import SubscriptionData
from pipeline.records import ENDED, CandleSettings
from pipeline.timeframes import MINUTE

LOST = MINUTE


class Connection(msgspec.Struct):
    """A connection that is up: the host's times at which it `opened` and of its `last` frame of any sort, and the
    instruments `stopped` (unsubscribed or refused) on it."""

    opened: int
    last: int
    stopped: list[str] = []


class Cover(msgspec.Struct):
    """What proves one instrument's trades. `connections` show its data; `active` is the one named in the records.
    `since` is null while uncovered; `shown` the exchange's time, `message` the host's, of the last data."""

    connections: list[str] = []
    active: str | None = None
    since: int | None = None
    shown: int = 0
    message: int | None = None
    candles: CandleSettings | None = None


class Change(NamedTuple):
    """A control record to be written."""

    instrument: str
    state: Literal["covered", "uncovered"]
    cause: str
    connection: str | None
    time: int


class Evidence:
    """The connections and covers of one partition. Times of the exchange are `host + offset`; `offset` is null
    until it is known."""

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self.covers: dict[str, Cover] = {}
        self.offset: int | None = None
        self.changed_connections: set[str] = set()
        self.changed_covers: set[str] = set()
        """Of which more changed than the times of the last data."""

    def connection(self, name: str, time: int) -> Connection:
        """The connection; its first frame (at host time `time`) counts as its opening."""
        connection = self.connections.get(name)
        if connection is None:
            connection = self.connections[name] = Connection(opened=time, last=time)
        self.changed_connections.add(name)
        return connection

    def heard(self, name: str, time: int) -> Connection:
        """The connection, on which a frame of any sort came in at host time `time`."""
        connection = self.connections.get(name) or self.connection(name, time)
        self.changed_connections.add(name)
        if time > connection.last:  # noqa: PLR1730 (each frame: max() is slow)
            connection.last = time
        return connection

    def tidy(self, live: Mapping[str, int], time: int) -> None:
        """At host time `time` ingest lists the connections that live. One that was neither listed nor heard for long
        and covers nothing is gone: its end was lost on the way here."""
        silent = [name for name, each in self.connections.items() if name not in live and time - each.last > LOST]
        if live and silent:
            used = {name for cover in self.covers.values() for name in cover.connections}
            for name in set(silent) - used:
                del self.connections[name]
                self.changed_connections.add(name)

    def exchange_time(self, host: int) -> int:
        """The exchange's time at the host's; the host's own while the difference is not known."""
        return host + (self.offset or 0)

    def cover(self, instrument: str) -> Cover:
        """The instrument's cover, to be changed."""
        self.changed_covers.add(instrument)
        cover = self.covers.get(instrument)
        if cover is None:
            cover = self.covers[instrument] = Cover()
        return cover

    def data(self, name: str, instrument: str, received: int, time: int, begun: bool) -> Change | None:
        """Data of the instrument's trades channel, received at host time `received`; `time` is its newest trade's,
        `begun` whether its numbers are followed yet."""
        # Without an estimate of the exchange's clock, what was replayed must not date coverage back, and only what
        # the exchange itself dated is known to have come.
        arrival = received + self.offset if self.offset is not None else max(time, received)
        shown = time if self.offset is None else arrival
        cover = self.covers.get(instrument) or self.cover(instrument)
        cover.message = received
        if shown > cover.shown:  # noqa: PLR1730 (each trade)
            cover.shown = shown
        if self.offset is None and not begun:
            return None
        if name in cover.connections or instrument in self.connections[name].stopped:
            return None
        self.changed_covers.add(instrument)
        cover.connections.append(name)
        if cover.active is not None:
            return None
        cover.active, cover.since = name, arrival
        return Change(instrument, "covered", "open", name, arrival)

    def subscription(self, name: str, data: SubscriptionData, received: int) -> list[Change]:
        """A subscription to trades changed: its settings are kept, and when it ended so does its evidence."""
        stopped = self.connections[name].stopped
        if data.state in ("unsubscribed", "refused"):
            if data.instrument not in stopped:
                stopped.append(data.instrument)
            return self._drop(name, data.instrument, data.state)
        if data.instrument in stopped:
            stopped.remove(data.instrument)
        candles = CandleSettings(timeframes=data.timeframes, grace=data.grace, quiet_from=data.quiet_from)
        cover = self.cover(data.instrument)
        if not data.timeframes or candles == cover.candles:
            return []
        cover.candles = candles
        if cover.active is None:
            return []
        return [Change(data.instrument, "covered", "settings", cover.active, self.exchange_time(received))]

    def close(self, name: str, cause: str) -> list[Change]:
        """The connection is gone."""
        changes = [change for instrument in sorted(self.covers) for change in self._drop(name, instrument, cause)]
        if self.connections.pop(name, None) is not None:
            self.changed_connections.add(name)
        return changes

    def lose(self, cause: str) -> list[Change]:
        """Frames were lost between ingest and here: nothing is covered until new data shows it."""
        changes = [
            self._end(instrument, cover, cause) for instrument, cover in sorted(self.covers.items()) if cover.active
        ]
        for instrument, cover in self.covers.items():
            if cover.connections:
                cover.connections = []
                self.changed_covers.add(instrument)
        return changes

    def close_all(self, cause: str) -> list[Change]:
        """Every connection is gone: another writer took over."""
        changes = self.lose(cause)
        self.changed_connections.update(self.connections)
        self.connections.clear()
        return changes

    def ended(self, instrument: str, received: int) -> Change:
        """The contract is no more."""
        cover = self.covers.get(instrument)
        if cover is None or cover.active is None:
            return Change(instrument, "uncovered", ENDED, None, self.exchange_time(received))
        return self._end(instrument, cover, ENDED)

    def _drop(self, name: str, instrument: str, cause: str) -> list[Change]:
        cover = self.covers.get(instrument)
        if cover is None or name not in cover.connections:
            return []
        self.changed_covers.add(instrument)
        cover.connections.remove(name)
        if cover.active != name:
            return []
        if not cover.connections:
            return [self._end(instrument, cover, cause)]
        time = self._last_known(cover)
        cover.active = cover.connections[0]
        return [Change(instrument, "covered", "moved", cover.active, time)]

    def _end(self, instrument: str, cover: Cover, cause: str) -> Change:
        time = self._last_known(cover)
        connection = cover.active
        cover.active = cover.since = None
        self.changed_covers.add(instrument)
        return Change(instrument, "uncovered", cause, connection, time)

    def _last_known(self, cover: Cover) -> int:
        """The exchange's time of the last frame on the active connection, as far as it is known."""
        connection = self.connections.get(cover.active or "")
        if connection is None or self.offset is None:
            return cover.shown
        return connection.last + self.offset
