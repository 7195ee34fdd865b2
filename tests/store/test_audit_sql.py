"""Candles from stored trades in SQL: equal to the plainest arithmetic, and read by index ranges of their days."""

import random
from collections.abc import Iterator
from decimal import Decimal, localcontext
from typing import Any

import psycopg
import pytest

from pipeline.records import Candle, Coverage, Gap, Trade
from pipeline.timeframes import DAY, MINUTE, SECOND, TIMEFRAMES, WIDTHS
from store.prepare import prepare
from tests.servers import PostgresServer
from tests.store.made import candle, clock, coverage, gap, query, ready, trade, write
from tests.store.test_database_page import PAGE, nodes

MIDNIGHT = 1_790_035_200 * SECOND
"""2026-09-22 00:00 UTC."""
COLUMNS = (
    "open, high, low, close, volume, quote_volume, buy_volume, buy_quote_volume, contracts, trades_count, first_id,"
    " last_id"
)
Window = tuple[Any, ...]


def at(seconds: float) -> int:
    return MIDNIGHT + round(seconds * 1_000) * 1_000_000


def made(sequence: int, seconds: float, **fields: Any) -> Trade:
    return trade(sequence, time=at(seconds), received=at(seconds) + 5_000_000, **fields)


def seen(seconds: float, until: float) -> list[Any]:
    """Coverage from `seconds` on, and a clock that proves it up to 3 s before `until`."""
    return [coverage("covered", at(seconds)), clock(at(until))]


def minute(seconds: float, **fields: Any) -> Candle:
    """A stored candle of the minute that opens then."""
    end = at(seconds + 60)
    return candle(0, open_time=at(seconds), close_time=end, time=end, received=end + SECOND, **fields)


def windows(url: str, timeframe: str, start: float, end: float, columns: str = COLUMNS) -> dict[float, Window]:
    """Seconds after midnight at which a window opens, to what is said of it."""
    rows = query(
        url,
        f"SELECT extract(epoch FROM open_time)::float8 - {MIDNIGHT // SECOND}, {columns}"
        " FROM candles_of_trades(instrument_id('okx', 'BTC-USDT'), %s, exact_time(%s), exact_time(%s))",
        *(timeframe, at(start), at(end)),
    )
    return {row[0]: row[1:] for row in rows}


def qualities(url: str, timeframe: str, start: float, end: float) -> dict[float, Window]:
    return windows(url, timeframe, start, end, "quality, missing")


def plain(trades: list[Trade], timeframe: str) -> dict[float, Window]:
    """What the windows with trades must say, worked out in the plainest way."""
    grouped: dict[int, list[Trade]] = {}
    for one in sorted(trades, key=lambda one: (one.time or 0, one.sequence, one.epoch)):
        assert one.time is not None
        grouped.setdefault(one.time // WIDTHS[timeframe] * WIDTHS[timeframe], []).append(one)
    found = {}
    for opened, inside in grouped.items():
        prices = [Decimal(one.price) for one in inside]
        bought = [one for one in inside if one.side == "buy"]
        contracts = [Decimal(one.contracts) for one in inside if one.contracts is not None]
        found[(opened - MIDNIGHT) / SECOND] = (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
            sum(Decimal(one.size) for one in inside),
            sum(Decimal(one.price) * Decimal(one.size) for one in inside),
            sum((Decimal(one.size) for one in bought), Decimal(0)),
            sum((Decimal(one.price) * Decimal(one.size) for one in bought), Decimal(0)),
            sum(contracts) if contracts else None,
            sum(one.fills for one in inside),
            inside[0].id,
            inside[-1].id,
        )
    return found


def any_trades(rng: random.Random, count: int) -> list[Trade]:
    """Over two days in bursts, many at the same time; prices and sizes of any scale, some rows of several fills."""
    found, moment = [], 3_000.0
    for number in range(count):
        moment += rng.choice((0, 0, 0.001, 0.4, 3, 700))
        spelling = rng.choice(("{:.1f}", "{:.8f}", "{:.3f}"))
        fills = rng.choice((1, 1, 1, 4))
        found.append(
            made(
                10 * number + 10,
                moment,
                id=f"n{number}",
                first_sequence=10 * number + 11 - fills if fills > 1 else None,
                fills=fills,
                price=spelling.format(rng.uniform(0.1, 90_000)),
                size=rng.choice(("0.00000001", "123456789.12345678", "1", "2.50", "0")),
                side=rng.choice(("buy", "sell")),
                contracts=rng.choice((None, "3", "0.5")),
                epoch=rng.choice((0, 0, 1)),
            )
        )
    return found


async def test_every_frame_is_what_plain_arithmetic_makes_of_the_trades(database_url: str) -> None:
    trades = any_trades(random.Random(5), 900)
    mixed = random.Random(6).sample(trades, len(trades))
    await write(database_url, *mixed)
    assert (trades[-1].time or 0) > MIDNIGHT + DAY
    for timeframe in TIMEFRAMES:
        found = windows(database_url, timeframe, -86_400, 4 * 86_400)
        # Nothing was ever covered: no window without trades is known to have had none.
        with localcontext(prec=60):
            assert found == plain(trades, timeframe), timeframe
    assert set(query(database_url, "SELECT quality FROM candles_of_trades(1, '1m', '2026-09-21Z', '2026-09-26Z')")) == {
        ("partial",)
    }


async def test_windows_are_whole_wherever_the_range_ends(database_url: str) -> None:
    await write(database_url, *[made(number, number * 10) for number in range(1, 60)])
    whole = windows(database_url, "1m", 0, 600)
    assert windows(database_url, "1m", 60, 61) == {60.0: whole[60]}
    assert windows(database_url, "1m", 60.001, 180) == {120.0: whole[120]}
    assert windows(database_url, "1m", 59.999, 120.001) == {60.0: whole[60], 120.0: whole[120]}
    assert windows(database_url, "1m", 61, 119) == {}
    assert query(database_url, "SELECT first_open('4h', '2026-11-20 00:00Z') = '2026-11-20 00:00Z'") == [(True,)]
    assert query(database_url, "SELECT first_open('1d', '2026-11-20 00:00:01Z') = '2026-11-21 00:00Z'") == [(True,)]


async def test_windows_without_trades_are_quiet_where_that_is_known(database_url: str) -> None:
    """Between trades the numbers prove it, after the last one the connection; the close is the one before."""
    trades = [made(1, 61, price="10"), made(2, 61, price="11"), made(3, 250, price="12")]
    await write(database_url, *trades, *seen(30, 424))
    found = windows(database_url, "1m", 0, 900, "quality, missing, close, volume, trades_count, contracts, first_id")
    quiet = ("quiet", 0)
    assert found == {
        60.0: ("complete", 0, 11, 1, 2, None, "1"),
        120.0: (*quiet, 11, 0, 0, None, None),
        180.0: (*quiet, 11, 0, 0, None, None),
        240.0: ("complete", 0, 12, Decimal("0.5"), 1, None, "3"),
        300.0: (*quiet, 12, 0, 0, None, None),
        # Known up to 420 s: a second short of the next window would not do.
        360.0: (*quiet, 12, 0, 0, None, None),
    }
    # The trade before the range tells the close.
    assert set(windows(database_url, "1m", 120, 240)) == {120.0, 180.0}
    seconds = qualities(database_url, "1s", 60, 300)
    assert len(seconds) == 239
    assert sum(said == quiet for said in seconds.values()) == 237


async def test_without_trades_the_stored_candle_before_tells_the_close(database_url: str) -> None:
    """Trades of long ago may be gone."""
    before = minute(0, close="64000.7")
    await write(database_url, before, *seen(30, 424))
    assert windows(database_url, "1m", 60, 120, "quality, close") == {60.0: ("quiet", Decimal("64000.7"))}


async def test_a_time_that_is_not_known_makes_no_quiet_window_but_a_stored_one_partial(database_url: str) -> None:
    stored = minute(600, quality="quiet")
    await write(database_url, made(1, 40), *seen(30, 124), stored)
    assert qualities(database_url, "1m", 0, 1_200) == {
        0.0: ("partial", 30 * SECOND),
        60.0: ("quiet", 0),
        600.0: ("partial", MINUTE),
    }


def hole(state: str, remaining: list[list[int]], repaired: int = 0, **fields: Any) -> Gap:
    """Numbers 10 … 19 are missing, between 100 s and 200 s."""
    times = {"from_time": at(100), "to_time": at(200), "time": at(200), "received": at(200)}
    return gap(state=state, remaining=remaining, repaired=repaired, **times, **fields)


AROUND = [made(9, 100), made(20, 200), made(21, 400)]


@pytest.mark.parametrize(
    ("entry", "more", "missing"),
    [
        (hole("opened", [[10, 19]]), [], {60: 20, 120: 60, 180: 20}),
        # Lost for good is as unknown as lost for now.
        (hole("closed", [[10, 19]], reason="unrecoverable: gone"), [], {60: 20, 120: 60, 180: 20}),
        # Half of it came: what is missing lies between its neighbours.
        (
            hole("shrunk", [[15, 19]], 5),
            [made(n, 100 + n, repaired=True) for n in range(10, 15)],
            {60: 6, 120: 60, 180: 20},
        ),
        (hole("shrunk", [[10, 14]], 5), [made(n, 150 + n, repaired=True) for n in range(15, 20)], {60: 20, 120: 45}),
        (
            hole("shrunk", [[10, 10], [19, 19]], 8),
            [made(n, 101 + n, repaired=True) for n in range(11, 19)],
            {60: 12 + 1, 120: 60, 180: 20},
        ),
        (hole("closed", [], 10, reason="filled"), [made(n, 101 + n, repaired=True) for n in range(10, 20)], {}),
        (hole("closed", [], cause="epoch", reason="numbers began again"), [], {}),
    ],
    ids=["open", "lost", "first half", "second half", "middle", "filled", "epoch"],
)
async def test_a_hole_of_the_ledger_makes_its_windows_partial(
    database_url: str, entry: Gap, more: list[Trade], missing: dict[int, int]
) -> None:
    """`missing` to the second; the instant of the trade behind the hole counts too, as in the stream."""
    await write(database_url, *AROUND, *more, entry, *seen(0, 604))
    found = qualities(database_url, "1m", 0, 420)
    assert set(found) >= {60.0, 180.0, 360.0}
    for start, (quality, lacking) in found.items():
        if quality != "partial":
            assert (lacking, int(start) in missing) == (0, False), (start, quality)
    partial = {int(start): round(said[1] / SECOND) for start, said in found.items() if said[0] == "partial"}
    # A window of the hole without a trade has no candle until it is known.
    assert partial == {start: seconds for start, seconds in missing.items() if float(start) in found}
    assert all(int(start) in missing or said[0] != "partial" for start, said in found.items())


async def test_a_filled_window_is_repaired(database_url: str) -> None:
    """Because a trade of it was fetched, or because its stored candle was partial or repaired."""
    fetched = [made(number, 100 + number, repaired=True) for number in range(10, 20)]
    stored = minute(0, quality="partial", missing=5)
    again = minute(180, quality="repaired")
    await write(database_url, made(8, 40), *AROUND, *fetched, hole("closed", [], 10), stored, again, *seen(0, 604))
    found = {start: said[0] for start, said in qualities(database_url, "1m", 0, 420).items()}
    assert found == {
        0.0: "repaired",
        60.0: "repaired",
        120.0: "quiet",
        180.0: "repaired",
        240.0: "quiet",
        300.0: "quiet",
        360.0: "complete",
    }


async def test_a_hole_begins_with_the_trade_of_the_number_before_it(database_url: str) -> None:
    """Also where a trade before that one was dated later: the ledger knows the newest time by then."""
    numbers = {"from_sequence": 4, "to_sequence": 5, "remaining": [[4, 5]]}
    lost = gap(**numbers, state="closed", reason="unrecoverable: gone", from_time=at(100.1), to_time=at(130))
    trades = [made(1, 80), made(2, 100.1), made(3, 99.9), made(6, 130), made(7, 140)]
    await write(database_url, *trades, lost, *seen(0, 164))
    found = qualities(database_url, "10s", 80, 140)
    assert found[80.0] == ("complete", 0)
    assert found[90.0] == ("partial", 100_000_000)
    assert found[100.0] == ("partial", 10_000_000_000)
    assert found[130.0] == ("partial", 1)


async def test_numbers_that_began_again_while_nothing_was_seen(database_url: str) -> None:
    """Nobody knows how many trades there were between; where the connection was there, there were none."""
    began = {"cause": "epoch", "state": "closed", "epoch": 1, "remaining": [], "from_sequence": 1, "to_sequence": 1}
    entry = gap(from_time=at(100), to_time=at(200), reason="numbers began again", **began)
    trades = [made(9, 100), made(1, 200, epoch=1), made(2, 400, epoch=1)]
    away: list[Coverage] = [coverage("uncovered", at(110)), coverage("covered", at(190))]
    await write(database_url, *trades, entry, coverage("covered", at(0)), *away, clock(at(604)))
    found = qualities(database_url, "1m", 0, 300)
    assert {start: said[0] for start, said in found.items()} == {60.0: "partial", 180.0: "partial", 240.0: "quiet"}
    assert round(found[60.0][1] / SECOND) == 20
    query(database_url, "DELETE FROM coverage WHERE time > exact_time(%s) RETURNING 1", at(1))
    assert {said[0] for said in qualities(database_url, "1m", 0, 300).values()} == {"complete", "quiet"}


@pytest.mark.parametrize("begun", [20, 20.1])
async def test_of_the_time_of_the_first_trade_there_may_be_more(database_url: str, begun: float) -> None:
    """Unless the number before it is stored too."""
    await write(database_url, made(5, 20), made(6, 20), made(7, 40), *seen(begun, 124))
    assert qualities(database_url, "10s", 20, 50) == {
        20.0: ("partial", 1),
        30.0: ("quiet", 0),
        40.0: ("complete", 0),
    }
    await write(database_url, made(4, 19.5))
    assert qualities(database_url, "10s", 20, 40) == {20.0: ("complete", 0), 30.0: ("quiet", 0)}


async def test_the_first_trade_may_be_a_moment_older_than_the_message_it_came_in(database_url: str) -> None:
    await write(database_url, made(1, 9.9), made(2, 30), *seen(10, 124))
    assert qualities(database_url, "10s", 0, 30) == {
        0.0: ("partial", 9_900_000_001),
        10.0: ("quiet", 0),
        20.0: ("quiet", 0),
    }


FILLED = """
    SELECT make_partition('trades', timestamptz '2026-11-18 00:00Z' + day * interval '1 day')
    FROM generate_series(0, 3) AS day;
    SELECT make_partition('candles_minutes', '2026-11-18 00:00Z');
    INSERT INTO instruments (exchange, instrument) SELECT 'okx', 'C' || n FROM generate_series(1, 40) AS n;
    INSERT INTO trades (instrument_id, time, received, sequence, epoch, fills, repaired, side, price, size, id,
        conditions)
    SELECT n, at, at, k, 0, 1, false, 'buy', 100 + k % 7, 1.50, k::text, '{}'
    FROM generate_series(1, 40) AS n, generate_series(1, 4500) AS k,
        LATERAL (SELECT timestamptz '2026-11-18 00:00Z' + (k - 1) * interval '1 day' / 1500 AS at) AS times
    ORDER BY at;
    INSERT INTO coverage (instrument_id, entry_ms, entry_seq, time, received, partition, state, cause, connection)
    SELECT n, 1, 0, '2026-11-18 00:00Z', '2026-11-18 00:00Z', 'okx', 'covered', 'open', 'ws#1'
    FROM generate_series(1, 40) AS n;
    ANALYZE;
"""


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[str]:
    """Three days of 40 instruments."""
    url = postgres_server.create_database("audit_sql")
    prepare(url)
    with psycopg.connect(url) as connection:
        connection.execute(FILLED.encode())
    yield url
    postgres_server.drop_database("audit_sql")


@pytest.mark.parametrize("timeframe", ["1s", "1m", "1d"])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_day_is_read_by_the_index_of_its_partition_alone(filled: str, timeframe: str, prepared: bool) -> None:
    statement = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT * FROM candles_of_trades({}, {}, {}, {})"
    values = (7, timeframe, "2026-11-19 00:00Z", "2026-11-20 00:00Z")
    with psycopg.connect(filled) as connection:
        if prepared:
            # As store asks: the plan is the same for all values.
            connection.execute("SET plan_cache_mode = force_generic_plan")
            filled_in = statement.format("%s", "%s", "%s::timestamptz", "%s::timestamptz")
            cursor = connection.execute(filled_in.encode(), values, prepare=True)
        else:
            literals = [f"'{value}'" if isinstance(value, str) else value for value in values]
            cursor = connection.execute(statement.format(*literals).encode())
        plan = cursor.fetchall()[0][0][0]["Plan"]
    reading = [
        node for node in nodes(plan) if node.get("Relation Name", "").startswith("trades_") and node["Actual Loops"]
    ]
    assert reading
    read = {node["Relation Name"]: node["Actual Rows"] * node["Actual Loops"] for node in reading}
    # Of the day before only its last trade, for the close.
    assert read.pop("trades_20261118", 1) == 1
    assert set(read) == {"trades_20261119"}
    for node in reading:
        assert not node["Node Type"].endswith("Seq Scan"), node
    assert max(node["Actual Rows"] for node in reading) == 1_500


def test_the_digest_is_that_of_the_market_not_of_the_installation(filled: str) -> None:
    """Spelling of decimals, epochs, receipt and order of arrival are the installation's; all else is not."""
    text = next(part for part in PAGE.split("```sql\n") if "AS digest" in part).partition("```")[0]

    def digests() -> set[str]:
        rows = connection.execute(text.encode()).fetchall()
        assert len(rows) == 40
        return {row[4] for row in rows}

    with psycopg.connect(filled) as connection:
        (before,) = digests()
        connection.execute(
            "UPDATE trades SET price = price * 1.000, size = 1.5, epoch = 3, received = now(), id = 'x' || id"
            " WHERE instrument_id % 2 = 0"
        )
        assert digests() == {before}
        for change in ("size = size + 0.00000001", "price = price + 1", "side = 'sell'", "sequence = sequence + 9000"):
            with connection.transaction(force_rollback=True):
                connection.execute(f"UPDATE trades SET {change} WHERE instrument_id = 3 AND sequence = 3100".encode())
                assert len(digests()) == 2, change
        with connection.transaction(force_rollback=True):
            connection.execute("DELETE FROM trades WHERE instrument_id = 3 AND sequence = 3100")
            assert len(digests()) == 2
        connection.rollback()


def test_an_instrument_that_nothing_is_known_of_has_no_candles(database_url: str) -> None:
    ready(database_url)
    assert query(database_url, "SELECT * FROM candles_of_trades(1, '1m', '2026-11-19Z', '2026-11-20Z')") == []
    everything = query(database_url, "SELECT unknown_times(1, '2026-11-19Z', '2026-11-20Z')::text")
    assert everything == [("{[1795046400000000000,1795132800000000000)}",)]
