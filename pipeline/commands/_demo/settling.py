"""Waiting until everything that was printed has been through the whole pipeline: conditions, each with a deadline."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, LiteralString

import psycopg
import redis.exceptions

from pipeline.errors import ServerAway
from pipeline.probes import postgres as postgres_probe
from pipeline.probes import redis as redis_probe
from pipeline.reports import Report, read_all
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

    def __init__(self, settings: Settings, turn: Callable[[], None]) -> None:
        self._settings = settings
        self._turn = turn

    def everything_runs(self, supervisor: Supervisor, deadline: float = DEADLINE) -> None:
        """Every process of the settings is RUNNING."""
        names = self._settings.processes()

        def running() -> bool:
            programs = supervisor.programs()
            return all(name in programs and programs[name].state == "RUNNING" for name in names)

        self.until(running, "every process to run", deadline)

    def everything_subscribed(self, supervisor: Supervisor, deadline: float = DEADLINE, since: int = 0) -> None:
        """Every subscription of every exchange stands, as its ingest says that lives now, and said after `since`
        (ns)."""
        names = [f"ingest-{name}" for name in self._settings.enabled_exchanges()]

        def subscribed() -> bool:
            reports, programs = read_all(self._settings.heartbeat_dir), supervisor.programs()
            return all(_all_subscribed(reports.get(name), programs[name].pid, since) for name in names)

        self.until(subscribed, "every subscription", deadline)

    def books_valid(self, books: Mapping[str, Iterable[str]], deadline: float = DEADLINE) -> None:
        """The newest record of every instrument's order book, by exchange, says that it is valid."""

        def valid() -> bool:
            shown = self.books()
            return all(
                (record := shown.get((exchange, instrument))) is not None and record.get("valid", True)
                for exchange, instruments in books.items()
                for instrument in instruments
            )

        self.until(valid, "every order book to be valid", deadline)

    def books(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(exchange, instrument) to the newest `orderbook` record."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for exchange in self._settings.enabled_exchanges():
            for partition in self._settings.partitions(exchange):
                key = Keys(self._settings.namespace, partition).last("orderbook")
                for data in self._redis("HVALS", key):
                    record = json.loads(data)
                    found[exchange, record["instrument"]] = record
        return found

    def first_trades(self, wanted: int) -> None:
        """At least one trade of each of so many instruments is in Postgres."""
        query = "SELECT count(*) FROM instruments i WHERE EXISTS (SELECT FROM trades t WHERE t.instrument_id = i.id)"

        def stored() -> bool:
            with postgres_probe.connect(self._settings) as connection:
                row = connection.execute(query).fetchone()
            return row is not None and int(str(row[0])) >= wanted

        self.until(stored, "the first trade of every instrument in Postgres")

    def drained(self, deadline: float = DEADLINE) -> None:
        """All that is in the raw streams now, and what comes of it within UNDISTURBED, has been stored."""
        since = int((time.time() + UNDISTURBED) * 1000)
        for partition in self._settings.all_partitions():
            self._drain(Keys(self._settings.namespace, partition), (since, 0), deadline)

    def repaired(self, deadline: float = DEADLINE) -> None:
        """No gap in the ledger is open, and the candles of the last one that closed are stored."""
        self.until(lambda: open_gaps(self._settings) == 0, "every gap to be repaired", deadline)
        self.drained(deadline)
        self.rebuilt(deadline)

    def rebuilt(self, deadline: float = DEADLINE) -> None:
        """No candle of long ago waits to be computed from stored trades, and what came of the last is stored."""
        self.until(lambda: waiting_rebuilds(self._settings) == 0, "every candle to be computed anew", deadline)
        self.drained(deadline)

    def _drain(self, keys: Keys, since: Id, deadline: float) -> None:
        """Stage by stage: what stood last in its input when the one before had all."""
        self.until(lambda: self._last(keys.raw) >= since, "the stream's clock to go on", deadline)
        raw = self._ends([keys.raw], deadline)[keys.raw]
        self.until(lambda: self._cursor(keys, "normalize") >= raw, "normalize", deadline)
        trade = self._ends([keys.trade], deadline)[keys.trade]
        self.until(lambda: self._cursor(keys, "aggregate") >= trade, "aggregate", deadline)
        kinds = [kind for kind, readers in READERS.items() if "store" in readers]
        last = self._ends([keys.stream(kind) for kind in kinds], deadline)
        self.until(lambda: self._all_stored(last), "store", deadline)

    def until(self, condition: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
        """Raises NotSettled. A server that does not answer is waited for as well."""
        end, trouble = time.monotonic() + deadline, ""
        while True:
            try:
                if condition():
                    return
                trouble = ""
            except (ServerAway, psycopg.Error, OSError) as error:
                trouble = f" ({error})"
            if time.monotonic() > end:
                raise NotSettled(f"waited {deadline:g} s in vain for {what}{trouble}")
            self._turn()
            time.sleep(POLL)

    def _redis(self, *command: bytes | str | int) -> Any:
        """Raises ServerAway."""
        client = redis_probe.connect(self._settings)
        try:
            return redis_probe.call(client, *command)
        except redis.exceptions.RedisError as error:
            raise ServerAway(f"Redis: {error}") from error
        finally:
            client.close()

    def _ends(self, streams: Iterable[str], deadline: float) -> dict[str, Id]:
        """The last id of each stream now. Raises NotSettled."""
        found: dict[str, Id] = {}

        def seen() -> bool:
            found.update({stream: self._last(stream) for stream in streams if stream not in found})
            return True

        self.until(seen, "Redis", deadline)
        return found

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


def open_gaps(settings: Settings) -> int:
    """Open gaps in the ledger. Raises psycopg.Error."""
    return _count(settings, "SELECT count(*) FROM trade_gaps WHERE state <> 'closed'")


def waiting_rebuilds(settings: Settings) -> int:
    """Spans of candles that store has yet to compute from trades. Raises psycopg.Error."""
    return _count(settings, "SELECT count(*) FROM rebuilds")


def _count(settings: Settings, query: LiteralString) -> int:
    with postgres_probe.connect(settings) as connection:
        row = connection.execute(query).fetchone()
    return int(str(row[0])) if row else 0


def _all_subscribed(report: Report | None, pid: int, since: int) -> bool:
    # A killed process leaves its last report behind.
    if report is None or report.pid != pid or report.status != "running" or report.beat <= since:
        return False
    rows = report.details.get("subscriptions") or {}
    return bool(rows) and all(row["state"] == "subscribed" for row in rows.values())


def _id(text: bytes) -> Id:
    milliseconds, _, number = text.decode().partition("-")
    return int(milliseconds), int(number or 0)
