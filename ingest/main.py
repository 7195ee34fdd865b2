"""The process `ingest-<exchange>`: wires sockets, REST, clock and writers together, from first socket to last flush."""

import asyncio
import contextlib
import importlib
import itertools
import random
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

from ingest.budget import Budget
from ingest.bulk import bulk_of
from ingest.clock import ExchangeClock, HostClock
from ingest.collection import Collection
from ingest.connection import Connection
from ingest.context import Context
from ingest.events import within
from ingest.feed import Feed
from ingest.partition import Partition, Venue
from ingest.polling import ClockPoll, Listings
from ingest.registration import register
from ingest.remembered import remembered
from ingest.repairs import Repairs
from ingest.requests import Requests
from ingest.rest import Rest
from ingest.rows import connection_rows, subscription_rows
from ingest.spool import Spool
from ingest.stall import Sight, Stall, last_given_up
from ingest.symbols import Symbols
from ingest.tally import Tally
from ingest.ticker import Pulse, Ticker
from ingest.timing import Timing
from ingest.wants import Wants
from ingest.writer import Writer
from pipeline.errors import ServerAway, SettingsError
from pipeline.exchanges import EXCHANGES
from pipeline.frames import Frame
from pipeline.heartbeat import Heartbeat
from pipeline.redis_ready import wait_ready
from pipeline.settings import Settings
from pipeline.streams import Keys
from pipeline.timeframes import SECOND
from pipeline.wire import Wire


async def run(settings: Settings, name: str, stop: asyncio.Event, timing: Timing | None = None) -> None:
    """Collects the exchange that `name` ends with until `stop` is set. Raises SettingsError, ContractBroken."""
    exchange = name.partition("-")[2]
    if exchange not in settings.enabled_exchanges():
        raise SettingsError(f"{name}: exchange {exchange!r} is not enabled in {settings.path}")
    heartbeat = Heartbeat(name, settings.heartbeat_dir)
    ingest = Ingest(settings, exchange, heartbeat, timing or timing_of(settings))
    beating = asyncio.create_task(heartbeat.run())
    try:
        await ingest.run(stop)
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating


def timing_of(settings: Settings) -> Timing:
    """The intervals the settings have a word in."""
    collection = settings.file.collection_settings
    first = round(collection.reconnect_delay * SECOND)
    return Timing(first_delay=first, stable=first, mute=round(collection.max_silence_duration * SECOND))


class Ingest:
    """One exchange: what to collect, and everything that runs for it."""

    def __init__(self, settings: Settings, exchange: str, heartbeat: Heartbeat, timing: Timing) -> None:
        known, wanted = EXCHANGES[exchange], settings.file.exchanges[exchange]
        self._settings = settings
        self._exchange = exchange
        self._heartbeat = heartbeat
        self._timing = timing
        self._clock = HostClock()
        self._feed: Feed = importlib.import_module(f"ingest.exchanges.{known.module}").Feed()
        self._exchange_clock = ExchangeClock(self._clock, self._feed.clock_step)
        self._rest = Rest(wanted.rest_url or known.rest_url, self._feed, self._clock, timing, random.random)
        symbols = Symbols(self._feed, wanted.trading_pairs)
        lists = self._feed.listings(symbols.wanted)
        self._collection = Collection(symbols, settings, lists, self._rest.url)
        self._connects = Budget(self._feed.connects)
        self._tally = Tally(settings.state_dir / "taken" / heartbeat.name, self._clock, heartbeat.error)
        self._tally.restore({**self._rest.budgets, "connects": self._connects})
        self._writers = self._make_writers()
        self._partitions = self._make_partitions((wanted.ws_url or known.ws_url).rstrip("/"))
        self._collection.partitions = self._partitions
        bulk = bulk_of(self._feed, known, wanted.rest_url, settings.state_dir, self._clock, timing)
        self._repairs = Repairs(self._rest, self._feed, self._clock, timing, settings.file.repair, random.random, bulk)
        self._requests = [Requests(self._rest, part.context, part.session, self._repairs) for part in self._partitions]
        self._opened = 0
        self._stall = Stall()
        listed, report = self._collection.listed, heartbeat.error
        self._listings = Listings(self._feed, lists, self._rest, self._clock, self._everywhere, listed, report, timing)
        self._clock_poll = ClockPoll(self._feed, self._rest, self._exchange_clock, self._clock, report, timing)
        heartbeat.describe("", self.details)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: then sockets are closed, the buffers written, with a bound, and it returns."""
        if not await self._redis_there(stop):
            return
        try:
            async with self._rest, asyncio.TaskGroup() as group:
                writing = [group.create_task(writer.run()) for writer in self._writers]
                asking = [group.create_task(self._listings.run()), group.create_task(self._clock_poll.run())]
                ticking = group.create_task(self._ticker().run())
                await self._prepare(stop)
                self._collection.begin()
                asking += [group.create_task(work) for work in self._answering()]
                self._heartbeat.status = "running"
                await self._collect(stop)
                self._heartbeat.status = "stopping"
                for task in (*asking, ticking):
                    task.cancel()
                await self._flush()
                for task in writing:
                    task.cancel()
        except ExceptionGroup as group_error:
            raise _first_leaf(group_error) from None
        finally:
            self._tally.close()

    def details(self) -> Mapping[str, Any]:
        """What the heartbeat says of us; brings its own figures up to date on the way."""
        self._observe()
        offset, uncertainty = self._exchange_clock.reading()
        return {
            "connections": connection_rows(self._all()),
            "subscriptions": subscription_rows(self._all(), self._collection),
            "patterns": self._collection.symbols.matches,
            "requests": {key: row for requests in self._requests for key, row in requests.rows().items()},
            "budgets": self._budgets(),
            "clock_offset": offset,
            "clock_uncertainty": uncertainty,
            "spool": {writer.keys.partition: writer.spool.row() for writer in self._writers if writer.spool},
            "buffered": sum(writer.waiting_bytes for writer in self._writers),
            "written": self._heartbeat.counters["written"],
            "tasks": len(asyncio.all_tasks()),
        }

    def _make_writers(self) -> list[Writer]:
        started = self._clock.now()
        partitions = self._settings.partitions(self._exchange)
        return [self._make_writer(partition, started, len(partitions)) for partition in partitions]

    def _make_writer(self, partition: str, started: int, partitions: int) -> Writer:
        settings, heartbeat = self._settings, self._heartbeat
        keys = Keys(settings.namespace, partition)
        # What was made for a namespace must not get into another.
        folder = settings.state_dir / "spool" / heartbeat.name / f"{keys.namespace}.{partition}"
        spool = Spool(folder, settings.file.disk.spool_bytes // partitions, heartbeat.error)
        return Writer(keys, self._open_ready, heartbeat, started, self._timing, spool=spool)

    def _make_partitions(self, ws_url: str) -> list[Partition]:
        venue = Venue(ws_url, itertools.count(1), self._connects, random.random)
        return [Partition(venue, self._context(writer)) for writer in self._writers]

    def _context(self, writer: Writer) -> Context:
        return Context(
            feed=self._feed,
            clock=self._clock,
            timing=self._timing,
            sink=writer.append,
            describe=self._collection.describe,
            report=self._heartbeat.error,
            room=lambda: writer.has_room,
            crowded=lambda: writer.crowded,
            steady=self._collection.steady,
            pour=writer.extend,
        )

    def _answering(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What runs to do what normalize wants."""
        yield self._repairs.run()
        for writer, requests in zip(self._writers, self._requests, strict=True):
            yield requests.run()
            yield Wants(writer.keys, self._open, requests.take, self._heartbeat.error, self._timing).run()

    def _budgets(self) -> dict[str, dict[str, Any]]:
        now = self._clock.monotonic()
        return {**self._rest.rows(), "connects": self._connects.row(now)}

    def _ticker(self) -> Ticker:
        pulses = [
            Pulse(sink=writer.append, connections=partition.last_frames)
            for writer, partition in zip(self._writers, self._partitions, strict=True)
        ]
        return Ticker(pulses, self._clock, self._exchange_clock, self._timing.tick, self._received)

    async def _open(self) -> Wire:
        """A connection to Redis. Raises ServerAway."""
        return await Wire.open(self._settings.redis_address(), timeout=self._timing.redis_timeout / SECOND)

    async def _open_ready(self) -> Wire:
        """A connection to a Redis that may be written to and knows our streams. Raises ServerAway, SettingsError."""
        wire = await self._open()
        try:
            await wait_ready(wire, self._settings.namespace)
            await register(wire, self._settings, self._exchange, self._feed)
        except BaseException:
            await wire.close()
            raise
        return wire

    async def _redis_there(self, stop: asyncio.Event) -> bool:
        """Waits for Redis: nothing is collected for a namespace that may refuse us. False when `stop` came first."""
        while not stop.is_set():
            try:
                await (await self._open_ready()).close()
                return True
            except ServerAway as error:
                self._heartbeat.error(str(error))
            await within(self._timing.redis_pause, stop)
        return False

    async def _prepare(self, stop: asyncio.Event) -> None:
        """Lists of instruments and the exchange's time come before the first connection, if REST gives them soon."""
        patience = self._timing.rest_patience
        until = self._clock.monotonic() + patience
        for wanted, event in (("list of instruments", self._listings.complete), ("time", self._clock_poll.measured)):
            if not await within(until - self._clock.monotonic(), event, stop):
                self._heartbeat.error(
                    f"no {wanted} of {self._exchange} after {patience / SECOND:g} s: connecting without"
                )
        if not self._listings.complete.is_set() and not stop.is_set():
            await self._remember()

    async def _remember(self) -> None:
        """An exchange that gives no list now may have given one to the process before us."""
        try:
            wire = await self._open()
            try:
                lines = await remembered(wire, self._writers[0].keys, self._feed, self._clock.now())
            finally:
                await wire.close()
        except ServerAway as error:
            self._heartbeat.error(str(error))
        else:
            self._collection.symbols.remember(lines)

    async def _collect(self, stop: asyncio.Event) -> None:
        """Keeps every connection up until `stop`."""
        async with asyncio.TaskGroup() as group:
            for partition in self._partitions:
                group.create_task(partition.run(stop))

    async def _flush(self) -> None:
        for writer, flushed in zip(self._writers, await asyncio.gather(*map(Writer.flush, self._writers)), strict=True):
            if not flushed:
                where = "on disk, for the next start" if writer.spool and writer.spool.usable else "lost"
                self._heartbeat.error(f"{writer.keys.raw}: stopped with frames that Redis did not take: {where}")

    def _everywhere(self, frame: Frame) -> None:
        for writer in self._writers:
            writer.append(frame)

    def _all(self) -> list[Connection]:
        return [connection for partition in self._partitions for connection in partition.connections]

    def _received(self) -> int:
        return sum(connection.frames for connection in self._all())

    def _observe(self) -> None:
        connections = self._all()
        self._heartbeat.counters["frames"] = self._received()
        self._heartbeat.last_data = max((connection.last_data for connection in connections), default=0) or None
        away = any(writer.away for writer in self._writers)
        wanting = connections or not self._listings.complete.is_set()
        down = wanting and not any(connection.sessions for connection in connections)
        collecting = self._heartbeat.status == "running"
        self._heartbeat.waiting_for = "redis" if away else "exchange" if collecting and down else None
        opened = sum(connection.opened for connection in connections)
        if opened != self._opened:
            self._opened = opened
            self._clock_poll.ask_again()
        self._doubt(connections)

    def _doubt(self, connections: list[Connection]) -> None:
        """Looks whether we have come to nothing."""
        now, monotonic, measured = self._clock.now(), self._clock.monotonic(), self._exchange_clock.measured
        subscribed = self._collection.kinds
        sight = Sight(
            given_up=last_given_up(connection.given_up for connection in connections),
            answered=None if measured is None else now - (monotonic - measured),
            heard=self._heartbeat.last_data or 0,
            instruments=len({subscription.instrument for subscription in subscribed}),
            steady=any(map(self._collection.steady, subscribed)),
            waiting=self._heartbeat.waiting_for is not None or self._heartbeat.status != "running",
        )
        if sight.given_up is not None:
            self._clock_poll.ask_again()
        found = self._stall.look(sight, now)
        if found is None:
            self._heartbeat.stalls.clear()
        elif not self._heartbeat.stalls:
            self._heartbeat.error(found[1])
            self._heartbeat.stalls[self._exchange] = found


def _first_leaf(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
