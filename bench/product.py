"""The whole product, its real processes from the socket to the rows, collecting from the bench's own exchange."""

import contextlib
import time
from collections.abc import Iterator

import msgspec
import psycopg
import redis.exceptions

from bench.exchange import Exchange, Printed
from bench.instance import Instance
from bench.part import Terms
from pipeline.errors import ServerAway
from pipeline.probes.redis import call
from pipeline.reports import Report, read, read_all
from pipeline.settings import ExchangeSettings, SettingsFile, TradingPair
from pipeline.timeframes import TIMEFRAMES

VENUE = "okx"
STAGES = ("store-0", "aggregate-0", "normalize-okx", "ingest-okx")
NAMES = ("ingest", "normalize", "aggregate", "store", "redis", "postgres")
"""Of its processes, as figures name them."""
SUBSCRIBING = 60.0
STUCK = 120.0
"""Seconds without a new row after which a run is given up."""
LOOK = 0.02
FIRST = 100
"""Entries that are more than the clocks and the coverage of a while: with so many the first trades are committed."""
IN_FLIGHT = 60_000
"""Trades that may be on their way from the socket to a committed row, and to aggregate's commit."""
BEFORE_NORMALIZE = 16_000
"""Of these, trades before normalize's output: ingest would put on disk what it cannot write soon (8 MiB)."""


class Look(msgspec.Struct, frozen=True):
    """A moment: monotonic seconds, trades committed, CPU seconds by process (`ingest`, `redis` …)."""

    at: float
    stored: int
    cpu: dict[str, float]


class Fed(msgspec.Struct, frozen=True):
    """What a closed loop came to: CPU in µs per trade by process, from before the first trade to the last commit;
    trades per second from the first commit to the last, from the first trade where one commit had them all."""

    us_per_trade: dict[str, float]
    trades_per_s: float


class Product:
    """Running and subscribed to everything. Counts are since it was made."""

    def __init__(self, instance: Instance, exchange: Exchange, database: psycopg.Connection[tuple[int]]) -> None:
        self.instance = instance
        self.exchange = exchange
        self._database = database
        self._stream = instance.keys(VENUE).trade
        self._before = 0
        self._normalized_before = self._aggregated_before = 0

    def begin(self) -> None:
        """What came until now (clocks, coverage) does not count."""
        self._before += self.stored()
        self._normalized_before += self.normalized()
        self._aggregated_before += self.aggregated()

    def stored(self) -> int:
        """Entries of the trade stream that are committed rows: trades, and a few control records."""
        query = b"SELECT entries FROM cursors WHERE stream = %s"
        row = self._database.execute(query, (self._stream,)).fetchone()
        return (row[0] if row else 0) - self._before

    def rows(self) -> int:
        """Committed trades, counted."""
        row = self._database.execute(b"SELECT count(*) FROM trades").fetchone()
        return row[0] if row else 0

    def normalized(self) -> int:
        """Entries that normalize has written to the trade stream."""
        try:
            flat = call(self.instance.redis, "XINFO", "STREAM", self._stream)
        except redis.exceptions.ResponseError:
            return 0
        facts = dict(zip(flat[::2], flat[1::2], strict=True))
        return int(facts[b"entries-added"]) - self._normalized_before

    def aggregated(self) -> int:
        """Entries of the trade stream that aggregate has worked on."""
        state = self.instance.keys(VENUE).state("aggregate")
        return int(call(self.instance.redis, "HGET", state, "entries_read") or 0) - self._aggregated_before

    def look(self) -> Look:
        """Now. The venue's CPU and our own are among it, under `venue` and `watch`."""
        cpu = {name.partition("-")[0]: seconds for name, seconds in self.instance.cpu().items()}
        ours = {"venue": self.exchange.told().cpu, "watch": time.process_time()}
        return Look(time.monotonic(), self.stored(), cpu | ours)

    def report(self, name: str) -> Report:
        """What the process says of itself; up to a second old."""
        return read(self.instance.settings.heartbeat_dir / name)

    def feed(self, trades: int) -> Fed:
        """Prints trades in a closed loop until that many are committed."""
        begun = self.look()
        self.exchange.allow(BEFORE_NORMALIZE)
        self.exchange.print(trades)
        first = self._until(FIRST)
        last = self._until(trades)
        since = first if last.stored > first.stored else begun
        return Fed(per_trade(begun, last), (last.stored - since.stored) / (last.at - since.at))

    def pace(self, trades: int, rate: float) -> None:
        """Prints evenly, whatever becomes of it, and returns when all is sent."""
        self.exchange.print(trades, rate)
        self.pace_out(2 * trades / rate + STUCK)

    def pace_out(self, seconds: float = STUCK) -> None:
        """Returns when all that was to be printed is sent."""
        self.instance.until(
            lambda: not self.exchange.told().printing, "the exchange to have printed all", seconds, 0.25
        )

    def settle(self) -> Printed:
        """Waits until everything that was printed is committed."""
        told = self.exchange.told()
        self._until(told.printed)
        return told

    def _until(self, wanted: int) -> Look:
        """Looks once store and aggregate have committed so many trades; lets the exchange go on meanwhile. Raises
        ServerAway."""
        newest, patience = -1, 0.0
        while (done := min(self.stored(), self.aggregated())) < wanted:
            now = time.monotonic()
            if done > newest:
                newest, patience = done, now + STUCK
            elif now > patience:
                raise ServerAway(f"{done} of {wanted} trades came through, and no more for {STUCK:g} s")
            self.instance.check()
            self.exchange.allow(min(self.normalized() + BEFORE_NORMALIZE, done + IN_FLIGHT))
            time.sleep(LOOK)
        return self.look()


@contextlib.contextmanager
def collecting(terms: Terms, instance: Instance, symbols: int) -> Iterator[Product]:
    """Everything runs, on empty servers, with all eleven time frames, and every subscription stands."""
    before = instance.settings.file
    with Exchange(symbols, terms.seed) as exchange:
        instance.reset()
        instance.change(lambda file: _collecting(file, exchange))
        try:
            with instance.running(*STAGES), instance.postgres() as database:
                instance.until(lambda: exchange.told().subscribed == symbols, "every subscription", SUBSCRIBING)
                product = Product(instance, exchange, database)
                instance.until(lambda: _ready(product), "store and aggregate", SUBSCRIBING)
                product.begin()
                yield product
        finally:
            instance.change(lambda _: before)


def per_trade(first: Look, last: Look) -> dict[str, float]:
    """CPU in µs by process for each trade committed between the two."""
    trades = last.stored - first.stored
    return {name: 1e6 * (last.cpu[name] - first.cpu[name]) / trades for name in last.cpu}


def cores(first: Look, last: Look) -> dict[str, float]:
    """Cores used between the two, by process."""
    return {name: (last.cpu[name] - first.cpu[name]) / (last.at - first.at) for name in last.cpu}


def together(by_process: dict[str, float]) -> float:
    """Of the product and its servers: neither the venue nor the bench."""
    return sum(by_process[name] for name in NAMES)


def _ready(product: Product) -> bool:
    reports = read_all(product.instance.settings.heartbeat_dir)
    return all(name in reports and reports[name].status == "running" for name in STAGES) and product.stored() > 0


def _collecting(file: SettingsFile, exchange: Exchange) -> SettingsFile:
    pairs = tuple(TradingPair(symbol=name, timeframes=TIMEFRAMES) for name in exchange.names)
    ours = ExchangeSettings(trading_pairs=pairs, ws_url=exchange.ws_url, rest_url=exchange.rest_url)
    return msgspec.structs.replace(file, exchanges={VENUE: ours})
