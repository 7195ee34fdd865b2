"""Waiting until everything that was printed has been through the whole pipeline: conditions, each with a deadline."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
import redis.exceptions

from pipeline.commands._demo.market import Market
from pipeline.errors import ServerAway
from pipeline.probes import postgres as postgres_probe
from pipeline.probes import redis as redis_probe
from pipeline.settings import Settings
from pipeline.streams import READERS, Keys
from pipeline.supervisor import Supervisor

POLL = 0.1
DEADLINE = 90.0
UNDISTURBED = 3.0
"""Seconds of stream time after the last trade: 2 for a jump in the numbers to be taken for a gap, 1 for candles to
be issued again."""

Id = tuple[int, int]
Say = Callable[[str], None]


class NotSettled(ServerAway):
    """What was printed did not come through in time."""


class Settling:
    """Waits for one thing after the other; `turn` is called between two looks (it keeps the view alive)."""

    def __init__(self, settings: Settings, market: Market, turn: Callable[[], None]) -> None:
        self._settings = settings
        self._market = market
        self._turn = turn

    def everything_runs(self, supervisor: Supervisor, deadline: float = DEADLINE) -> None:
        """Every process of the settings is RUNNING."""
        names = self._settings.processes()

        def running() -> bool:
            programs = supervisor.programs()
            return all(name in programs and programs[name].state == "RUNNING" for name in names)

        self._until(running, "every process to run", deadline)

    def everything_subscribed(self, instruments: Iterable[str], deadline: float = DEADLINE) -> None:
        """As the exchange sees it, its connections carry as many subscriptions as there are instruments."""
        wanted = len(tuple(instruments))

        def subscribed() -> bool:
            return sum(int(one["subscriptions"]) for one in self._market.state()["connections"]) >= wanted

        self._until(subscribed, "every instrument to be subscribed", deadline)

    def first_trades(self, instruments: Iterable[str]) -> None:
        """At least one trade of each instrument is in Postgres."""
        wanted = len(tuple(instruments))
        query = "SELECT count(*) FROM instruments i WHERE EXISTS (SELECT FROM trades t WHERE t.instrument_id = i.id)"

        def stored() -> bool:
            with postgres_probe.connect(self._settings) as connection:
                row = connection.execute(query).fetchone()
            return row is not None and int(str(row[0])) >= wanted

        self._until(stored, "the first trade of every instrument in Postgres")

    def drained(self) -> None:
        """All that is in the raw streams now, and what comes of it within UNDISTURBED, has been stored."""
        since = int((time.time() + UNDISTURBED) * 1000)
        for partition in self._settings.all_partitions():
            self._drain(Keys(self._settings.namespace, partition), (since, 0))

    def _drain(self, keys: Keys, since: Id) -> None:
        """Stage by stage: what stood last in its input when the one before had all."""
        self._until(lambda: self._last(keys.raw) >= since, "the stream's clock to go on")
        raw = self._last(keys.raw)
        self._until(lambda: self._cursor(keys, "normalize") >= raw, "normalize")
        trade = self._last(keys.trade)
        self._until(lambda: self._cursor(keys, "aggregate") >= trade, "aggregate")
        kinds = [kind for kind, readers in READERS.items() if "store" in readers]
        last = {stream: self._last(stream) for stream in map(keys.stream, kinds)}
        self._until(lambda: self._all_stored(last), "store")

    def _until(self, condition: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
        """Raises NotSettled. A server that does not answer is waited for as well."""
        end, trouble = time.monotonic() + deadline, ""
        while True:
            try:
                if condition():
                    return
                trouble = ""
            except (ServerAway, redis.exceptions.RedisError, psycopg.Error, OSError) as error:
                trouble = f" ({error})"
            if time.monotonic() > end:
                raise NotSettled(f"waited {deadline:g} s in vain for {what}{trouble}")
            self._turn()
            time.sleep(POLL)

    def _redis(self, *command: bytes | str | int) -> Any:
        client = redis_probe.connect(self._settings)
        try:
            return redis_probe.call(client, *command)
        finally:
            client.close()

    def _last(self, stream: str) -> Id:
        """Id of the stream's last entry; (0, 0) of an empty one."""
        found = self._redis("XREVRANGE", stream, "+", "-", "COUNT", 1)
        return _id(found[0][0]) if found else (0, 0)

    def _cursor(self, keys: Keys, stage: str) -> Id:
        return _id(self._redis("HGET", keys.state(stage), "cursor") or b"0-0")

    def _all_stored(self, last: dict[str, Id]) -> bool:
        query = "SELECT stream, id FROM cursors WHERE namespace = %s"
        with postgres_probe.connect(self._settings) as connection:
            rows = connection.execute(query, (self._settings.namespace,)).fetchall()
        stored = {str(stream): _id(str(entry).encode()) for stream, entry in rows}
        return all(stored.get(stream, (0, 0)) >= entry for stream, entry in last.items())


def _id(text: bytes) -> Id:
    milliseconds, _, number = text.decode().partition("-")
    return int(milliseconds), int(number or 0)
