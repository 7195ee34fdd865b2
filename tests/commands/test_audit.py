"""`pipeline audit` over what the real stages stored of a simulated market, with the simulator's own bars by REST."""

import asyncio
import contextlib
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
import pytest
from psycopg import sql

from pipeline.commands import audit as command
from pipeline.commands._audit.database import database
from pipeline.exchanges import EXCHANGES
from pipeline.frames import ClockData, CloseData, Frame, OpenData, RawEntry, SubscriptionData, split
from pipeline.streams import READERS, Keys
from pipeline.timeframes import SECOND, TIMEFRAMES
from pipeline.wire import Wire
from simulator.rows import binance as binance_rows
from simulator.rows import okx as okx_rows
from simulator.server import Simulator, serve
from store.prepare import prepare
from tests.commands.conftest import Instance
from tests.integration.rawstream import raw_stream
from tests.integration.test_chain import aggregate, caught_up, feed, normalize, opener, running
from tests.servers import PostgresServer, RedisServer, free_port, wait_until
from tests.store.made import eventually, query, start

MINUTES = 4
STEP = SECOND // 4
DELAY = SECOND // 100
SYMBOLS = {
    "okx": ("BTC-USDT", "BTC-USDT-PERP", "BTC-USD-PERP"),
    "binance": ("BTC-USDT", "ETH-USDT"),
}
LISTS = {
    "okx": ("/api/v5/public/instruments?instType=SPOT", "/api/v5/public/instruments?instType=SWAP"),
    "binance": ("/api/v3/exchangeInfo",),
}
CHANNEL = {"okx": "trades-all", "binance": "trade"}


class Venue(NamedTuple):
    """A simulated exchange whose clock is ours, and the database of what was collected of it."""

    exchange: str
    rest_url: str
    database: str
    since: int


class Collector:
    """Writes what a connection to the simulator would bring into raw entries; time is `now`, in ns."""

    def __init__(self, exchange: str, simulator: Simulator, now: list[int]) -> None:
        self._exchange = exchange
        self._simulator = simulator
        self._now = now
        self._frames: list[Frame] = []
        self._entries: list[RawEntry] = []
        self._opened = 0

    def collect(self, minutes: int) -> list[RawEntry]:
        """Minutes of the market. Twice the connection is replaced at a moment without a trade: nothing is lost."""
        rng = random.Random(4)
        for path in LISTS[self._exchange]:
            url, _, query_text = path.partition("?")
            pairs = dict(part.split("=") for part in query_text.split("&") if part)
            body = self._simulator.dialect.respond(url, pairs, "us", self._now[0]).body
            self._add("rest", body, self._simulator.rest_url, f"{self._simulator.rest_url}{path}")
        self._open()
        for step in range(minutes * 60 * SECOND // STEP):
            if step in (300, 500):
                self._own("close", CloseData(reason="1006"))
                self._open()
            self._now[0] += STEP
            for symbol in SYMBOLS[self._exchange]:
                if rng.random() < 0.4:
                    self._print(symbol)
            heard = {self._connection: self._now[0]}
            self._own("clock", ClockData(connections=heard, offset=0, uncertainty=1_000_000), "clock")
            self._flush()
        return self._entries

    @property
    def _connection(self) -> str:
        return f"{EXCHANGES[self._exchange].ws_url}/#{self._opened}"

    def _open(self) -> None:
        self._opened += 1
        self._own("open", OpenData(url=self._connection))
        for symbol in SYMBOLS[self._exchange]:
            name = self._simulator.dialect.instrument(symbol)
            channel = CHANNEL[self._exchange]
            self._own("subscription", SubscriptionData(channel, name, "subscribed", timeframes=TIMEFRAMES))

    def _print(self, symbol: str) -> None:
        name = self._simulator.dialect.instrument(symbol)
        for order in self._simulator.print(name):
            if self._exchange == "okx":
                texts = [frame.text for frame in okx_rows.trades_all(name, order)]
            else:
                spell = binance_rows.Speller(self._simulator.market.pits[symbol].listing)
                texts = [json.dumps(binance_rows.trade(name, spell, fill)) for fill in order]
            for text in texts:
                self._add("ws", text, self._connection)

    def _own(self, kind: str, data: msgspec.Struct, conn: str | None = None) -> None:
        self._add(kind, msgspec.json.encode(data).decode(), conn or self._connection)

    def _add(self, kind: Any, data: str, conn: str, url: str | None = None) -> None:
        self._frames.append(Frame(self._now[0] + DELAY, conn, "in", kind, data, url))

    def _flush(self) -> None:
        for group in split(self._frames):
            self._entries.append(RawEntry(self._now[0] // (1 << 62) + 1, len(self._entries) + 1, group))
        self._frames = []


def collected(exchange: str, raw: list[RawEntry], database_url: str, folder: Path) -> None:
    """The raw entries through normalize, aggregate and store, over a real Redis into the database."""
    prepare(database_url)
    redis = RedisServer().start()
    keys = Keys("md", exchange)

    async def run() -> None:
        await feed(redis.url, keys, raw)
        for stage, name in ((normalize, "normalize"), (aggregate, "aggregate")):
            async with running(folder, stage, keys, opener(redis.url), 1_000):
                await caught_up(redis.url, keys, name)
        wire = await Wire.open(redis.url)
        streams = [keys.stream(kind) for kind, readers in READERS.items() if "store" in readers]
        written = await wire.call(*(("XREVRANGE", stream, "+", "-", "COUNT", 1) for stream in streams))
        await wire.close()
        store = start(redis.url, database_url, folder, keys=keys)
        for stream, last in zip(streams, written, strict=True):
            wanted = last[0][0].decode() if last else "0-0"
            await eventually(
                database_url, f"SELECT coalesce((SELECT id FROM cursors WHERE stream = '{stream}'), '0-0')", wanted
            )
        await store.finish()

    try:
        asyncio.run(run())
    finally:
        redis.remove()


@pytest.fixture(scope="module", params=list(SYMBOLS))
def venue(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Venue]:
    """Everything came, nothing is wrong. The simulator stays, for its bars."""
    exchange: str = request.param
    minute = 60 * SECOND
    now = [time.time_ns() // minute * minute - (MINUTES + 2) * minute]
    since, made, stop, begun = now[0], list[tuple[str, list[RawEntry]]](), asyncio.Event(), threading.Event()
    loop = asyncio.new_event_loop()

    async def simulate() -> None:
        async with serve(exchange=exchange, rate=0, limits=20, clock=lambda: now[0]) as simulator:
            made.append((simulator.rest_url, Collector(exchange, simulator, now).collect(MINUTES)))
            begun.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(simulate(),))
    thread.start()
    database = f"audit_{exchange}"
    try:
        assert begun.wait(60)
        rest_url, raw = made[0]
        collected(exchange, raw, postgres_server.create_database(database), tmp_path_factory.mktemp("hb"))
        yield Venue(exchange, rest_url, database, since)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
        postgres_server.drop_database(database)


class Copy:
    """A database of one's own with what was collected, and the command on it."""

    def __init__(self, instance: Instance, venue: Venue, url: str) -> None:
        self.instance = instance
        self.url = url
        self.exchange = venue.exchange
        self._since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(venue.since // SECOND - 3600))

    def run(self, *arguments: str) -> Any:
        return self.instance.run("audit", "--from", self._since, *arguments)

    def found(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and document."""
        result = self.run("--json", *arguments)
        assert result.exit_code in (0, 1), result.output
        return result.exit_code, json.loads(result.stdout)

    def change(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def drop(self, kind: str, day: datetime) -> None:
        """Again while autovacuum is at work there."""
        for _ in range(50):
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                assert self.change("SELECT drop_partition(%s, %s)", kind, day) == [(None,)]
                return
        raise AssertionError("it is in use all the time")

    def number(self, symbol: str) -> int:
        return int(self.change("SELECT instrument_id(%s, %s)", self.exchange, symbol)[0][0])


@pytest.fixture
def copy(
    away: Instance, venue: Venue, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Copy]:
    monkeypatch.setattr(command, "SECOND_LOOK", 0.0)
    name = f"{venue.database}_copy"
    server = postgres_server.url
    with psycopg.connect(server, autocommit=True) as connection:
        template = sql.Identifier(venue.database)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), template))
    away.environment["DATABASE_URL"] = server.rpartition("/")[0] + f"/{name}"
    collected_from = {venue.exchange: {"trading_pairs": [{"symbol": "BTC-USDT"}], "rest_url": venue.rest_url}}
    away.write(exchanges=collected_from, simulated=True, redis={"namespace": "sim"})
    yield Copy(away, venue, away.environment["DATABASE_URL"])
    postgres_server.drop_database(name)


def test_what_is_whole_is_0(copy: Copy) -> None:
    code, found = copy.found("--require-klines")
    assert code == 0
    assert found["good"]
    assert {one["symbol"] for one in found["symbols"]} == set(SYMBOLS[copy.exchange])
    assert (found["missing"], found["duplicates"], found["candles_wrong"], found["bars_wrong"]) == (0, 0, 0, 0)
    # Longer windows may have opened before what is audited.
    counts = "SELECT (SELECT count(*) FROM trades), (SELECT count(*) FROM candles WHERE open_time >= %s)"
    assert [(found["trades"], found["candles"])] == copy.change(counts, found["from"])
    for one in found["symbols"]:
        assert one["expected"] == one["stored"] == one["trades"] > 300
        assert {"1s", "1m"} <= set(one["candles"])
        assert one["bars_rest"]["compared"] >= MINUTES - 2, "the first minute is partial, the last one open"
        assert one["bars_rest"]["unasked"] is None


def test_people_see_a_table(copy: Copy) -> None:
    result = copy.run()
    assert result.exit_code == 0
    assert "missing    nothing" in result.stdout
    assert "by REST" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stderr == ""


def test_a_deleted_trade_and_an_altered_candle_are_named(copy: Copy) -> None:
    """The bar of its minute then is not ours either."""
    deleted, other = copy.number("BTC-USDT"), copy.number(SYMBOLS[copy.exchange][1])
    ((sequence,),) = copy.change(
        "DELETE FROM trades WHERE (instrument_id, time, sequence, epoch) = (SELECT instrument_id, time, sequence, epoch"
        " FROM trades WHERE instrument_id = %s ORDER BY time OFFSET 200 LIMIT 1) RETURNING sequence",
        deleted,
    )
    ((altered,),) = copy.change(
        "UPDATE candles SET volume = volume + 1 WHERE (instrument_id, timeframe, open_time) = (SELECT instrument_id,"
        " timeframe, open_time FROM candles WHERE instrument_id = %s AND timeframe = '1m' AND quality = 'complete'"
        " ORDER BY open_time LIMIT 1) RETURNING open_time",
        other,
    )
    code, found = copy.found()
    assert code == 1
    by_symbol = {one["symbol"]: one for one in found["symbols"]}
    one = by_symbol["BTC-USDT"]
    (hole,) = one["holes"]
    assert (hole["from_sequence"], hole["to_sequence"], hole["state"]) == (sequence, sequence, "unexplained")
    assert one["expected"] == one["stored"] + 1
    # Every frame's window that held it, as far as they had ended.
    assert set(one["candles_wrong"]) >= {"1s", "5s", "10s", "15s", "30s", "1m"}
    assert set(one["candles_wrong"].values()) == {1}
    two = by_symbol[SYMBOLS[copy.exchange][1]]
    (fault,) = two["wrong_candles"]
    assert (fault["timeframe"], fault["kind"], set(fault["fields"])) == ("1m", "wrong_candle", {"volume"})
    assert fault["open_time"] == altered.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    (bar,) = two["wrong_bars"]
    assert (bar["source"], bar["timeframe"], set(bar["fields"])) == ("rest", "1m", {"volume"})
    shown = " ".join(copy.run().stdout.split())
    assert f"missing trade {sequence}, between" in shown
    assert f"candle 1m {altered:%Y-%m-%d %H:%M:%S}: volume" in shown


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ("DELETE FROM candles WHERE {window}", "missing_candle", "no candle, and"),
        ("UPDATE candles SET quality = 'partial', missing = 5 WHERE {window}", "wrong_quality", "lacks no trade"),
        ("UPDATE candles SET missing = 5 WHERE {window}", "wrong_quality", "misses 5 ns"),
        ("UPDATE candles SET quality = 'quiet' WHERE {window}", "wrong_quality", "quiet with"),
        ("UPDATE candles SET close_time = close_time + interval '1 s' WHERE {window}", "wrong_candle", "not a window"),
        ("UPDATE candles SET last_id = first_id WHERE {window}", "wrong_candle", "last_id"),
    ],
)
def test_whatever_is_wrong_with_a_candle_is_said(copy: Copy, change: str, kind: str, words: str) -> None:
    window = (
        "(instrument_id, timeframe, open_time) = (SELECT instrument_id, timeframe, open_time FROM candles WHERE"
        f" instrument_id = {copy.number('BTC-USDT')} AND timeframe = '30s' AND trades_count > 1 ORDER BY open_time"
        " OFFSET 2 LIMIT 1)"
    )
    copy.change(change.format(window=window))
    code, found = copy.found("--symbol", "btc-usdt", "--no-klines")
    assert code == 1
    (fault,) = found["symbols"][0]["wrong_candles"]
    assert (fault["timeframe"], fault["kind"]) == ("30s", kind)
    assert words in fault["reason"]


def test_a_candle_that_tells_of_trades_that_are_not_stored(copy: Copy) -> None:
    """All trades of a window are gone, with the ledger's knowledge."""
    number = copy.number("BTC-USDT")
    ((start_of, sequences),) = copy.change(
        "SELECT c.open_time, array_agg(t.sequence) FROM candles c JOIN trades t ON t.instrument_id = c.instrument_id"
        " AND t.time >= c.open_time AND t.time < c.close_time WHERE c.instrument_id = %s AND c.timeframe = '5s'"
        " GROUP BY c.open_time ORDER BY c.open_time OFFSET 5 LIMIT 1",
        number,
    )
    low, high = min(sequences), max(sequences)
    copy.change("DELETE FROM trades WHERE instrument_id = %s AND sequence BETWEEN %s AND %s", number, low, high)
    copy.change(
        "INSERT INTO trade_gaps SELECT %s, 0, %s, %s, max(t.time) FILTER (WHERE t.sequence < %s), min(t.time) FILTER"
        " (WHERE t.sequence > %s), 'sequence', 'opened', NULL, 0, int8multirange(int8range(%s, %s + 1)), now(), now(),"
        " now(), 1, 1 FROM trades t WHERE t.instrument_id = %s",
        *(number, low, high, low, high, low, high, number),
    )
    code, found = copy.found("--symbol", "BTC-USDT", "--no-klines")
    assert code == 1
    one = found["symbols"][0]
    assert one["missing"] == {"open": high - low + 1, "unrecoverable": 0, "unexplained": 0}
    assert one["gaps"]["open"] == 1
    wrong = {(fault["timeframe"], fault["open_time"]): fault for fault in one["wrong_candles"]}
    fault = wrong["5s", start_of.strftime("%Y-%m-%dT%H:%M:%S.000000Z")]
    assert fault["fields"]["trades_count"] == {"stored": high - low + 1, "expected": 0}


def test_numbers_lost_for_good_may_be_accepted(copy: Copy) -> None:
    """And candles that are partial for them are right."""
    number = copy.number("BTC-USDT")
    ((sequence, at),) = copy.change(
        "DELETE FROM trades WHERE (instrument_id, time, sequence, epoch) = (SELECT instrument_id, time, sequence, epoch"
        " FROM trades WHERE instrument_id = %s ORDER BY time OFFSET 100 LIMIT 1) RETURNING sequence, time",
        number,
    )
    copy.change(
        "INSERT INTO trade_gaps VALUES (%s, 0, %s, %s, %s, %s, 'sequence', 'closed', 'unrecoverable: gone', 0,"
        " int8multirange(int8range(%s, %s + 1)), now(), now(), now(), 1, 1)",
        *(number, sequence, sequence, at, at, sequence, sequence),
    )
    # As store would write them again: partial, of the trades that are there.
    copy.change(
        "UPDATE candles c SET quality = t.quality, missing = t.missing, open = t.open, high = t.high, low = t.low,"
        " close = t.close, volume = t.volume, quote_volume = t.quote_volume, buy_volume = t.buy_volume,"
        " buy_quote_volume = t.buy_quote_volume, contracts = t.contracts, trades_count = t.trades_count,"
        " first_id = t.first_id, last_id = t.last_id"
        " FROM (SELECT DISTINCT timeframe FROM candles) f (n)"
        " CROSS JOIN LATERAL candles_of_trades(%s, f.n, %s::timestamptz - interval '1 day', %s::timestamptz"
        " + interval '1 day') t"
        " WHERE c.instrument_id = %s AND c.timeframe = f.n AND c.open_time = t.open_time AND t.quality = 'partial'",
        *(number, at, at, number),
    )
    code, found = copy.found("--no-klines", "--accept-unrecoverable", "--symbol", "BTC-USDT")
    one = found["symbols"][0]
    assert one["wrong_candles"] == []
    assert one["holes"][0]["reason"] == "unrecoverable: gone"
    assert code == 0
    assert copy.found("--no-klines", "--symbol", "BTC-USDT")[0] == 1
    assert "lost for good: unrecoverable: gone" in " ".join(copy.run("--no-klines").stdout.split())


def test_a_trade_stored_twice_is_named_though_on_two_days(copy: Copy) -> None:
    number = copy.number("BTC-USDT")
    copy.change("SELECT make_partition('trades', (SELECT min(time) FROM trades) - interval '1 day')")
    ((sequence,),) = copy.change(
        "INSERT INTO trades SELECT time - interval '1 day', received, sequence, first_sequence, instrument_id, epoch,"
        " fills, repaired, side, price, size, contracts, id, conditions FROM trades WHERE instrument_id = %s"
        " ORDER BY time OFFSET 50 LIMIT 1 RETURNING sequence",
        number,
    )
    result = copy.instance.run("audit", "--json", "--no-klines", "--symbol", "BTC-USDT", "--from", "yesterday")
    found = json.loads(result.stdout)["symbols"][0]
    assert result.exit_code == 1
    assert found["duplicates"] == 1
    (twice,) = found["stored_twice"]
    assert (twice["from_sequence"], twice["to_sequence"], len(twice["times"])) == (sequence, sequence, 2)
    assert found["holes"] == [], "the numbers between are stored on the other day"


def test_a_ledger_that_lacks_what_is_stored_is_wrong(copy: Copy) -> None:
    number = copy.number("BTC-USDT")
    copy.change(
        "INSERT INTO trade_gaps SELECT instrument_id, epoch, sequence, sequence, time, time, 'sequence', 'opened',"
        " NULL, 0, int8multirange(int8range(sequence, sequence + 1)), now(), now(), now(), 1, 1 FROM trades"
        " WHERE instrument_id = %s ORDER BY time OFFSET 60 LIMIT 1",
        number,
    )
    code, found = copy.found("--no-klines", "--symbol", "BTC-USDT")
    assert code == 1
    assert [entry["stored"] for entry in found["symbols"][0]["ledger_wrong"]] == [1]


def test_stored_bars_are_compared_too(copy: Copy) -> None:
    number = copy.number("BTC-USDT")
    copy.change("SELECT make_partition('klines_minutes', time) FROM trades")
    copy.change(
        "INSERT INTO klines SELECT open_time, close_time, received, NULL, NULL, 1, 1, instrument_id, timeframe, open,"
        " high, low, close, volume, NULL, NULL, NULL, NULL, NULL, NULL FROM candles"
        " WHERE instrument_id = %s AND timeframe = '1m' AND quality = 'complete'",
        number,
    )
    code, found = copy.found("--no-klines", "--symbol", "BTC-USDT")
    stored = found["symbols"][0]["bars_stored"]
    assert (code, stored["wrong"]) == (0, 0)
    assert stored["compared"] >= MINUTES - 2
    copy.change("UPDATE klines SET low = low - 1 WHERE open_time = (SELECT max(open_time) FROM klines)")
    code, found = copy.found("--no-klines", "--symbol", "BTC-USDT")
    assert code == 1
    (fault,) = found["symbols"][0]["wrong_bars"]
    assert (fault["source"], set(fault["fields"])) == ("stored", {"low"})


def test_an_exchange_that_is_away_is_said(copy: Copy) -> None:
    pairs = {"trading_pairs": [{"symbol": "BTC-USDT"}], "rest_url": f"http://127.0.0.1:{free_port()}"}
    copy.instance.write(exchanges={copy.exchange: pairs}, simulated=True, redis={"namespace": "sim"})
    code, found = copy.found()
    assert code == 0
    assert {"127.0.0.1" in one["bars_rest"]["unasked"] for one in found["symbols"]} == {True}
    assert copy.found("--require-klines")[0] == 1
    assert "not asked: http://127.0.0.1" in " ".join(copy.run().stdout.split())


def test_the_sql_gives_the_same_in_any_client(copy: Copy) -> None:
    explained = copy.run("--explain", "--symbol", "BTC-USDT")
    assert explained.exit_code == 0
    statements = [part.partition("\n")[2] for part in explained.stdout.split("-- ") if part.strip()]
    titles = [part.partition("\n")[0] for part in explained.stdout.split("-- ") if part.strip()]
    _, found = copy.found("--no-klines", "--symbol", "BTC-USDT")
    digests = [query(copy.url, text)[0] for title, text in zip(titles, statements, strict=True) if "digest" in title]
    days = found["symbols"][0]["days"]
    assert [tuple(day[name] for name in ("trades", "first", "last", "digest")) for day in days] == digests
    assert sum(row[0] for row in digests) == found["trades"]
    assert len(statements) == len(days) + 3 + len(TIMEFRAMES)
    for text in statements:
        query(copy.url, text)


def test_only_what_is_asked_for(copy: Copy) -> None:
    _, found = copy.found("--no-klines", "--symbol", SYMBOLS[copy.exchange][1])
    assert [one["symbol"] for one in found["symbols"]] == [SYMBOLS[copy.exchange][1]]
    result = copy.run("--no-klines", "--symbol", "NOPE")
    assert (result.exit_code, "nothing was ever collected of 'NOPE'" in result.stderr) == (2, True)
    result = copy.instance.run("audit", "--no-klines", "--day", "2020-01-01")
    assert result.exit_code == 0, result.output
    assert "0 trades, 0 candles" in result.stdout


def test_every_field_is_documented(copy: Copy) -> None:
    copy.change("DELETE FROM candles WHERE timeframe = '10s'")
    _, found = copy.found()
    section = (Path(__file__).parents[2] / "docs" / "status.md").read_text().split("## `audit --json`")[1]
    assert all(f"`{name}`" in section for name in found if name != "symbols")
    for one in found["symbols"]:
        assert all(f"`symbols[].{name}" in section for name in one)
        names = {*one["wrong_candles"][0], *one["bars_rest"], *one["gaps"]} - {"fields"}
        assert all(f"`{name}`" in section for name in names)


def test_a_messy_stream_has_holes_and_no_wrong_candle(
    away: Instance, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuts, losses, late trades, new writers: candles are partial exactly where the ledger and SQL say so."""
    monkeypatch.setattr(command, "SECOND_LOOK", 0.0)
    collected("okx", raw_stream(3, 60), database_url, tmp_path)
    away.environment["DATABASE_URL"] = database_url
    result = away.run("audit", "--json", "--no-klines", "--from", "2027-01-15", "--to", "2027-01-16")
    found = json.loads(result.stdout)
    assert found["candles"] > 200
    ((named,),) = query(
        database_url,
        "SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM trade_gaps, unnest(remaining) AS r",
    )
    assert found["missing"] == named > 0
    assert result.exit_code == 1
    assert sum(one["missing"]["unexplained"] for one in found["symbols"]) == 0
    assert [fault for one in found["symbols"] for fault in one["wrong_candles"]] == []
    qualities = dict(query(database_url, "SELECT quality, count(*) FROM candles GROUP BY quality"))
    assert qualities["partial"] > 5
    assert qualities["complete"] > 20


def test_postgres_away_is_3(away: Instance) -> None:
    result = away.run("audit", "--no-klines")
    assert result.exit_code == 3
    assert result.stderr.startswith("pipeline: Postgres does not answer")
    assert result.stderr.count("\n") == 1


def test_a_database_without_the_schema_is_no_clean_bill(away: Instance, database_url: str) -> None:
    away.environment["DATABASE_URL"] = database_url
    result = away.run("audit")
    assert result.exit_code == 1
    assert "store has not run on it" in result.stderr


def test_nothing_collected_is_no_clean_bill(away: Instance, database_url: str) -> None:
    away.environment["DATABASE_URL"] = database_url
    prepare(database_url)
    result = away.run("audit")
    assert (result.exit_code, result.stdout) == (1, "nothing was collected in this time\n")


def test_an_interrupt_ends_it_at_once(away: Instance, database_url: str) -> None:
    """While Postgres works on an answer; nobody goes on working on it."""
    away.environment["DATABASE_URL"] = database_url
    prepare(database_url)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pipeline-cli'"
    with psycopg.connect(database_url) as connection:
        connection.execute("LOCK TABLE trades")
        process = away.start("audit", "--no-klines")
        locked = f"{waiting} AND datname = current_database() AND wait_event_type = 'Lock'"
        wait_until(lambda: query(database_url, locked) == [(1,)], "the audit to wait for the table")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, output, errors.strip()) == (130, "", "")
        wait_until(lambda: query(database_url, f"{waiting} AND datname = current_database()") == [(0,)], "its end")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--day", "20-11-2026"], "--day '20-11-2026' is no day"),
        (["--day", "today", "--from", "2026-11-20"], "a range of its own"),
        (["--to", "2026-11-20"], "--to needs --from"),
        (["--from", "noon"], "--from 'noon' is no time"),
        (["--from", "2026-11-21", "--to", "2026-11-20"], "is not before"),
        (["--exchange", "okk"], "did you mean 'okx'?"),
        (["--no-klines", "--require-klines"], "contradict each other"),
        (["--kline-timeframe", "2m"], "is not one of"),
    ],
)
def test_wrong_usage_is_2(away: Instance, arguments: list[str], words: str) -> None:
    result = away.run("audit", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def midnight(copy: Copy) -> Any:
    """The day of the first trade; the test's trades may lie on two days."""
    return copy.change("SELECT date_trunc('day', min(time) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' FROM trades")[0][0]


def yesterday(copy: Copy) -> Any:
    """All that was collected once more, a day earlier, as if collecting had gone on; without a loss."""
    start = midnight(copy)
    copy.change("SELECT make_partition('trades', %s - interval '1 day')", start)
    copy.change("SELECT make_partition('candles_seconds', %s - interval '1 day')", start)
    copy.change("SELECT make_partition('candles_minutes', %s - interval '1 day')", start)
    copy.change(
        "INSERT INTO trades SELECT time - interval '1 day', received, sequence - 1000000, first_sequence - 1000000,"
        " instrument_id, epoch, fills, repaired, side, price, size, contracts, id, conditions FROM trades"
        " WHERE time < %s + interval '1 day'",
        start,
    )
    copy.change("UPDATE coverage SET time = time - interval '1 day' WHERE state = 'covered'")
    return start


def test_days_that_were_dropped_are_said_and_no_finding(copy: Copy) -> None:
    """Neither the numbers between the days nor the candles of the dropped one."""
    start = yesterday(copy)
    before = copy.instance.run("audit", "--json", "--no-klines", "--from", "yesterday")
    assert before.exit_code == 1, "the numbers between the days are missing, and the candles of yesterday"
    copy.drop("trade", start - timedelta(days=1))
    # A late trade makes the day again, half empty.
    copy.change("SELECT make_partition('trades', %s - interval '1 day')", start)
    copy.change(
        "INSERT INTO trades SELECT time - interval '1 day', received, sequence - 2000000, NULL, instrument_id, epoch,"
        " 1, repaired, side, price, size, contracts, id, conditions FROM trades ORDER BY time LIMIT 1"
    )
    result = copy.instance.run("audit", "--json", "--no-klines", "--from", "yesterday")
    found = json.loads(result.stdout)
    assert (found["missing"], found["candles_wrong"], found["good"]) == (0, 0, True), found
    assert result.exit_code == 0
    for one in found["symbols"]:
        first, *others = one["days"]
        assert [first["kept"], *(day["kept"] for day in others)] == [False, *[True] * len(others)]
        (gone,) = one["not_kept"]
        assert (gone["kind"], gone["to"]) == ("trade", start.strftime("%Y-%m-%dT00:00:00.000000Z"))
    shown = " ".join(copy.instance.run("audit", "--no-klines", "--from", "yesterday").stdout.split())
    assert "not kept trade: " in shown


def test_where_no_day_is_kept_nothing_is_proven(copy: Copy) -> None:
    days = copy.change("SELECT from_time FROM partitions WHERE kind = 'trade'")
    copy.change("UPDATE trade_gaps SET received = received - interval '2 hours'")
    for (day,) in days:
        copy.drop("trade", day)
    code, found = copy.found("--no-klines")
    assert (code, found["good"], found["missing"], found["candles_wrong"]) == (1, False, 0, 0)
    assert "proven nothing: no day of this is kept" in " ".join(copy.run("--no-klines").stdout.split())


def test_candles_that_were_dropped_are_not_missed_and_bars_are_compared_all_the_same(copy: Copy) -> None:
    copy.change("UPDATE trade_gaps SET received = received - interval '2 hours'")
    for (day,) in copy.change("SELECT from_time FROM partitions WHERE kind = 'candle_seconds'"):
        copy.drop("candle_seconds", day)
    code, found = copy.found("--require-klines")
    assert code == 0
    for one in found["symbols"]:
        assert not {"1s", "30s"} & set(one["candles"])
        assert one["candles"]["1m"] >= MINUTES - 1
        assert one["bars_rest"]["compared"] >= MINUTES - 2
        assert {gone["kind"] for gone in one["not_kept"]} == {"candle_seconds"}


def test_what_is_being_audited_is_not_dropped_meanwhile(copy: Copy) -> None:
    """An older snapshot would see neither the trades nor that they were dropped."""
    copy.change("UPDATE trade_gaps SET received = received - interval '2 hours'")
    start = midnight(copy)
    with database(copy.instance.settings) as opened, opened.snapshot():
        with pytest.raises(psycopg.errors.LockNotAvailable):
            copy.change("SELECT drop_partition('trade', %s)", start)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            copy.change("SELECT drop_partition('candle_seconds', %s)", start)
    copy.drop("trade", start)


def test_a_trade_under_two_epochs_is_stored_twice(copy: Copy) -> None:
    """As if normalize had forgotten that the numbers had begun again."""
    copy.change(
        "INSERT INTO trades SELECT (jsonb_populate_record(t, '{\"epoch\": 7}')).* FROM trades t"
        " WHERE instrument_id = %s ORDER BY time DESC LIMIT 3",
        copy.number("BTC-USDT"),
    )
    code, found = copy.found("--no-klines", "--symbol", "BTC-USDT")
    assert (code, found["duplicates"]) == (1, 3)
    assert {len(twice["times"]) for twice in found["symbols"][0]["stored_twice"]} == {2}


def hushed(copy: Copy, symbol: str) -> int:
    """The instrument was silent for four minutes; every candle is what its trades make of it."""
    number = copy.number(symbol)
    times = "SELECT time FROM trades WHERE instrument_id = %s ORDER BY time OFFSET 150 LIMIT 1"
    ((until,),) = copy.change(times, number)
    earlier = "time = time - interval '4 minutes' WHERE instrument_id = %s"
    copy.change(f"UPDATE trades SET {earlier} AND time <= %s", number, until)
    copy.change(f"UPDATE coverage SET {earlier}", number)
    copy.change("DELETE FROM candles WHERE instrument_id = %s", number)
    for parent in ("trades", "candles_minutes", "candles_seconds"):
        copy.change(f"SELECT make_partition('{parent}', min(time)) FROM trades")
    for timeframe in TIMEFRAMES:
        copy.change(
            "INSERT INTO candles SELECT t.open_time, t.close_time, now(), t.missing, t.trades_count, 1, 1, %s, 0, %s,"
            " t.quality, t.open, t.high, t.low, t.close, t.volume, t.quote_volume, t.buy_volume, t.buy_quote_volume,"
            " t.contracts, t.first_id, t.last_id"
            " FROM candles_of_trades(%s, %s, now() - interval '1 day', now() + interval '1 hour') AS t"
            " WHERE t.quality <> 'quiet' OR %s",
            *(number, timeframe, number, timeframe, not timeframe.endswith("s")),
        )
    return number


def test_a_candle_without_trades_is_missed_where_others_have_one(copy: Copy) -> None:
    """Below a minute there are none, by the settings: there nobody misses them."""
    number = hushed(copy, "BTC-USDT")
    asked = ("--no-klines", "--symbol", "BTC-USDT")
    assert copy.found(*asked)[0] == 0
    ((deleted,),) = copy.change(
        "DELETE FROM candles WHERE (instrument_id, timeframe, open_time) = (SELECT instrument_id, timeframe, open_time"
        " FROM candles WHERE instrument_id = %s AND timeframe = '1m' AND quality = 'quiet' ORDER BY open_time"
        " OFFSET 1 LIMIT 1) RETURNING open_time",
        number,
    )
    code, found = copy.found(*asked)
    assert code == 1
    (fault,) = found["symbols"][0]["wrong_candles"]
    assert (fault["timeframe"], fault["kind"]) == ("1m", "missing_candle")
    assert fault["open_time"] == deleted.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    assert fault["reason"] == "no candle, and surely there was no trade"
